# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Anomaly heads on the CPU as compiled loops over pixels or cells (importing this needs numba).

Inputs, both hidden layers and the output of TILE of them stay in the first cache level; as
products of whole matrices the same work spends most of its time on moving activations.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from road_anomaly_ros.perception.kernels.arithmetic import FAST, Array, jit, scratch
from road_anomaly_ros.perception.kernels.loops import TILE
from road_anomaly_ros.perception.kernels.products import add_product

LEAST = np.float32(1e-7)  # of a class value inside the logarithm
STRANGE = np.float32(1e4)  # the logit of a cell that is not finite
_HIGHEST = np.int32(0x7F800000)  # the exponent of a float32 that is not finite


class Layers(NamedTuple):
    """The weights of a head, float32; h1 and h2 are multiples of ROWS."""

    first: Array  # [h1,n+1] of the three statistics or all channels, and its bias
    second: Array  # [h2,h1]
    second_bias: Array  # [h2]
    last: Array  # [h2]
    last_bias: np.float32


class Visual(NamedTuple):
    """What the features add to the first layer of r rows: blends of two rows of `wide`."""

    wide: Array  # [h1,gh,W] float32, or [0,...] where there are none
    low: Array  # [r] int64
    high: Array  # [r] int64
    share: Array  # [r] float32, of the higher one
    left: int  # the first of the columns
    width: int  # how many there are


@jit(FAST - {'reassoc'})
def log(x: np.float32) -> np.float32:
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
    """Write max S, -sum c log c and sum S of some pixels of a row to out [4,TILE], and a one."""
    peak, entropy, total = out[0, :width], out[1, :width], out[2, :width]
    peak[:], entropy[:], total[:] = np.float32(-1e30), np.float32(0.0), np.float32(0.0)
    out[3] = np.float32(1.0)
    for k in range(semantic.shape[0]):
        values = semantic[k, row, start : start + width]
        for p in range(width):
            value = values[p]
            peak[p] = max(peak[p], value)
            total[p] += value
            clamped = max(value, LEAST)
            entropy[p] -= clamped * log(clamped)


@jit()
def _blend(low: Array, high: Array, share: Any, out: Array) -> None:
    """Write the blend of two rows [n] to out."""
    for p in range(out.size):
        out[p] = low[p] + share * (high[p] - low[p])


@jit()
def _relu(values: Array) -> None:
    for j in range(values.shape[0]):
        for p in range(values.shape[1]):
            values[j, p] = max(values[j, p], np.float32(0.0))


@jit()
def _first_layer(
    layers: Layers, visual: Visual, row: int, start: int, statistics: Array, hidden: Array
) -> None:
    """Write the first layer of the pixels of a row from column `start` on to hidden [h1,TILE]."""
    width, x = min(TILE, visual.width - start), visual.left + start
    hidden[:] = np.float32(0.0)
    for j in range(visual.wide.shape[0]):
        lines = visual.wide[j, :, x : x + width]
        low, high = lines[visual.low[row]], lines[visual.high[row]]
        _blend(low, high, visual.share[row], hidden[j, :width])
    add_product(layers.first, statistics, 0, 4, TILE, hidden)
    _relu(hidden)


@jit()
def _last_layers(layers: Layers, hidden: Array, units: Array, out: Array) -> None:
    """Write the logits to out [TILE or less] of hidden [h1,TILE]; units [h2,TILE] is scratch."""
    second, last = layers.second, layers.last
    for i in range(second.shape[0]):
        units[i] = layers.second_bias[i]
    add_product(second, hidden, 0, second.shape[1], TILE, units)
    _relu(units)
    out[:] = layers.last_bias
    for i in range(second.shape[0]):
        for p in range(out.size):
            out[p] += last[i] * units[i, p]


@jit()
def logits(semantic: Array, visual: Visual, layers: Layers, out: Array) -> None:
    """Write the head's logit to out [r,c]; `semantic` [K,r,c]."""
    statistics = scratch(4, TILE)
    hidden, units = scratch(layers.first.shape[0], TILE), scratch(layers.second.shape[0], TILE)
    for row in range(out.shape[0]):
        for start in range(0, out.shape[1], TILE):
            total = out[row, start : start + TILE]
            _statistics(semantic, row, start, total.size, statistics)
            _first_layer(layers, visual, row, start, statistics, hidden)
            _last_layers(layers, hidden, units, total)


@jit()
def _take(values: Array, finite: Array, broken: Array) -> None:
    """Copy values [n] to `finite`, 0 for those that are not, which are noted in `broken`."""
    for p in range(values.size):
        odd = np.float32(values[p]).view(np.int32) & _HIGHEST == _HIGHEST
        finite[p] = np.float32(0.0) if odd else values[p]
        broken[p] = np.int32(1) if odd else broken[p]


@jit()
def of_cells(features: Array, layers: Layers, begin: int, end: int, out: Array) -> None:
    """Write the logits of cells begin .. end of features [C,n] to out [n], STRANGE for broken."""
    channels, inputs = features.shape[0], scratch(features.shape[0] + 1, TILE)
    hidden, units = scratch(layers.first.shape[0], TILE), scratch(layers.second.shape[0], TILE)
    inputs[channels], broken = np.float32(1.0), np.empty(TILE, np.int32)
    for start in range(begin, end, TILE):
        total = out[start : min(start + TILE, end)]
        broken[:] = 0
        for channel in range(channels):
            values = features[channel, start : start + total.size]
            _take(values, inputs[channel], broken)
        hidden[:] = np.float32(0.0)
        add_product(layers.first, inputs, 0, channels + 1, TILE, hidden)
        _relu(hidden)
        _last_layers(layers, hidden, units, total)
        for p in range(total.size):
            total[p] = STRANGE if broken[p] > 0 else total[p]
