# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Measure the engines: the built-in model and two of common size through each that is installed.

The others have random weights, which cost the same time. With --data the built-in model's AP
through each engine is measured too; what an engine of lower precision costs is told by it alone.
It takes a quarter of an hour; with --add networks and sizes may be measured one by one.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import tqdm

from road_anomaly_ros.files import write_json
from road_anomaly_ros.tools import engines
from road_anomaly_ros.tools.chain import positive
from road_anomaly_ros.tools.chain import size as read_size

EXAMPLES = """
examples:
  road-anomaly bench --engines
  road-anomaly bench --engines --layout road_anomaly --data real_anomalies/road_anomaly
"""
SIZES = ((480, 352), (960, 544))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add('-o', '--out', metavar='JSON', type=Path, help='also write the figures')
    add('--add', action='store_true', help='keep those of the file that are not measured now')
    add('--rounds', metavar='N', type=positive, default=20, help='images (default: %(default)s)')
    sizes = 'size of the images, in multiples of 32; may be given several times'
    add('--size', metavar='WxH', type=read_size, action='append', help=sizes)
    add('--network', action='append', metavar='NAME', help='one of those measured; may be several')
    data = 'data set of which AP is measured; may be several'
    add('--data', metavar='DIR', type=Path, action='append', default=[], help=data)
    add('--layout', default='folder', help='layout of the data sets, as evaluate takes it')
    add('--max-frames', metavar='N', type=positive, help='images of each data set')


def main(arguments: argparse.Namespace) -> int:
    """Run the command; prints a table, writes JSON if asked to, returns 0."""
    from road_anomaly_ros.evaluation import bench_engines as bench
    from road_anomaly_ros.tools import environment

    names = arguments.network or [*bench.NETWORKS]
    unknown = [name for name in names if name not in bench.NETWORKS]
    if unknown:
        raise ValueError(f'unknown network {unknown[0]!r}; choose one of {[*bench.NETWORKS]}')
    if arguments.add and arguments.out is None:
        raise ValueError('--add: expected the file to be added to, got none; name it with -o')
    made_on, rows = environment.record(), []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pairs = [(name, size) for name in names for size in arguments.size or SIZES]
        for name, size in tqdm.tqdm(pairs, unit='network', disable=None):
            rows += bench.rows(name, size, arguments.rounds, folder)
        known = _precision(arguments, rows, folder)
    for row in rows:
        row['AP'] = known.get(row['engine']) if row['network'] == bench.BUILTIN else None
    print(f'{environment.heading(made_on)}\n\n{engines.details(rows)}')
    if arguments.out is not None:
        kept = _kept(arguments.out, rows) if arguments.add else []
        found = sorted([*kept, *rows], key=lambda row: [*bench.NETWORKS].index(row['network']))
        write_json(arguments.out, {'environment': made_on, 'engines': found})
    return 0


def _precision(
    arguments: argparse.Namespace, rows: list[dict[str, Any]], folder: Path
) -> dict[str, dict[str, float | None]]:
    """Return the AP in percent of the built-in model by engine and data set."""
    from road_anomaly_ros.evaluation import bench_engines as bench

    asked = dict.fromkeys(row['engine'] for row in rows if row['network'] == bench.BUILTIN)
    given = arguments.layout, arguments.max_frames, folder
    return {
        engine: {data.name: bench.precision(engine, data, *given) for data in arguments.data}
        for engine in asked
    }


def _kept(path: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of a file whose network and size are not among those measured now."""
    anew = {(row['network'], *row['size']) for row in rows}
    stored = json.loads(path.read_text(encoding='utf-8'))['engines'] if path.is_file() else []
    return [row for row in stored if (row['network'], *row['size']) not in anew]
