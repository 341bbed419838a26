# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Measure time and peak memory of every stage on this machine.

First the whole chain on rendered frames, then the dense pass alone against the reference that
stores the resized stack of masks, on random queries (the published 100 queries, 19 classes and
quarter resolution), in the same run and with the largest difference from its float64 form.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from road_anomaly_ros.files import write_json
from road_anomaly_ros.tools.chain import add_chain_arguments, chain_config, positive, size

if TYPE_CHECKING:
    import numpy as np
    import torch

    from road_anomaly_ros.perception.contract import FrameResult, MaskOutput
    from road_anomaly_ros.perception.pipeline import Pipeline

EXAMPLES = """
examples:
  road-anomaly bench
  road-anomaly bench --size 960x540 --frames 200 -o bench.json
  road-anomaly bench --methods -o methods.json
  road-anomaly bench --scorers plain,rba,s2 --skip-dense
"""
SIZES = ((480, 360), (960, 540))
DENSE_SIZES = (*SIZES, (1920, 1080))
DENSE_SCORERS = ('plain', 'eam', 's2')
QUERIES, CLASSES, STRIDE = 100, 19, 4
DENSE_RUNS = 5
_DISTINCT = 12  # rendered frames per size, shown in turn
_STAGES = ('upload', 'segment', 'score', 'refine', 'objects', 'total', 'draw')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('-o', '--out', metavar='JSON', type=Path, help='also write the figures')
    parser.add_argument(
        '--frames',
        metavar='N',
        type=positive,
        default=50,
        help='frames per size and scorer (default: %(default)s)',
    )
    parser.add_argument(
        '--size',
        metavar='WxH',
        type=size,
        nargs='+',
        help='sizes of the pictures (default: 480x360 960x540, the dense pass at 1920x1080 too)',
    )
    parser.add_argument(
        '--scorers',
        metavar='A,B',
        default='',
        help='measure these scorers on the same model as well',
    )
    parser.add_argument(
        '--skip-dense', action='store_true', help='leave out the comparison with the reference'
    )
    parser.add_argument(
        '--refinements-too',
        action='store_true',
        help='compare the refinements with their literal loops (half a minute)',
    )
    parser.add_argument(
        '--methods',
        action='store_true',
        help='measure every scorer, refinement, and what else works without '
        'further weights, instead',
    )
    add_chain_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    """Run the command; prints tables, writes JSON if asked to, returns 0."""
    from road_anomaly_ros.perception.pipeline import Pipeline
    from road_anomaly_ros.perception.scorers import SCORERS
    from road_anomaly_ros.tools import environment

    also = [name.strip() for name in arguments.scorers.split(',') if name.strip()]
    for name in also:
        SCORERS[name]
    pipeline = Pipeline.from_config(chain_config(arguments))
    document: dict[str, Any] = {
        'environment': {
            **environment.machine(pipeline.device),
            **environment.versions(),
            'load_at_start': round(os.getloadavg()[0], 2),
        },
        'model': pipeline.chain.model,
        'chain': [],
        'dense': [],
    }
    print(heading(document['environment']))
    if arguments.methods:
        return measure_methods(pipeline, document, arguments)
    for row in chain_rows(pipeline, arguments.size or SIZES, also, arguments.frames):
        document['chain'].append(row)
        print(chain_table(row), flush=True)
    if not arguments.skip_dense:
        rows = dense_rows(arguments.size or DENSE_SIZES, pipeline.device)
        document['dense'] = list(rows)
        print(dense_table(document['dense']))
    if arguments.refinements_too:
        from road_anomaly_ros.tools.bench_refine import refine_rows, refine_table

        document['refinements'] = list(refine_rows(pipeline.device))
        print(refine_table(document['refinements']))
    if arguments.out is not None:
        write_json(arguments.out, document)
    return 0


