# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Mask2Former and Mask2Anomaly checkpoints of detectron2, read into the model of transformers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from road_anomaly_ros.perception.contract import PipelineError
from road_anomaly_ros.perception.labels import names_of
from road_anomaly_ros.perception.segmenters._mask2former import Branches, masked_branches
from road_anomaly_ros.perception.weights import load_state, rename_keys

_LEVELS, _POINTS = 3, 4  # of the deformable attention of every published model
_PIXELS = 'model.pixel_level_module.'
_QUERIES = 'model.transformer_module.'
_LAYERS = f'{_QUERIES}decoder.layers.'
_NOT_LOADED = re.compile(r'^criterion\.|^pixel_(mean|std)$|\.fusion_layer\.')
_NORMS = {
    'conv1.norm': 'layer.0.normalization',
    'conv2.norm': 'layer.1.normalization',
    'conv3.norm': 'layer.2.normalization',
    'shortcut.norm': 'shortcut.normalization',
    'conv1': 'layer.0.convolution',
    'conv2': 'layer.1.convolution',
    'conv3': 'layer.2.convolution',
    'shortcut': 'shortcut.convolution',
}
_NAMES = (
    (r'^backbone\.stem\.conv1\.norm\.', f'{_PIXELS}encoder.embedder.embedder.normalization.'),
    (r'^backbone\.stem\.conv1\.', f'{_PIXELS}encoder.embedder.embedder.convolution.'),
    (r'^sem_seg_head\.pixel_decoder\.', f'{_PIXELS}decoder.'),
    (
        r'^sem_seg_head\.predictor\.transformer_self_attention_layers\.(\d+)\.norm\.',
        rf'{_LAYERS}\1.self_attn_layer_norm.',
    ),
    (r'^sem_seg_head\.predictor\.transformer_self_attention_layers\.(\d+)\.', rf'{_LAYERS}\1.'),
    (
        r'^sem_seg_head\.predictor\.transformer_cross_attention_layers\.(\d+)\.norm\.',
        rf'{_LAYERS}\1.cross_attn_layer_norm.',
    ),
    (
        r'^sem_seg_head\.predictor\.transformer_cross_attention_layers\.(\d+)'
        r'\.multihead_attn_background\.',
        rf'{_LAYERS}\1.cross_attn_background.',
    ),
    (
        r'^sem_seg_head\.predictor\.transformer_cross_attention_layers\.(\d+)'
        r'\.multihead_attn(_foreground)?\.',
        rf'{_LAYERS}\1.cross_attn.',
    ),
    (r'^sem_seg_head\.predictor\.transformer_ffn_layers\.(\d+)\.linear', rf'{_LAYERS}\1.fc'),
    (
        r'^sem_seg_head\.predictor\.transformer_ffn_layers\.(\d+)\.norm\.',
        rf'{_LAYERS}\1.final_layer_norm.',
    ),
    (r'^sem_seg_head\.predictor\.decoder_norm\.', f'{_QUERIES}decoder.layernorm.'),
    (r'^sem_seg_head\.predictor\.(query_feat|static_query)\.', f'{_QUERIES}queries_features.'),
    (r'^sem_seg_head\.predictor\.query_embed\.', f'{_QUERIES}queries_embedder.'),
    (r'^sem_seg_head\.predictor\.level_embed\.', f'{_QUERIES}level_embed.'),
    (r'^sem_seg_head\.predictor\.input_proj\.', f'{_QUERIES}input_projections.'),
    (r'^sem_seg_head\.predictor\.class_embed\.', 'class_predictor.'),
    (
        r'^sem_seg_head\.predictor\.mask_embed\.layers\.(\d+)\.',
        rf'{_QUERIES}decoder.mask_predictor.mask_embedder.\1.0.',
    ),
)
_PIXEL_NAMES = (
    (r'decoder\.transformer\.level_embed$', 'decoder.level_embed'),
    (r'decoder\.transformer\.encoder\.layers\.', 'decoder.encoder.layers.'),
    (r'(encoder\.layers\.\d+)\.norm1\.', r'\1.self_attn_layer_norm.'),
    (r'(encoder\.layers\.\d+)\.norm2\.', r'\1.final_layer_norm.'),
    (r'(encoder\.layers\.\d+)\.linear', r'\1.fc'),
    (r'decoder\.input_proj\.', 'decoder.input_projections.'),
    (r'decoder\.mask_features\.', 'decoder.mask_projection.'),
    (r'decoder\.(adapter|layer)_(\d+)\.norm\.', r'decoder.\1_\2.1.'),
    (r'decoder\.(adapter|layer)_(\d+)\.(weight|bias)$', r'decoder.\1_\2.0.\3'),
)


