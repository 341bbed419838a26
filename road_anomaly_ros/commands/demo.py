# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Watch the real node work, on a rendered drive with obstacles or on your own footage.

Starts anomaly_node and a camera as two processes and collects what the node publishes. Without
INPUT a street is rendered, so that recall and false alarms can be counted against exact ground
truth, ids and metres too. OUT gets overlay.mp4, snapshots/, frames.csv, objects.csv and .jsonl,
summary.json and, where obstacles are followed, tracks.csv. Without rclpy the same chain runs
offline.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

from road_anomaly_ros.commands import run
from road_anomaly_ros.tools.chain import chain_config

DRIVE = 'rendered:1?frames=150&width=480&height=360'
OUT = Path('demo_out')
EXAMPLES = """
examples:
  road-anomaly demo
  road-anomaly demo dashcam.mp4 -o demo_out
  road-anomaly demo 'rendered:7?frames=300&width=640&height=360' --scorer rba
  road-anomaly demo --keep
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
    text = 'folder for the results (default: %(default)s)'
    parser.add_argument('-o', '--out', metavar='OUT', type=Path, default=OUT, help=text)
    run.add_processing_arguments(parser)
    live = parser.add_mutually_exclusive_group()
    live.add_argument(
        '--keep',
        action='store_true',
        help='leave node and camera running afterwards, to look at with ROS tools',
    )
    live.add_argument('--offline', action='store_true', help='run the chain without ROS')


def main(arguments: argparse.Namespace) -> int:
    """Run the command; returns 0, or 128 + the signal that stopped it."""
    if not arguments.config:  # it may name a tracker, or none
        arguments.set.insert(0, 'tracker=kalman')
    offline = arguments.offline or arguments.anomaly_maps
    if not offline and importlib.util.find_spec('rclpy') is None:
        print('rclpy is not installed: the chain runs without ROS', file=sys.stderr)
        offline = True
    if not offline:
        return _live(arguments)
    code = run.main(arguments)
    if code == 0:
        _say_where(arguments)
    return code


def _live(arguments: argparse.Namespace) -> int:
    from road_anomaly_ros.ros import live

    wanted = run.wanted_of(arguments)
    shown = live.Shown(arguments.input, arguments.topic, wanted.size)
    return live.run(
        shown,
        chain_config(arguments),
        arguments.out,
        wanted,
        keep=arguments.keep,
        done=lambda: _say_where(arguments),
    )


def _say_where(arguments: argparse.Namespace) -> None:
    places = [arguments.out / name for name in ('overlay.mp4', 'snapshots')]
    print('look at', ' and '.join(str(place) for place in places if place.exists()))
    if arguments.input == DRIVE:
        print('your own footage: make demo INPUT=dashcam.mp4')
