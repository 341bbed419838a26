# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Everything that decides the result of a training, beside the folders it reads."""

from __future__ import annotations

import dataclasses

from road_anomaly_ros.perception.registry import option

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
