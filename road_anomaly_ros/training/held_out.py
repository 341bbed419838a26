# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Frames of public training folders that are kept for measuring, whole drives at a time.

A folder that comes without a validation split of its own is cut by drive: neighbouring frames of
a drive resemble each other, so a split frame by frame would tell what was learned by heart.
"""

from __future__ import annotations

from pathlib import Path

_LAST_DIGIT = '9'


def held_out(layout: str, image: Path) -> bool:
    """Tell whether a frame is for measuring: in idd_lite those of the drives 9, 19, 29, ...

    IDD-Lite names its frames DRIVE_FRAME. False for every other layout.
    """
    return layout == 'idd_lite' and image.stem.partition('_')[0].endswith(_LAST_DIGIT)
