# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Measure methods on a labelled data set: pixels, obstacles and classes.

A method is a score and its refinements, such as s2+variance_aware; 'auto' is the chain measured
best for the model. All methods of a run share one pass of the network. OUT gets results.json,
table.md and table.csv, metrics in percent; other data sets and methods already there are kept.
OUT/details holds curves, frames and times for `road-anomaly report`.
A run that was stopped is continued by the same command. Until a method is measured its scores
wait in OUT/scores, 4 bytes per pixel. Figures are exact; memory holds one image and the scores
of all anomalies.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from road_anomaly_ros.evaluation.running import add_data_arguments
from road_anomaly_ros.tools.chain import add_chain_arguments, chain_config

EXAMPLES = """
examples:
  road-anomaly evaluate synth/ --layout synthetic -o results
  road-anomaly evaluate RoadAnomaly21/ --layout road_anomaly21 \\
      --methods rba eam s2+variance_aware -o results
  road-anomaly evaluate cityscapes/ --layout cityscapes --model models/mine -o results
  road-anomaly evaluate --compare results_before results_after

layouts: folder, synthetic, road_anomaly, road_anomaly21, road_obstacle21,
fishyscapes_lost_and_found, fishyscapes_static, lost_and_found, cityscapes and camvid (mIoU).
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_data_arguments(parser, optional=True)
    parser.add_argument('--methods', metavar='METHOD', nargs='+', default=['auto'],
                        help='scores with refinements, such as rba eam s2+variance_aware')
    parser.add_argument('--compare', metavar=('A', 'B'), nargs=2, type=Path,
                        help='show the differences of two results instead of measuring')
    add_chain_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    """Run the command; returns 0, or 130 when Ctrl-C ended it early."""
    from road_anomaly_ros.evaluation import results, running
    if arguments.compare:
        before, after = map(results.read, arguments.compare)
        print(results.compare(before['results'], after['results']), end='')
        for name in results.other_data(before, after):
            print(f'warning: {name} is not the same data in both', file=sys.stderr)
        return 0
    if arguments.dataset is None or arguments.out is None:
        raise ValueError('expected DATASET_DIR and -o OUT, or --compare A B; see '
                         "'road-anomaly evaluate --help'")
    configs = running.method_configs(arguments.methods, chain_config(arguments))
    try:
        running.evaluate(running.Job.of(arguments), configs)
    except KeyboardInterrupt:
        return running.interrupted(arguments.out)
    print(results.markdown(results.read(arguments.out)['results']), end='')
    print(f'results in {arguments.out}: {results.NAME}, table.md, table.csv')
    return 0
