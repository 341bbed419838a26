# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""No tracking: every frame stands for itself."""

from __future__ import annotations

from road_anomaly_ros.perception.registry import NoOptions

SOURCE = 'every frame for itself'
NEEDS = 'nothing'
Options = NoOptions


def load(*, options: NoOptions) -> None:
    """Return nothing, which follows nothing and costs nothing."""
