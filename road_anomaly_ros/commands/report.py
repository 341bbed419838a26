# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Turn results into one HTML page that needs nothing beside it, also without network.

RESULTS are folders of `road-anomaly evaluate` or `sweep`. The page sets tables beside what three
papers print, draws curves, sweeps and time per stage, shows the best and worst frames of the best
method, and tells which obstacles are missed. For the frames the data set and the model must be at
hand; they are scored again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from road_anomaly_ros.tools.chain import add_out

NAME = 'report.html'
EXAMPLES = """
examples:
  road-anomaly report results -o report.html
  road-anomaly report results sweep -o report/ --calibration calibration.yaml --bench bench.json
  road-anomaly report results -o report.html --data RoadAnomaly21/ --frames 5
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add('results', metavar='RESULTS', type=Path, nargs='+', help='folders of results or sweeps')
    add_out(parser, f'the page (.html), or the folder that gets {NAME}')
    add('--title', default='Road anomaly segmentation: evaluation', help='headline of the page')
    add(
        '--calibration',
        metavar='YAML',
        type=Path,
        help='show the thresholds and promises of this file',
    )
    add(
        '--bench',
        metavar='JSON',
        type=Path,
        help='show the times that road-anomaly bench -o wrote',
    )
    add(
        '--data',
        metavar='DATASET_DIR',
        type=Path,
        help='where the data set lies now (default: where it was measured)',
    )
    add(
        '--frames',
        metavar='N',
        type=int,
        default=4,
        help='frames of each kind, worst, best and most false pixels (default '
        '%(default)s, 0 for none)',
    )


def main(arguments: argparse.Namespace) -> int:
    """Run the command; returns 0."""
    from road_anomaly_ros.evaluation.material import gather
    from road_anomaly_ros.evaluation.report import write

    if arguments.frames < 0:
        raise ValueError(f'--frames: expected at least 0, got {arguments.frames}')
    material = gather(arguments.results, arguments.calibration, arguments.bench)
    path = write(
        material,
        arguments.out,
        title=arguments.title,
        frames=arguments.frames,
        data=arguments.data,
    )
    print(f'report in {path}, {path.stat().st_size / 2**20:.1f} MiB')
    return 0
