# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The Triton programs of the dense pass (importing this needs Triton); `gpu` starts them.

A program owns PIXELS pixels of one image row and walks the queries in groups of QUERIES, so that a
mask value exists in registers only. Sums over queries are products on the tensor cores in three
TF32 parts, which keeps float32 accuracy. The positions of the taps are computed, not loaded.
"""

# mypy: disable-error-code=no-untyped-def

import triton
import triton.language as tl

ABSENT = tl.constexpr(-3e38)  # stands for -inf


@triton.jit
def _taps(place, ratio, length):
    """Return low tap, high tap and weight of the high one at output positions."""
    at = tl.maximum((place.to(tl.float32) + 0.5) * ratio - 0.5, 0.0)
    low = tl.minimum(at.to(tl.int32), length - 1)
    high = tl.minimum(low + 1, length - 1)
    return low, high, tl.minimum(at - low.to(tl.float32), 1.0)


@triton.jit
def _logits(masks, q, queries, column, columns, ratio_x, ratio_y, height, width):
    """Return interpolated logits [PIXELS, QUERIES] of the queries `q`; ABSENT beyond the last."""
    there = (column < columns)[:, None] & (q < queries)[None, :]
    y_low, y_high, y_weight = _taps(tl.program_id(1), ratio_y, height)
    x_low, x_high, x_weight = _taps(column, ratio_x, width)
    plane = masks + q.to(tl.int64)[None, :] * height * width
    left, right = x_low[:, None], x_high[:, None]
    a = tl.load(plane + y_low * width + left, mask=there, other=ABSENT)
    b = tl.load(plane + y_low * width + right, mask=there, other=ABSENT)
    c = tl.load(plane + y_high * width + left, mask=there, other=ABSENT)
    d = tl.load(plane + y_high * width + right, mask=there, other=ABSENT)
    upper, lower = a + x_weight[:, None] * (b - a), c + x_weight[:, None] * (d - c)
    return tl.where(there, upper + y_weight * (lower - upper), ABSENT)


@triton.jit
def _table(values, q, queries, row, rows):
    """Return values[row, q] as [QUERIES, ROWS], 0 outside; `values` is [rows, queries]."""
    there = (q < queries)[:, None] & (row < rows)[None, :]
    return tl.load(values + row[None, :] * queries + q[:, None], mask=there, other=0)


@triton.jit
def _select(z, value, inverse, top, total, mean):
    """Take a group of queries into the running softmax over those with a positive logit."""
    active = (z > 0) & (value > ABSENT)[None, :]
    new = tl.maximum(top, tl.max(tl.where(active, value[None, :], ABSENT), 1))
    fade = tl.exp((top - new) * inverse)
    weight = tl.where(active, tl.exp((value[None, :] - new[:, None]) * inverse), 0.0)
    total = total * fade + tl.sum(weight, 1)
    mean = mean * fade + tl.sum(tl.where(active, weight * value[None, :], 0.0), 1)
    return new, total, mean


@triton.jit
def _store_rows(out, values, pixel, inside, size, row, skip, rows):
    """Store values [PIXELS, ROWS] as maps out[row - skip, pixel] for rows skip .. rows - 1."""
    wanted = inside[:, None] & ((row >= skip) & (row < rows))[None, :]
    place = (row - skip).to(tl.int64)[None, :] * size + pixel[:, None]
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
    """Store what is read off the semantic map, the first CLASSES columns of `sums`."""
    of_class = (n < CLASSES)[None, :]
    semantic = tl.where(of_class, sums, ABSENT)
    peak, label = tl.max(semantic, 1, return_indices=True, return_indices_tie_break_left=True)
    tl.store(label_out + pixel, label.to(tl.uint8), mask=inside)
    tl.store(peak_out + pixel, peak, mask=inside)
    if PARTITION:
        z = tl.where(of_class, (sums - peak[:, None]) * temper, 0.0)
        share = tl.where(of_class, tl.exp(z), 0.0)
        tl.store(partition_out + pixel, tl.sum(share, 1), mask=inside)
        tl.store(partition_out + size + pixel, tl.sum(share * z, 1), mask=inside)
    if TANH:
        fall = tl.exp(-2.0 * scale * tl.where(of_class, sums, 0.0))
        tl.store(tanh_out + pixel, tl.sum((1.0 - fall) / (1.0 + fall), 1), mask=inside)


# fmt: off
@triton.jit
def accumulate(masks, linear, maxima, chosen, levels, values, label_out, peak_out, sums_out,
               largest_out, votes_out, accept_out, covered_out, partition_out, tanh_out,
               queries, height, width, columns, size, ratio_y, ratio_x, inverse, temper, scale,
               skip, N: tl.constexpr, CLASSES: tl.constexpr, M: tl.constexpr, V: tl.constexpr,
               N_PAD: tl.constexpr, M_PAD: tl.constexpr, V_PAD: tl.constexpr,
               ACCEPT: tl.constexpr, PARTITION: tl.constexpr, TANH: tl.constexpr,
               PIXELS: tl.constexpr, QUERIES: tl.constexpr, PRECISION: tl.constexpr):
    """Store the accumulators of PIXELS pixels of one image row."""
    column = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    inside = column < columns
    n, m, v = tl.arange(0, N_PAD), tl.arange(0, M_PAD), tl.arange(0, V_PAD)
    sums = tl.zeros((PIXELS, N_PAD), tl.float32)
    largest = tl.zeros((PIXELS, M_PAD), tl.float32)
    votes = tl.zeros((PIXELS, V_PAD), tl.int32)
    top = tl.full((PIXELS,), ABSENT, tl.float32)
    total, mean = tl.zeros((PIXELS,), tl.float32), tl.zeros((PIXELS,), tl.float32)
    for start in range(0, queries, QUERIES):
        q = start + tl.arange(0, QUERIES)
        z = _logits(masks, q, queries, column, columns, ratio_x, ratio_y, height, width)
        probability = tl.where(z > ABSENT, tl.sigmoid(z), 0.0)
        weights = _table(linear, q, queries, n, N)
        sums = tl.dot(probability, weights, sums, input_precision=PRECISION)
        if M > 0:
            factor = _table(maxima, q, queries, m, M)
            largest = tl.maximum(largest, tl.max(probability[:, :, None] * factor[None, :, :], 1))
        if V > 0:
            level = tl.load(levels + v, mask=v < V, other=0.0)
            hit = z[:, :, None] > level[None, None, :]
            hit = hit & (_table(chosen, q, queries, v, V)[None, :, :] > 0)
            votes += tl.sum(hit.to(tl.int32), 1)
        if ACCEPT:
            value = tl.load(values + q, mask=q < queries, other=ABSENT)
            top, total, mean = _select(z, value, inverse, top, total, mean)
    pixel = tl.program_id(1).to(tl.int64) * columns + column
    _store_semantic(
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
        CLASSES,
        PARTITION,
        TANH,
    )
    _store_rows(sums_out, sums, pixel, inside, size, n, skip, N)
    if M > 0:
        _store_rows(largest_out, largest, pixel, inside, size, m, 0, M)
    if V > 0:
        _store_rows(votes_out, votes, pixel, inside, size, v, 0, V)
    if ACCEPT:
        mean = tl.where(total > 0, mean / tl.maximum(total, 1e-30), 0.0)
        tl.store(accept_out + pixel, mean, mask=inside)
        tl.store(covered_out + pixel, (total > 0).to(tl.uint8), mask=inside)
# fmt: on


@triton.jit
def overlap(
    masks,
    confident,
    areas,
    shared,
    queries,
    height,
    width,
    columns,
    ratio_y,
    ratio_x,
    PIXELS: tl.constexpr,
    QUERIES: tl.constexpr,
):
    """Add what PIXELS pixels of one image row count for every query."""
    column = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    region = tl.zeros((PIXELS,), tl.int32)
    for start in range(0, queries, QUERIES):
        q = start + tl.arange(0, QUERIES)
        sure = tl.load(confident + q, mask=q < queries, other=0)
        z = _logits(masks, q, queries, column, columns, ratio_x, ratio_y, height, width)
        hit = (z > 0) & (sure > 0)[None, :]
        region = tl.maximum(region, tl.max(hit.to(tl.int32), 1))
    for start in range(0, queries, QUERIES):
        q = start + tl.arange(0, QUERIES)
        z = _logits(masks, q, queries, column, columns, ratio_x, ratio_y, height, width)
        hit = (z > 0).to(tl.int32)
        tl.atomic_add(areas + q, tl.sum(hit, 0), mask=q < queries)
        tl.atomic_add(shared + q, tl.sum(hit * region[:, None], 0), mask=q < queries)
