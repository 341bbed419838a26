# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The inner loops of the dense pass on the CPU, compiled by numba (importing this needs numba).

A tile is TILE columns wide. Arrays named `low` and `slope` [n,TILE] hold a mask row already
interpolated along x, and how far the next one is from it; an output row blends them by its weight
t to y = low + t slope = SCALE logit, so that sigmoid(logit) = 1 / (1 + 2^y); a positive logit is
a negative y. `active` lists the queries that can matter in the tile. All floats are float32 and
finite.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

TILE = 64
_ONE_THREAD = 250_000  # multiplications up to which OpenBLAS starts no threads of its own
SCALE = np.float32(-1.4426950408889634)  # -log2(e), contained in the horizontal weights
ABSENT = np.float32(-3e38)  # stands for -inf, which fast arithmetic excludes
_FAST = {'contract', 'reassoc', 'nnan', 'ninf', 'nsz', 'arcp'}

Array = Any


def _jit(fastmath: set[str] = _FAST) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def compile_it(function: Callable[..., Any]) -> Callable[..., Any]:
        flags: dict[str, Any] = {'nogil': True, 'error_model': 'numpy', 'fastmath': fastmath}
        try:
            return numba.njit(cache=True, **flags)(function)  # type: ignore[no-any-return]
        except RuntimeError:  # no folder where compiled code may be kept
            return numba.njit(**flags)(function)  # type: ignore[no-any-return]

    return compile_it


@_jit(_FAST - {'reassoc'})  # the rounding trick must not be simplified away
def exp2(y: Any) -> Any:
    """2^y to a relative error of 3e-7, |y| limited to 62: 2^n by the exponent, 2^f by a series.

    The limit leaves the product of two results within float32. At 0 it is exactly 1.
    """
    y = y if y < np.float32(62.0) else np.float32(62.0)
    y = y if y > np.float32(-62.0) else np.float32(-62.0)
    shifted = np.float32(y + np.float32(12582912.0))  # 1.5 * 2^23: the mantissa is round(y)
    f = y - (shifted - np.float32(12582912.0))
    p = np.float32(1.326472672e-3)  # minimax on [-0.5, 0.5], relative error 9.1e-8
    p = p * f + np.float32(9.671512724e-3)
    p = p * f + np.float32(5.550733745e-2)
    p = p * f + np.float32(2.402224208e-1)
    p = p * f + np.float32(6.931469776e-1)
    p = np.float32(p * f + np.float32(1.0))
    exponent = np.int32(shifted.view(np.int32) << np.int32(23))
    return np.int32(p.view(np.int32) + exponent).view(np.float32)


@_jit()
def exp(x: Any) -> Any:
    """Return e^x for |x| below 43, to a relative error of 2e-6."""
    return exp2(x * np.float32(1.4426950408889634))


