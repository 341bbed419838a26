# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The Triton programs of the dense pass (importing this needs Triton); `gpu` starts them.

A program owns a tile of COLUMNS x ROWS pixels between the same two rows of the masks, so that
these are read and interpolated along x once for all its rows, and walks the queries in groups of
QUERIES: a mask value exists in registers only. Masks lie with the queries last, so that a thread
reads several of them at once, and so do the tiles, as the tensor cores take them: its rows are
joined in registers, and maxima and votes are kept apart for every query of a group until the end.
Sums over queries are three products on the tensor cores: mask values and weights are split into
two float16 halves each, scaled by powers of two so that both halves have their full precision;
what is left out is below float32's rounding.
"""

# mypy: disable-error-code="no-untyped-def,assignment"

import triton
import triton.language as tl

from road_anomaly_ros.perception.kernels import vectors

ABSENT = tl.constexpr(vectors.ABSENT)
NEVER = tl.constexpr(vectors.NEVER)
NOBODY = tl.constexpr(-1e38)  # its distance to ABSENT still is one
LOG2E = tl.constexpr(1.4426950408889634)
LARGEST = tl.constexpr(3.4028234663852886e38)  # of float32
RAISED = tl.constexpr(4096.0)  # mask values are multiplied by it, weights of a row to below TALL
TALL = tl.constexpr(2048.0)
SHARED = tl.constexpr(1 << 32)


@triton.jit
def _bounded(value, LIMIT: tl.constexpr):
    """Clamp to +-LIMIT; NaN becomes -LIMIT."""
    return tl.where(value == value, tl.minimum(tl.maximum(value, -LIMIT), LIMIT), -LIMIT)


@triton.jit
def clean_planes(values, out, repaired, size, LIMIT: tl.constexpr, BLOCK: tl.constexpr):
    """Store `size` values as bounded float32 and add how many were not finite."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < size
    value = tl.load(values + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + place, _bounded(value, LIMIT), mask=inside)
    broken = tl.sum((tl.abs(value) <= LARGEST).to(tl.int32) ^ 1)
    if broken > 0:
        tl.atomic_add(repaired, broken.to(tl.int64))


# fmt: off
@triton.jit
def clean_masks(values, out, repaired, queries, size, LIMIT: tl.constexpr, Q_PAD: tl.constexpr,
                QUERIES: tl.constexpr, PIXELS: tl.constexpr):
    """Do the same for masks [queries, size], stored with the queries last as [size, Q_PAD]."""
    pixel = tl.program_id(0).to(tl.int64) * PIXELS + tl.arange(0, PIXELS)
    q = tl.program_id(1) * QUERIES + tl.arange(0, QUERIES)
    there = (q < queries)[:, None] & (pixel < size)[None, :]
    place = q.to(tl.int64)[:, None] * size + pixel[None, :]
    value = tl.load(values + place, mask=there, other=0.0).to(tl.float32)
    place = pixel[:, None] * Q_PAD + q[None, :]
    tl.store(out + place, tl.trans(_bounded(value, LIMIT)), mask=(pixel < size)[:, None])
    broken = tl.sum((tl.abs(value) <= LARGEST).to(tl.int32) ^ 1)
    if broken > 0:
        tl.atomic_add(repaired, broken.to(tl.int64))


@triton.jit
def clean_classes(values, out, repaired, columns, LIMIT: tl.constexpr, COLUMNS: tl.constexpr):
    """Do the same for one query's class logits; one that makes no sense becomes pure void."""
    column = tl.arange(0, COLUMNS)
    place = tl.program_id(0) * columns + column
    inside = column < columns
    value = tl.load(values + place, mask=inside, other=0.0).to(tl.float32)
    unknown = tl.sum((value != value).to(tl.int32))
    sure = tl.sum((value > LARGEST).to(tl.int32))
    void = tl.where(column == columns - 1, LIMIT, -LIMIT)
    good = (unknown == 0) & (sure < 2)
    tl.store(out + place, tl.where(good, _bounded(value, LIMIT), void), mask=inside)
    broken = tl.sum((tl.abs(value) <= LARGEST).to(tl.int32) ^ 1)
    if broken > 0:
        tl.atomic_add(repaired, broken.to(tl.int64))


