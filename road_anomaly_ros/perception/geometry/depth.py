# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Distances from a registered depth image, which sees every pixel that the camera sees."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from road_anomaly_ros.perception.geometry.contact import ContactLine, Table

_NEAR = 0.1  # quantile of an obstacle's depths that is its near side
_LEAST_PIXELS, _LEAST_SHARE = 5, 0.1


def metres(depth: NDArray[np.uint16] | NDArray[np.float32]) -> NDArray[np.float32]:
    """Return depths [H, W], uint16 in mm or float32 in m, in metres; NaN where there is none.

    Raises ValueError for other kinds of numbers.
    """
    if depth.dtype == np.uint16:
        depth = depth.astype(np.float32) / np.float32(1000)
    elif depth.dtype != np.float32:
        raise ValueError(f'expected depth as 16UC1 in mm or 32FC1 in m, got {depth.dtype}')
    with np.errstate(invalid='ignore'):
        return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(np.nan))


def near_sides(
    depth: NDArray[np.float32], instances: NDArray[np.int32], line: ContactLine
) -> NDArray[np.float64]:
    """Return the depth [n] of the near side of each obstacle, NaN where too few are known."""
    rows, columns = np.nonzero(instances)
    owner = np.searchsorted(line.ids, instances[rows, columns])
    values = depth[rows, columns]
    area = np.bincount(owner, minlength=len(line))
    known = ~np.isnan(values)
    owner, values = owner[known], values[known]
    order = np.lexsort((values, owner))
    count = np.bincount(owner, minlength=len(line))
    enough = (count >= _LEAST_PIXELS) & (count >= _LEAST_SHARE * area)
    found = np.full(len(line), np.nan)
    begin = np.cumsum(count) - count
    found[enough] = values[order][(begin + (_NEAR * count).astype(np.int64))[enough]]
    return found


def at(
    depth: NDArray[np.float32],
    line: ContactLine,
    fallback: NDArray[np.float64],
    reach: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the depth [m] at the contact line.

    `fallback` [n] of the obstacle stands in where none is known, or where it is more than
    `reach` [n] metres from it: an edge that shows the ground behind.
    """
    own: Table = line.owner
    values = depth[line.row, line.column].astype(np.float64)
    with np.errstate(invalid='ignore'):
        close = np.abs(values - fallback[own]) <= reach[own]
    return np.where(close, values, fallback[own])
