# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Measure the engines: the built-in model and two of common size through each that is installed.

The others have random weights, which cost the same time. With --data the built-in model's AP
through each engine is measured too; what an engine of lower precision costs is told by it alone.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from road_anomaly_ros.files import write_json
from road_anomaly_ros.tools.chain import positive, size

EXAMPLES = """
examples:
  road-anomaly bench --engines
  road-anomaly bench --engines --data real_anomalies/road_anomaly -o engines.json
"""
SIZES = ((480, 352), (960, 544))
_HEAD = '| network | size | engine | ms | against torch | difference | AP |\n'
_RULE = '| --- | --- | --- | ---: | ---: | ---: | ---: |'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add('-o', '--out', metavar='JSON', type=Path, help='also write the figures')
    add('--rounds', metavar='N', type=positive, default=20, help='images (default: %(default)s)')
    sizes = 'size of the images, in multiples of 32; may be given several times'
    add('--size', metavar='WxH', type=size, action='append', help=sizes)
    add('--network', action='append', metavar='NAME', help='one of those measured; may be several')
    add('--data', metavar='DIR', type=Path, help='data set of which AP is measured')
    add('--layout', default='folder', help='layout of the data set, as evaluate takes it')
    add('--max-frames', metavar='N', type=positive, help='images of the data set')


def main(arguments: argparse.Namespace) -> int:
    """Run the command; prints a table, writes JSON if asked to, returns 0."""
    from road_anomaly_ros.evaluation import bench_engines as bench
    from road_anomaly_ros.tools import environment

    names = arguments.network or [*bench.NETWORKS]
    unknown = [name for name in names if name not in bench.NETWORKS]
    if unknown:
        raise ValueError(f'unknown network {unknown[0]!r}; choose one of {[*bench.NETWORKS]}')
    document: dict[str, Any] = {'environment': environment.record(), 'engines': []}
    print(f'{environment.heading(document["environment"])}\n\n{_HEAD}{_RULE}', flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        known: dict[str, float | None] = {}
        for name in names:
            for row in bench.rows(name, arguments.size or SIZES, arguments.rounds, folder):
                row['AP'] = _precision(row, known, arguments, folder)
                document['engines'].append(row)
                print(_line(row), flush=True)
    if arguments.out is not None:
        write_json(arguments.out, document)
    return 0


def _precision(
    row: dict[str, Any],
    known: dict[str, float | None],
    arguments: argparse.Namespace,
    folder: Path,
) -> float | None:
    from road_anomaly_ros.evaluation import bench_engines as bench

    engine = row['engine']
    if arguments.data is None or row['network'] != bench.BUILTIN:
        return None
    if engine not in known:
        known[engine] = bench.precision(
            engine, arguments.data, arguments.layout, arguments.max_frames, folder
        )
    return known[engine]


def _line(row: dict[str, Any]) -> str:
    width, height = row['size']
    difference = '' if row['difference'] is None else f'{row["difference"]:.1e}'
    precision = '' if row['AP'] is None else f'{row["AP"]:.1f}'
    return (
        f'| {row["network"]} | {width}x{height} | {row["engine"]} | {row["ms"]:.1f} | '
        f'{row["against_torch"]:.2f} | {difference} | {precision} |'
    )