@triton.jit
def _first_row(low, ratio, height, rows):
    """Return the first image row whose lower tap is mask row `low`, `rows` beyond the last."""
    at = tl.ceil((low.to(tl.float32) + 0.5) / ratio - 0.5).to(tl.int32)
    return tl.where(low <= 0, 0, tl.where(low >= height, rows, tl.minimum(at, rows)))


@triton.jit
def split_weights(linear, halves, scales, queries, N: tl.constexpr, N_PAD: tl.constexpr,
                  BLOCK: tl.constexpr, Q_PAD: tl.constexpr):
    """Store weights [N,Q] as float16 halves [2,Q_PAD,N_PAD], and what undoes their scale."""
    n = tl.program_id(0)
    q = tl.arange(0, BLOCK)
    value = tl.load(linear + n * queries + q, mask=(q < queries) & (n < N), other=0.0)
    largest = tl.maximum(tl.max(tl.abs(value), 0), 1e-30)
    bits = largest.to(tl.int32, bitcast=True) & 0x7F800000  # the power of two at or below it
    power = bits.to(tl.float32, bitcast=True)
    value = value * (TALL / 2 / power)
    high = value.to(tl.float16)
    place = halves + q * N_PAD + n
    tl.store(place, high, mask=q < Q_PAD)
    tl.store(place + Q_PAD * N_PAD, (value - high.to(tl.float32)).to(tl.float16), mask=q < Q_PAD)
    tl.store(scales + n, power / (TALL / 2 * RAISED))


