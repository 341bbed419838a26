# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""EfficientNet-Lite with one stage more, under names of ours in timm's registry of models.

Mask2Former's deformable attention works on the last three levels of its backbone. At strides 16,
32 and 64 it has a quarter of the tokens that it has at 8, 16 and 32, and sees the whole image; the
pixel decoder's lateral steps then cover strides 8 and 4.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from road_anomaly_ros.perception.contract import PipelineError

NAMES = {
    'road_efficientnet_lite0': (1.0, 1.0),
    'road_efficientnet_lite1': (1.0, 1.1),
    'road_efficientnet_lite2': (1.1, 1.2),
}
STRIDES = (4, 8, 16, 32, 64)
_STAGES = [
    ['ds_r1_k3_s1_e1_c16'],
    ['ir_r2_k3_s2_e6_c24'],
    ['ir_r2_k5_s2_e6_c40'],
    ['ir_r3_k3_s2_e6_c80'],
    ['ir_r3_k5_s1_e6_c112'],
    ['ir_r4_k5_s2_e6_c192'],
    ['ir_r1_k3_s1_e6_c320'],
    ['ds_r1_k3_s2_e1_c128'],
]


def needed(config: Mapping[str, Any]) -> bool:
    """Tell whether a config.json of Mask2Former names one of these backbones."""
    backbone = config.get('backbone_config')
    return isinstance(backbone, Mapping) and backbone.get('backbone') in NAMES


def register() -> None:
    """Make the names above known to `timm.create_model`; PipelineError where timm is missing."""
    try:
        from timm.models import is_model, register_model
    except ImportError:
        raise PipelineError(
            'the backbone of this model needs timm; install it with pip install timm'
        ) from None
    for name in NAMES:
        if not is_model(name):
            register_model(_entrypoint(name))


def _entrypoint(name: str) -> Any:
    def build(pretrained: bool = False, **kwargs: Any) -> Any:
        return _build(name, **kwargs)

    build.__name__, build.__module__ = name, __name__
    return build


def _build(name: str, **kwargs: Any) -> Any:
    """Return timm's EfficientNet of the Lite kind (ReLU6, no squeeze and excitation)."""
    from timm.models._efficientnet_builder import (
        BN_EPS_TF_DEFAULT,
        decode_arch_def,
        round_channels,
    )
    from timm.models.efficientnet import _create_effnet
    from torch import nn

    width, depth = NAMES[name]
    for unused in ('pretrained_cfg', 'pretrained_cfg_overlay', 'cache_dir'):
        kwargs.pop(unused, None)
    repeats = (1.0, *[depth] * 5, 1.0, 1.0)  # the published network's ends stay single
    network = _create_effnet(
        name,
        False,
        block_args=decode_arch_def(_STAGES, repeats),
        num_features=1280,
        stem_size=32,
        fix_stem=True,
        pad_type='same',
        act_layer=nn.ReLU6,
        norm_layer=functools.partial(nn.BatchNorm2d, eps=BN_EPS_TF_DEFAULT),
        round_chs_fn=functools.partial(round_channels, multiplier=width),
        **kwargs,
    )
    last = network.blocks[-1][0]
    channels = last.conv_dw.in_channels
    # At odd sizes 'same' would pad otherwise than at even ones, which no exported graph can.
    last.conv_dw = nn.Conv2d(channels, channels, 3, 2, 1, groups=channels, bias=False)
    return network