def measure_methods(
    pipeline: Pipeline, document: dict[str, Any], arguments: argparse.Namespace
) -> int:
    """Measure each method alone at the first size asked for, 480x360 by default; returns 0."""
    from road_anomaly_ros.tools import methods

    size = arguments.size[0] if arguments.size else methods.SIZE
    figures = {
        'environment': document['environment'],
        'model': document['model'],
        'size': list(size),
        'methods': [],
    }
    print('\n| kind | name | p50 ms | peak MiB |\n| --- | --- | ---: | ---: |')
    for row in methods.method_rows(pipeline, size, arguments.frames):
        figures['methods'].append(row)
        print(
            f'| {row["kind"]} | {row["name"]} | {row["p50"]:.1f} | {_number(row["peak_mb"])} |',
            flush=True,
        )
    if arguments.out is not None:
        write_json(arguments.out, figures)
    return 0


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
    from road_anomaly_ros.rendering import Drive, DriveOptions

    drive = Drive(DriveOptions(width=width, height=height, frames=count, fps=1.0))
    return [view.image for view in drive]


def chain_row(pipeline: Pipeline, pictures: Sequence[np.ndarray], frames: int) -> dict[str, Any]:
    """Return times (p50, p99 in ms) and peaks of memory (MiB) per stage for one configuration."""
    from road_anomaly_ros.tools.environment import by_stage

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
    from road_anomaly_ros.perception import drawing

    options = pipeline.chain.options('drawing')
    begin = time.perf_counter()
    drawing.overlay(result, options)
    return (time.perf_counter() - begin) * 1e3


def stage_memory(pipeline: Pipeline, picture: np.ndarray) -> dict[str, float]:
    """Return the peak of memory of each stage in MiB, beyond what is held before it."""
    from road_anomaly_ros.tools.memory import memory_watch, peak_of

    before = pipeline.stopwatch
    pipeline.stopwatch, peaks = memory_watch()
    try:
        result = pipeline(picture)
    finally:
        pipeline.stopwatch = before
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
    import torch

    from road_anomaly_ros.perception.contract import MaskOutput

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
    import torch

    from road_anomaly_ros.perception.scorers import evaluate
    from road_anomaly_ros.tools.reference import reference_score

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
    import torch

    from road_anomaly_ros.tools.environment import percentiles
    from road_anomaly_ros.tools.memory import peak_of

    _, peak = peak_of(work, device)
    times = []
    for _ in range(runs):
        begin = time.perf_counter()
        work()
        if device.type == 'cuda':
            torch.cuda.synchronize(device)
        times.append((time.perf_counter() - begin) * 1e3)
    return {**percentiles(times), 'peak_mb': None if peak is None else round(peak, 1)}


def heading(environment: dict[str, Any]) -> str:
    """Return what the figures were measured on, in one line."""
    where = environment.get('gpu') or environment['cpu']
    return (
        f'{where}, {environment["cores"]} cores, {environment["threads"]} threads, '
        f'torch {environment["torch"]}, load {environment["load_at_start"]:g}'
    )


def chain_table(row: dict[str, Any]) -> str:
    """Return one configuration's figures as a Markdown table."""
    chain = ' + '.join([row['scorer'], *row['refinements']])
    lines = [
        f'\n{row["size"][0]}x{row["size"][1]}, {chain}: {row["fps"]:g} frames/s, '
        f'{row["frames"]} frames',
        '',
        '| stage | p50 ms | p99 ms | peak MiB |',
        '| --- | ---: | ---: | ---: |',
    ]
    for name, stage in row['stages'].items():
        lines.append(
            f'| {name} | {stage["p50"]:.1f} | {stage["p99"]:.1f} | {_number(stage["peak_mb"])} |'
        )
    return '\n'.join(lines)


def dense_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the comparison with the reference as a Markdown table."""
    lines = [
        f'\ndense pass (labels and score) against the materialising reference (score alone), '
        f'{QUERIES} queries, {CLASSES} classes',
        '',
        '| size | scorer | dense ms | reference ms | faster | dense MiB | reference MiB '
        '| largest difference |',
        '| --- | --- ' + '| ---: ' * 6 + '|',
    ]
    for row in rows:
        ours, theirs = row['dense'], row['reference']
        lines.append(
            f'| {row["size"][0]}x{row["size"][1]} | {row["scorer"]} | {ours["p50"]:.1f} '
            f'| {theirs["p50"]:.1f} | {row["speedup"]:.1f}x | {_number(ours["peak_mb"])} '
            f'| {_number(theirs["peak_mb"])} | {row["max_difference"]:.1e} |'
        )
    return '\n'.join(lines)


def _number(value: float | None) -> str:
    return 'unknown' if value is None else f'{value:.0f}'
