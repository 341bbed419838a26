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

from typing import Any, NamedTuple

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
from road_anomaly_ros.perception.kernels.vectors import (
    ABSENT,
    NEVER,
    Accumulators,
    Factors,
    Weights,
)

__all__ = ['SCALE', 'STRIP', 'TILE', 'Band', 'accumulate', 'add_thin', 'overlap', 'widen']

TILE = 64
ROWS = 4  # output rows between the same two mask rows that are worked on at once
_BLOCK = 20  # queries whose masks of these rows stay in the first cache level
_TAME = np.float32(60.0)  # y up to which no exponential below leaves float32
SCALE = np.float32(-1.4426950408889634)  # -log2(e), contained in the horizontal weights
_ABSENT, _NEVER = np.float32(ABSENT), np.float32(NEVER)


class Band(NamedTuple):
    """How mask rows and columns become some image rows, and the columns of all tiles."""

    low: Array  # [r] int64, mask row above
    high: Array  # [r] int64, mask row below
    share: Array  # [r] float32, its weight
    starts: Array  # [tiles,strips] int64, first mask column
    weights: Array  # [tiles,strips,m,STRIP] float32, of as many from there on


class _Held(NamedTuple):
    """Two mask rows of n queries, widened."""

    rows: Array  # [2] which they are, -1 for none
    wide: Array  # [2,n,TILE]
    least: Array  # [2,n]
    most: Array  # [2,n]


class _Room(NamedTuple):
    """Where the accumulators of ROWS rows of a tile come into being."""

    packed: Array  # [lines,n] the weights of active queries
    masks: Array  # [_BLOCK,ROWS TILE]
    sums: Array  # [lines,ROWS TILE]
    largest: Array  # [M,ROWS TILE]
    spare: Array  # [2,TILE]


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
    held: _Held, places: tuple[int, int], cull: Array, before: int, active: Array, tame: Array
) -> tuple[int, bool]:
    """List in `active` the queries whose largest logit in two rows is above their limit.

    `cull` [n] is the limit in the terms of `held`, `tame` [n] tells whose logits are all moderate.
    Returns how many are active, and whether they are others than the `before` that were.
    """
    a, b = places  # one and the same in the last rows, the other may hold nothing yet
    least, most, count, other = held.least, held.most, 0, False
    for i in range(cull.size):
        low, high = min(least[a, i], least[b, i]), max(most[a, i], most[b, i])
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
def _two_rows(low: Array, high: Array, t: Any, after: Any, mask: Array) -> None:
    """Store the probabilities of two rows in mask [2 TILE]; moderate logits only."""
    one = np.float32(1.0)
    for x in range(low.size):
        slope = high[x] - low[x]
        u, v = one + power(low[x] + t * slope), one + power(low[x] + after * slope)
        both = one / (u * v)
        mask[x] = v * both
        mask[TILE + x] = u * both


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
            continue
        paired = shares.size // 2 * 2 if tame[active[i]] else 0
        for j in range(0, paired, 2):
            _two_rows(a, b, shares[j], shares[j + 1], m[j * TILE : (j + 2) * TILE])
        for j in range(paired, shares.size):
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
def _pack(linear: Array, active: Array, packed: Array) -> None:
    """Bring the weights [N,n] of the active queries together."""
    for k in range(linear.shape[0]):
        for j in range(active.size):
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
def _count(low: Array, high: Array, t: Any, active: Array, levels: Array, votes: Array) -> None:
    """Store how many queries have a logit above their level."""
    votes[:] = 0
    for i in active:
        if levels[i] < _NEVER:
            a, b, level = low[i], high[i], levels[i] * SCALE
            for x in range(votes.size):
                votes[x] += np.int32(a[x] + t * (b[x] - a[x]) < level)


@jit()
def _accept(
    low: Array,
    high: Array,
    t: Any,
    active: Array,
    values: Array,
    factor: Any,
    room: _Room,
    mean: Array,
    covered: Array,
) -> None:
    """Store the softmax-weighted mean of `values` over the queries with a logit above 0.

    The maximum is taken per pixel first: a global one underflows at small temperatures.
    """
    peak, total = room.spare[0, : mean.size], room.spare[1, : mean.size]
    peak[:], total[:], mean[:] = _ABSENT, np.float32(0.0), np.float32(0.0)
    for i in active:
        value, a, b = values[i], low[i], high[i]
        if value > _ABSENT:
            for x in range(mean.size):
                inside = a[x] + t * (b[x] - a[x]) < 0
                peak[x] = value if inside and value > peak[x] else peak[x]
    for i in active:
        value, a, b = values[i], low[i], high[i]
        if value > _ABSENT:
            for x in range(mean.size):
                inside = a[x] + t * (b[x] - a[x]) < 0
                weight = exp((value - peak[x]) * factor) if inside else np.float32(0.0)
                total[x] += weight
                mean[x] += weight * value
    for x in range(mean.size):
        covered[x] = total[x] > 0
        mean[x] = mean[x] / total[x] if total[x] > 0 else np.float32(0.0)


@jit()
def _hold(row: int, kept: int, logits: Array, queries: Array, place: Array, held: _Held) -> int:
    """Return which place of `held` holds a mask row; if none did, not `kept` does."""
    if held.rows[0] == row or held.rows[1] == row:
        return 0 if held.rows[0] == row else 1
    other = 1 - kept
    target = held.wide[other], held.least[other], held.most[other]
    _widen(logits, queries, row, place, target[0], target[1], target[2])
    held.rows[other] = row
    return other


@jit()
def _advance(
    rows: Array, logits: Array, queries: Array, place: Array, held: _Held
) -> tuple[int, int]:
    """Bring two mask rows into `held` and return their places."""
    low = _hold(rows[0], 1, logits, queries, place, held)
    return low, _hold(rows[1], low, logits, queries, place, held)


