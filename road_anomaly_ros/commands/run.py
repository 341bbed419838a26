# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Process a video, images, a bag, or a camera or stream as it comes.

Of files every frame is processed, of cameras and addresses the newest; what breaks off is
connected anew. OUT gets overlay.mp4, snapshots/, frames.csv, objects.csv, objects.jsonl (with
masks as COCO's run lengths), tracks.csv (with a tracker) and summary.json, for a folder of images
also overlays/ with one picture for each, and a video only of 25 or more, all at once when the work
is done. Ctrl-C keeps what is done; a video or bag that breaks off is processed up to the break,
and what lacks frames or messages ends with code 1. An earlier run's results in OUT are replaced,
other files there are left alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from road_anomaly_ros.tools.chain import (
    above_zero,
    add_chain_arguments,
    add_input,
    add_out,
    chain_config,
    positive,
    size,
)

if TYPE_CHECKING:
    from road_anomaly_ros.tools.run import Wanted

EXAMPLES = """
examples:
  road-anomaly run dashcam.mp4 -o results
  road-anomaly run photos/ -o results --scorer rba --save-scores png
  road-anomaly run drive_bag/ -o results --topic /front/image_raw --bag
  road-anomaly run dashcam.mp4 -o results --resize 960x540 --set objects.min_area=200
  road-anomaly run photos/ -o results --anomaly-maps maps_of_another_method/
  road-anomaly run rtsp://camera/stream -o results --duration 60
  ffmpeg -i drive.mp4 -f mpegts - | road-anomaly run - -o results
  road-anomaly run 'rendered:7?frames=100&width=480&height=360' -o results
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_input(parser)
    add_out(parser, 'folder for the results')
    add_processing_arguments(parser)


def add_processing_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `run` and `demo` have in common."""
    add = parser.add_argument
    add(
        '--anomaly-maps',
        metavar='DIR',
        type=Path,
        help='refine the anomaly maps of another method (npy, npz or grey PNG, '
        'one per picture, of its name or in its order) instead of computing any',
    )
    add('--topic', help='image topic of a bag that has several')
    add('--max-frames', metavar='N', type=positive, help='stop after N frames')
    add(
        '--duration',
        metavar='SECONDS',
        type=above_zero,
        help='stop after so many seconds of the input',
    )
    add('--resize', metavar='WxH', type=size, help='resize every frame before anything else')
    add('--no-video', action='store_true', help='write no overlay.mp4')
    add(
        '--save-scores',
        choices=('png', 'npz'),
        help='also write the score maps, as 16-bit PNG or exact float32',
    )
    add(
        '--bag',
        choices=('mcap', 'sqlite3'),
        nargs='?',
        const='mcap',
        help='also write a rosbag2 with the results as image topics',
    )
    add_chain_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    """Run the command; returns 0, 1 for an incomplete input, 128 + the signal that stopped it."""
    from road_anomaly_ros.tools import run

    return run.process_input(
        arguments.input,
        arguments.out,
        chain_config(arguments),
        wanted_of(arguments),
        topic=arguments.topic,
        maps=arguments.anomaly_maps,
    )


def wanted_of(arguments: argparse.Namespace) -> Wanted:
    """Return what the arguments of `add_processing_arguments` ask for."""
    from road_anomaly_ros.tools.run import Wanted

    return Wanted(
        limit=arguments.max_frames,
        duration=arguments.duration,
        size=arguments.resize,
        video=not arguments.no_video,
        scores=arguments.save_scores,
        bag=arguments.bag,
    )
