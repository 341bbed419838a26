# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Watch the whole chain work, on a rendered drive with obstacles or on your own footage.

Without INPUT a street is rendered, so that recall and false alarms can be counted against exact
ground truth. OUT gets overlay.mp4, snapshots/, frames.csv, objects.csv and summary.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from road_anomaly_ros.tools import run

DRIVE = 'rendered:1?frames=150&width=480&height=360'
OUT = Path('demo_out')
EXAMPLES = """
examples:
  road-anomaly demo
  road-anomaly demo dashcam.mp4 -o demo_out
  road-anomaly demo 'rendered:7?frames=300&width=640&height=360' --scorer rba
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        'input',
        metavar='INPUT',
        nargs='?',
        default=DRIVE,
        help='your own video, image, folder of images or bag (default: the rendered drive)',
    )
    parser.add_argument(
        '-o',
        '--out',
        metavar='OUT',
        type=Path,
        default=OUT,
        help='folder for the results (default: %(default)s)',
    )
    run.add_processing_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    """Run the command and say where to look next; returns what `run` returns."""
    code = run.main(arguments)
    if code == 0:
        say_where(arguments)
    return code


def say_where(arguments: argparse.Namespace) -> None:
    """Print where to look and how to go on."""
    places = [arguments.out / name for name in ('overlay.mp4', 'snapshots')]
    print('look at', ' and '.join(str(place) for place in places if place.exists()))
    if arguments.input == DRIVE:
        print('your own footage: make demo INPUT=dashcam.mp4')
