# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The refinements against the loops that their papers describe, mask by mask and pixel by pixel.

The literal forms are here for benchmarks only. Each runs once (they take seconds), ours several
times, on one smooth random score and random masks that overlap, all in one process.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import torch

from road_anomaly_ros.perception.refinements import refine

WIDTH, HEIGHT, MASKS = 1280, 720, 100
BETA = 50.0
RUNS = 5

Rows = list[list[float]]
Masks = list[list[list[bool]]]


def refine_rows(
    device: torch.device, *, width: int = WIDTH, height: int = HEIGHT, masks: int = MASKS
) -> Iterator[dict[str, Any]]:
    """Yield per refinement: milliseconds of both forms, their ratio, the largest difference."""
    score, stack = random_score(width, height), random_masks(width, height, masks)
    values, held = torch.from_numpy(score).to(device), torch.from_numpy(stack).to(device)
    filled = refine('oasc', values, held)
    lists = stack.tolist()
    literal: dict[str, tuple[torch.Tensor, Callable[[Rows], Rows]]] = {
        'variance_aware': (values, lambda rows: literal_variance_aware(rows, lists)),
        'oasc': (values, lambda rows: literal_oasc(rows, lists)),
        'mbp': (filled, literal_mbp),
    }
    for name, (given, loop) in literal.items():
        options = {'gauss_ksize': 1} if name == 'mbp' else {}
        given_masks = None if name == 'mbp' else held
        ours = [
            _timed(lambda: refine(name, given, given_masks, **options), device)  # noqa: B023
            for _ in range(RUNS)
        ]
        rows = given.cpu().double().tolist()
        begin = time.perf_counter()
        expected = loop(rows)
        theirs = (time.perf_counter() - begin) * 1e3
        median = sorted(spent for spent, _ in ours)[RUNS // 2]
        apart = np.abs(ours[0][1].cpu().numpy() - np.array(expected)).max()
        yield {
            'refinement': name,
            'size': [width, height],
            'masks': masks,
            'p50': median,
            'literal': theirs,
            'speedup': round(theirs / median, 1),
            'max_difference': float(apart),
        }


def refine_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the comparison as a Markdown table."""
    lines = [
        f'\nrefinements against their literal loops, {rows[0]["masks"]} masks',
        '',
        '| size | refinement | ms | literal ms | faster | largest difference |',
        '| --- | --- ' + '| ---: ' * 4 + '|',
    ]
    for row in rows:
        lines.append(
            f'| {row["size"][0]}x{row["size"][1]} | {row["refinement"]} | {row["p50"]:.1f} '
            f'| {row["literal"]:.0f} | {row["speedup"]:.0f}x | {row["max_difference"]:.1e} |'
        )
    return '\n'.join(lines)


def random_score(width: int, height: int) -> np.ndarray:
    """Return a smooth score [H, W] float32 in 0..1 with fine noise."""
    rng = np.random.default_rng(0)
    coarse = cv2.resize(rng.random((9, 16), dtype=np.float32), (width, height))
    return (0.9 * coarse + 0.1 * rng.random((height, width), dtype=np.float32)).astype(np.float32)


def random_masks(width: int, height: int, count: int) -> np.ndarray:
    """Return filled ellipses of all sizes, [N, H, W] bool."""
    rng = np.random.default_rng(1)
    stack = np.zeros((count, height, width), np.uint8)
    for mask in stack:
        reach = height * 0.5 * rng.random() ** 2 + 4
        axes = (int(reach * rng.uniform(0.5, 1.5)), int(reach * rng.uniform(0.5, 1.5)))
        center = (int(rng.integers(width)), int(rng.integers(height)))
        cv2.ellipse(mask, center, axes, rng.uniform(0, 180), 0, 360, 1, -1)
    return stack.astype(bool)


def literal_variance_aware(rows: Rows, masks: Masks) -> Rows:
    """Equation 12 as written, larger segments first, statistics of the input."""
    result = [row[:] for row in rows]
    for mask in sorted(masks, key=_area, reverse=True):
        area = _area(mask)
        total = 0.0
        for y, row in enumerate(mask):
            for x, held in enumerate(row):
                if held:
                    total += rows[y][x]
        mean, total = total / area, 0.0
        for y, row in enumerate(mask):
            for x, held in enumerate(row):
                if held:
                    total += (rows[y][x] - mean) ** 2
        pull = math.exp(-BETA * total / area)
        for y, row in enumerate(mask):
            for x, held in enumerate(row):
                if held:
                    result[y][x] = pull * mean + (1 - pull) * rows[y][x]
    return result


def literal_oasc(rows: Rows, masks: Masks) -> Rows:
    """Every mask filled with its mean, smaller ones first."""
    result = [row[:] for row in rows]
    for mask in sorted(masks, key=_area):
        total = 0.0
        for y, row in enumerate(mask):
            for x, held in enumerate(row):
                if held:
                    total += rows[y][x]
        mean = total / _area(mask)
        for y, row in enumerate(mask):
            for x, held in enumerate(row):
                if held:
                    result[y][x] = mean
    return result


def literal_mbp(rows: Rows) -> Rows:
    """The raster loop over inner pixels, in place, without the final blur."""
    result = np.array(rows, np.float32)
    edges = cv2.Laplacian(result, cv2.CV_32F)
    for y in range(1, result.shape[0] - 1):
        for x in range(1, result.shape[1] - 1):
            if edges[y, x] > 0:
                flat = edges[y - 1 : y + 2, x - 1 : x + 2] == 0
                if flat.any():
                    result[y, x] = result[y - 1 : y + 2, x - 1 : x + 2][flat].mean()
    return result.tolist()


def _area(mask: list[list[bool]]) -> int:
    return sum(map(sum, mask))


def _timed(work: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    begin = time.perf_counter()
    result = work()
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    return (time.perf_counter() - begin) * 1e3, result
