# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The dense pass on CUDA as one Triton kernel: four taps, sigmoid, all reductions, one store per map.

A program owns PIXELS pixels of one image row and walks the queries in groups of QUERIES, so that a
mask value exists in registers only. Sums over queries are products on the tensor cores in three
TF32 parts, which keeps float32 accuracy. The positions of the taps are computed, not loaded, and
nothing is read back: no synchronisation.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from road_anomaly_ros.perception.kernels.vectors import Block, QueryVectors

try:
    import triton
    import triton.language as tl
except ImportError:                                 # comes with the CUDA builds of torch
    triton = None

PIXELS = 64
QUERIES = 32
ABSENT = -3e38                                      # stands for -inf

Result = TypeVar('Result')

_log = logging.getLogger(__name__)
_refused: list[Exception] = []                      # why the kernel is not used any more


def available(device: torch.device) -> bool:
    """Tell whether the kernel can run on `device`."""
    return triton is not None and device.type == 'cuda' and not _refused


def attempt(kernel: Callable[..., Result], *arguments: Any) -> Result | None:
    """Return what the kernel computes, or None from the first time on that it cannot be built here."""
    try:
        return kernel(*arguments)
    except Exception as error:                      # Triton raises of its own, and of the C compiler
        _refused.append(error)
        _log.warning('the Triton kernel does not run here, torch does its work: %s',
                     ' '.join(str(error).split())[:200])
        return None


def _jit(function: Callable[..., Any]) -> Any:
    return function if triton is None else triton.jit(function)


@_jit
def _taps(place, ratio, length):                    # type: ignore[no-untyped-def]
    """Return low tap, high tap and weight of the high one at output positions."""
    at = tl.maximum((place.to(tl.float32) + 0.5) * ratio - 0.5, 0.0)
    low = tl.minimum(at.to(tl.int32), length - 1)
    high = tl.minimum(low + 1, length - 1)
    return low, high, tl.minimum(at - low.to(tl.float32), 1.0)


@_jit
def _logits(masks, q, queries, x_low, x_high, x_weight, y_low, y_high, y_weight,        # type: ignore[no-untyped-def]
            height, width, inside):
    """Return interpolated logits [PIXELS, QUERIES] of the queries `q`; ABSENT beyond the last."""
    there = inside[:, None] & (q < queries)[None, :]
    plane = masks + q.to(tl.int64)[None, :] * height * width
    left, right = x_low[:, None], x_high[:, None]
    a = tl.load(plane + y_low * width + left, mask=there, other=ABSENT)
    b = tl.load(plane + y_low * width + right, mask=there, other=ABSENT)
    c = tl.load(plane + y_high * width + left, mask=there, other=ABSENT)
    d = tl.load(plane + y_high * width + right, mask=there, other=ABSENT)
    upper, lower = a + x_weight[:, None] * (b - a), c + x_weight[:, None] * (d - c)
    return tl.where(there, upper + y_weight * (lower - upper), ABSENT)


