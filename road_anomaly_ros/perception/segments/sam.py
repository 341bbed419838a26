# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Segment Anything (Kirillov et al. 2023) from its authors' package and .pth files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from road_anomaly_ros.perception.contract import PipelineError
from road_anomaly_ros.perception.model_files import weights_file
from road_anomaly_ros.perception.registry import option
from road_anomaly_ros.perception.resources import Resources
from road_anomaly_ros.perception.segments._promptable import (
    PromptedSegments,
    PromptOptions,
    needs_weights,
    shared_network,
)
from road_anomaly_ros.perception.weights import load_state, read_state

SOURCE = 'Segment Anything, Kirillov et al. 2023; segment-anything'
NEEDS = "the authors' .pth"

_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_DECODER_HEADS = 8
_ENCODER = 'image_encoder.'
_LAYERS = 'mask_decoder.transformer.layers.'


@dataclass(frozen=True)
class Options(PromptOptions):
    """What a user may choose about SAM."""

    model: str = option('', 'File of weights, such as sam_vit_b_01ec64.pth.')


class SamBackend:
    """The network of the package behind the interface of promptable sources."""

    stretches = False
    mean, std = _MEAN, _STD

    def __init__(self, network: nn.Module) -> None:
        self._network = cast(Any, network)
        self.side = int(self._network.image_encoder.img_size)

    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the image embedding [1,C,h,w]."""
        return self._network.image_encoder(pixels)

    def decode(
        self, embedding: torch.Tensor, points: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits [N,3,h,w] and predicted IoU [N,3] of points [N,2]."""
        network = self._network
        labels = torch.ones(len(points), 1, device=points.device)
        sparse, dense = network.prompt_encoder(
            points=(points[:, None], labels), boxes=None, masks=None
        )
        return network.mask_decoder(
            image_embeddings=embedding,
            image_pe=network.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )


def load(
    *, device: torch.device, options: Options, resources: Resources | None = None
) -> PromptedSegments:
    """Load a SAM; PipelineError, in one line with the remedy, where that cannot work."""
    needs_weights('sam', options.model, 'a file such as sam_vit_b_01ec64.pth')
    path = weights_file(options.model, ('.pth', '.pt', '.safetensors'), 'segment source sam')
    backend = shared_network(resources, 'sam', path, lambda: _backend(path, device))
    return PromptedSegments(backend, options, device)


def _backend(path: Path, device: torch.device) -> SamBackend:
    state = read_state(path)
    try:
        network = build(state)
    except (KeyError, IndexError) as error:
        raise PipelineError(
            f'{path}: {error} is missing; expected weights of the package segment-anything'
        ) from None
    return SamBackend(load_state(network, state, path).requires_grad_(False).to(device))


def build(state: Mapping[str, torch.Tensor]) -> nn.Module:
    """Return a network of the package with the shapes of `state`, without its values."""
    from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    width = int(state[f'{_ENCODER}neck.0.weight'].shape[0])
    encoder = _image_encoder(state, width)
    grid = encoder.img_size // encoder.patch_embed.proj.kernel_size[0]
    transformer = TwoWayTransformer(
        depth=_count(state, rf'{_LAYERS}(\d+)\.'),
        embedding_dim=width,
        mlp_dim=int(state[f'{_LAYERS}0.mlp.lin1.weight'].shape[0]),
        num_heads=_DECODER_HEADS,
    )
    decoder = MaskDecoder(
        num_multimask_outputs=int(state['mask_decoder.mask_tokens.weight'].shape[0]) - 1,
        transformer=transformer,
        transformer_dim=width,
        iou_head_depth=_count(state, r'mask_decoder\.iou_prediction_head\.layers\.(\d+)\.'),
        iou_head_hidden_dim=int(
            state['mask_decoder.iou_prediction_head.layers.0.weight'].shape[0]
        ),
    )
    prompts = PromptEncoder(
        embed_dim=width,
        image_embedding_size=(grid, grid),
        input_image_size=(encoder.img_size, encoder.img_size),
        mask_in_chans=int(state['prompt_encoder.mask_downscaling.3.weight'].shape[0]),
    )
    return Sam(encoder, prompts, decoder, list(_MEAN), list(_STD))


def _image_encoder(state: Mapping[str, torch.Tensor], width: int) -> Any:
    from segment_anything.modeling import ImageEncoderViT

    projection = state[f'{_ENCODER}patch_embed.proj.weight']
    embed, patch = int(projection.shape[0]), int(projection.shape[-1])
    grid = int(state[f'{_ENCODER}pos_embed'].shape[1])
    depth = _count(state, rf'{_ENCODER}blocks\.(\d+)\.')
    tables = [state[f'{_ENCODER}blocks.{index}.attn.rel_pos_h'] for index in range(depth)]
    spans = [(len(table) + 1) // 2 for table in tables]  # cells seen by each block
    return ImageEncoderViT(
        img_size=grid * patch,
        patch_size=patch,
        embed_dim=embed,
        depth=depth,
        num_heads=embed // int(tables[0].shape[1]),
        out_chans=width,
        qkv_bias=True,
        mlp_ratio=state[f'{_ENCODER}blocks.0.mlp.lin1.weight'].shape[0] / embed,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=min(spans),
        global_attn_indexes=tuple(index for index, span in enumerate(spans) if span == grid),
    )


def _count(state: Mapping[str, torch.Tensor], pattern: str) -> int:
    found = [re.match(pattern, key) for key in state]
    return 1 + max((int(match[1]) for match in found if match), default=-1)
