# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Paste objects on road scenes, with exact ground truth.

OUT gets images/, labels_masks/ (0 inlier, 1 anomaly, 255 ignored), instances/, labels/ (those of
the background, untouched), manifest.jsonl (seed, objects, boxes, scales) and config.yaml. Equal
settings give equal bytes, whatever the number of processes; a run that was stopped is continued
by the same command, and a larger --count adds to what is there.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from road_anomaly_ros.tools.chain import add_options, add_out, chosen_options
from road_anomaly_ros.training.generator.options import GeneratorOptions

EXAMPLES = """
examples:
  road-anomaly synthesize --backgrounds camvid/train --objects cutouts/ --count 1000 -o synth
  road-anomaly synthesize --backgrounds cityscapes/ --objects coco/val2017 \\
      --annotations coco/annotations/instances_val2017.json --count 500 -o synth
  road-anomaly synthesize --backgrounds camvid/train --objects cutouts/ --count 1000 \\
      --vary 0.8 --procedural 0.4 --flip 0.5 --instances-max 3 --clean-ratio 0.1 -o synth
  road-anomaly synthesize --backgrounds 'rendered:3000?scenes=300' --objects cutouts/ \\
      --count 300 -o synth_rendered
  road-anomaly synthesize --backgrounds 'rendered:4000?scenes=100&obstacles=true' --count 100 \\
      -o rendered

Backgrounds: images/ and labels/ of equal stems (CamVid layout; idd_lite:FOLDER or
trainids:FOLDER where the ids are the 7 groups of IDD-Lite or the 19 train ids of Cityscapes),
leftImg8bit/ and gtFine/ (Cityscapes layout), or rendered:SEED with scenes, width, height and
obstacles (false), one scene per seed from SEED on. Objects: RGBA cut-outs (PNG or WebP), also in
one folder per kind, or the images of a COCO annotation file.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add(
        '--backgrounds',
        required=True,
        metavar='FOLDER',
        help="folder of labelled road scenes, 'idd_lite:FOLDER', "
        "'trainids:FOLDER' or 'rendered:SEED?scenes=N'",
    )
    add(
        '--objects',
        type=Path,
        metavar='FOLDER',
        help='RGBA cut-outs, or the images of --annotations (default: nothing is pasted)',
    )
    add('--annotations', type=Path, metavar='JSON', help='COCO instances')
    add(
        '--categories',
        default='',
        metavar='A,B',
        help='COCO categories to take (default: things strange on a road)',
    )
    add('--count', type=int, default=1000, metavar='N', help='number of images (default 1000)')
    add_out(parser, 'output folder')
    add(
        '--jobs',
        '--processes',
        dest='processes',
        type=int,
        default=os.cpu_count() or 1,
        metavar='N',
        help='processes (default: one per core)',
    )
    add_options(parser, GeneratorOptions)


def main(arguments: argparse.Namespace) -> int:
    """Run the command; returns 0, or 130 when Ctrl-C ended it early."""
    import cv2
    import tqdm

    from road_anomaly_ros.training.generator.writer import Sources, synthesize

    if arguments.count < 1:
        raise ValueError(f'--count: expected at least 1, got {arguments.count}')
    if arguments.annotations is not None and arguments.objects is None:
        raise ValueError('--annotations: expected the folder of its images as --objects')
    options = chosen_options(GeneratorOptions, arguments)
    categories = tuple(name.strip() for name in arguments.categories.split(',') if name.strip())
    sources = Sources(arguments.backgrounds, arguments.objects, arguments.annotations, categories)
    cv2.setNumThreads(1)
    with tqdm.tqdm(total=arguments.count, unit='image', disable=None) as bar:
        try:
            done = synthesize(
                sources,
                options,
                arguments.count,
                arguments.out,
                processes=arguments.processes,
                advance=bar.update,
            )
        except KeyboardInterrupt:
            bar.close()
            print(
                f'interrupted: what is complete is in {arguments.out}; the same command continues',
                file=sys.stderr,
            )
            return 130
    print(f'{done} images in {arguments.out}')
    return 0
