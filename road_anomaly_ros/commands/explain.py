# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Show why the pixels of an image got their score.

OUT gets one PNG per stage (rejection, selection, fused, score, refined, segments), one per query
for the three most and the three least anomalous ones (mask and class distribution), and index.html
with all of them, the obstacles and the regions that are none, each with the rule that says so, in
one self-contained page.
"""

from __future__ import annotations

import argparse

from road_anomaly_ros.tools.chain import add_chain_arguments, add_out, chain_config

EXAMPLES = """
examples:
  road-anomaly explain frame.jpg -o why
  road-anomaly explain dashcam.mp4 --frame 120 -o why --scorer s2
  road-anomaly explain rendered:7 -o why --set scorers.s2.temperature=0.1
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add(
        'input',
        metavar='IMAGE',
        help="image; of a video, a folder, a bag or 'rendered:SEED' one frame is taken",
    )
    add_out(parser, 'folder for the pictures and the page')
    add(
        '--frame',
        metavar='N',
        type=int,
        default=0,
        help='which frame, from 0 (default: %(default)s)',
    )
    add('--topic', help='image topic of a bag that has several')
    add_chain_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    """Run the command; writes all or nothing, returns 0."""
    from road_anomaly_ros.tools import explain
    from road_anomaly_ros.tools.sources.stream import without_secret

    if arguments.frame < 0:
        raise ValueError(f'--frame: expected a number from 0 on, got {arguments.frame}')
    config = chain_config(arguments)
    image = explain.frame(arguments.input, arguments.frame, arguments.topic)
    source = {'input': without_secret(arguments.input), 'frame': arguments.frame}
    names, notes = explain.publish(image, config, arguments.out, source)
    for note in notes:
        print(f'note: {note}')
    print(f'{len(names) - 1} pictures; open {arguments.out / explain.PAGE}')
    return 0
