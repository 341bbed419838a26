# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the dense pass reads off the semantic map of a tile (importing this needs numba)."""

from __future__ import annotations

from typing import Any

import numpy as np

from road_anomaly_ros.perception.kernels.arithmetic import Array, copy, exp, jit
from road_anomaly_ros.perception.kernels.vectors import Accumulators, Factors


@jit()
def _peak(sums: Array, at: int, classes: int, peak: Array, label: Array) -> None:
    """Store the largest of the first `classes` rows and its index; ties go to the lowest."""
    for x in range(peak.size):
        peak[x] = sums[0, at + x]
        label[x] = 0
    for k in range(1, classes):
        row = sums[k, at : at + peak.size]
        for x in range(peak.size):
            if row[x] > peak[x]:
                peak[x] = row[x]
                label[x] = k


@jit()
def _partition(
    sums: Array, at: int, classes: int, peak: Array, inverse: Any, total: Array, spread: Array
) -> None:
    """Store sum_k e_k and sum_k e_k z_k with z_k = (S_k - max) * inverse and e_k = exp(z_k)."""
    total[:] = np.float32(0.0)
    spread[:] = np.float32(0.0)
    for k in range(classes):
        row = sums[k, at : at + total.size]
        for x in range(total.size):
            z = (row[x] - peak[x]) * inverse
            e = exp(z)
            total[x] += e
            spread[x] += e * z


@jit()
def _tanh(sums: Array, at: int, classes: int, scale: Any, total: Array) -> None:
    """Store sum_k tanh(S_k * scale) for S_k >= 0."""
    total[:] = np.float32(0.0)
    for k in range(classes):
        row = sums[k, at : at + total.size]
        for x in range(total.size):
            e = exp(np.float32(-2.0) * scale * row[x])
            total[x] += (np.float32(1.0) - e) / (np.float32(1.0) + e)


@jit()
def of_semantic(
    part: Array,
    at: int,
    o: int,
    c0: int,
    c1: int,
    classes: int,
    factors: Factors,
    out: Accumulators,
) -> None:
    """Store what row `o` of the output has of the sums `part` [N,...] from column `at` on."""
    top, width = out.peak[0, o, c0:c1], c1 - c0
    _peak(part, at, classes, top, out.label[0, o, c0:c1])
    for k in range(out.semantic.shape[0]):
        copy(part[k, at : at + width], out.semantic[k, o, c0:c1])
    for k in range(out.sums.shape[0]):
        copy(part[classes + k, at : at + width], out.sums[k, o, c0:c1])
    if out.partition.shape[0]:
        total, spread = out.partition[0, o, c0:c1], out.partition[1, o, c0:c1]
        _partition(part, at, classes, top, factors.partition, total, spread)
    if out.tanh.shape[0]:
        _tanh(part, at, classes, factors.tanh, out.tanh[0, o, c0:c1])
