# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The inner loops of the dense pass on the CPU, compiled by numba (importing this needs numba).

A tile is TILE columns wide. Arrays named `low` and `high` [n,TILE] hold two mask rows already
interpolated along x; an output row blends them by its weight t to y = low + t (high - low) =
SCALE logit, so that sigmoid(logit) = 1 / (1 + 2^y); a positive logit is a negative y. `active`
lists the queries that can matter in the tile. All floats are float32 and finite.

At the usual ratio of four the output rows between two mask rows are evenly spaced, and 2^y is a
geometric progression: two exponentials serve four rows. What each part costs, and why loops are
inlined and rows begin at a cache line: docs/performance.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from road_anomaly_ros.perception.kernels.arithmetic import (
    Array,
    copy,
    exp,
    exp2,
    jit,
    power,
    scratch,
)
from road_anomaly_ros.perception.kernels.products import ROWS as LINES
from road_anomaly_ros.perception.kernels.products import WIDTH as STRIP
from road_anomaly_ros.perception.kernels.products import add_product, add_resized, add_thin
from road_anomaly_ros.perception.kernels.semantic import of_semantic

__all__ = ['ABSENT', 'SCALE', 'STRIP', 'TILE', 'accumulate', 'add_thin', 'overlap', 'widen']

TILE = 64
ROWS = 4  # output rows between the same two mask rows that are worked on at once
_BLOCK = 20  # queries whose masks of these rows stay in the first cache level
_TAME = np.float32(60.0)  # y up to which no exponential below leaves float32
SCALE = np.float32(-1.4426950408889634)  # -log2(e), contained in the horizontal weights
ABSENT = np.float32(-3e38)  # stands for -inf, which fast arithmetic excludes


