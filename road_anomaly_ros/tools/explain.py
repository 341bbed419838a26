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
from pathlib import Path
from typing import TYPE_CHECKING

from road_anomaly_ros.tools.chain import add_chain_arguments, chain_config

if TYPE_CHECKING:
    import numpy as np

    from road_anomaly_ros.tools.explanation import Explanation

EXAMPLES = """
examples:
  road-anomaly explain frame.jpg -o why
  road-anomaly explain dashcam.mp4 --frame 120 -o why --scorer s2
  road-anomaly explain rendered:7 -o why --set scorers.s2.temperature=0.1
"""
PAGE = 'index.html'
_STAGE_NAMES = (
    'image',
    'overlay',
    'classes',
    'rejection',
    'selection',
    'fused',
    'score',
    'refined',
    'segments',
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        'input',
        metavar='IMAGE',
        help="image; of a video, a folder, a bag or 'rendered:SEED' one frame is taken",
    )
    parser.add_argument(
        '-o',
        '--out',
        metavar='OUT',
        type=Path,
        required=True,
        help='folder for the pictures and the page',
    )
    parser.add_argument(
        '--frame',
        metavar='N',
        type=int,
        default=0,
        help='which frame, from 0 (default: %(default)s)',
    )
    parser.add_argument('--topic', help='image topic of a bag that has several')
    add_chain_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    """Run the command; writes all or nothing, returns 0."""
    from road_anomaly_ros.perception.pipeline import Pipeline
    from road_anomaly_ros.tools.explanation import SHOWN, explain
    from road_anomaly_ros.tools.staging import Staging

    if arguments.frame < 0:
        raise ValueError(f'--frame: expected a number from 0 on, got {arguments.frame}')
    config = chain_config(arguments)
    image = frame(arguments.input, arguments.frame, arguments.topic)
    ends = [f'query_{kind}_{place}' for kind in ('most', 'least') for place in range(1, SHOWN + 1)]
    staging = Staging(arguments.out, [PAGE, *(f'{name}.png' for name in (*_STAGE_NAMES, *ends))])
    try:
        pipeline = Pipeline.from_config(config)
        explanation = explain(pipeline, image)
        chain = pipeline.chain.as_dict()
        names = write(explanation, staging.folder, str(arguments.input), chain)
        staging.publish(
            names,
            {
                'input': str(arguments.input),
                'frame': arguments.frame,
                'options': chain,
                'obstacles': explanation.obstacles,
                'rejected': explanation.rejected,
                'notes': explanation.notes,
            },
        )
    finally:
        staging.discard()
    for note in explanation.notes:
        print(f'note: {note}')
    print(f'{len(names) - 1} pictures; open {arguments.out / PAGE}')
    return 0


def frame(path: str, number: int, topic: str | None = None) -> np.ndarray:
    """Return one frame of a source, uint8 RGB [H, W, 3]; ValueError where there is none."""
    from road_anomaly_ros.tools.sources import open_source

    with open_source(path, topic) as source:
        found = 0
        for item in source:
            if found == number:
                return item.image
            found += 1
        left = ', '.join(source.omissions())
        raise ValueError(
            f'expected at least {number + 1} frames that can be read in {path}, got '
            f'{found}{f" ({left} left out)" if left else ""}; choose a smaller '
            '--frame, they are counted from 0'
        )


def write(
    explanation: Explanation, folder: Path, title: str, chain: dict[str, object]
) -> list[str]:
    """Write the pictures and the page into a folder; returns their names, the page first."""
    import cv2

    from road_anomaly_ros.tools.explain_page import page

    names = [PAGE]
    for picture in (*explanation.stages, *explanation.queries):
        names.append(f'{picture.name}.png')
        done, data = cv2.imencode('.png', cv2.cvtColor(picture.pixels, cv2.COLOR_RGB2BGR))
        if not done:
            raise ValueError(f'{picture.name}: a picture of {picture.pixels.shape} is no PNG')
        (folder / names[-1]).write_bytes(data.tobytes())
    (folder / PAGE).write_text(page(explanation, title, chain), encoding='utf-8')
    return names