def load_detectron2(state: Mapping[str, torch.Tensor], source: Path) -> Any:
    """Return transformers' Mask2Former with the weights of a detectron2 checkpoint with a ResNet.

    The architecture is read from the shapes; layers with global masked attention get the second
    branch `cross_attn_background`. PipelineError lists keys that have no counterpart.
    """
    from transformers import Mask2FormerForUniversalSegmentation

    try:
        config = _config(state)
    except KeyError as error:
        raise PipelineError(
            f'{source}: {error} is missing; expected a Mask2Former or '
            'Mask2Anomaly checkpoint of detectron2 with a ResNet'
        ) from None
    model = Mask2FormerForUniversalSegmentation(config)
    if any('multihead_attn_background' in key for key in state):
        for layer in model.model.transformer_module.decoder.layers:
            layer.cross_attn_background = nn.MultiheadAttention(
                config.hidden_dim, config.num_attention_heads
            )
    return load_state(model, _split(rename_keys(state, _renamed)), source)


def global_branches(layer: Any) -> Branches:
    """Return the foreground and background branch of a layer, or its only one."""
    background = getattr(layer, 'cross_attn_background', None)
    foreground = masked_branches(layer)
    return foreground if background is None else (*foreground, (background, -1))


def _renamed(key: str) -> str | None:
    if _NOT_LOADED.search(key):
        return None
    block = re.match(r'backbone\.res(\d)\.(\d+)\.(\w+(?:\.norm)?)\.(\w+)$', key)
    if block:
        stage, number, part, value = block.groups()
        return (
            f'{_PIXELS}encoder.encoder.stages.{int(stage) - 2}.layers.{number}.'
            f'{_NORMS.get(part, part)}.{value}'
        )
    for pattern, replacement in _NAMES:
        key, count = re.subn(pattern, replacement, key)
        if count:
            break
    if key.startswith(f'{_PIXELS}decoder.'):
        for pattern, replacement in _PIXEL_NAMES:
            key = re.sub(pattern, replacement, key)
    return key


def _split(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Give queries, keys and values of the self attention their own matrices."""
    found: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        joined = re.match(r'(.*\.self_attn)\.in_proj_(weight|bias)$', key)
        if joined:
            for name, part in zip('qkv', value.chunk(3), strict=True):
                found[f'{joined[1]}.{name}_proj.{joined[2]}'] = part
        else:
            found[key] = value
    return found


def _config(state: Mapping[str, torch.Tensor]) -> Any:
    from transformers import Mask2FormerConfig

    pixels, queries = 'sem_seg_head.pixel_decoder.', 'sem_seg_head.predictor.'
    layer = f'{pixels}transformer.encoder.layers.0.'
    features = state.get(f'{queries}query_feat.weight', state.get(f'{queries}static_query.weight'))
    if features is None:
        raise KeyError(f'{queries}query_feat.weight')
    names = names_of(int(state[f'{queries}class_embed.weight'].shape[0]) - 1)
    weights = state[f'{layer}self_attn.attention_weights.weight']
    return Mask2FormerConfig(
        backbone_config=_resnet(state),
        feature_size=int(weights.shape[1]),
        mask_feature_size=int(state[f'{pixels}mask_features.weight'].shape[0]),
        hidden_dim=int(features.shape[1]),
        num_queries=int(features.shape[0]),
        encoder_feedforward_dim=int(state[f'{layer}linear1.weight'].shape[0]),
        dim_feedforward=int(state[f'{queries}transformer_ffn_layers.0.linear1.weight'].shape[0]),
        encoder_layers=_count(state, rf'{pixels}transformer\.encoder\.layers\.(\d+)\.'),
        decoder_layers=1 + _count(state, rf'{queries}transformer_ffn_layers\.(\d+)\.'),
        num_attention_heads=int(weights.shape[0]) // (_LEVELS * _POINTS),
        enforce_input_projection=f'{queries}input_proj.0.weight' in state,
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
    )


def _resnet(state: Mapping[str, torch.Tensor]) -> Any:
    from transformers import ResNetConfig

    deep = 'backbone.res2.0.conv3.weight' in state
    last = 'conv3' if deep else 'conv2'
    return ResNetConfig(
        embedding_size=int(state['backbone.stem.conv1.weight'].shape[0]),
        hidden_sizes=[
            int(state[f'backbone.res{stage}.0.{last}.weight'].shape[0]) for stage in (2, 3, 4, 5)
        ],
        depths=[_count(state, rf'backbone\.res{stage}\.(\d+)\.') for stage in (2, 3, 4, 5)],
        layer_type='bottleneck' if deep else 'basic',
        out_features=['stage1', 'stage2', 'stage3', 'stage4'],
    )


def _count(state: Mapping[str, torch.Tensor], pattern: str) -> int:
    found = [re.match(pattern, key) for key in state]
    return 1 + max((int(match[1]) for match in found if match), default=-1)