@_jit
def _accumulate(masks, linear, maxima, chosen, levels, values,                          # type: ignore[no-untyped-def]
                label_out, peak_out, sums_out, largest_out, votes_out, accept_out, covered_out,
                partition_out, tanh_out, queries, height, width, columns, size, ratio_y, ratio_x,
                inverse, temper, scale, skip,
                N: tl.constexpr, CLASSES: tl.constexpr, M: tl.constexpr, V: tl.constexpr,
                N_PAD: tl.constexpr, M_PAD: tl.constexpr, V_PAD: tl.constexpr,
                ACCEPT: tl.constexpr, PARTITION: tl.constexpr, TANH: tl.constexpr,
                PIXELS: tl.constexpr, QUERIES: tl.constexpr, PRECISION: tl.constexpr):
    row = tl.program_id(1)
    column = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    inside = column < columns
    y_low, y_high, y_weight = _taps(row, ratio_y, height)
    x_low, x_high, x_weight = _taps(column, ratio_x, width)
    n, m, v = tl.arange(0, N_PAD), tl.arange(0, M_PAD), tl.arange(0, V_PAD)
    sums = tl.zeros((PIXELS, N_PAD), tl.float32)
    largest = tl.zeros((PIXELS, M_PAD), tl.float32)
    votes = tl.zeros((PIXELS, V_PAD), tl.int32)
    top = tl.full((PIXELS,), ABSENT, tl.float32)
    total = tl.zeros((PIXELS,), tl.float32)
    mean = tl.zeros((PIXELS,), tl.float32)
    for start in range(0, queries, QUERIES):
        q = start + tl.arange(0, QUERIES)
        known = q < queries
        z = _logits(masks, q, queries, x_low, x_high, x_weight, y_low, y_high, y_weight,
                    height, width, inside)
        probability = tl.where(z > ABSENT, tl.sigmoid(z), 0.0)
        weights = tl.load(linear + n[None, :] * queries + q[:, None],
                          mask=known[:, None] & (n < N)[None, :], other=0.0)
        sums = tl.dot(probability, weights, sums, input_precision=PRECISION)
        if M > 0:
            factor = tl.load(maxima + m[None, :] * queries + q[:, None],
                             mask=known[:, None] & (m < M)[None, :], other=0.0)
            largest = tl.maximum(largest, tl.max(probability[:, :, None] * factor[None, :, :], 1))
        if V > 0:
            votes_for = tl.load(chosen + v[None, :] * queries + q[:, None],
                                mask=known[:, None] & (v < V)[None, :], other=0)
            level = tl.load(levels + v, mask=v < V, other=0.0)
            hit = (z[:, :, None] > level[None, None, :]) & (votes_for[None, :, :] > 0)
            votes += tl.sum(hit.to(tl.int32), 1)
        if ACCEPT:
            value = tl.load(values + q, mask=known, other=ABSENT)
            active = (z > 0) & (value > ABSENT)[None, :]
            new = tl.maximum(top, tl.max(tl.where(active, value[None, :], ABSENT), 1))
            fade = tl.exp((top - new) * inverse)
            weight = tl.where(active, tl.exp((value[None, :] - new[:, None]) * inverse), 0.0)
            total = total * fade + tl.sum(weight, 1)
            mean = mean * fade + tl.sum(tl.where(active, weight * value[None, :], 0.0), 1)
            top = new
    pixel = row.to(tl.int64) * columns + column
    of_class = (n < CLASSES)[None, :]
    semantic = tl.where(of_class, sums, ABSENT)
    peak, label = tl.max(semantic, 1, return_indices=True, return_indices_tie_break_left=True)
    tl.store(label_out + pixel, label.to(tl.uint8), mask=inside)
    tl.store(peak_out + pixel, peak, mask=inside)
    tl.store(sums_out + (n - skip).to(tl.int64)[None, :] * size + pixel[:, None], sums,
             mask=inside[:, None] & ((n >= skip) & (n < N))[None, :])
    if M > 0:
        tl.store(largest_out + m.to(tl.int64)[None, :] * size + pixel[:, None], largest,
                 mask=inside[:, None] & (m < M)[None, :])
    if V > 0:
        tl.store(votes_out + v.to(tl.int64)[None, :] * size + pixel[:, None], votes,
                 mask=inside[:, None] & (v < V)[None, :])
    if ACCEPT:
        tl.store(accept_out + pixel, tl.where(total > 0, mean / tl.maximum(total, 1e-30), 0.0),
                 mask=inside)
        tl.store(covered_out + pixel, (total > 0).to(tl.uint8), mask=inside)
    if PARTITION:
        z_class = tl.where(of_class, (sums - peak[:, None]) * temper, 0.0)
        share = tl.where(of_class, tl.exp(z_class), 0.0)
        tl.store(partition_out + pixel, tl.sum(share, 1), mask=inside)
        tl.store(partition_out + size + pixel, tl.sum(share * z_class, 1), mask=inside)
    if TANH:
        fall = tl.exp(-2.0 * scale * tl.where(of_class, sums, 0.0))
        tl.store(tanh_out + pixel, tl.sum((1.0 - fall) / (1.0 + fall), 1), mask=inside)


@_jit
def _overlap(masks, confident, areas, shared, queries, height, width, columns, ratio_y, ratio_x,        # type: ignore[no-untyped-def]
             PIXELS: tl.constexpr, QUERIES: tl.constexpr):
    column = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    inside = column < columns
    y_low, y_high, y_weight = _taps(tl.program_id(1), ratio_y, height)
    x_low, x_high, x_weight = _taps(column, ratio_x, width)
    region = tl.zeros((PIXELS,), tl.int32)
    for start in range(0, queries, QUERIES):
        q = start + tl.arange(0, QUERIES)
        sure = tl.load(confident + q, mask=q < queries, other=0)
        z = _logits(masks, q, queries, x_low, x_high, x_weight, y_low, y_high, y_weight,
                    height, width, inside)
        hit = (z > 0) & (sure > 0)[None, :]
        region = tl.maximum(region, tl.max(hit.to(tl.int32), 1))
    for start in range(0, queries, QUERIES):
        q = start + tl.arange(0, QUERIES)
        z = _logits(masks, q, queries, x_low, x_high, x_weight, y_low, y_high, y_weight,
                    height, width, inside)
        hit = (z > 0).to(tl.int32)
        tl.atomic_add(areas + q, tl.sum(hit, 0), mask=q < queries)
        tl.atomic_add(shared + q, tl.sum(hit * region[:, None], 0), mask=q < queries)


