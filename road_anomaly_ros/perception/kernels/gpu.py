# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The dense pass on CUDA as one Triton kernel: taps, sigmoid, reductions, one store per map.

Nothing is read back, so that no call waits for the device. Where the kernel cannot be built
(Triton needs a C compiler on the machine) torch does the work. What counted is that a thread
reads neighbouring queries and that nothing wide is stored unasked (docs/performance.md).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor

from road_anomaly_ros.perception.kernels.vectors import Accumulators, Block, QueryVectors
from road_anomaly_ros.perception.resources import Resources, is_out_of_memory

try:
    from road_anomaly_ros.perception.kernels import programs
except ImportError:  # Triton comes with the CUDA builds of torch only
    programs = None  # type: ignore[assignment]

PIXELS = 128  # of a program
ROWS = 4  # of them between two rows of masks; the published masks have a quarter of the rows
QUERIES = 16
WARPS = 4
STAGES = 1
WALK = 4096  # values of a program that only reads and writes
TURNED = 128  # pixels of a program that brings the queries last
FAST = os.environ.get('TRITON_INTERPRET') != '1'  # the interpreter knows no assembler

Result = TypeVar('Result')


def available(device: torch.device) -> bool:
    """Tell whether there are kernels for `device`."""
    return programs is not None and device.type == 'cuda'


def attempt(
    resources: Resources, kernel: Callable[..., Result], given: Tensor, *arguments: object
) -> Result | None:
    """Return kernel(given, *arguments), or None where it does not run on the device of `given`.

    What fails once is not tried again with these `resources`. Raises what means that the device
    is out of memory: that passes, and is for those who can free some.
    """
    if not available(given.device) or resources.refuses(kernel.__name__):
        return None
    try:
        return kernel(given, *arguments)
    except Exception as error:  # Triton raises of its own, and of the C compiler
        if is_out_of_memory(error):
            raise
        resources.fail(kernel.__name__, error)
        return None


