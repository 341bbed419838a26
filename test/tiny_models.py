# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of random weights, small enough to write, load and run in a fraction of a second."""

from __future__ import annotations

import inspect
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


def processor(name: str, folder: Path):
    """Return transformers' image processor that resizes as torchvision does."""
    import transformers

    kind = getattr(transformers, f'{name}ImageProcessorFast', None) or getattr(
        transformers, f'{name}ImageProcessor'
    )
    return kind.from_pretrained(folder)


def semantic_map(processor, raw, target, **options):
    """Return the labels that transformers finds and, from some version on, the class scores."""
    function = processor.post_process_semantic_segmentation
    if 'return_segmentation_scores' not in inspect.signature(function).parameters:
        return (function(raw, target_sizes=[target], **options)[0],)
    found = function(raw, target_sizes=[target], return_segmentation_scores=True, **options)[0]
    return found['segmentation'], found['segmentation_scores']


def new_backbone(kind: str):
    from transformers import ResNetConfig, SwinConfig

    stages = ['stage1', 'stage2', 'stage3', 'stage4']
    if kind == 'swin':
        return SwinConfig(
            embed_dim=8,
            depths=[1, 1, 1, 1],
            num_heads=[1, 1, 2, 2],
            window_size=4,
            image_size=64,
            out_features=stages,
        )
    return ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        layer_type='basic',
        out_features=stages,
    )


def mask2former(
    folder: Path,
    *,
    backbone: str = 'resnet',
    preprocessing: dict | None = None,
    pre_norm: bool = False,
    safe: bool = True,
):
    """Write a Mask2Former directory of 4 classes and 5 queries; return the model itself."""
    model = new_mask2former(new_backbone(backbone), pre_norm=pre_norm)
    save(model, folder, preprocessing, safe=safe)
    return model


def new_mask2former(backbone, *, pre_norm: bool = False):
    """Return a Mask2Former of 4 classes and 5 queries over the given backbone."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

    torch.manual_seed(0)
    config = Mask2FormerConfig(
        backbone_config=backbone,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=32,
        dim_feedforward=32,
        encoder_layers=2,
        decoder_layers=5,
        num_attention_heads=4,
        num_queries=5,
        pre_norm=pre_norm,
        **IDS,
    )
    return roughen(Mask2FormerForUniversalSegmentation(config))


def segformer(folder: Path):
    """Write a SegFormer directory of 4 classes; return the model."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    torch.manual_seed(0)
    config = SegformerConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 8, 16, 16],
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16,
        **IDS,
    )
    model = roughen(SegformerForSemanticSegmentation(config))
    save(model, folder, {'size': {'height': 64, 'width': 64}, 'size_divisor': 0})
    return model


def eomt(folder: Path, *, masked: bool = True):
    """Write an EoMT directory of 4 classes and 5 queries for windows of 32 pixels; return it."""
    from transformers import EomtConfig, EomtForUniversalSegmentation

    torch.manual_seed(0)
    config = EomtConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        mlp_ratio=2,
        num_blocks=2,
        num_queries=5,
        num_register_tokens=2,
        num_upscale_blocks=1,
        **IDS,
    )
    model = roughen(EomtForUniversalSegmentation(config))
    if not masked:
        model.attn_mask_probs.zero_()
    save(
        model,
        folder,
        {'size': {'shortest_edge': 32, 'longest_edge': None}, 'do_split_image': True},
    )
    return model


def sam_state():
    """Return the state dict of a SAM of the authors' package for inputs of 64 pixels."""
    from functools import partial

    from segment_anything.modeling import (
        ImageEncoderViT,
        MaskDecoder,
        PromptEncoder,
        Sam,
        TwoWayTransformer,
    )

    torch.manual_seed(0)
    encoder = ImageEncoderViT(
        img_size=64,
        patch_size=16,
        embed_dim=32,
        depth=2,
        num_heads=2,
        out_chans=32,
        mlp_ratio=2,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=3,
        global_attn_indexes=(1,),
    )
    decoder = MaskDecoder(
        transformer_dim=32,
        transformer=TwoWayTransformer(2, 32, 8, 64),
        num_multimask_outputs=3,
        iou_head_depth=3,
        iou_head_hidden_dim=32,
    )
    prompts = PromptEncoder(
        embed_dim=32, image_embedding_size=(4, 4), input_image_size=(64, 64), mask_in_chans=16
    )
    model = roughen(Sam(encoder, prompts, decoder))
    torch.nn.init.ones_(model.mask_decoder.iou_prediction_head.layers[-1].bias)
    return model.state_dict()


def sam_hf(folder: Path):
    """Write a SAM directory of transformers for inputs of 64 pixels; return the model."""
    from transformers import SamConfig, SamModel

    torch.manual_seed(0)
    config = SamConfig(
        vision_config={
            'hidden_size': 32,
            'num_hidden_layers': 2,
            'num_attention_heads': 2,
            'image_size': 64,
            'patch_size': 16,
            'output_channels': 32,
            'mlp_dim': 64,
            'window_size': 3,
            'global_attn_indexes': [1],
            'num_pos_feats': 16,
        },
        prompt_encoder_config={'hidden_size': 32, 'image_size': 64, 'patch_size': 16},
        mask_decoder_config={'hidden_size': 32, 'mlp_dim': 64, 'iou_head_hidden_dim': 32},
    )
    model = roughen(SamModel(config))
    torch.nn.init.ones_(model.mask_decoder.iou_prediction_head.proj_out.bias)
    save(model, folder, {'size': {'longest_edge': 64}})
    return model


def sam2(folder: Path):
    """Write a SAM 2 directory of transformers for inputs of 64 pixels; return the model."""
    from transformers import Sam2Config, Sam2Model

    torch.manual_seed(0)
    config = Sam2Config(
        vision_config={
            'backbone_config': {
                'model_type': 'sam2_hiera_det_model',
                'hidden_size': 8,
                'num_attention_heads': 1,
                'image_size': [64, 64],
                'blocks_per_stage': [1, 1, 2, 1],
                'embed_dim_per_stage': [8, 16, 32, 64],
                'num_attention_heads_per_stage': [1, 1, 2, 4],
                'window_size_per_stage': [4, 2, 2, 2],
                'global_attention_blocks': [3],
                'window_positional_embedding_background_size': [2, 2],
            },
            'backbone_channel_list': [64, 32, 16, 8],
            'fpn_hidden_size': 32,
            'backbone_feature_sizes': [[16, 16], [8, 8], [4, 4]],
        },
        prompt_encoder_config={'hidden_size': 32, 'image_size': 64, 'patch_size': 16},
        mask_decoder_config={
            'hidden_size': 32,
            'mlp_dim': 64,
            'iou_head_hidden_dim': 32,
            'num_attention_heads': 4,
        },
    )
    model = roughen(Sam2Model(config))
    save(model, folder, {'size': {'height': 64, 'width': 64}})
    return model


def save(model, folder: Path, preprocessing: dict | None = None, *, safe: bool = True) -> None:
    """Write model and preprocessor_config.json as save_pretrained does; pickled if not `safe`."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    if not safe:
        torch.save(model.state_dict(), folder / 'pytorch_model.bin')
        (folder / 'model.safetensors').unlink()
    stored = {
        'size': {'shortest_edge': 64, 'longest_edge': 128},
        'size_divisor': 32,
        **(preprocessing or {}),
    }
    (folder / 'preprocessor_config.json').write_text(json.dumps(stored), encoding='utf-8')
