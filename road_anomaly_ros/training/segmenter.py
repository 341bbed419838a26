# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Train a segmenter and its anomaly head together, from ImageNet weights, on road frames.

The result is a small Mask2Former in Hugging Face form, ready for `road-anomaly run --model OUT`.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from pathlib import Path

from road_anomaly_ros.perception.registry import build_options, option, options_of

EXAMPLES = """
examples:
  road-anomaly train segmenter --data camvid:camvid/train --outliers objects -o runs/first
  road-anomaly train segmenter --data cityscapes:cityscapes,weight=3 --data bdd100k:bdd100k \\
      --data camvid:camvid/train --val camvid:camvid/val --outliers objects -o runs/gpu \\
      --device cuda --workers 8 --batch 64
  road-anomaly train segmenter --data camvid:camvid/train --outliers objects -o runs/first --resume

Data: LAYOUT:FOLDER[,teacher=FOLDER][,weight=W][,zoom=LOW-HIGH][,held_out=use|skip|only], any
number of them (held_out: the drives of IDD-Lite that are kept for measuring). Layouts, each
with its own map onto the 19 Cityscapes classes: camvid, idd_lite and trainids (images/ and
labels/), cityscapes and idd (leftImg8bit/, gtFine/), bdd100k, vistas, unlabelled (needs a
teacher). A teacher is a folder of PNG files in Cityscapes train ids, 255 where unsure, that choose
where a label allows several classes. Without --outliers the network never sees anything strange,
and gets no useful head. The output folder receives the model (config.json, model.safetensors,
preprocessor_config.json, heads/), curve.csv and checkpoint.pt. Ctrl-C ends the run after the step
in hand and saves; --resume continues as if nothing had been, also with another --steps as long as
the rate has not begun to fall.
"""


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """Everything that decides the result of a run, beside the contents of the folders."""

    data: tuple[str, ...] = option((), 'road frames, see above')
    val: tuple[str, ...] = option((), 'frames to measure mIoU on, in the same form')
    outliers: tuple[str, ...] = option((), 'folders of RGBA cut-outs of things that are no class')
    backbone: str = option(
        'lite0',
        'EfficientNet-Lite that begins from ImageNet weights',
        choices=('lite0', 'lite1', 'lite2'),
    )
    steps: int = option(12000, 'optimiser steps of the whole run', low=1, high=10_000_000)
    fall: int = option(
        3000, 'last steps, over which the rate falls to nothing', low=1, high=10_000_000
    )
    batch: int = option(8, 'crops per step', low=1, high=4096)
    height: int = option(288, 'height of the crops', low=64, high=4096, unit='px')
    width: int = option(384, 'width of the crops', low=64, high=4096, unit='px')
    rate: float = option(2e-3, 'learning rate; the backbone has a fifth', low=1e-7, high=1.0)
    decay: float = option(0.02, 'weight decay', low=0.0, high=1.0)
    clip: float = option(5.0, 'largest norm of the gradient', low=1e-3, high=1e3)
    average: float = option(
        0.999, 'decay of the averaged weights, which are what is kept', low=0.0, high=1.0
    )
    outlier_share: float = option(
        0.7, 'share of the crops with strange things laid in', low=0.0, high=1.0
    )
    rendered: int = option(0, 'rendered road scenes to mix in', low=0, high=100_000)
    rendered_weight: float = option(
        0.1, 'weight of the rendered scenes beside those of --data', low=0.0, high=1e6
    )
    short_side: int = option(
        544, 'short side at which larger images are processed', low=64, high=4096, unit='px'
    )
    seed: int = option(0, 'seed of weights, crops and rendered scenes', low=0, high=2**31)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `road-anomaly train segmenter`."""
    parser.add_argument(
        '-o', '--out', required=True, type=Path, metavar='OUT', help='output folder'
    )
    parser.add_argument('--resume', action='store_true', help='continue from OUT/checkpoint.pt')
    parser.add_argument(
        '--minutes',
        type=float,
        default=math.inf,
        help='save and end after so many minutes; --resume continues',
    )
    parser.add_argument(
        '--evaluate-every',
        type=float,
        default=6.0,
        metavar='MINUTES',
        help='time between evaluations and checkpoints (default 6)',
    )
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    parser.add_argument(
        '--half',
        action=argparse.BooleanOptionalAction,
        default=True,
        help='bfloat16 where it pays',
    )
    parser.add_argument(
        '--processes',
        type=int,
        default=1,
        metavar='N',
        help='CPU processes that share every batch (default 1; as many as there '
        'are cores is fastest)',
    )
    parser.add_argument(
        '--workers',
        type=int,
        default=0,
        metavar='N',
        help='further processes that prepare crops (default 0; some with a GPU)',
    )
    for item in options_of(TrainOptions):
        name = f'--{item.name.replace("_", "-")}'
        if item.name in ('data', 'val', 'outliers'):
            parser.add_argument(
                name,
                action='append',
                default=[],
                help=item.text,
                required=item.name == 'data',
                metavar='FOLDER' if item.name == 'outliers' else 'LAYOUT:FOLDER',
            )
            continue
        parser.add_argument(
            name,
            default=item.default,
            metavar=item.kind.__name__.upper(),
            help=f'{item.text} (default {item.default})',
        )


def main(args: argparse.Namespace) -> int:
    """Run the training and return 0; ValueError for data and options that cannot work."""
    from road_anomaly_ros.training import trainer

    options = build_options(
        TrainOptions, {item.name: getattr(args, item.name) for item in options_of(TrainOptions)}
    )
    trainer.train(
        options,
        out=args.out,
        resume=args.resume,
        device=args.device,
        half=args.half,
        processes=args.processes,
        workers=args.workers,
        minutes=args.minutes,
        evaluate_every=args.evaluate_every,
    )
    return 0