@triton.jit
def _tile(ratio_y, height, rows, parts, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return mask row, first image row, the one after the last that is ours, columns [COLUMNS]."""
    low = tl.program_id(1) // parts
    first = _first_row(low, ratio_y, height, rows) + tl.program_id(1) % parts * ROWS
    end = _first_row(low + 1, ratio_y, height, rows)
    return low, first, end, tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)


@triton.jit
def _logits(masks, q, low, row, column, ratio_x, ratio_y, height, width, Q_PAD: tl.constexpr,
            QUERIES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return logits [COLUMNS * ROWS, QUERIES], rows faster; past the edges, what lies nearest."""
    at = tl.maximum((column.to(tl.float32) + 0.5) * ratio_x - 0.5, 0.0)
    left = tl.minimum(at.to(tl.int32), width - 1)
    x_weight = tl.minimum(at - left.to(tl.float32), 1.0)[:, None]
    step = tl.where(left + 1 < width, Q_PAD, 0)[:, None]
    upper_left = masks + ((low * width + left) * Q_PAD)[:, None] + q[None, :]
    lower_left = upper_left + tl.where(low + 1 < height, width * Q_PAD, 0)
    a, b = tl.load(upper_left), tl.load(upper_left + step)
    c, d = tl.load(lower_left), tl.load(lower_left + step)
    upper = a + x_weight * (b - a)
    fall = c + x_weight * (d - c) - upper
    z = upper + _y_weight(row, ratio_y, low) * fall
    if ROWS > 1:
        second = upper + _y_weight(row + 1, ratio_y, low) * fall
        if ROWS > 2:
            z = tl.join(z, upper + _y_weight(row + 2, ratio_y, low) * fall)
            second = tl.join(second, upper + _y_weight(row + 3, ratio_y, low) * fall)
            z = tl.permute(tl.join(z, second), (0, 2, 3, 1))
        else:
            z = tl.permute(tl.join(z, second), (0, 2, 1))
    return tl.reshape(z, (COLUMNS * ROWS, QUERIES))


@triton.jit
def _y_weight(row, ratio, low):
    return tl.minimum(tl.maximum((row.to(tl.float32) + 0.5) * ratio - 0.5 - low, 0.0), 1.0)


@triton.jit
def _raised_sigmoid(z, FAST: tl.constexpr):
    """Return RAISED / (1 + exp(-z)); two instructions with `FAST`, that err by 2 units at most."""
    if FAST:
        return tl.inline_asm_elementwise(
            '{ .reg .f32 t; fma.rn.f32 t, $1, 0fBFB8AA3B, 0fC1400000; ex2.approx.ftz.f32 t, t; '
            'add.f32 t, t, 0f39800000; rcp.approx.ftz.f32 $0, t; }',
            '=f,f', [z], dtype=tl.float32, is_pure=True, pack=1)
    return RAISED * tl.sigmoid(z)


@triton.jit
def _places(row, end, column, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return the place of every pixel of a tile in a map [PIXELS], and which are the tile's."""
    rows = row + tl.arange(0, ROWS)
    pixel = column[:, None] + rows.to(tl.int64)[None, :] * columns
    inside = (column < columns)[:, None] & (rows < end)[None, :]
    return tl.reshape(pixel, (COLUMNS * ROWS,)), tl.reshape(inside, (COLUMNS * ROWS,))


@triton.jit
def _select(z, value, inverse, top, total, mean):
    """Take a group of queries into the running softmax over those with a positive logit."""
    power = tl.where(value > ABSENT, value * (inverse * LOG2E), ABSENT)
    power = tl.where(z > 0, power[None, :], ABSENT)
    new = tl.maximum(top, tl.max(power, 1))
    fade = tl.exp2(top - new)
    weight = tl.exp2(power - new[:, None])
    total = total * fade + tl.sum(weight, 1)
    mean = mean * fade + tl.sum(weight * value[None, :], 1)
    return new, total, mean


@triton.jit
def _store_rows(out, values, pixel, inside, size, row, skip, rows):
    """Store values [PIXELS, ROWS] as maps out[row - skip, pixel] for rows skip .. rows - 1."""
    wanted = inside[:, None] & ((row >= skip) & (row < rows))[None, :]
    place = pixel[:, None] + (row - skip).to(tl.int64)[None, :] * size
    tl.store(out + place, values, mask=wanted)


@triton.jit
def _store_semantic(sums, n, pixel, inside, size, label_out, peak_out, semantic_out, sums_out,
                    partition_out, tanh_out, partition_factor, tanh_factor, N: tl.constexpr,
                    CLASSES: tl.constexpr):
    """Store the sums, and what is read off the semantic map, their first CLASSES columns."""
    of_class = (n < CLASSES)[None, :]
    semantic = tl.where(of_class, sums, ABSENT)
    peak, label = tl.max(semantic, 1, return_indices=True, return_indices_tie_break_left=True)
    tl.store(label_out + pixel, label.to(tl.uint8), mask=inside)
    tl.store(peak_out + pixel, peak, mask=inside)
    if semantic_out is not None:
        _store_rows(semantic_out, sums, pixel, inside, size, n, 0, CLASSES)
    if sums_out is not None:
        _store_rows(sums_out, sums, pixel, inside, size, n, CLASSES, N)
    if partition_out is not None:
        z = tl.where(of_class, (sums - peak[:, None]) * partition_factor, 0.0)
        share = tl.where(of_class, tl.exp(z), 0.0)
        tl.store(partition_out + pixel, tl.sum(share, 1), mask=inside)
        tl.store(partition_out + size + pixel, tl.sum(share * z, 1), mask=inside)
    if tanh_out is not None:
        fall = tl.exp(-2.0 * tanh_factor * tl.where(of_class, sums, 0.0))
        tl.store(tanh_out + pixel, tl.sum((1.0 - fall) / (1.0 + fall), 1), mask=inside)


@triton.jit
def _add_products(sums, raised, weights, Q_PAD: tl.constexpr, N_PAD: tl.constexpr):
    """Add masks times weights, both in two halves; the product of the lower ones is too small."""
    high = raised.to(tl.float16)
    rest = (raised - high.to(tl.float32)).to(tl.float16)
    weight = tl.load(weights)
    sums = tl.dot(high, weight, sums)
    sums = tl.dot(rest, weight, sums)
    return tl.dot(high, tl.load(weights + Q_PAD * N_PAD), sums)


@triton.jit
def accumulate(masks, halves, scales, queries, height, width, rows, columns, size, parts, ratio_y,
               ratio_x, largest_by, levels_by, accept_by, label_out, peak_out,
               semantic_out, sums_out, largest_out, votes_out, accept_out, covered_out,
               partition_out, tanh_out, accept_factor, partition_factor, tanh_factor,
               N: tl.constexpr, CLASSES: tl.constexpr, M: tl.constexpr, V: tl.constexpr,
               N_PAD: tl.constexpr, Q_PAD: tl.constexpr, ROWS: tl.constexpr,
               COLUMNS: tl.constexpr, QUERIES: tl.constexpr, FAST: tl.constexpr):
    """Store the accumulators of a tile of the image; None for those that nobody asked for."""
    PIXELS: tl.constexpr = ROWS * COLUMNS
    low, row, end, column = _tile(ratio_y, height, rows, parts, ROWS, COLUMNS)
    if row < end:
        n = tl.arange(0, N_PAD)
        sums = tl.zeros((PIXELS, N_PAD), tl.float32)
        largest = (tl.zeros((PIXELS, QUERIES), tl.float32),) * M
        votes = (tl.zeros((PIXELS, QUERIES), tl.int32),) * V
        top = tl.full((PIXELS,), NOBODY, tl.float32)
        total, mean = tl.zeros((PIXELS,), tl.float32), tl.zeros((PIXELS,), tl.float32)
        for start in range(0, queries, QUERIES):
            q = start + tl.arange(0, QUERIES)
            there = q < queries
            z = _logits(masks, q, low, row, column, ratio_x, ratio_y, height, width, Q_PAD,
                        QUERIES, ROWS, COLUMNS)
            raised = _raised_sigmoid(z, FAST)
            sums = _add_products(sums, raised, halves + q[:, None] * N_PAD + n[None, :], Q_PAD,
                                 N_PAD)
            taller = ()
            for i in tl.static_range(M):
                factor = tl.load(largest_by + i * queries + q, mask=there, other=0.0)
                taller = taller + (tl.maximum(largest[i], raised * factor[None, :]),)
            largest = taller
            counted = ()
            for i in tl.static_range(V):
                level = tl.load(levels_by + i * queries + q, mask=there, other=NEVER)
                counted = counted + (votes[i] + (z > level[None, :]).to(tl.int32),)
            votes = counted
            if accept_by is not None:
                value = tl.load(accept_by + q, mask=there, other=ABSENT)
                top, total, mean = _select(z, value, accept_factor, top, total, mean)
        sums = sums * tl.load(scales + n)[None, :]
        pixel, inside = _places(row, end, column, columns, ROWS, COLUMNS)
        _store_semantic(sums, n, pixel, inside, size, label_out, peak_out, semantic_out, sums_out,
                        partition_out, tanh_out, partition_factor, tanh_factor, N, CLASSES)
        for i in tl.static_range(M):
            peak = tl.max(largest[i], 1) * (1.0 / RAISED)
            tl.store(largest_out + i * size + pixel, peak, mask=inside)
        for i in tl.static_range(V):
            tl.store(votes_out + i * size + pixel, tl.sum(votes[i], 1), mask=inside)
        if accept_out is not None:
            mean = tl.where(total > 0, mean / tl.maximum(total, 1e-30), 0.0)
            tl.store(accept_out + pixel, mean, mask=inside)
            tl.store(covered_out + pixel, (total > 0).to(tl.uint8), mask=inside)


@triton.jit
def overlap(masks, confident, counts, queries, height, width, rows, columns, parts, ratio_y,
            ratio_x, Q_PAD: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
            QUERIES: tl.constexpr):
    """Add what a tile counts for every query: its pixels, and above SHARED those in the region."""
    PIXELS: tl.constexpr = ROWS * COLUMNS
    low, row, end, column = _tile(ratio_y, height, rows, parts, ROWS, COLUMNS)
    if row < end:
        _, inside = _places(row, end, column, columns, ROWS, COLUMNS)
        region = tl.zeros((PIXELS, QUERIES), tl.int32)
        for start in range(0, queries, QUERIES):
            q = start + tl.arange(0, QUERIES)
            sure = tl.load(confident + q, mask=q < queries, other=0)
            if tl.max(sure.to(tl.int32)) > 0:
                z = _logits(masks, q, low, row, column, ratio_x, ratio_y, height, width, Q_PAD,
                            QUERIES, ROWS, COLUMNS)
                region |= ((z > 0) & (sure > 0)[None, :]).to(tl.int32)
        worth = tl.where(inside, 1 + (tl.max(region, 1) << 16), 0)[:, None]  # both in one sum
        for start in range(0, queries, QUERIES):
            q = start + tl.arange(0, QUERIES)
            z = _logits(masks, q, low, row, column, ratio_x, ratio_y, height, width, Q_PAD,
                        QUERIES, ROWS, COLUMNS)
            count = tl.sum(tl.where(z > 0, worth, 0), 0)
            count = (count & 0xFFFF).to(tl.int64) + (count >> 16).to(tl.int64) * SHARED
            tl.atomic_add(counts + q, count, mask=(q < queries) & (count > 0))
# fmt: on
