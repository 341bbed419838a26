# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""An anomaly head on the CPU as one compiled loop over pixels (importing this needs numba).

Statistics, both hidden layers and the output of TILE columns stay in the first cache level; as
products of matrices the same work spends most of its time on moving activations.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from road_anomaly_ros.perception.kernels.arithmetic import FAST, Array, jit
from road_anomaly_ros.perception.kernels.loops import TILE

LEAST = np.float32(1e-7)  # of a class value inside the logarithm


@jit(FAST - {'reassoc'})
def log(x: Any) -> Any:
    """Natural logarithm of a normal float32 > 0 to 2e-7: exponent, and a series (Cephes logf)."""
    bits = np.float32(x).view(np.int32)
    exponent = np.int32(np.int32(bits - np.int32(0x3F3504F3)) >> np.int32(23))
    f = np.int32(bits - np.int32(exponent << np.int32(23))).view(np.float32) - np.float32(1.0)
    z = f * f
    y = np.float32(7.0376836292e-2)
    y = y * f + np.float32(-1.1514610310e-1)
    y = y * f + np.float32(1.1676998740e-1)
    y = y * f + np.float32(-1.2420140846e-1)
    y = y * f + np.float32(1.4249322787e-1)
    y = y * f + np.float32(-1.6668057665e-1)
    y = y * f + np.float32(2.0000714765e-1)
    y = y * f + np.float32(-2.4999993993e-1)
    y = y * f + np.float32(3.3333331174e-1)
    tail = y * f * z - np.float32(0.5) * z
    return f + tail + np.float32(exponent) * np.float32(0.6931471805599453)


@jit()
def _statistics(semantic: Array, row: int, start: int, width: int, out: Array) -> None:
    """Write max S, -sum c log c and sum S of some pixels of a row to out [3,TILE]."""
    for p in range(width):
        out[0, p], out[1, p], out[2, p] = np.float32(-1e30), np.float32(0.0), np.float32(0.0)
    for k in range(semantic.shape[0]):
        for p in range(width):
            value = semantic[k, row, start + p]
            out[0, p] = max(out[0, p], value)
            out[2, p] += value
            clamped = max(value, LEAST)
            out[1, p] -= clamped * log(clamped)


@jit()
def _add(low: Array, high: Array, share: Any, out: Array) -> None:
    """Add the blend of two rows [n] to out."""
    for p in range(low.shape[0]):
        out[p] += low[p] + share * (high[p] - low[p])


@jit()
def _layer(values: Array, weights: Array, unit: int, bias: Any, width: int, out: Array) -> None:
    """Write bias + weights[unit] . values to out [TILE]; values [n,TILE], n a multiple of 4."""
    for p in range(width):
        out[p] = bias
    for j in range(0, values.shape[0], 4):
        a, b = weights[unit, j], weights[unit, j + 1]
        c, d = weights[unit, j + 2], weights[unit, j + 3]
        for p in range(width):
            out[p] += (a * values[j, p] + b * values[j + 1, p]) + (
                c * values[j + 2, p] + d * values[j + 3, p]
            )


@jit()
def logits(
    semantic: Array,
    visual: Array,
    low: Array,
    high: Array,
    share: Array,
    left: int,
    first: Array,
    first_bias: Array,
    second: Array,
    second_bias: Array,
    last: Array,
    last_bias: Any,
    out: Array,
) -> None:
    """Write the head's logit to out [r,c].

    `semantic` [K,r,c]; `visual` [h1,gh,W] what the features add to the first layer, or [0,...],
    of which row r blends `low` and `high` by `share` and the columns begin at `left`;
    `first` [h1,3] its weights of the three statistics, `second` [h2,h1] with h1 a multiple of 4,
    `last` [h2], biases [h1], [h2] and a number.
    """
    zero = np.float32(0.0)
    statistics = np.empty((3, TILE), np.float32)
    hidden = np.empty((first.shape[0], TILE), np.float32)
    unit = np.empty(TILE, np.float32)
    total = np.empty(TILE, np.float32)
    for row in range(out.shape[0]):
        for start in range(0, out.shape[1], TILE):
            width = min(TILE, out.shape[1] - start)
            _statistics(semantic, row, start, width, statistics)
            for j in range(first.shape[0]):
                a, b, c, bias = first[j, 0], first[j, 1], first[j, 2], first_bias[j]
                line = hidden[j]
                for p in range(width):
                    line[p] = (bias + a * statistics[0, p] + b * statistics[1, p]
                               + c * statistics[2, p])
                if visual.shape[0] > 0:
                    x = left + start
                    _add(visual[j, low[row], x:x + width], visual[j, high[row], x:x + width],
                         share[row], line)
                for p in range(width):
                    line[p] = max(line[p], zero)
            for p in range(width):
                total[p] = last_bias
            for i in range(second.shape[0]):
                _layer(hidden, second, i, second_bias[i], width, unit)
                weight = last[i]
                for p in range(width):
                    total[p] += weight * max(unit[p], zero)
            for p in range(width):
                out[row, start + p] = total[p]