@_jit()
def _product(a: Array, b: Array, out: Array) -> None:
    """Store a @ b in parts so small that BLAS keeps them in this thread."""
    step = max(1, _ONE_THREAD // (a.shape[1] * b.shape[1]))
    for start in range(0, a.shape[0], step):
        stop = min(start + step, a.shape[0])
        np.dot(a[start:stop], b, out[start:stop])


@_jit()
def _widen(
    logits: Array,
    queries: Array,
    row: int,
    start: int,
    weights: Array,
    taps: Array,
    wide: Array,
    top: Array,
) -> None:
    """Interpolate one mask row along x into `wide` [n,TILE]; `top` [n] gets the maxima."""
    for i in range(len(queries)):
        source, target = logits[queries[i], row], taps[i]
        high = ABSENT
        for x in range(target.size):
            value = source[start + x]
            target[x] = value
            high = value if value > high else high
        top[i] = high
    _product(taps, weights, wide)


@_jit()
def _choose(top_low: Array, top_high: Array, cull: Array, active: Array) -> int:
    """List in `active` the queries whose maximum in the tile is above their limit."""
    count = 0
    for i in range(cull.size):
        if max(top_low[i], top_high[i]) > cull[i]:
            active[count] = i
            count += 1
    return count


@_jit()
def _masks(low: Array, slope: Array, t: Any, active: Array, count: int, masks: Array) -> None:
    """Blend two widened rows and store the probabilities of the active queries.

    Two queries share one division, the slowest step: 1/u = v/(uv) and 1/v = u/(uv).
    """
    for i in range(0, count - 1, 2):
        a, b, m = low[active[i]], slope[active[i]], masks[i]
        c, d, n = low[active[i + 1]], slope[active[i + 1]], masks[i + 1]
        for x in range(m.size):
            u = np.float32(1.0) + exp2(a[x] + t * b[x])
            v = np.float32(1.0) + exp2(c[x] + t * d[x])
            both = np.float32(1.0) / (u * v)
            m[x] = v * both
            n[x] = u * both
    if count % 2:
        a, b, m = low[active[count - 1]], slope[active[count - 1]], masks[count - 1]
        for x in range(m.size):
            m[x] = np.float32(1.0) / (np.float32(1.0) + exp2(a[x] + t * b[x]))


@_jit()
def _pack(linear: Array, active: Array, count: int, packed: Array) -> None:
    """Bring the weights [N,n] of the active queries together at the front of `packed`."""
    i = 0
    for k in range(linear.shape[0]):
        for j in range(count):
            packed[i] = linear[k, active[j]]
            i += 1


@_jit()
def _sums(packed: Array, count: int, masks: Array, sums: Array) -> None:
    """Store in `sums` [N,TILE] the sums over the active queries of weight times mask."""
    if count == 0:
        sums[:] = np.float32(0.0)
        return
    size = sums.shape[0] * count
    _product(packed[:size].reshape(sums.shape[0], count), masks[:count], sums)


@_jit()
def _peak(sums: Array, classes: int, peak: Array, label: Array) -> None:
    """Store the largest of the first `classes` rows and its index; ties go to the lowest."""
    for x in range(peak.size):
        peak[x] = sums[0, x]
        label[x] = 0
    for k in range(1, classes):
        row = sums[k]
        for x in range(peak.size):
            if row[x] > peak[x]:
                peak[x] = row[x]
                label[x] = k


@_jit()
def _partition(
    sums: Array, classes: int, peak: Array, inverse: Any, total: Array, spread: Array
) -> None:
    """Store sum_k e_k and sum_k e_k z_k with z_k = (S_k - max) * inverse and e_k = exp(z_k)."""
    total[:] = np.float32(0.0)
    spread[:] = np.float32(0.0)
    for k in range(classes):
        row = sums[k]
        for x in range(total.size):
            z = (row[x] - peak[x]) * inverse
            e = exp(z)
            total[x] += e
            spread[x] += e * z


@_jit()
def _tanh(sums: Array, classes: int, scale: Any, total: Array) -> None:
    """Store sum_k tanh(S_k * scale) for S_k >= 0."""
    total[:] = np.float32(0.0)
    for k in range(classes):
        row = sums[k]
        for x in range(total.size):
            e = exp(np.float32(-2.0) * scale * row[x])
            total[x] += (np.float32(1.0) - e) / (np.float32(1.0) + e)


@_jit()
def _largest(weights: Array, active: Array, count: int, masks: Array, largest: Array) -> None:
    """Store max_q weights[q] m_q over the active queries, 0 where there are none."""
    largest[:] = np.float32(0.0)
    for i in range(count):
        weight, m = weights[active[i]], masks[i]
        if weight > 0:
            for x in range(largest.size):
                value = weight * m[x]
                largest[x] = value if value > largest[x] else largest[x]


@_jit()
def _count(
    low: Array,
    slope: Array,
    t: Any,
    active: Array,
    count: int,
    chosen: Array,
    level: Any,
    votes: Array,
) -> None:
    """Store how many chosen queries have a logit above `level`."""
    votes[:] = 0
    for i in range(count):
        if chosen[active[i]]:
            a, b = low[active[i]], slope[active[i]]
            for x in range(votes.size):
                votes[x] += np.int32(a[x] + t * b[x] < level * SCALE)


@_jit()
def _accept(
    low: Array,
    slope: Array,
    t: Any,
    active: Array,
    count: int,
    values: Array,
    inverse: Any,
    peak: Array,
    total: Array,
    mean: Array,
    covered: Array,
) -> None:
    """Store the softmax-weighted mean of `values` over the queries with a logit above 0.

    The maximum is taken per pixel first: a global one underflows at small temperatures.
    """
    peak[:] = ABSENT
    total[:] = np.float32(0.0)
    mean[:] = np.float32(0.0)
    for i in range(count):
        value, a, b = values[active[i]], low[active[i]], slope[active[i]]
        if value > ABSENT:
            for x in range(mean.size):
                inside = a[x] + t * b[x] < 0
                peak[x] = value if inside and value > peak[x] else peak[x]
    for i in range(count):
        value, a, b = values[active[i]], low[active[i]], slope[active[i]]
        if value > ABSENT:
            for x in range(mean.size):
                inside = a[x] + t * b[x] < 0
                weight = exp((value - peak[x]) * inverse) if inside else np.float32(0.0)
                total[x] += weight
                mean[x] += weight * value
    for x in range(mean.size):
        covered[x] = total[x] > 0
        mean[x] = mean[x] / total[x] if total[x] > 0 else np.float32(0.0)


@_jit()
def _advance(
    logits: Array,
    queries: Array,
    rows: Array,
    last: Array,
    start: int,
    weights: Array,
    taps: Array,
    state: Array,
) -> None:
    """Bring the state (low, high, slope, both maxima) from the rows `last` to `rows`."""
    low, high, slope, top_low, top_high = state
    if rows[0] == last[1]:
        low[:] = high
        top_low[:] = top_high
    elif rows[0] != last[0]:
        _widen(logits, queries, rows[0], start, weights, taps, low, top_low)
    if rows[1] == rows[0]:
        high[:] = low
        top_high[:] = top_low
    else:
        _widen(logits, queries, rows[1], start, weights, taps, high, top_high)
    for i in range(slope.shape[0]):
        for x in range(slope.shape[1]):
            slope[i, x] = high[i, x] - low[i, x]


@_jit()
def _of_semantic(part: Array, o: int, c0: int, c1: int, weigh: Array, out: Array) -> None:
    """Store what row `o` of the output has of the sums `part` [N,TILE]."""
    linear, classes, _, _, _, _, _, _, temper, scale = weigh
    label, peak, sums, _, _, _, _, partition, tanh = out
    top, skip = peak[o, c0:c1], linear.shape[0] - sums.shape[0]
    _peak(part, classes, top, label[o, c0:c1])
    for k in range(sums.shape[0]):
        sums[k, o, c0:c1] = part[skip + k, : c1 - c0]
    if partition.shape[1]:
        _partition(part, classes, top, temper, partition[0, o, c0:c1], partition[1, o, c0:c1])
    if tanh.shape[0]:
        _tanh(part, classes, scale, tanh[o, c0:c1])


@_jit()
def _of_queries(
    low: Array,
    slope: Array,
    t: Any,
    active: Array,
    count: int,
    masks: Array,
    scratch: Array,
    o: int,
    c0: int,
    c1: int,
    weigh: Array,
    out: Array,
) -> None:
    """Store what row `o` of the output has of single queries."""
    _, _, maxima, chosen, levels, values, inverse, _, _, _ = weigh
    _, _, _, largest, votes, accept, covered, _, _ = out
    for j in range(maxima.shape[0]):
        _largest(maxima[j], active, count, masks, largest[j, o, c0:c1])
    for j in range(chosen.shape[0]):
        _count(low, slope, t, active, count, chosen[j], levels[j], votes[j, o, c0:c1])
    if accept.shape[0]:
        best, total = scratch[0, : c1 - c0], scratch[1, : c1 - c0]
        _accept(
            low,
            slope,
            t,
            active,
            count,
            values,
            inverse,
            best,
            total,
            accept[o, c0:c1],
            covered[o, c0:c1],
        )


@_jit()
def accumulate(
    logits: Array, queries: Array, grid: Array, weigh: Array, tiles: Array, out: Array
) -> None:
    """Fill the accumulators of the output rows of `grid` and of the columns in `tiles`.

    The tuples are made by `cpu`. Outputs begin at the first of these rows and columns; those of
    no rows are not wanted.
    """
    row_low, row_high, row_weight, starts, weights = grid
    linear, cull, label = weigh[0], weigh[7], out[0]
    n, width = queries.size, label.shape[1]
    low, high = np.empty((n, TILE), np.float32), np.empty((n, TILE), np.float32)
    slope = np.empty((n, TILE), np.float32)
    state = (low, high, slope, np.empty(n, np.float32), np.empty(n, np.float32))
    masks, part = np.empty((n, TILE), np.float32), np.empty((linear.shape[0], TILE), np.float32)
    taps, scratch = np.empty((n, weights.shape[1]), np.float32), np.empty((2, TILE), np.float32)
    active, packed = np.empty(n, np.int64), np.empty(linear.size, np.float32)
    for tile in range(tiles[0], tiles[1]):
        c0 = (tile - tiles[0]) * TILE
        c1 = min(c0 + TILE, width)
        last, count = (-1, -1), 0
        for o in range(label.shape[0]):
            pair = (row_low[o], row_high[o])
            if pair != last:
                _advance(logits, queries, pair, last, starts[tile], weights[tile], taps, state)
                count = _choose(state[3], state[4], cull, active)
                _pack(linear, active, count, packed)
                last = pair
            t = row_weight[o]
            _masks(low, slope, t, active, count, masks)
            _sums(packed, count, masks, part)
            _of_semantic(part, o, c0, c1, weigh, out)
            _of_queries(low, slope, t, active, count, masks, scratch, o, c0, c1, weigh, out)


@_jit()
def overlap(
    logits: Array,
    queries: Array,
    grid: Array,
    confident: Array,
    width: int,
    tiles: Array,
    areas: Array,
    shared: Array,
) -> None:
    """Add per query the pixels with a positive logit, and those that a confident query has too.

    Counts the output rows of `grid` and the columns in `tiles` of an image of `width` columns.
    """
    row_low, row_high, row_weight, starts, weights = grid
    n = queries.size
    low, high = np.empty((n, TILE), np.float32), np.empty((n, TILE), np.float32)
    slope = np.empty((n, TILE), np.float32)
    state = (low, high, slope, np.empty(n, np.float32), np.empty(n, np.float32))
    taps = np.empty((n, weights.shape[1]), np.float32)
    active, cull = np.empty(n, np.int64), np.zeros(n, np.float32)
    region = np.empty(TILE, np.int32)
    for tile in range(tiles[0], tiles[1]):
        part = region[: min(TILE, width - tile * TILE)]
        last, count = (-1, -1), 0
        for r in range(row_low.size):
            pair = (row_low[r], row_high[r])
            if pair != last:
                _advance(logits, queries, pair, last, starts[tile], weights[tile], taps, state)
                count = _choose(state[3], state[4], cull, active)
                last = pair
            t = row_weight[r]
            _count(low, slope, t, active, count, confident, np.float32(0.0), part)
            for i in range(count):
                a, b = low[active[i]], slope[active[i]]
                inside, both = np.int64(0), np.int64(0)
                for x in range(part.size):
                    hit = np.int32(a[x] + t * b[x] < 0)
                    inside += hit
                    both += hit * np.int32(part[x] > 0)
                areas[active[i]] += inside
                shared[active[i]] += both