@jit()
def _holding(n: int) -> _Held:
    """Return room for two widened mask rows of n queries."""
    wide, limits = scratch(2 * n, TILE), np.empty((2, 2, n), np.float32)
    return _Held(np.full(2, -1), wide.reshape((2, n, TILE)), limits[0], limits[1])


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
    weights: Weights,
    factors: Factors,
    room: _Room,
    o: int,
    c0: int,
    c1: int,
    out: Accumulators,
) -> None:
    """Store what row `o` of the output has of the signs of single queries."""
    for j in range(out.votes.shape[0]):
        _count(low, high, t, active, weights.levels[j], out.votes[j, o, c0:c1])
    for j in range(out.accept.shape[0]):
        mean, covered = out.accept[j, o, c0:c1], out.covered[j, o, c0:c1]
        _accept(low, high, t, active, weights.accept[j], factors.accept, room, mean, covered)


@jit()
def _room(n: int, weights: Weights) -> _Room:
    """Return room for n queries."""
    lines = weights.linear.shape[0] + -weights.linear.shape[0] % LINES
    return _Room(
        np.zeros((lines, n), np.float32),
        scratch(_BLOCK, ROWS * TILE),
        scratch(lines, ROWS * TILE),
        scratch(weights.largest.shape[0], ROWS * TILE),
        scratch(2, TILE),
    )


@jit()
def _reduce(
    low: Array,
    high: Array,
    shares: Array,
    active: Array,
    groups: Array,
    tame: Array,
    maxima: Array,
    room: _Room,
) -> None:
    """Store the sums [N, ROWS TILE] and maxima [M, ROWS TILE] over the active queries of rows.

    It is done by `groups` of _BLOCK queries at most, which are the same whatever is skipped: other
    partial sums would be rounded otherwise.
    """
    room.sums[:], room.largest[:] = np.float32(0.0), np.float32(0.0)
    step, width = _spacing(shares), shares.size * TILE
    begin = 0
    while begin < active.size:
        stop, group = begin + 1, groups[active[begin]]
        while stop < active.size and groups[active[stop]] == group:
            stop += 1
        part = active[begin:stop]
        _masks(low, high, shares, step, part, tame, room.masks)
        for j in range(maxima.shape[0]):
            _largest(maxima[j], part, room.masks, room.largest[j, :width])
        add_product(room.packed, room.masks, begin, part.size, width, room.sums)
        begin = stop


@jit()
def accumulate(
    logits: Array,
    queries: Array,
    band: Band,
    classes: int,
    weights: Weights,
    factors: Factors,
    limits: Array,
    tiles: Array,
    out: Accumulators,
) -> None:
    """Fill the accumulators of the output rows of `band` and of the columns in `tiles`.

    Below `limits` [n] logits do not matter. Outputs begin at the first of these rows and columns.
    """
    n, cull = queries.size, SCALE * limits
    held, room, groups = _holding(n), _room(n, weights), queries // _BLOCK
    active, tame, count = np.full(n, -1), np.empty(n, np.bool_), -1
    for tile in range(tiles[0], tiles[1]):
        c0, place = (tile - tiles[0]) * TILE, (band.starts[tile], band.weights[tile])
        c1 = min(c0 + TILE, out.label.shape[2])
        held.rows[:], first = -1, 0
        while first < band.low.size:
            stop, pair = _group(band.low, band.high, first), (band.low[first], band.high[first])
            places = _advance(pair, logits, queries, place, held)
            low, high = held.wide[places[0]], held.wide[places[1]]
            count, other = _choose(held, places, cull, count, active, tame)
            found, shares = active[:count], band.share[first:stop]
            if other:
                _pack(weights.linear, found, room.packed)
            _reduce(low, high, shares, found, groups, tame, weights.largest, room)
            for o in range(first, stop):
                at, t = (o - first) * TILE, band.share[o]
                for j in range(out.largest.shape[0]):
                    copy(room.largest[j, at : at + c1 - c0], out.largest[j, o, c0:c1])
                of_semantic(room.sums, at, o, c0, c1, classes, factors, out)
                _of_queries(low, high, t, found, weights, factors, room, o, c0, c1, out)
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
    band: Band,
    levels: Array,
    width: int,
    tiles: Array,
    areas: Array,
    shared: Array,
) -> None:
    """Add per query the pixels with a positive logit, and those that a confident query has too.

    `levels` [n] are 0 for confident queries and NEVER for others. Counts the output rows of `band`
    and the columns in `tiles` of an image of `width` columns.
    """
    n = queries.size
    held, cull = _holding(n), np.zeros(n, np.float32)
    low, high = held.wide[0], held.wide[1]
    active, count = np.full(n, -1), -1
    region, tame = np.empty(TILE, np.int32), np.empty(n, np.bool_)
    for tile in range(tiles[0], tiles[1]):
        place = band.starts[tile], band.weights[tile]
        part = region[: min(TILE, width - tile * TILE)]
        held.rows[:], last = -1, (-1, -1)
        for r in range(band.low.size):
            pair, t = (band.low[r], band.high[r]), band.share[r]
            if pair != last:
                places = _advance(pair, logits, queries, place, held)
                low, high = held.wide[places[0]], held.wide[places[1]]
                count, _ = _choose(held, places, cull, count, active, tame)
                last = pair
            _count(low, high, t, active[:count], levels, part)
            for i in active[:count]:
                a, b = low[i], high[i]
                inside, both = np.int64(0), np.int64(0)
                for x in range(part.size):
                    hit = np.int32(a[x] + t * (b[x] - a[x]) < 0)
                    inside += hit
                    both += hit * np.int32(part[x] > 0)
                areas[i] += inside
                shared[i] += both


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
