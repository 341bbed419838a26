# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Measure everything on what no training saw, and renew the tables of a page.

DATA holds camvid/val and objects/val; where it has them, real_anomalies, objects_web/val,
idd_lite/train (some whole drives of it) and cityscapes_samples count too. OUT gets the drawn data
sets, the figures of all scores with and without refinements and of the heads on pasted objects of
unseen kinds, of the default chain and the zero-shot scores on real frames and on other roads, the
built-in model's mIoU, the sweep of the zero-shot score, accuracy.md and report.html. A run that
was stopped is continued by the same command.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from road_anomaly_ros.tools.chain import add_out, positive

EXAMPLES = """
examples:
  road-anomaly benchmark --data ../shared/data -o benchmark_out
  road-anomaly benchmark --data ../shared/data -o benchmark_out --page docs/accuracy.md
  road-anomaly benchmark --data ../shared/data -o try --frames 4 --sweep-frames 2
"""
_MARKED = '<!-- accuracy --> and <!-- /accuracy -->'
_CURVE = 'precision_recall.svg'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add(
        '--data',
        metavar='DIR',
        type=Path,
        required=True,
        help='folder with camvid/val, objects/val and, if at hand, the others',
    )
    add_out(parser, 'folder for everything that is made')
    add(
        '--frames',
        metavar='N',
        type=positive,
        default=101,
        help='images of every data set (default: %(default)s)',
    )
    add(
        '--sweep-frames',
        metavar='N',
        type=positive,
        default=25,
        help='images of the sweep (default: %(default)s)',
    )
    add('--scorers', metavar='NAME', nargs='+', help='measure these scores only (default: all)')
    add(
        '--page',
        metavar='FILE',
        type=Path,
        help=f'renew the tables between {_MARKED} in this file, and '
        f'the picture {_CURVE} beside it',
    )


def main(arguments: argparse.Namespace) -> int:
    """Run the command; returns 0, or 130 when Ctrl-C ended it early."""
    from road_anomaly_ros.evaluation import benchmark, running

    if arguments.page is not None:
        benchmark.split(arguments.page)
    try:
        found = benchmark.measure(
            arguments.data,
            arguments.out,
            frames=arguments.frames,
            sweep_frames=arguments.sweep_frames,
            own=arguments.scorers,
        )
    except KeyboardInterrupt:
        return running.interrupted(arguments.out)
    print(benchmark.write(found, arguments.out), end='')
    if arguments.page is not None:
        picture = benchmark.publish(arguments.page, found)
        print(f'tables in {arguments.page}, curves in {picture}')
    return 0
