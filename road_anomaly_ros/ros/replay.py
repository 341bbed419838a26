# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Publish a video, images, a bag, a camera or a stream as camera messages.

Pictures go to `image` (and, while somebody listens, `image/compressed`), the calibration of a bag
to `camera_info`; other topics of a bag keep their names. The messages of a bag are sent as they
were stored. Services ~/pause, ~/resume and ~/play_next (std_srvs/Trigger) control it; Ctrl-C ends
it. What follows --ros-args is for ROS, for example '-r image:=/front/image_raw'.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from road_anomaly_ros.remarks import one_line
from road_anomaly_ros.tools.chain import above_zero, add_input, positive, size

if TYPE_CHECKING:
    from road_anomaly_ros.ros.playback import Settings

NAME = 'replay'
CLOCK_HZ = 40.0
EXAMPLES = """
examples:
  road-anomaly replay dashcam.mp4 --restamp
  road-anomaly replay drive_bag/ --rate 0.5 --clock
  road-anomaly replay photos/ --fps 5 --loop
  road-anomaly replay drive_bag/ --topic /front/image_raw --wait-for-node anomaly_node
  road-anomaly replay drive_bag/ --only-camera --map /front/imu:=/imu
  road-anomaly replay rtsp://camera/stream --frame-id front_optical
  road-anomaly replay dashcam.mp4 --ros-args -r image:=/front/image_raw
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_input(parser)
    _add_pace(parser)
    _add_waiting(parser)
    add = parser.add_argument
    reliable = 'offer reliable delivery (cameras usually offer best effort)'
    add('--reliable', action='store_true', help=reliable)
    frame = 'coordinate frame where the input knows none (default: %(default)s)'
    add('--frame-id', default='camera_optical', metavar='NAME', help=frame)
    pictures = 'resize the pictures; of a bag only they are sent then'
    add('--resize', metavar='WxH', type=size, help=pictures)
    _add_bag(parser)
    add('--ros-args', nargs=argparse.REMAINDER, default=[], help=argparse.SUPPRESS)


def _add_pace(parser: argparse.ArgumentParser) -> None:
    pace = parser.add_mutually_exclusive_group().add_argument
    recorded = 'factor of the recorded rate (default: %(default)g)'
    pace('--rate', metavar='FACTOR', type=above_zero, default=1.0, help=recorded)
    pace('--fps', metavar='N', type=above_zero, help='pictures per second, whatever was recorded')
    parser.add_argument('--loop', action='store_true', help='start again at the end')
    stamps = parser.add_mutually_exclusive_group().add_argument
    restamp = 'stamp messages with the time of sending, not of recording'
    stamps('--restamp', action='store_true', help=restamp)
    stamps(
        '--clock',
        metavar='HZ',
        nargs='?',
        type=above_zero,
        const=CLOCK_HZ,
        help=f'also publish the recorded time on /clock ({CLOCK_HZ:g} Hz), for nodes with '
        'use_sim_time',
    )


def _add_waiting(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add('--start-paused', action='store_true', help='wait for ~/resume')
    many = 'wait until N subscribers listen to the pictures'
    add('--wait-for-subscribers', metavar='N', type=positive, default=0, help=many)
    add(
        '--wait-for-node',
        metavar='NAME',
        default='',
        help='wait until the node of this name listens to the pictures, as anomaly_node does '
        'once it is active; what a bag holds of it and of /diagnostics is left out',
    )


def _add_bag(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group('bags').add_argument
    add('--topic', help='image topic to publish as image, of a bag with several')
    add(
        '--map',
        metavar='FROM:=TO',
        type=mapping,
        action='append',
        default=[],
        help='publish a recorded topic under another name',
    )
    decoded = 'send the images decoded, as rgb8, and nothing else'
    add('--decoded', action='store_true', help=decoded)
    only = 'leave out what is neither the image nor its camera_info'
    add('--only-camera', action='store_true', help=only)


def mapping(text: str) -> tuple[str, str]:
    """Read 'FROM:=TO'; for argparse's `type`."""
    before, sign, after = text.partition(':=')
    if not (before and sign and after):
        raise argparse.ArgumentTypeError(f'expected FROM:=TO, got {text!r}')
    return before, after


def main(arguments: argparse.Namespace) -> int:
    """Replay until the end or a signal; returns 0, 1 where the input broke off."""
    from road_anomaly_ros.ros.process import run
    from road_anomaly_ros.ros.replay_node import Replay, checked

    arguments.input = os.path.expanduser(arguments.input)
    checked(arguments.input, to_settings(arguments))

    def make(stop: Any) -> Any:
        return Replay(
            arguments.input,
            to_settings(arguments),
            rate=arguments.rate,
            clock_hz=arguments.clock,
            start_paused=arguments.start_paused,
            wait_for=arguments.wait_for_subscribers,
            wait_node=arguments.wait_for_node,
            stop=stop,
        )

    return run(make, args=['--ros-args', *arguments.ros_args])


def to_settings(arguments: argparse.Namespace) -> Settings:
    """Return how the input is to be replayed."""
    from road_anomaly_ros.ros.playback import Settings

    return Settings(
        fps=arguments.fps,
        loop=arguments.loop,
        restamp=arguments.restamp,
        frame_id=arguments.frame_id,
        size=arguments.resize,
        reliable=arguments.reliable,
        topic=arguments.topic,
        renamed=dict(arguments.map),
        decoded=arguments.decoded,
        only_camera=arguments.only_camera,
        live=arguments.wait_for_node,
    )


def node_main(args: Sequence[str] | None = None) -> int:
    """Run the executable `replay`; returns its exit code."""
    parser = argparse.ArgumentParser(
        NAME,
        description=__doc__,
        epilog=EXAMPLES.replace('road-anomaly replay', NAME),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    try:
        return main(parser.parse_args(args))
    except (ValueError, TypeError, OSError) as error:
        parser.exit(2, f'{NAME}: {one_line(error)}\n')


if __name__ == '__main__':
    sys.exit(node_main())
