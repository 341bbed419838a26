# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Train a segmentation model of your own, from scratch, on labelled road frames.

The result is a small Mask2Former in Hugging Face form, ready for `road-anomaly run --model OUT`.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from pathlib import Path

from road_anomaly_ros.perception.labels import CAMVID
from road_anomaly_ros.perception.registry import build_options, option, options_of

EXAMPLES = """
examples:
  road-anomaly train segmenter --data camvid -o runs/first
  road-anomaly train segmenter --data camvid --rendered 300 --minutes 90 -o runs/long
  road-anomaly train segmenter --data camvid --rendered 300 -o runs/long --resume
  road-anomaly train segmenter --data camvid --device cuda --workers 8 --batch 32 -o runs/gpu

The data folder holds train/ and val/, each with images/ and labels/: PNG files of the same stems,
ids in the order of --classes, 255 = ignored. The output folder receives the model of the best val
mIoU (config.json, model.safetensors, preprocessor_config.json), curve.csv and checkpoint.pt.
Ctrl-C ends the run after the step in hand and saves; --resume continues as if nothing had been.
"""


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """Everything that decides the result of a run, beside the data."""

    steps: int = option(9000, 'optimiser steps of the whole run', low=1, high=10_000_000)
    batch: int = option(8, 'crops per step in the middle of the run', low=1, high=4096)
    height: int = option(352, 'height of the largest crops', low=32, high=4096, unit='px')
    width: int = option(480, 'width of the largest crops', low=32, high=4096, unit='px')
    rate: float = option(1e-3, 'peak learning rate', low=1e-7, high=1.0)
    decay: float = option(.05, 'weight decay', low=0.0, high=1.0)
    clip: float = option(5.0, 'largest norm of the gradient', low=1e-3, high=1e3)
    average: float = option(.999, 'decay of the averaged weights, which are what is kept',
                            low=0.0, high=1.0)
    rendered: int = option(0, 'rendered road scenes to mix in', low=0, high=100_000)
    rendered_share: float = option(.2, 'share of the crops taken from rendered scenes',
                                   low=0.0, high=1.0)
    mixed: float = option(.6, 'share of the crops with regions of another crop laid over them',
                          low=0.0, high=1.0)
    seed: int = option(0, 'seed of weights, crops and rendered scenes', low=0, high=2 ** 31)
    classes: tuple = option(CAMVID, 'class names in the order of the label ids')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `road-anomaly train segmenter`."""
    parser.add_argument('--data', required=True, type=Path, metavar='FOLDER',
                        help='folder with train/ and val/')
    parser.add_argument('-o', '--out', required=True, type=Path, metavar='OUT',
                        help='output folder')
    parser.add_argument('--resume', action='store_true', help='continue from OUT/checkpoint.pt')
    parser.add_argument('--minutes', type=float, default=math.inf,
                        help='save and end after so many minutes; --resume continues')
    parser.add_argument('--evaluate-every', type=float, default=6.0, metavar='MINUTES',
                        help='time between evaluations and checkpoints (default 6)')
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    parser.add_argument('--half', action=argparse.BooleanOptionalAction, default=True,
                        help='bfloat16 where it pays')
    parser.add_argument('--processes', type=int, default=1, metavar='N',
                        help='CPU processes that share every batch (default 1; as many as there '
                             'are cores is fastest)')
    parser.add_argument('--workers', type=int, default=0, metavar='N',
                        help='further processes that prepare crops (default 0; some with a GPU)')
    for item in options_of(TrainOptions):
        default = ','.join(item.default) if item.kind is tuple else item.default
        parser.add_argument(f'--{item.name.replace("_", "-")}', default=default,
                            metavar=item.kind.__name__.upper(),
                            help=f'{item.text} (default {default})')


def main(args: argparse.Namespace) -> int:
    """Run the training and return 0; ValueError for data and options that cannot work."""
    from road_anomaly_ros.training import trainer

    options = build_options(TrainOptions, {item.name: getattr(args, item.name)
                                           for item in options_of(TrainOptions)})
    trainer.train(options, data=args.data, out=args.out, resume=args.resume, device=args.device,
                  half=args.half, processes=args.processes, workers=args.workers,
                  minutes=args.minutes, evaluate_every=args.evaluate_every)
    return 0
