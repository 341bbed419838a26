# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Mask boundary processing on the CPU as one compiled loop (importing this needs numba).

Only whole rows of scratch are held, so that the map is read once and written once. Rounding is
strict: the zero test decides on single bits.
"""

from __future__ import annotations

import numpy as np

from road_anomaly_ros.perception.kernels.arithmetic import Array, jit


@jit(set())
def _laplacian(score: Array, y: int, out: Array) -> None:
    """Write up + left - 4 centre + right + down of row y, reflect-101, rounded in this order."""
    height, width = score.shape
    last = width - 1
    up, row = score[min(abs(y - 1), height - 1)], score[y]
    down = score[y + 1 if y + 1 < height else max(height - 2, 0)]
    four = score.dtype.type(4)
    for x in range(1, last):
        out[x] = up[x] + row[x - 1] - four * row[x] + row[x + 1] + down[x]
    for x in (0, last):
        left, right = min(abs(x - 1), last), x + 1 if x < last else max(last - 1, 0)
        out[x] = up[x] + row[left] - four * row[x] + row[right] + down[x]


@jit(set())
def _flat(score: Array, y: int, edges: Array, mark: Array, value: Array) -> None:
    """Write the Laplacian of row y, where it is exactly zero, and the scores there."""
    zero, one = score.dtype.type(0), score.dtype.type(1)
    _laplacian(score, y, edges)
    for x in range(edges.size):
        mark[x] = one if edges[x] == zero else zero
        value[x] = score[y, x] if edges[x] == zero else zero


@jit(set())
def sharpen(score: Array, out: Array) -> None:
    """Write `score` [H,W] to `out`, edges of flat regions with the region's score.

    An inner pixel of positive Laplacian takes the mean of those of its 3x3 neighbours whose
    Laplacian is exactly zero, where there are any.
    """
    height, width = score.shape
    out[:] = score
    if min(height, width) < 3:
        return
    edges, mark, value = np.empty((3, 3, width), score.dtype)
    marks, values = np.empty((2, width), score.dtype)
    zero, one = score.dtype.type(0), score.dtype.type(1)
    for y in range(2):
        _flat(score, y, edges[y], mark[y], value[y])
    for y in range(1, height - 1):
        new, old = (y + 1) % 3, (y - 1) % 3
        _flat(score, y + 1, edges[new], mark[new], value[new])
        for x in range(width):
            marks[x] = mark[old, x] + mark[y % 3, x] + mark[new, x]
            values[x] = value[old, x] + value[y % 3, x] + value[new, x]
        edge = edges[y % 3]
        for x in range(1, width - 1):
            number = marks[x - 1] + marks[x] + marks[x + 1]
            mean = (values[x - 1] + values[x] + values[x + 1]) / max(number, one)
            out[y, x] = mean if edge[x] > zero and number > zero else score[y, x]
