# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What is seen of a background, and other views of it."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np


class View(NamedTuple):
    """Image uint8 RGB [H,W,3], labels uint8 [H,W], ids of unknown things uint8 [H,W], 0 none."""

    image: np.ndarray
    labels: np.ndarray
    unknown: np.ndarray


class Cut(NamedTuple):
    """Part of a view that is shown: its corner and size in pixels, mirrored or not."""

    top: int
    left: int
    height: int
    width: int
    mirrored: bool

    def horizon(self, share: float, height: int) -> float:
        """Return where a horizon at `share` of the whole `height` lies in the part."""
        return (share * (height - 1) - self.top) / max(self.height - 1, 1)


def drawn_cut(
    rng: np.random.Generator, shape: tuple[int, int], *, zoom: float, mirror: float
) -> Cut:
    """Draw a part of a view [H,W]: magnified by 1 to `zoom`, mirrored with probability `mirror`.

    Factors are even in the logarithm, corners in the place.
    """
    factor = zoom ** rng.random()
    height, width = (max(1, round(side / factor)) for side in shape)
    top, left = (
        int(rng.integers(side - part + 1))
        for side, part in zip(shape, (height, width), strict=True)
    )
    return Cut(top, left, height, width, bool(rng.random() < mirror))


def shown(view: View, cut: Cut) -> View:
    """Return the part `cut` of a view at the size of the whole."""
    box = np.s_[cut.top : cut.top + cut.height, cut.left : cut.left + cut.width]
    size = view.labels.shape[::-1]
    planes = [
        cv2.resize(plane[box], size, interpolation=way)
        for plane, way in zip(
            view, (cv2.INTER_LINEAR, cv2.INTER_NEAREST, cv2.INTER_NEAREST), strict=True
        )
    ]
    step = -1 if cut.mirrored else 1
    return View(*(np.ascontiguousarray(plane[:, ::step]) for plane in planes))
