# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What `evaluate` and `sweep` declare alike: the data set, how much counts, where results go."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from road_anomaly_ros.tools.chain import positive

if TYPE_CHECKING:
    from road_anomaly_ros.evaluation.running import Job


def add_data_arguments(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """Declare the data set, how much of it counts, and the folder of the results."""
    parser.add_argument(
        'dataset',
        metavar='DATASET_DIR',
        type=Path,
        nargs='?' if optional else None,
        help='folder of the data set',
    )
    parser.add_argument(
        '--layout',
        default='folder',
        help='how it keeps images and labels (default folder: images/ and '
        'labels_masks/ with 0 inlier, 1 anomaly, 255 ignore)',
    )
    parser.add_argument(
        '-o',
        '--out',
        metavar='OUT',
        type=Path,
        required=not optional,
        help='folder for the results',
    )
    parser.add_argument(
        '--name', default='', help="the data set's name in the results (default: the layout)"
    )
    parser.add_argument('--max-frames', metavar='N', type=positive, help='take the first N images')
    parser.add_argument(
        '--skip-clean',
        action='store_true',
        help='leave out images without an anomaly, as some publications do',
    )
    parser.add_argument(
        '--min-pred-size',
        metavar='PX',
        type=positive,
        help='least pixels of a predicted obstacle (default: by the layout)',
    )
    parser.add_argument(
        '--min-gt-size',
        metavar='PX',
        type=positive,
        help='least pixels of a true obstacle (default: by the layout)',
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of what is random (default 0)')
    parser.add_argument(
        '--jobs',
        metavar='N',
        type=positive,
        default=1,
        help='processes that score images, each with a model of its own (default 1)',
    )
    parser.add_argument('--keep-scores', action='store_true', help='leave OUT/scores in place')


def job_of(arguments: argparse.Namespace) -> Job:
    """Return what the arguments of `add_data_arguments` ask for."""
    from road_anomaly_ros.evaluation.running import Job

    return Job(**{item.name: getattr(arguments, item.name) for item in dataclasses.fields(Job)})
