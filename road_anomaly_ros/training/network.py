# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The small Mask2Former and its anomaly head: configuration, precision, the folder written."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessor,
    TimmBackboneConfig,
)

from road_anomaly_ros import files
from road_anomaly_ros.perception import heads
from road_anomaly_ros.perception.model_files import weights_digest
from road_anomaly_ros.perception.segmenters import _backbones
from road_anomaly_ros.training import depthwise, pretrained
from road_anomaly_ros.training.label_sets import CLASSES

# As the ImageNet weights expect it: (x - 127) / 128 of values 0 .. 255.
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3
HIDDEN = 64
HEAD = 'head_v3'
# Crops hold few classes, so that the queries of rare ones learn to say "nothing" too readily. What
# is stored has this much taken from the logit of "nothing"; without it a rider or a bicycle hardly
# ever comes out. What it is worth: model card.
PRESENCE = 6.0


class RoadNetwork(nn.Module):
    """Segmenter and head, trained together on one set of features."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.segmenter = build_segmenter(kind)
        self.head = heads.GridHead(HIDDEN)
        backbone = self.backbone
        pretrained.load_imagenet(backbone, kind)
        depthwise.fix_norms(backbone)

    @property
    def backbone(self) -> nn.Module:
        """Return timm's network inside."""
        return self.segmenter.model.pixel_level_module.encoder._backbone

    def train(self, mode: bool = True) -> RoadNetwork:
        """Set the mode; the backbone's norms keep the statistics they came with."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, pixels: Tensor) -> tuple[object, Tensor]:
        """Return transformers' output and the head's logit [B,h,w] for normalised [B,3,H,W]."""
        output = self.segmenter(pixels, output_auxiliary_logits=self.training)
        return output, self.head(output.pixel_decoder_last_hidden_state.float())[:, 0]


def build_segmenter(kind: str = 'lite0') -> Mask2FormerForUniversalSegmentation:
    """Return the network with fresh weights: one query per class, strides 4 to 64."""
    _backbones.register()
    names = dict(enumerate(CLASSES))
    config = Mask2FormerConfig(
        backbone_config=TimmBackboneConfig(
            backbone=f'road_efficientnet_{kind}',
            out_indices=tuple(range(1, len(_backbones.STRIDES) + 1)),
        ),
        feature_size=HIDDEN,
        mask_feature_size=HIDDEN,
        hidden_dim=HIDDEN,
        encoder_feedforward_dim=2 * HIDDEN,
        dim_feedforward=4 * HIDDEN,
        encoder_layers=1,
        decoder_layers=3,
        num_attention_heads=4,
        num_queries=len(names),
        output_auxiliary_logits=True,
        feature_strides=list(_backbones.STRIDES),
        id2label=names,
        label2id={name: i for i, name in names.items()},
    )
    return Mask2FormerForUniversalSegmentation(config)


def image_processor(classes: int, size: tuple[int, int]) -> Mask2FormerImageProcessor:
    """Return the preprocessing of the weights: shortest edge at most as given, sides even."""
    return Mask2FormerImageProcessor(
        size={'shortest_edge': min(size), 'longest_edge': 2 * max(size)},
        size_divisor=32,
        image_mean=list(MEAN),
        image_std=list(STD),
        ignore_index=255,
        do_reduce_labels=False,
        num_labels=classes,
    )


def normalise(images: Tensor, device: torch.device) -> Tensor:
    """Return uint8 [B,3,H,W] as normalised float32 in channels-last memory on `device`."""
    images = images.to(device).float().div_(255)
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (MEAN, STD))
    return images.sub_(mean).div_(std).contiguous(memory_format=torch.channels_last)


def half_precision(model: RoadNetwork, device: torch.device) -> None:
    """Let `model` compute in bfloat16 where that pays.

    CUDA: everything. CPU: the backbone and the convolutions behind it; group normalisation
    and the deformable attention are slower in bfloat16 than in float32 there.
    """
    if device.type == 'cuda':
        _halved(model, lambda output: output)
        return
    level = model.segmenter.model.pixel_level_module
    _halved(level.encoder, _floats)
    for part in (*level.decoder.modules(), *model.head.modules()):
        if isinstance(part, nn.Conv2d):
            _halved(part, lambda maps: maps.float())


def _halved(part: nn.Module, after: Callable[[Any], Any]) -> None:
    plain, kind = part.forward, next(part.parameters()).device.type

    def forward(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(kind, torch.bfloat16):
            output = plain(*args, **kwargs)
        return after(output)

    part.forward = forward


def _floats(output: Any) -> Any:
    output.feature_maps = tuple(maps.float() for maps in output.feature_maps)
    return output


@torch.inference_mode()
def semantic_scores(class_logits: Tensor, mask_logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Return S_k = sum_q p_q(k) sigmoid(m_q), float32 [B,K,H,W]; logits are resized first."""
    masks = nn.functional.interpolate(
        mask_logits.float(), size=size, mode='bilinear', align_corners=False
    ).sigmoid()
    return torch.einsum('bqk,bqhw->bkhw', class_logits.float().softmax(-1)[..., :-1], masks)


def _only_shrink(path: Path) -> None:
    """Let smaller images than the rule asks for stay so, for which transformers has no word."""
    stored = {**json.loads(path.read_text(encoding='utf-8')), 'only_shrink': True}
    files.write_json(path, stored)


FILES = ('config.json', 'model.safetensors')  # what makes a folder a model


def save_folder(
    model: RoadNetwork, processor: Mask2FormerImageProcessor, folder: Path, training: dict
) -> None:
    """Write a Hugging Face directory with the head in it; each file appears only when complete.

    Weights are stored in half precision, "nothing" is made rarer by PRESENCE, and the head knows
    the digest of what was stored.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = {name: value.clone() for name, value in model.segmenter.state_dict().items()}
    with torch.no_grad():
        model.segmenter.class_predictor.bias[-1] -= PRESENCE
    with tempfile.TemporaryDirectory(dir=folder, prefix='.partial_') as partial:
        model.segmenter.half().save_pretrained(partial)
        model.segmenter.float().load_state_dict(kept)
        processor.save_pretrained(partial)
        _only_shrink(Path(partial, 'preprocessor_config.json'))
        for path in sorted(Path(partial).iterdir()):
            path.chmod(0o644)
            os.replace(path, folder / path.name)
    info = heads.HeadInfo(
        HEAD, weights_digest(folder), 'two_scales', HIDDEN, 0, heads.GridHead.HIDDEN, training
    )
    heads.save_head(folder / heads.FOLDER / HEAD, info, model.head)
