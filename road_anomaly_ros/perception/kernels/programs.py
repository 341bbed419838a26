# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The Triton programs of the dense pass (importing this needs Triton); `gpu` starts them.

A program owns a tile of ROWS x COLUMNS pixels between the same two rows of the masks, so that
these are read and interpolated along x once for all its rows, and walks the queries in groups of
QUERIES: a mask value exists in registers only. Pixels lie along the last axis, where neighbouring
threads read neighbouring values. Sums over queries are products on the tensor cores in three TF32
parts, which keeps float32 accuracy. The positions of the taps are computed, not loaded.
"""

# mypy: disable-error-code=no-untyped-def

import triton
import triton.language as tl

ABSENT = tl.constexpr(-3e38)  # stands for -inf
LARGEST = tl.constexpr(3.4028234663852886e38)  # of float32


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
def _tile(ratio_y, height, rows, columns, parts, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return mask row, image rows [ROWS], those that are ours [ROWS], and columns [COLUMNS]."""
    low = tl.program_id(1) // parts
    first = _first_row(low, ratio_y, height, rows)
    end = _first_row(low + 1, ratio_y, height, rows)
    row = first + tl.program_id(1) % parts * ROWS + tl.arange(0, ROWS)
    return low, row, row < end, tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)


# fmt: off
@triton.jit
def _logits(masks, q, queries, low, row, column, ratio_x, ratio_y, height, width,
            QUERIES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return interpolated logits [QUERIES, ROWS * COLUMNS]; beyond the last, what lies nearest."""
    y_weight = tl.minimum(tl.maximum((row.to(tl.float32) + 0.5) * ratio_y - 0.5 - low, 0.0), 1.0)
    at = tl.maximum((column.to(tl.float32) + 0.5) * ratio_x - 0.5, 0.0)
    left = tl.minimum(at.to(tl.int32), width - 1)
    x_weight = tl.minimum(at - left.to(tl.float32), 1.0)[None, :]
    step = tl.where(left + 1 < width, 1, 0)[None, :]
    plane = (tl.minimum(q, queries - 1) * height + low) * width
    upper_left = masks + plane[:, None] + left[None, :]
    lower_left = upper_left + tl.where(low + 1 < height, width, 0)
    a, b = tl.load(upper_left), tl.load(upper_left + step)
    c, d = tl.load(lower_left), tl.load(lower_left + step)
    upper, lower = a + x_weight * (b - a), c + x_weight * (d - c)
    z = upper[:, None, :] + y_weight[None, :, None] * (lower - upper)[:, None, :]
    return tl.reshape(z, (QUERIES, ROWS * COLUMNS))


@triton.jit
def _sigmoid(z, FAST: tl.constexpr):
    """Return 1 / (1 + exp(-z)), with `FAST` by two instructions that err by 2 units at most."""
    if FAST:
        return tl.inline_asm_elementwise(
            '{ .reg .f32 t; mul.f32 t, $1, 0fBFB8AA3B; ex2.approx.ftz.f32 t, t; '
            'add.f32 t, t, 0f3F800000; rcp.approx.ftz.f32 $0, t; }',
            '=f,f', [z], dtype=tl.float32, is_pure=True, pack=1)
    return tl.sigmoid(z)
# fmt: on


@triton.jit
def _places(row, ours, column, columns, PIXELS: tl.constexpr):
    """Return the place of every pixel of a tile in a map [PIXELS], and which are the tile's."""
    pixel = row.to(tl.int64)[:, None] * columns + column[None, :]
    inside = ours[:, None] & (column < columns)[None, :]
    return tl.reshape(pixel, (PIXELS,)), tl.reshape(inside, (PIXELS,))


@triton.jit
def _table(values, q, queries, row, rows):
    """Return values[row, q] as [ROWS, QUERIES], 0 outside; `values` is [rows, queries]."""
    there = (row < rows)[:, None] & (q < queries)[None, :]
    return tl.load(values + row[:, None] * queries + q[None, :], mask=there, other=0)


@triton.jit
def _select(z, value, inverse, top, total, mean):
    """Take a group of queries into the running softmax over those with a positive logit."""
    active = (z > 0) & (value > ABSENT)[:, None]
    new = tl.maximum(top, tl.max(tl.where(active, value[:, None], ABSENT), 0))
    fade = tl.exp((top - new) * inverse)
    weight = tl.where(active, tl.exp((value[:, None] - new[None, :]) * inverse), 0.0)
    total = total * fade + tl.sum(weight, 0)
    mean = mean * fade + tl.sum(tl.where(active, weight * value[:, None], 0.0), 0)
    return new, total, mean


@triton.jit
def _store_rows(out, values, pixel, inside, size, row, skip, rows):
    """Store values [ROWS, PIXELS] as maps out[row - skip, pixel] for rows skip .. rows - 1."""
    wanted = ((row >= skip) & (row < rows))[:, None] & inside[None, :]
    place = (row - skip).to(tl.int64)[:, None] * size + pixel[None, :]
    tl.store(out + place, values, mask=wanted)


@triton.jit
def _store_semantic(
    sums,
    n,
    pixel,
    inside,
    size,
    label_out,
    peak_out,
    partition_out,
    tanh_out,
    temper,
    scale,
    CLASSES: tl.constexpr,
    PARTITION: tl.constexpr,
    TANH: tl.constexpr,
):
    """Store what is read off the semantic map, the first CLASSES rows of `sums`."""
    of_class = (n < CLASSES)[:, None]
    semantic = tl.where(of_class, sums, ABSENT)
    peak, label = tl.max(semantic, 0, return_indices=True, return_indices_tie_break_left=True)
    tl.store(label_out + pixel, label.to(tl.uint8), mask=inside)
    tl.store(peak_out + pixel, peak, mask=inside)
    if PARTITION:
        z = tl.where(of_class, (sums - peak[None, :]) * temper, 0.0)
        share = tl.where(of_class, tl.exp(z), 0.0)
        tl.store(partition_out + pixel, tl.sum(share, 0), mask=inside)
        tl.store(partition_out + size + pixel, tl.sum(share * z, 0), mask=inside)
    if TANH:
        fall = tl.exp(-2.0 * scale * tl.where(of_class, sums, 0.0))
        tl.store(tanh_out + pixel, tl.sum((1.0 - fall) / (1.0 + fall), 0), mask=inside)


# fmt: off
@triton.jit
def accumulate(masks, linear, maxima, chosen, levels, values, label_out, peak_out, sums_out,
               largest_out, votes_out, accept_out, covered_out, partition_out, tanh_out,
               queries, height, width, rows, columns, size, parts, ratio_y, ratio_x, inverse,
               temper, scale, skip, N: tl.constexpr, CLASSES: tl.constexpr, M: tl.constexpr,
               V: tl.constexpr, N_PAD: tl.constexpr, M_PAD: tl.constexpr, V_PAD: tl.constexpr,
               ACCEPT: tl.constexpr, PARTITION: tl.constexpr, TANH: tl.constexpr,
               ROWS: tl.constexpr, COLUMNS: tl.constexpr, QUERIES: tl.constexpr,
               PRECISION: tl.constexpr, FAST: tl.constexpr):
    """Store the accumulators of a tile of the image."""
    PIXELS: tl.constexpr = ROWS * COLUMNS
    low, row, ours, column = _tile(ratio_y, height, rows, columns, parts, ROWS, COLUMNS)
    if tl.max(ours.to(tl.int32)) > 0:
        n, m, v = tl.arange(0, N_PAD), tl.arange(0, M_PAD), tl.arange(0, V_PAD)
        sums = tl.zeros((N_PAD, PIXELS), tl.float32)
        largest = tl.zeros((M_PAD, PIXELS), tl.float32)
        votes = tl.zeros((V_PAD, PIXELS), tl.int32)
        top = tl.full((PIXELS,), ABSENT, tl.float32)
        total, mean = tl.zeros((PIXELS,), tl.float32), tl.zeros((PIXELS,), tl.float32)
        for start in range(0, queries, QUERIES):
            q = start + tl.arange(0, QUERIES)
            z = _logits(masks, q, queries, low, row, column, ratio_x, ratio_y, height, width,
                        QUERIES, ROWS, COLUMNS)
            probability = _sigmoid(z, FAST)
            sums = tl.dot(_table(linear, q, queries, n, N), probability, sums,
                          input_precision=PRECISION)
            if M > 0:
                factor = _table(maxima, q, queries, m, M)
                product = probability[None, :, :] * factor[:, :, None]
                largest = tl.maximum(largest, tl.max(product, 1))
            if V > 0:
                level = tl.load(levels + v, mask=v < V, other=0.0)
                hit = z[None, :, :] > level[:, None, None]
                hit = hit & (_table(chosen, q, queries, v, V)[:, :, None] > 0)
                votes += tl.sum(hit.to(tl.int32), 1)
            if ACCEPT:
                value = tl.load(values + q, mask=q < queries, other=ABSENT)
                top, total, mean = _select(z, value, inverse, top, total, mean)
        pixel, inside = _places(row, ours, column, columns, PIXELS)
        _store_semantic(sums, n, pixel, inside, size, label_out, peak_out, partition_out,
                        tanh_out, temper, scale, CLASSES, PARTITION, TANH)
        _store_rows(sums_out, sums, pixel, inside, size, n, skip, N)
        if M > 0:
            _store_rows(largest_out, largest, pixel, inside, size, m, 0, M)
        if V > 0:
            _store_rows(votes_out, votes, pixel, inside, size, v, 0, V)
        if ACCEPT:
            mean = tl.where(total > 0, mean / tl.maximum(total, 1e-30), 0.0)
            tl.store(accept_out + pixel, mean, mask=inside)
            tl.store(covered_out + pixel, (total > 0).to(tl.uint8), mask=inside)


@triton.jit
def overlap(masks, confident, areas, shared, queries, height, width, rows, columns, parts,
            ratio_y, ratio_x, ROWS: tl.constexpr, COLUMNS: tl.constexpr, QUERIES: tl.constexpr):
    """Add what a tile of the image counts for every query."""
    PIXELS: tl.constexpr = ROWS * COLUMNS
    low, row, ours, column = _tile(ratio_y, height, rows, columns, parts, ROWS, COLUMNS)
    if tl.max(ours.to(tl.int32)) > 0:
        _, inside = _places(row, ours, column, columns, PIXELS)
        region = tl.zeros((PIXELS,), tl.int32)
        for start in range(0, queries, QUERIES):
            q = start + tl.arange(0, QUERIES)
            sure = tl.load(confident + q, mask=q < queries, other=0)
            z = _logits(masks, q, queries, low, row, column, ratio_x, ratio_y, height, width,
                        QUERIES, ROWS, COLUMNS)
            hit = (z > 0) & (sure > 0)[:, None]
            region = tl.maximum(region, tl.max(hit.to(tl.int32), 0))
        for start in range(0, queries, QUERIES):
            q = start + tl.arange(0, QUERIES)
            z = _logits(masks, q, queries, low, row, column, ratio_x, ratio_y, height, width,
                        QUERIES, ROWS, COLUMNS)
            hit = ((z > 0) & inside[None, :]).to(tl.int32)
            tl.atomic_add(areas + q, tl.sum(hit, 1), mask=q < queries)
            tl.atomic_add(shared + q, tl.sum(hit * region[None, :], 1), mask=q < queries)
# fmt: on