def _tiles(size: tuple[int, int], height: int) -> tuple[tuple[int, int], int, dict[str, int]]:
    """Return the grid, the programs that share two mask rows, and the shape of their tiles."""
    scale = size[0] / height
    rows = min(ROWS, 1 << max(0, round(math.log2(scale))))
    columns = PIXELS // rows
    most = min(size[0], math.ceil(1.5 * scale) + 1)  # the first row and the last have more
    parts = -(-most // rows)
    shape = {'ROWS': rows, 'COLUMNS': columns, 'QUERIES': QUERIES}
    return (-(-size[1] // columns), height * parts), parts, shape


def _power(count: int, least: int = 1) -> int:
    return max(least, 1 << max(0, count - 1).bit_length())


def clean_planes(logits: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    """Return bounded float32 planes and the number of values that were not finite, in one walk."""
    logits = logits.contiguous()
    out = torch.empty(logits.shape, dtype=torch.float32, device=logits.device)
    repaired = torch.zeros((), dtype=torch.int64, device=logits.device)
    size = logits.numel()
    if size:
        programs.clean_planes[(-(-size // WALK),)](
            logits, out, repaired, size, LIMIT=limit, BLOCK=WALK, num_warps=8
        )
    return out, repaired


def clean_masks(logits: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    """Do the same for mask logits [Q,h,w], which are returned as a view with the queries last."""
    logits = logits.contiguous()
    out = _queries_last(logits)
    repaired = torch.zeros((), dtype=torch.int64, device=logits.device)
    queries, size = len(logits), logits[0].numel() if len(logits) else 0
    if queries and size:
        padded = out.stride(2)
        shape = {'Q_PAD': padded, 'QUERIES': QUERIES, 'PIXELS': TURNED}
        programs.clean_masks[(-(-size // TURNED), padded // QUERIES)](
            logits, out, repaired, queries, size, LIMIT=limit, **shape
        )
    return out, repaired


def _queries_last(logits: Tensor) -> Tensor:
    """Return room for such masks, as a view [Q,h,w] of memory [h,w,Q and its padding]."""
    queries, height, width = logits.shape
    memory = torch.empty((height, width, _padded(queries)), device=logits.device)
    return memory.permute(2, 0, 1)[:queries]


def _turned(logits: Tensor) -> Tensor:
    """Return masks [Q,h,w] whose queries are last in memory: themselves, or a copy."""
    queries, _, width = logits.shape
    padded = _padded(queries)
    if logits.dtype == torch.float32 and logits.stride() == (1, width * padded, padded):
        return logits
    return clean_masks(logits, math.inf)[0]


def _padded(queries: int) -> int:
    return -(-queries // QUERIES) * QUERIES


def clean_classes(logits: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    """Do the same for class logits [Q,K+1], of which a row may become void."""
    logits = logits.contiguous()
    out = torch.empty(logits.shape, dtype=torch.float32, device=logits.device)
    repaired = torch.zeros((), dtype=torch.int64, device=logits.device)
    queries, columns = logits.shape
    if queries:
        programs.clean_classes[(queries,)](
            logits, out, repaired, columns, LIMIT=limit, COLUMNS=_power(columns), num_warps=1
        )
    return out, repaired


def accumulate(logits: Tensor, size: tuple[int, int], vectors: QueryVectors) -> Block:
    """Return the accumulators of the whole image of `size` (H, W), on the device of the logits.

    `logits` float32 [Q,h,w], finite, best as `clean_masks` returns them.
    """
    logits = _turned(logits)
    queries, height, width = logits.shape
    weights = vectors.weights._asdict()
    linear, out = weights.pop('linear'), Accumulators.room(vectors, size, logits.device)
    halves, scales, padded = _split(linear)
    grid, parts, shape = _tiles(size, height)
    shapes = queries, height, width, *size, size[0] * size[1], parts
    programs.accumulate[grid](
        *(logits, halves, scales, *shapes, height / size[0], width / size[1]),
        **_arguments('by', weights),
        **_arguments('out', out._replace(covered=out.covered.view(torch.uint8))._asdict()),
        **{f'{name}_factor': factor for name, factor in vectors.factors._asdict().items()},
        N=len(linear),
        CLASSES=vectors.classes,
        M=len(vectors.maxima),
        V=len(vectors.votes),
        N_PAD=len(scales),
        Q_PAD=padded,
        FAST=FAST,
        num_warps=WARPS,
        num_stages=STAGES,
        **shape,
    )
    return out.block(vectors)


def _arguments(role: str, planes: Mapping[str, Tensor]) -> dict[str, Tensor | None]:
    """Return named tensors as a kernel's arguments; None stands for those of no rows."""
    return {f'{name}_{role}': part if len(part) else None for name, part in planes.items()}


def _split(linear: Tensor) -> tuple[Tensor, Tensor, int]:
    """Return weights [N,Q] as float16 halves, what undoes their scale, and Q with its padding."""
    rows, queries = linear.shape
    padded, height = _padded(queries), _power(rows, 16)
    halves = torch.empty((2, padded, height), dtype=torch.float16, device=linear.device)
    scales = torch.empty(height, device=linear.device)
    shape = {'N': rows, 'N_PAD': height, 'BLOCK': _power(padded), 'Q_PAD': padded}
    programs.split_weights[(height,)](linear, halves, scales, queries, num_warps=1, **shape)
    return halves, scales, padded


def support_overlap(
    logits: Tensor, size: tuple[int, int], confident: Tensor
) -> tuple[Tensor, Tensor]:
    """Return per query the pixels with a positive logit, and those in confident masks [Q]."""
    logits = _turned(logits)
    queries, height, width = logits.shape
    counts = torch.zeros(queries, dtype=torch.int64, device=logits.device)
    grid, parts, shape = _tiles(size, height)
    shapes = queries, height, width, *size, parts
    programs.overlap[grid](
        *(logits, confident.to(torch.uint8), counts, *shapes, height / size[0], width / size[1]),
        Q_PAD=_padded(queries),
        num_warps=WARPS,
        **shape,
    )
    return counts & 0xFFFFFFFF, counts >> 32
