# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of random weights, small enough to write, load and run in a fraction of a second."""

from __future__ import annotations

import json
from pathlib import Path

import torch

NAMES = ('road', 'sidewalk', 'car', 'sky')
IDS = {'id2label': dict(enumerate(NAMES)), 'label2id': {name: i for i, name in enumerate(NAMES)}}


def roughen(model: torch.nn.Module) -> torch.nn.Module:
    """Give every layer weights that matter: the zeros and ones of fresh ones hide mistakes."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim < 2 or 'sampling_offsets' in name or 'attention_weights' in name:
                value.add_(torch.randn_like(value) * 0.1)
        for name, value in model.named_buffers():
            if name.endswith('running_mean'):
                value.copy_(torch.randn_like(value) * 0.1)
            elif name.endswith('running_var'):
                value.copy_(torch.rand_like(value) + 0.5)
    return model.eval()


def _backbone(kind: str):
    from transformers import ResNetConfig, SwinConfig
    stages = ['stage1', 'stage2', 'stage3', 'stage4']
    if kind == 'swin':
        return SwinConfig(embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4,
                          image_size=64, out_features=stages)
    return ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1],
                        layer_type='basic', out_features=stages)


def mask2former(folder: Path, *, backbone: str = 'resnet', preprocessing: dict | None = None,
                pre_norm: bool = False, safe: bool = True):
    """Write a Mask2Former directory of 4 classes and 5 queries; return the model itself."""
    model = new_mask2former(_backbone(backbone), pre_norm=pre_norm)
    save(model, folder, preprocessing, safe=safe)
    return model


def new_mask2former(backbone, *, pre_norm: bool = False):
    """Return a Mask2Former of 4 classes and 5 queries over the given backbone."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation
    torch.manual_seed(0)
    config = Mask2FormerConfig(
        backbone_config=backbone, feature_size=32, mask_feature_size=32, hidden_dim=32,
        encoder_feedforward_dim=32, dim_feedforward=32, encoder_layers=2, decoder_layers=5,
        num_attention_heads=4, num_queries=5, pre_norm=pre_norm, **IDS)
    return roughen(Mask2FormerForUniversalSegmentation(config))


def segformer(folder: Path):
    """Write a SegFormer directory of 4 classes; return the model."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation
    torch.manual_seed(0)
    config = SegformerConfig(depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 16, 16],
                             num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=16, **IDS)
    model = roughen(SegformerForSemanticSegmentation(config))
    save(model, folder, {'size': {'height': 64, 'width': 64}, 'size_divisor': 0})
    return model


def eomt(folder: Path, *, masked: bool = True):
    """Write an EoMT directory of 4 classes and 5 queries for windows of 32 pixels; return it."""
    from transformers import EomtConfig, EomtForUniversalSegmentation
    torch.manual_seed(0)
    config = EomtConfig(hidden_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=32,
                        patch_size=8, mlp_ratio=2, num_blocks=2, num_queries=5,
                        num_register_tokens=2, num_upscale_blocks=1, **IDS)
    model = roughen(EomtForUniversalSegmentation(config))
    if not masked:
        model.attn_mask_probs.zero_()
    save(model, folder, {'size': {'shortest_edge': 32, 'longest_edge': None},
                         'do_split_image': True})
    return model


def save(model, folder: Path, preprocessing: dict | None = None, *, safe: bool = True) -> None:
    """Write model and preprocessor_config.json as save_pretrained does; pickled if not `safe`."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    if not safe:
        torch.save(model.state_dict(), folder / 'pytorch_model.bin')
        (folder / 'model.safetensors').unlink()
    stored = {'size': {'shortest_edge': 64, 'longest_edge': 128}, 'size_divisor': 32,
              **(preprocessing or {})}
    (folder / 'preprocessor_config.json').write_text(json.dumps(stored), encoding='utf-8')
