# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Train an anomaly head on top of a frozen segmenter.

The images are those of `road-anomaly synthesize`. The segmenter sees each of them once; what it
says is kept in OUT/features, so that training takes minutes on two cores. OUT gets the head
(head.safetensors, head.json), curve.csv and checkpoint.pt; with --val also results.json.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from road_anomaly_ros.tools.chain import add_options, add_out, chosen_options
from road_anomaly_ros.training.options import HeadTrainOptions

EXAMPLES = """
examples:
  road-anomaly train head --data synth -o runs/head
  road-anomaly train head --data synth synth_rendered --cache features -o runs/mixed
  road-anomaly train head --data synth --val synth_val --kind head_v1 -o runs/head_v1
  road-anomaly train head --data synth --features pyramid --rate 2e-3 --epochs 6 \\
      --schedule cosine -o runs/head
  road-anomaly train head --data synth -o runs/head --resume
  road-anomaly run dashcam.mp4 -o results --scorer head_v2 \\
      --set scorers.head_v2.checkpoint=runs/head

Ctrl-C keeps the epochs that are done; --resume continues to the bit as if nothing had been.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add(
        '--data',
        required=True,
        type=Path,
        nargs='+',
        metavar='SYNTH',
        help="folders written by 'road-anomaly synthesize', trained on together",
    )
    add(
        '--val',
        type=Path,
        metavar='SYNTH',
        help='another such folder to measure AP, FPR95 and F1 on at the end',
    )
    add_out(parser, 'output folder')
    add('--segmenter', default='mask2former', help='kind of the frozen segmenter')
    add('--model', default='builtin', help='its model (default builtin)')
    add('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    add('--resume', action='store_true', help='continue from OUT/checkpoint.pt')
    add(
        '--cache',
        type=Path,
        metavar='FOLDER',
        help="where to keep the segmenter's answers, one folder per data folder; "
        'runs may share it (default OUT/features)',
    )
    add_options(parser, HeadTrainOptions)


def main(arguments: argparse.Namespace) -> int:
    """Run the command; returns 0, or 130 when Ctrl-C ended it early."""
    from road_anomaly_ros.training import head_trainer

    options = chosen_options(HeadTrainOptions, arguments)
    try:
        head_trainer.train(
            options,
            data=arguments.data,
            val=arguments.val,
            out=arguments.out,
            segmenter=arguments.segmenter,
            model=arguments.model,
            device=arguments.device,
            resume=arguments.resume,
            cache=arguments.cache,
        )
    except KeyboardInterrupt:
        print(
            f'interrupted: what is done is kept in {arguments.out}; the same command with '
            '--resume continues',
            file=sys.stderr,
        )
        return 130
    return 0
