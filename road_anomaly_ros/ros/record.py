# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Store topics in a rosbag2, on machines with or without a ROS distribution.

Messages are stored as they come over the wire, nothing is decoded or encoded again. A topic may
appear later than the recording. Ctrl-C, --duration or --messages end it; only then the bag stands
under its name, complete. Until then it grows in .BAG.partial, where at most the last second is
missing if the process is killed; the next recording of that name sets it aside as BAG_recovered,
which 'run' and 'replay' read.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from road_anomaly_ros.files import home
from road_anomaly_ros.tools.chain import positive

EXAMPLES = """
examples:
  road-anomaly record -o drive /image /camera_info
  road-anomaly record -o results /anomaly_node/anomaly/score /anomaly_node/overlay --duration 60
  road-anomaly record -o clip /front/image_raw --storage sqlite3 --messages 100
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('topics', metavar='TOPIC', nargs='+', help='topics to store')
    parser.add_argument(
        '-o', '--out', metavar='BAG', type=Path, required=True, help='folder of the new bag'
    )
    parser.add_argument(
        '--storage',
        choices=('mcap', 'sqlite3'),
        default='mcap',
        help='format of the bag (default: %(default)s)',
    )
    parser.add_argument(
        '--duration',
        metavar='S',
        type=positive,
        help='stop after S seconds from the first message on',
    )
    parser.add_argument(
        '--messages', metavar='N', type=positive, help='stop after N messages on the first topic'
    )
    parser.add_argument('--ros-args', nargs=argparse.REMAINDER, default=[], help=argparse.SUPPRESS)


def main(arguments: argparse.Namespace) -> int:
    """Record until a signal or a limit; returns 0, 1 where nothing or not all could be stored."""
    from road_anomaly_ros.ros.process import run
    from road_anomaly_ros.ros.record_node import Record, check_target
    from road_anomaly_ros.tools.bags import check_name

    out = home(arguments.out)
    check_target(out)
    check_name(out, arguments.storage)

    def make(stop: Any) -> Any:
        return Record(
            arguments.topics,
            out,
            storage=arguments.storage,
            stop=stop,
            duration=arguments.duration,
            messages=arguments.messages,
        )

    return run(make, args=['--ros-args', *arguments.ros_args])
