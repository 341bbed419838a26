# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Train a segmenter and its anomaly head together, from ImageNet weights, on road frames.

The result is a small Mask2Former in Hugging Face form, ready for `road-anomaly run --model OUT`.
"""

from __future__ import annotations

import argparse
import math

from road_anomaly_ros.perception.registry import options_of
from road_anomaly_ros.tools.chain import add_options, add_out, chosen_options
from road_anomaly_ros.training.options import TrainOptions

EXAMPLES = """
examples:
  road-anomaly train segmenter --data camvid:camvid/train --outliers objects -o runs/first
  road-anomaly train segmenter --data cityscapes:cityscapes,weight=3 --data bdd100k:bdd100k \\
      --data camvid:camvid/train --val camvid:camvid/val --outliers objects -o runs/gpu \\
      --device cuda --workers 8 --batch 64
  road-anomaly train segmenter --data camvid:camvid/train --outliers objects -o runs/first --resume
  torchrun --nproc-per-node 8 -m road_anomaly_ros.cli train segmenter \\
      --data cityscapes:cityscapes --outliers objects -o runs/eight --batch 128

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
_LISTS = ('data', 'val', 'outliers')  # given once per folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `road-anomaly train segmenter`."""
    add = parser.add_argument
    add_out(parser, 'output folder')
    add('--resume', action='store_true', help='continue from OUT/checkpoint.pt')
    _add_run_arguments(parser)
    for name in _LISTS:
        item = next(item for item in options_of(TrainOptions) if item.name == name)
        add(
            f'--{name}',
            action='append',
            default=[],
            help=item.text,
            required=name == 'data',
            metavar='FOLDER' if name == 'outliers' else 'LAYOUT:FOLDER',
        )
    add_options(parser, TrainOptions, without=_LISTS)


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        '--minutes',
        type=float,
        default=math.inf,
        help='save and end after so many minutes; --resume continues',
    )
    add(
        '--evaluate-every',
        type=float,
        default=6.0,
        metavar='MINUTES',
        help='time between evaluations and checkpoints (default 6)',
    )
    add('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    add(
        '--half',
        action=argparse.BooleanOptionalAction,
        default=True,
        help='bfloat16 where it pays',
    )
    add(
        '--processes',
        type=int,
        default=1,
        metavar='N',
        help='CPU processes that share every batch (default 1; as many as there '
        'are cores is fastest)',
    )
    add(
        '--workers',
        type=int,
        default=0,
        metavar='N',
        help='further processes that prepare crops (default 0; some with a GPU)',
    )


def main(arguments: argparse.Namespace) -> int:
    """Run the training and return 0; ValueError for data and options that cannot work."""
    from road_anomaly_ros.training import trainer

    trainer.train(
        chosen_options(TrainOptions, arguments),
        out=arguments.out,
        resume=arguments.resume,
        device=arguments.device,
        half=arguments.half,
        processes=arguments.processes,
        workers=arguments.workers,
        minutes=arguments.minutes,
        evaluate_every=arguments.evaluate_every,
    )
    return 0