def _grid(size: tuple[int, int]) -> tuple[int, int]:
    return -(-size[1] // PIXELS), size[0]


def _power(count: int, least: int = 1) -> int:
    return max(least, 1 << max(0, count - 1).bit_length())


def accumulate(logits: Tensor, size: tuple[int, int], vectors: QueryVectors) -> Block:
    """Return the accumulators of the whole image of `size` (H, W), on the device of the logits.

    `logits` float32 [Q,h,w], finite and contiguous.
    """
    linear, classes = vectors.linear.contiguous(), vectors.semantic.shape[1]
    skip = 0 if vectors.keep else classes
    queries, height, width = logits.shape
    accept = vectors.accept
    out = _outputs(logits.device, size, vectors, len(linear) - skip)
    levels = torch.tensor(vectors.levels, dtype=torch.float32).to(logits.device, non_blocking=True)
    values = linear if accept is None else accept.float().clamp_min(ABSENT)
    _accumulate[_grid(size)](
        logits, linear, vectors.largest.contiguous(), vectors.voters.to(torch.uint8).contiguous(),
        levels, values, *out, queries, height, width, size[1], size[0] * size[1],
        height / size[0], width / size[1], 1 / vectors.temperature,
        1 / (vectors.partition or 1.0), 1 / (vectors.tanh or 1.0), skip,
        N=len(linear), CLASSES=classes, M=len(vectors.maxima), V=len(vectors.votes),
        N_PAD=_power(len(linear), 16), M_PAD=_power(len(vectors.maxima)),
        V_PAD=_power(len(vectors.votes)), ACCEPT=accept is not None,
        PARTITION=vectors.partition is not None, TANH=vectors.tanh is not None,
        PIXELS=PIXELS, QUERIES=QUERIES, PRECISION='tf32x3')
    return _block(out, vectors, classes)


def _outputs(device: torch.device, size: tuple[int, int], vectors: QueryVectors, sums: int
             ) -> list[Tensor]:
    """Return what the kernel writes, in its order; a map that nobody wants has no memory."""
    def empty(count: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty((count, *size), dtype=dtype, device=device)

    accept = int(vectors.accept is not None)
    return [empty(1, torch.uint8), empty(1), empty(sums), empty(len(vectors.maxima)),
            empty(len(vectors.votes), torch.int32), empty(accept), empty(accept, torch.uint8),
            empty(2 * int(vectors.partition is not None)), empty(int(vectors.tanh is not None))]


def _block(out: list[Tensor], vectors: QueryVectors, classes: int) -> Block:
    label, peak, sums, largest, votes, accept, covered, partition, tanh = out
    kept = classes if vectors.keep else 0
    maps = {**dict(zip(vectors.sums, sums[kept:], strict=True)),
            **dict(zip(vectors.maxima, largest, strict=True)),
            **dict(zip(vectors.votes, votes, strict=True))}
    if vectors.accept is not None:
        maps.update(accept=accept[0], covered=covered[0].bool())
    if vectors.partition is not None:
        maps.update(partition=partition[0], spread=partition[1])
    if vectors.tanh is not None:
        maps.update(tanh=tanh[0])
    return Block(peak[0], label[0], sums[:kept], maps, vectors.frame, classes)


def support_overlap(logits: Tensor, size: tuple[int, int], confident: Tensor) -> tuple[Tensor, Tensor]:
    """Return pixels of `size` with a positive logit per query, and those in confident masks, [Q]."""
    queries, height, width = logits.shape
    counts = torch.zeros((2, queries), dtype=torch.int32, device=logits.device)
    _overlap[_grid(size)](logits, confident.to(torch.uint8), counts[0], counts[1], queries, height,
                          width, size[1], height / size[0], width / size[1],
                          PIXELS=PIXELS, QUERIES=QUERIES)
    return counts[0].long(), counts[1].long()
