# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Measure how many images per second the metrics of `evaluate` take in.

Random scores, anomaly labels and class labels are written to a temporary folder and read from it,
as `evaluate` does after the network's pass.
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
  road-anomaly bench --metrics
  road-anomaly bench --metrics --size 1280x720 --frames 100 -o metrics.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add('-o', '--out', metavar='JSON', type=Path, help='also write the figures')
    add(
        '--size',
        metavar='WxH',
        type=size,
        default=(2048, 1024),
        help='size of the images (default: 2048x1024)',
    )
    add('--frames', metavar='N', type=positive, default=24, help='images (default: %(default)s)')
    add('--seed', type=int, default=0, help='seed of the scores (default 0)')


def main(arguments: argparse.Namespace) -> int:
    """Run the command; prints a table, writes JSON if asked to, returns 0."""
    from road_anomaly_ros.evaluation import bench_metrics
    from road_anomaly_ros.evaluation.store import Store
    from road_anomaly_ros.tools import environment

    document: dict[str, Any] = {
        'environment': environment.record(),
        'size': list(arguments.size),
        'frames': arguments.frames,
        'metrics': [],
    }
    print(environment.heading(document['environment']))
    print(
        f'\n{arguments.frames} images of {arguments.size[0]}x{arguments.size[1]} from disk\n\n'
        '| metrics | images/s |\n| --- | ---: |'
    )
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / 'results')
        data = bench_metrics.write_random(
            Path(folder), store, arguments.size, arguments.frames, arguments.seed
        )
        for row in bench_metrics.rows(data, store):
            document['metrics'].append(row)
            print(f'| {row["metrics"]} | {row["images_per_s"]:.1f} |', flush=True)
        store.close()
    if arguments.out is not None:
        write_json(arguments.out, document)
    return 0
