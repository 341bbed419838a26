# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Measure time and peak memory of every stage on this machine.

First the whole chain on rendered frames, then the dense pass alone against the reference that
stores the resized stack of masks, on random queries (the published 100 queries, 19 classes and
quarter resolution), in the same run and with the largest difference from its float64 form.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from road_anomaly_ros.files import write_json
from road_anomaly_ros.tools.chain import add_chain_arguments, chain_config, positive, size
from road_anomaly_ros.tools.markdown import table

if TYPE_CHECKING:
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add('-o', '--out', metavar='JSON', type=Path, help='also write the figures')
    add(
        '--frames',
        metavar='N',
        type=positive,
        default=50,
        help='frames per size and scorer (default: %(default)s)',
    )
    add(
        '--size',
        metavar='WxH',
        type=size,
        nargs='+',
        help='sizes of the pictures (default: 480x360 960x540, the dense pass at 1920x1080 too)',
    )
    add(
        '--scorers',
        metavar='A,B',
        default='',
        help='measure these scorers on the same model as well',
    )
    add('--skip-dense', action='store_true', help='leave out the comparison with the reference')
    add(
        '--refinements-too',
        action='store_true',
        help='compare the refinements with their literal loops (half a minute)',
    )
    add(
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
    from road_anomaly_ros.tools import environment, timing

    also = [name.strip() for name in arguments.scorers.split(',') if name.strip()]
    for name in also:
        SCORERS[name]
    pipeline = Pipeline.from_config(chain_config(arguments))
    made_on = environment.record(pipeline.device)
    print(environment.heading(made_on))
    document = {'environment': made_on, 'model': pipeline.chain.model}
    if arguments.methods:
        document |= _methods(pipeline, arguments.size, arguments.frames)
    else:
        document |= _chain(pipeline, arguments.size, also, arguments.frames)
        if not arguments.skip_dense:
            document['dense'] = list(
                timing.dense_rows(arguments.size or DENSE_SIZES, pipeline.device)
            )
            print(_dense_table(document['dense']))
        if arguments.refinements_too:
            from road_anomaly_ros.tools.bench_refine import refine_rows, refine_table

            document['refinements'] = list(refine_rows(pipeline.device))
            print(refine_table(document['refinements']))
    if arguments.out is not None:
        write_json(arguments.out, document)
    return 0


def _chain(
    pipeline: Pipeline, sizes: Sequence[tuple[int, int]] | None, also: Sequence[str], frames: int
) -> dict[str, Any]:
    """Measure the chain and print its tables; returns the figures."""
    from road_anomaly_ros.tools import timing

    rows = []
    for row in timing.chain_rows(pipeline, sizes or SIZES, also, frames):
        rows.append(row)
        print(_chain_table(row), flush=True)
    return {'chain': rows, 'dense': []}


def _methods(
    pipeline: Pipeline, sizes: Sequence[tuple[int, int]] | None, frames: int
) -> dict[str, Any]:
    """Measure each method alone at the first size, 480x360 by default; returns the figures."""
    from road_anomaly_ros.tools import methods

    size, rows = sizes[0] if sizes else methods.SIZE, []
    print('\n| kind | name | p50 ms | peak MiB |\n| --- | --- | ---: | ---: |')
    for row in methods.method_rows(pipeline, size, frames):
        rows.append(row)
        print(
            f'| {row["kind"]} | {row["name"]} | {row["p50"]:.1f} | {_number(row["peak_mb"])} |',
            flush=True,
        )
    return {'size': list(size), 'methods': rows}


def _chain_table(row: dict[str, Any]) -> str:
    """Return one configuration's figures as a Markdown table."""
    chain = ' + '.join([row['scorer'], *row['refinements']])
    width, height = row['size']
    lines = [
        (name, f'{stage["p50"]:.1f}', f'{stage["p99"]:.1f}', _number(stage['peak_mb']))
        for name, stage in row['stages'].items()
    ]
    return (
        f'\n{width}x{height}, {chain}: {row["fps"]:g} frames/s, {row["frames"]} frames\n\n'
        + table(('stage', 'p50 ms', 'p99 ms', 'peak MiB'), lines, 3)
    )


_DENSE = ('size', 'scorer', 'dense ms', 'reference ms', 'faster', 'dense MiB', 'reference MiB')


def _dense_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the comparison with the reference as a Markdown table."""
    lines = []
    for row in rows:
        ours, theirs = row['dense'], row['reference']
        lines.append(
            (
                f'{row["size"][0]}x{row["size"][1]}',
                row['scorer'],
                f'{ours["p50"]:.1f}',
                f'{theirs["p50"]:.1f}',
                f'{row["speedup"]:.1f}x',
                _number(ours['peak_mb']),
                _number(theirs['peak_mb']),
                f'{row["max_difference"]:.1e}',
            )
        )
    return (
        f'\ndense pass (labels and score) against the materialising reference (score alone), '
        f'{rows[0]["queries"]} queries, {rows[0]["classes"]} classes\n\n'
        + table((*_DENSE, 'largest difference'), lines, 6)
    )


def _number(value: float | None) -> str:
    return 'unknown' if value is None else f'{value:.0f}'