@jit()
def _rank(value: Any) -> Any:
    """Return an int32 of the same order as the floats, whose extremes LLVM finds in vectors."""
    bits = np.float32(value).view(np.int32)
    return np.int32(bits ^ np.int32(np.int32(bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@jit()
def _of_rank(rank: Any) -> Any:
    """Return the float32 of this rank."""
    bits = np.int32(rank >> np.int32(31)) & np.int32(0x7FFFFFFF)
    return np.int32(rank ^ np.int32(bits)).view(np.float32)


@jit()
def _widen(
    logits: Array, queries: Array, row: int, place: Array, wide: Array, least: Array, most: Array
) -> None:
    """Interpolate one mask row along x into `wide` [n,TILE], and store its extremes [n].

    `place` is the first mask column of each strip and the weights [strips,m,STRIP] of those from
    there on.
    """
    starts, weights = place
    wide[:] = np.float32(0.0)
    for strip in range(starts.size):
        at = row * logits.shape[2] + starts[strip]
        add_resized(logits, queries, at, weights[strip], wide, strip * STRIP)
    for i in range(wide.shape[0]):
        low = high = _rank(wide[i, 0])
        for x in range(wide.shape[1]):
            rank = _rank(wide[i, x])
            low, high = min(rank, low), max(rank, high)
        least[i], most[i] = _of_rank(low), _of_rank(high)


@jit()
def _choose(
    least: Array, most: Array, cull: Array, before: int, active: Array, tame: Array
) -> tuple[int, bool]:
    """List in `active` the queries whose largest logit in the tile is above their limit.

    `least` and `most` [2,n] of two mask rows; `cull` [n] is the limit in their terms, `tame` [n]
    tells whose logits are all moderate. Returns how many are active, and whether they are others
    than the `before` that were.
    """
    count, other = 0, False
    for i in range(cull.size):
        low, high = min(least[0, i], least[1, i]), max(most[0, i], most[1, i])
        tame[i] = max(-low, high) < _TAME
        if low < cull[i]:
            other = other or active[count] != i
            active[count] = i
            count += 1
    return count, other or count != before


@jit()
def _four_rows(low: Array, high: Array, t: Any, step: Any, mask: Array) -> None:
    """Store the probabilities of four evenly spaced rows in mask [4 TILE]; moderate logits only.

    Two rows share one division, the slowest step: 1/u = v/(uv) and 1/v = u/(uv).
    """
    one = np.float32(1.0)
    for x in range(low.size):
        slope = high[x] - low[x]
        ratio = power(step * slope)
        u = power(low[x] + t * slope)
        v = u * ratio
        w = v * ratio
        z = w * ratio
        u, v, w, z = one + u, one + v, one + w, one + z
        first, last = one / (u * v), one / (w * z)
        mask[x] = v * first
        mask[TILE + x] = u * first
        mask[2 * TILE + x] = z * last
        mask[3 * TILE + x] = w * last


@jit()
def _one_row(low: Array, high: Array, t: Any, mask: Array) -> None:
    """Store the probabilities of one row in mask [TILE]."""
    one = np.float32(1.0)
    for x in range(low.size):
        mask[x] = one / (one + exp2(low[x] + t * (high[x] - low[x])))


@jit()
def _masks(
    low: Array, high: Array, shares: Array, step: Any, active: Array, tame: Array, masks: Array
) -> None:
    """Blend two widened rows and store the probabilities of `active` queries, [n, rows TILE].

    `shares` are the weights of the rows, `step` their distance where they are four and it is one
    and the same, else 0.
    """
    for i in range(active.size):
        a, b, m = low[active[i]], high[active[i]], masks[i]
        if step > 0 and tame[active[i]]:
            _four_rows(a, b, shares[0], step, m)
        else:
            for j in range(shares.size):
                _one_row(a, b, shares[j], m[j * TILE : (j + 1) * TILE])


@jit()
def _spacing(shares: Array) -> Any:
    """Return the distance of four evenly spaced rows, else 0; exact, or it would add up."""
    step = shares[min(1, shares.size - 1)] - shares[0]
    even = shares.size == ROWS
    for j in range(1, shares.size):
        even = even and shares[j] - shares[j - 1] == step
    return step if even else np.float32(0.0)


@jit()
def _pack(linear: Array, active: Array, count: int, packed: Array) -> None:
    """Bring the weights [N,n] of the active queries together."""
    for k in range(linear.shape[0]):
        for j in range(count):
            packed[k, j] = linear[k, active[j]]


@jit()
def _largest(weights: Array, active: Array, masks: Array, largest: Array) -> None:
    """Raise `largest` [rows TILE] to weights[q] m_q of the active queries."""
    for i in range(active.size):
        weight, m = weights[active[i]], masks[i, : largest.size]
        if weight > 0:
            for x in range(largest.size):
                value = weight * m[x]
                largest[x] = value if value > largest[x] else largest[x]


@jit()
def _count(
    low: Array,
    high: Array,
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
            a, b = low[active[i]], high[active[i]]
            for x in range(votes.size):
                votes[x] += np.int32(a[x] + t * (b[x] - a[x]) < level * SCALE)


@jit()
def _accept(
    low: Array,
    high: Array,
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
        value, a, b = values[active[i]], low[active[i]], high[active[i]]
        if value > ABSENT:
            for x in range(mean.size):
                inside = a[x] + t * (b[x] - a[x]) < 0
                peak[x] = value if inside and value > peak[x] else peak[x]
    for i in range(count):
        value, a, b = values[active[i]], low[active[i]], high[active[i]]
        if value > ABSENT:
            for x in range(mean.size):
                inside = a[x] + t * (b[x] - a[x]) < 0
                weight = exp((value - peak[x]) * inverse) if inside else np.float32(0.0)
                total[x] += weight
                mean[x] += weight * value
    for x in range(mean.size):
        covered[x] = total[x] > 0
        mean[x] = mean[x] / total[x] if total[x] > 0 else np.float32(0.0)


@jit()
def _hold(row: int, kept: int, logits: Array, queries: Array, place: Array, state: Array) -> int:
    """Return which of the two places of `state` holds a mask row; if none did, not `kept` does."""
    held, wide, least, most = state
    if held[0] == row or held[1] == row:
        return 0 if held[0] == row else 1
    other = 1 - kept
    _widen(logits, queries, row, place, wide[other], least[other], most[other])
    held[other] = row
    return other


@jit()
def _advance(
    rows: Array, logits: Array, queries: Array, place: Array, state: Array
) -> tuple[Array, Array]:
    """Bring two mask rows into `state` and return them."""
    low = _hold(rows[0], 1, logits, queries, place, state)
    high = _hold(rows[1], low, logits, queries, place, state)
    return state[1][low], state[1][high]


@jit()
def _state(n: int) -> Array:
    """Return room for two widened mask rows of n queries: which, values, minima, maxima."""
    wide, limits = scratch(2 * n, TILE), np.empty((2, 2, n), np.float32)
    return np.full(2, -1), wide.reshape((2, n, TILE)), limits[0], limits[1]


@jit()
def _group(low: Array, high: Array, start: int) -> int:
    """Return the end of the rows from `start` on that lie between its mask rows, ROWS at most."""
    stop = start + 1
    while (
        stop < min(start + ROWS, low.size)
        and low[stop] == low[start]
        and high[stop] == high[start]
    ):
        stop += 1
    return stop


@jit()
def _of_queries(
    low: Array,
    high: Array,
    t: Any,
    active: Array,
    count: int,
    room: Array,
    o: int,
    c0: int,
    c1: int,
    weigh: Array,
    out: Array,
) -> None:
    """Store what row `o` of the output has of the signs of single queries."""
    _, _, _, chosen, levels, values, inverse, _, _, _ = weigh
    _, _, _, _, votes, accept, covered, _, _ = out
    for j in range(chosen.shape[0]):
        _count(low, high, t, active, count, chosen[j], levels[j], votes[j, o, c0:c1])
    if accept.shape[0]:
        best, total = room[0, : c1 - c0], room[1, : c1 - c0]
        _accept(
            low,
            high,
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


@jit()
def _reduce(
    low: Array,
    high: Array,
    shares: Array,
    active: Array,
    groups: Array,
    tame: Array,
    packed: Array,
    masks: Array,
    sums: Array,
    maxima: Array,
    largest: Array,
) -> None:
    """Store the sums [N, ROWS TILE] and maxima [M, ROWS TILE] over the active queries of rows.

    It is done by `groups` of _BLOCK queries at most, which are the same whatever is skipped: other
    partial sums would be rounded otherwise.
    """
    sums[:], largest[:] = np.float32(0.0), np.float32(0.0)
    step, width = _spacing(shares), shares.size * TILE
    begin = 0
    while begin < active.size:
        stop, group = begin + 1, groups[active[begin]]
        while stop < active.size and groups[active[stop]] == group:
            stop += 1
        part = active[begin:stop]
        _masks(low, high, shares, step, part, tame, masks)
        for j in range(maxima.shape[0]):
            _largest(maxima[j], part, masks, largest[j, :width])
        add_product(packed, masks, begin, part.size, width, sums)
        begin = stop


@jit()
def accumulate(
    logits: Array, queries: Array, grid: Array, weigh: Array, tiles: Array, out: Array
) -> None:
    """Fill the accumulators of the output rows of `grid` and of the columns in `tiles`.

    The tuples are made by `cpu`. Outputs begin at the first of these rows and columns; those of
    no rows are not wanted.
    """
    row_low, row_high, row_weight, starts, weights = grid
    linear, maxima, cull = weigh[0], weigh[2], SCALE * weigh[7]
    n, lines = queries.size, linear.shape[0] + -linear.shape[0] % LINES
    state, best = _state(n), scratch(2, TILE)
    masks, sums = scratch(_BLOCK, ROWS * TILE), scratch(lines, ROWS * TILE)
    largest = scratch(maxima.shape[0], ROWS * TILE)
    packed = np.zeros((lines, n), np.float32)
    active, tame, count = np.full(n, -1), np.empty(n, np.bool_), -1
    groups = queries // _BLOCK
    for tile in range(tiles[0], tiles[1]):
        c0, place = (tile - tiles[0]) * TILE, (starts[tile], weights[tile])
        c1 = min(c0 + TILE, out[0].shape[1])
        state[0][:], first = -1, 0
        while first < row_low.size:
            stop, pair = _group(row_low, row_high, first), (row_low[first], row_high[first])
            low, high = _advance(pair, logits, queries, place, state)
            count, other = _choose(state[2], state[3], cull, count, active, tame)
            if other:
                _pack(linear, active, count, packed)
            found = active[:count]
            _reduce(
                low,
                high,
                row_weight[first:stop],
                found,
                groups,
                tame,
                packed,
                masks,
                sums,
                maxima,
                largest,
            )
            for o in range(first, stop):
                at, t = (o - first) * TILE, row_weight[o]
                for j in range(maxima.shape[0]):
                    copy(largest[j, at : at + c1 - c0], out[3][j, o, c0:c1])
                of_semantic(sums, at, o, c0, c1, weigh, out)
                _of_queries(low, high, t, active, count, best, o, c0, c1, weigh, out)
            first = stop


@jit()
def widen(lines: Array, starts: Array, weights: Array, out: Array) -> None:
    """Add to `out` [n,x] what strips of columns make of `lines` [n,1,w]."""
    rows = np.arange(lines.shape[0])
    for strip in range(starts.size):
        add_resized(lines, rows, starts[strip], weights[strip], out, strip * STRIP)


@jit()
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
    state, cull = _state(n), np.zeros(n, np.float32)
    low, high = state[1][0], state[1][1]
    active, count = np.full(n, -1), -1
    region, tame = np.empty(TILE, np.int32), np.empty(n, np.bool_)
    for tile in range(tiles[0], tiles[1]):
        part, place = region[: min(TILE, width - tile * TILE)], (starts[tile], weights[tile])
        state[0][:], last = -1, (-1, -1)
        for r in range(row_low.size):
            pair = (row_low[r], row_high[r])
            if pair != last:
                low, high = _advance(pair, logits, queries, place, state)
                count, _ = _choose(state[2], state[3], cull, count, active, tame)
                last = pair
            t = row_weight[r]
            _count(low, high, t, active, count, confident, np.float32(0.0), part)
            for i in range(count):
                a, b = low[active[i]], high[active[i]]
                inside, both = np.int64(0), np.int64(0)
                for x in range(part.size):
                    hit = np.int32(a[x] + t * (b[x] - a[x]) < 0)
                    inside += hit
                    both += hit * np.int32(part[x] > 0)
                areas[active[i]] += inside
                shared[active[i]] += both


@jit({'contract'})  # what is not finite must stay so
def blend_cells(
    cells: Array,
    low: Array,
    high: Array,
    share: Array,
    left: Array,
    right: Array,
    part: Array,
    out: Array,
) -> None:
    """Write cells [h,w,C], resized by the taps of rows and of columns, to out [gh gw, C]."""
    columns, one = left.size, np.float32(1.0)
    for y in range(low.size):
        for x in range(columns):
            bottom, east = share[y], part[x]
            top, west = one - bottom, one - east
            a, b = cells[low[y], left[x]], cells[low[y], right[x]]
            c, d = cells[high[y], left[x]], cells[high[y], right[x]]
            to = out[y * columns + x]
            for k in range(to.size):
                to[k] = top * (west * a[k] + east * b[k]) + bottom * (west * c[k] + east * d[k])
