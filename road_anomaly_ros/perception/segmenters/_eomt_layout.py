# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The state dict of the original EoMT repository, read into the model of transformers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from road_anomaly_ros.perception.contract import PipelineError
from road_anomaly_ros.perception.labels import names_of
from road_anomaly_ros.perception.weights import load_state, rename_keys

_BACKBONE = 'encoder.backbone.'
_HEAD_WIDTH = 64  # of every vision transformer that EoMT was published with
_NOT_LOADED = re.compile(r'criterion\.|encoder\.pixel_(mean|std)$')
_NAMES = (
    (r'^encoder\.backbone\.cls_token$', 'embeddings.cls_token'),
    (r'^encoder\.backbone\.reg_token$', 'embeddings.register_tokens'),
    (r'^encoder\.backbone\.pos_embed$', 'embeddings.position_embeddings.weight'),
    (r'^encoder\.backbone\.patch_embed\.proj', 'embeddings.patch_embeddings.projection'),
    (r'^encoder\.backbone\.blocks\.(\d+)\.attn\.proj\.', r'layers.\1.attention.out_proj.'),
    (r'^encoder\.backbone\.blocks\.(\d+)\.attn\.', r'layers.\1.attention.'),
    (r'^encoder\.backbone\.blocks\.(\d+)\.ls(\d)\.gamma$', r'layers.\1.layer_scale\2.lambda1'),
    (r'^encoder\.backbone\.blocks\.(\d+)\.', r'layers.\1.'),
    (r'^encoder\.backbone\.norm\.', 'layernorm.'),
    (r'^q\.weight$', 'query.weight'),
    (r'^class_head\.', 'class_predictor.'),
    (r'^upscale\.(\d+)\.norm\.', r'upscale_block.block.\1.layernorm2d.'),
    (r'^upscale\.(\d+)\.', r'upscale_block.block.\1.'),
    (r'^mask_head\.0\.', 'mask_head.fc1.'),
    (r'^mask_head\.2\.', 'mask_head.fc2.'),
    (r'^mask_head\.4\.', 'mask_head.fc3.'),
)


def is_original(state: Mapping[str, torch.Tensor]) -> bool:
    """Tell whether the names are those of the original repository."""
    return any(key.startswith(f'network.{_BACKBONE}') for key in state)


def load_original(state: Mapping[str, torch.Tensor], source: Path) -> Any:
    """Return transformers' EoMT with the weights of an original state dict.

    The architecture is read from the shapes. PipelineError lists keys that have no counterpart.
    """
    from transformers import EomtForUniversalSegmentation

    state = rename_keys(state, _without_prefix)
    try:
        config = _config(state)
    except (KeyError, IndexError) as error:
        raise PipelineError(
            f'{source}: {error} is missing; expected a semantic EoMT with a '
            'plain vision transformer'
        ) from None
    converted = _split(rename_keys(state, _renamed))
    return load_state(EomtForUniversalSegmentation(config), converted, source)


def pixel_statistics(state: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Return mean and standard deviation stored with the weights, as preprocessing options."""
    found = {}
    for name in ('mean', 'std'):
        value = state.get(f'network.encoder.pixel_{name}')
        if value is not None:
            found[f'image_{name}'] = tuple(value.flatten().tolist())
    return found


def _without_prefix(key: str) -> str | None:
    key = key.replace('_orig_mod.', '')  # left behind by torch.compile
    plain = key.removeprefix('network.')
    return None if _NOT_LOADED.search(plain) else plain


def _renamed(key: str) -> str:
    for pattern, replacement in _NAMES:
        new, count = re.subn(pattern, replacement, key)
        if count:
            return new
    return key


def _split(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Give queries, keys and values their own matrices; drop the places' batch axis."""
    found: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        if '.attention.qkv.' in key:
            for name, part in zip(('q_proj', 'k_proj', 'v_proj'), value.chunk(3), strict=True):
                found[key.replace('qkv', name)] = part
        else:
            found[key] = value[0] if key.endswith('position_embeddings.weight') else value
    return found


def _config(state: Mapping[str, torch.Tensor]) -> Any:
    from transformers import EomtConfig

    projection = state[f'{_BACKBONE}patch_embed.proj.weight']
    hidden, patch = int(projection.shape[0]), int(projection.shape[-1])
    side = math.isqrt(state[f'{_BACKBONE}pos_embed'].shape[1])
    registers = state.get(f'{_BACKBONE}reg_token')
    names = names_of(int(state['class_head.weight'].shape[0]) - 1)
    return EomtConfig(
        hidden_size=hidden,
        patch_size=patch,
        image_size=side * patch,
        num_attention_heads=max(1, hidden // _HEAD_WIDTH),
        num_hidden_layers=_count(state, rf'{_BACKBONE}blocks\.(\d+)\.'),
        mlp_ratio=state[f'{_BACKBONE}blocks.0.mlp.fc1.weight'].shape[0] // hidden,
        num_upscale_blocks=_count(state, r'upscale\.(\d+)\.'),
        num_register_tokens=0 if registers is None else int(registers.shape[1]),
        num_blocks=int(state['attn_mask_probs'].shape[0]),
        num_queries=int(state['q.weight'].shape[0]),
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
    )


def _count(state: Mapping[str, torch.Tensor], pattern: str) -> int:
    found = [re.match(pattern, key) for key in state]
    return 1 + max((int(match[1]) for match in found if match), default=-1)
