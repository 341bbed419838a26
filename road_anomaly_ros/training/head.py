# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Train an anomaly head on top of a frozen segmenter.

The images are those of `road-anomaly synthesize`. The segmenter sees each of them once; what it
says is kept in OUT/features, so that training takes minutes on two cores. OUT gets the head
(head.safetensors, head.json), curve.csv and checkpoint.pt; with --val also results.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from road_anomaly_ros.perception.registry import option
from road_anomaly_ros.training.synthesize import add_options, chosen_options

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

# Rate and epochs of the EoMT study, per kind of head.
PUBLISHED = {'head_v1': (1e-4, 5), 'head_v2': (1e-6, 3)}


@dataclasses.dataclass(frozen=True)
class HeadTrainOptions:
    """Everything that decides the result of a run, beside data and segmenter."""

    kind: str = option(
        'head_v2',
        'head_v1 (statistics) or head_v2 (statistics and features).',
        choices=('head_v1', 'head_v2'),
    )
    features: str = option('pyramid', "The segmenter's feature map that head_v2 reads.")
    projection: int = option(32, 'Channels that the features are projected to.', low=1, high=1024)
    hidden: tuple[int, ...] = option(
        (64, 32), 'Widths of the two hidden layers.', low=1, high=4096
    )
    dropout: float = option(0.1, 'Share of hidden values dropped in training.', low=0.0, high=0.9)
    positive_weight: float = option(
        10.0, 'Weight of anomalous pixels in the loss.', low=1e-3, high=1e4
    )
    ignore_void: bool = option(
        True,
        'Leave pixels marked 255 out of the loss; false counts them '
        'as normal, as the published code of head_v1 does.',
    )
    rate: float = option(
        0.0,
        'Learning rate; 0 is the published one: 1e-4 for head_v1, 1e-6 for head_v2.',
        low=0.0,
        high=1.0,
    )
    epochs: int = option(
        0,
        'Passes over the images; 0 is as published: 5 for head_v1, 3 for head_v2.',
        low=0,
        high=100_000,
    )
    schedule: str = option(
        'constant',
        "Learning rate over the run: 'constant' as published, or "
        "'cosine' to zero after a short rise.",
        choices=('constant', 'cosine'),
    )
    decay: float = option(0.05, 'Weight decay of AdamW.', low=0.0, high=1.0)
    batch: int = option(8, 'Images per step.', low=1, high=4096)
    pixels: int = option(
        4096, 'Pixels drawn from each image and step; 0 takes all of them.', low=0, high=2**31 - 1
    )
    standardise: bool = option(
        True,
        'Scale features to mean 0 and deviation 1 while training; '
        'the weights that are stored take raw features.',
    )
    seed: int = option(0, 'Seed of weights, order, pixels and dropout.', low=0, high=2**31 - 1)

    def __post_init__(self) -> None:
        if len(self.hidden) != 2:
            raise ValueError(f'hidden: expected two widths, got {list(self.hidden)}')
        rate, epochs = PUBLISHED[self.kind]
        object.__setattr__(self, 'rate', self.rate or rate)
        object.__setattr__(self, 'epochs', self.epochs or epochs)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        '--data',
        required=True,
        type=Path,
        nargs='+',
        metavar='SYNTH',
        help="folders written by 'road-anomaly synthesize', trained on together",
    )
    parser.add_argument(
        '--val',
        type=Path,
        metavar='SYNTH',
        help='another such folder to measure AP, FPR95 and F1 on at the end',
    )
    parser.add_argument(
        '-o', '--out', required=True, type=Path, metavar='OUT', help='output folder'
    )
    parser.add_argument('--segmenter', default='mask2former', help='kind of the frozen segmenter')
    parser.add_argument('--model', default='builtin', help='its model (default builtin)')
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    parser.add_argument('--resume', action='store_true', help='continue from OUT/checkpoint.pt')
    parser.add_argument(
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
