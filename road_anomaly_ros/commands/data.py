# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What `evaluate` and `sweep` declare alike: the data set, how much counts, where results go."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from road_anomaly_ros.tools.chain import add_out, positive

if TYPE_CHECKING:
    from road_anomaly_ros.evaluation.running import Job


def add_data_arguments(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """Declare the data set, how much of it counts, and the folder of the results."""
    add = parser.add_argument
    add(
        'dataset',
        metavar='DATASET_DIR',
        type=Path,
        nargs='?' if optional else None,
        help='folder of the data set',
    )
    add(
        '--layout',
        default='folder',
        help='how it keeps images and labels (default folder: images/ and '
        'labels_masks/ with 0 inlier, 1 anomaly, 255 ignore)',
    )
    add_out(parser, 'folder for the results', required=not optional)
    add('--name', default='', help="the data set's name in the results (default: the layout)")
    add('--max-frames', metavar='N', type=positive, help='take the first N images')
    add(
        '--skip-clean',
        action='store_true',
        help='leave out images without an anomaly, as some publications do',
    )
    for name, kind in (('pred', 'predicted'), ('gt', 'true')):
        text = f'least pixels of a {kind} obstacle (default: by the layout)'
        add(f'--min-{name}-size', metavar='PX', type=positive, help=text)
    add('--seed', type=int, default=0, help='seed of what is random (default 0)')
    text = 'processes that score images, each with a model of its own (default 1)'
    add('--jobs', metavar='N', type=positive, default=1, help=text)
    add('--keep-scores', action='store_true', help='leave OUT/scores in place')


def job_of(arguments: argparse.Namespace) -> Job:
    """Return what the arguments of `add_data_arguments` ask for."""
    from road_anomaly_ros.evaluation.running import Job

    return Job(**{item.name: getattr(arguments, item.name) for item in dataclasses.fields(Job)})
