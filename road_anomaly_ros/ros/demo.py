# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Watch the real node work, on a rendered drive with obstacles or on your own footage.

Starts anomaly_node and a camera as two processes and collects what the node publishes. Without
INPUT a street is rendered, so that recall and false alarms can be counted against exact ground
truth. OUT gets overlay.mp4, snapshots/, frames.csv, objects.csv and summary.json. Without rclpy
the same chain runs offline.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys

from road_anomaly_ros.tools import demo as offline

EXAMPLES = f"""{offline.EXAMPLES.rstrip()}
  road-anomaly demo --keep
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    offline.add_arguments(parser)
    live = parser.add_mutually_exclusive_group()
    live.add_argument(
        '--keep',
        action='store_true',
        help='leave node and camera running afterwards, to look at with ROS tools',
    )
    live.add_argument('--offline', action='store_true', help='run the chain without ROS')


def main(arguments: argparse.Namespace) -> int:
    """Run the command; returns 0, or 128 + the signal that stopped it."""
    if arguments.offline or arguments.anomaly_maps:
        return offline.main(arguments)
    if importlib.util.find_spec('rclpy') is None:
        print('rclpy is not installed: the chain runs without ROS', file=sys.stderr)
        return offline.main(arguments)
    from road_anomaly_ros.ros.live import run

    return run(arguments)
