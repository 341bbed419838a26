# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Measure the chain on a GPU: networks of published size with random weights, and the dense pass.

Every chain is measured without and with CUDA graphs. It needs a CUDA device; without one it says
so. Ready, not measured: no figure of it is published yet. `bench --size 2048x1024 --device cuda`
measures the dense pass beside its reference alone.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import tqdm

from road_anomaly_ros.files import write_json
from road_anomaly_ros.tools.chain import positive
from road_anomaly_ros.tools.chain import size as read_size
from road_anomaly_ros.tools.markdown import number, table

EXAMPLES = """
examples:
  road-anomaly bench --gpu -o gpu.json
"""
_HEAD = ('network', 'chain', 'graphs', 'frames/s', 'p50 ms', 'p99 ms', 'peak MiB')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add('-o', '--out', metavar='JSON', type=Path, help='also write the figures')
    add('--frames', metavar='N', type=positive, default=100, help='default: %(default)s')
    add('--size', metavar='WxH', type=read_size, default=(2048, 1024), help='default: 2048x1024')
    add('--device', default='cuda', help='another one than %(default)s')


def main(arguments: argparse.Namespace) -> int:
    """Run the command; prints a table, writes JSON if asked to, returns 0."""
    from road_anomaly_ros.evaluation import bench_gpu as bench
    from road_anomaly_ros.perception.devices import select_device
    from road_anomaly_ros.tools import environment, timing

    device, rows = select_device(arguments.device), []
    made_on = environment.record(device)
    with tempfile.TemporaryDirectory() as folder:
        given = arguments.size, arguments.frames, arguments.device, Path(folder)
        for name in tqdm.tqdm(bench.NETWORKS, unit='network', disable=None):
            rows += bench.rows(name, *given)
    dense = list(timing.dense_rows([arguments.size], device))
    lines = table(_HEAD, map(_line, rows), 4)
    print(f'{environment.heading(made_on)}\n\n{lines}')
    for fault in sorted(
        {f'{name}: {text}' for row in rows for name, text in row['faults'].items()}
    ):
        print(f'not run on this device: {fault}')
    if arguments.out is not None:
        write_json(arguments.out, {'environment': made_on, 'chains': rows, 'dense': dense})
    return 0


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    total = row['stages']['total']
    chain = ' + '.join([row['scorer'], *row['refinements']])
    figures = (row['fps'], total['p50'], total['p99'], total['peak_mb'])
    return (row['network'], chain, row['cuda_graphs'], *map(number, figures))
