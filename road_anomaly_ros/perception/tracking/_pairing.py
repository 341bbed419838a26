# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Which of the boxes seen now is which of those expected."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]


def widened(boxes: Floats, share: float, floor: float) -> Floats:
    """Return boxes [n, 4] with every side moved out by a share of the size and some pixels."""
    away = share * (boxes[:, 2:] - boxes[:, :2]) + floor
    return np.concatenate((boxes[:, :2] - away, boxes[:, 2:] + away), 1)


def overlaps(left: Floats, right: Floats) -> Floats:
    """Return the intersection over union [n, m] of boxes [n, 4] and [m, 4]."""
    low = np.maximum(left[:, None, :2], right[None, :, :2])
    high = np.minimum(left[:, None, 2:], right[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0.0), 2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], 1) for boxes in (left, right)]
    union = areas[0][:, None] + areas[1][None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def pairs(likeness: Floats, least: float) -> tuple[Rows, Rows]:
    """Return rows and columns of the pairs that are most alike in sum, each at least `least`."""
    rows, columns = linear_sum_assignment(
        np.where(likeness >= least, likeness, 0.0), maximize=True
    )
    alike = likeness[rows, columns] >= least
    return rows[alike], columns[alike]
