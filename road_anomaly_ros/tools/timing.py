# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Time and peak memory of chains by stage, and of the dense pass beside its reference."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from road_anomaly_ros.perception import drawing
from road_anomaly_ros.perception.contract import FrameResult, MaskOutput
from road_anomaly_ros.perception.engines.base import SETTLED
from road_anomaly_ros.perception.pipeline import Pipeline
from road_anomaly_ros.perception.scorers import evaluate
from road_anomaly_ros.rendering import Drive, DriveOptions
from road_anomaly_ros.tools.environment import by_stage, percentiles
from road_anomaly_ros.tools.memory import memory_watch, peak_of
from road_anomaly_ros.tools.reference import reference_score

DENSE_SCORERS = ('plain', 'eam', 's2')
QUERIES, CLASSES, STRIDE = 100, 19, 4
DENSE_RUNS = 5
_DISTINCT = 12  # rendered frames per size, shown in turn
_STAGES = ('upload', 'segment', 'score', 'refine', 'objects', 'total', 'draw')


def chain_rows(
    pipeline: Pipeline, sizes: Sequence[tuple[int, int]], also: Sequence[str], frames: int
) -> Iterator[dict[str, Any]]:
    """Yield one row of figures per size and scorer, the default chain first."""
    base = pipeline.config
    for width, height in sizes:
        pictures = rendered(width, height, min(frames, _DISTINCT))
        for scorer in (None, *also):
            changes = {'scorer': scorer, 'refinements': ('none',)} if scorer else {}
            pipeline.reconfigure(base.replace(changes))
            yield chain_row(pipeline, pictures, frames)
    pipeline.reconfigure(base)


def rendered(width: int, height: int, count: int) -> list[np.ndarray]:
    """Return pictures of the rendered drive, a second apart."""
    drive = Drive(DriveOptions(width=width, height=height, frames=count, fps=1.0))
    return [view.image for view in drive]


def chain_row(pipeline: Pipeline, pictures: Sequence[np.ndarray], frames: int) -> dict[str, Any]:
    """Return times (p50, p99 in ms) and peaks of memory (MiB) per stage for one configuration."""
    for _ in range(min(SETTLED, frames)):
        pipeline.warm_up(pictures[0].shape[:2])
    times = []
    for picture in itertools.islice(itertools.cycle(pictures), frames):
        result = pipeline(picture)
        times.append({**result.timings, 'draw': draw(pipeline, result)})
    stages, peaks = by_stage(times), stage_memory(pipeline, pictures[0])
    total = stages['total']['p50']
    return {
        'size': list(pictures[0].shape[1::-1]),
        'scorer': pipeline.chain.scorer,
        'refinements': list(pipeline.chain.refinements),
        'frames': frames,
        'fps': round(1e3 / total, 2),
        'stages': {
            name: {**stages[name], 'peak_mb': peaks.get(name)}
            for name in _STAGES
            if name in stages
        },
    }


def draw(pipeline: Pipeline, result: FrameResult) -> float:
    """Return the milliseconds that the overlay takes."""
    options = pipeline.chain.options('drawing')
    begin = time.perf_counter()
    drawing.overlay(result, options)
    return (time.perf_counter() - begin) * 1e3


def stage_memory(pipeline: Pipeline, picture: np.ndarray) -> dict[str, float]:
    """Return the peak of memory of each stage in MiB, beyond what is held before it."""
    watch, peaks = memory_watch()
    (result,) = pipeline.batch([picture], stopwatch=watch)
    _, peak = peak_of(lambda: draw(pipeline, result), pipeline.device)
    if peaks:
        peaks['total'] = max(peaks.values())
    if peak is not None:
        peaks['draw'] = peak
    return {stage: round(peak, 1) for stage, peak in peaks.items()}


def dense_rows(sizes: Sequence[tuple[int, int]], device: torch.device) -> Iterator[dict[str, Any]]:
    """Yield the comparison of the dense pass with the reference per size and scorer."""
    for width, height in sizes:
        output = random_output(width, height, device)
        for scorer in DENSE_SCORERS:
            yield dense_row(output, scorer)


def random_output(width: int, height: int, device: torch.device) -> MaskOutput:
    """Return queries with smooth random masks and sure classes, as a trained network does."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, QUERIES, 6, 8, generator=generator)
    masks = (
        torch.nn.functional.interpolate(
            coarse, (-(-height // STRIDE), -(-width // STRIDE)), mode='bicubic'
        )[0]
        * 8
        - 6
    )
    classes = torch.randn(QUERIES, CLASSES + 1, generator=generator) * 6
    return MaskOutput(classes.to(device), masks.to(device), (height, width))


def dense_row(output: MaskOutput, scorer: str) -> dict[str, Any]:
    """Return time and memory of both ways to one score, and how far their values lie apart."""
    device = output.mask_logits.device

    def ours() -> torch.Tensor:
        return evaluate(output, scorer).score

    def theirs(dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return reference_score(
            scorer, output.class_logits, output.mask_logits, output.image_size, dtype
        )

    with torch.inference_mode():
        mine, reference = measure(ours, device), measure(theirs, device)
        apart = float((ours() - theirs(torch.float64)).abs().max())
    height, width = output.image_size
    return {
        'size': [width, height],
        'scorer': scorer,
        'queries': QUERIES,
        'classes': CLASSES,
        'dense': mine,
        'reference': reference,
        'max_difference': apart,
        'speedup': round(reference['p50'] / mine['p50'], 2),
    }


def measure(
    work: Callable[[], Any], device: torch.device, runs: int = DENSE_RUNS
) -> dict[str, float | None]:
    """Return p50 and p99 of the milliseconds that `work` takes, and its peak of memory in MiB."""
    _, peak = peak_of(work, device)
    times = []
    for _ in range(runs):
        begin = time.perf_counter()
        work()
        if device.type == 'cuda':
            torch.cuda.synchronize(device)
        times.append((time.perf_counter() - begin) * 1e3)
    return {**percentiles(times), 'peak_mb': None if peak is None else round(peak, 1)}
