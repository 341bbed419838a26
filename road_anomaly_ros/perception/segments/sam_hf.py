# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Segment Anything as transformers stores it, slimmed versions included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from road_anomaly_ros.perception.model_files import model_directory
from road_anomaly_ros.perception.registry import option
from road_anomaly_ros.perception.resources import Resources
from road_anomaly_ros.perception.segments._promptable import (
    PromptedSegments,
    PromptOptions,
    needs_weights,
    shared_network,
)
from road_anomaly_ros.perception.weights import load_pretrained

SOURCE = 'Segment Anything and slim versions; transformers'
NEEDS = 'directory or hub name'

# Tied to the shared embedding, so some checkpoints store one of the two names only.
_TIED = r'^prompt_encoder\.shared_embedding\.'


@dataclass(frozen=True)
class Options(PromptOptions):
    """What a user may choose about SAM of transformers."""

    model: str = option('', 'Local directory or hub name, such as facebook/sam-vit-base.')


Embedding = torch.Tensor | Sequence[torch.Tensor]  # of one scale, or of several


class TransformersBackend:
    """SamModel behind the interface of promptable sources."""

    stretches = False
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)

    def __init__(self, network: nn.Module) -> None:
        self._network = cast(Any, network)
        self.side = int(self._network.config.vision_config.image_size)

    def embed(self, pixels: torch.Tensor) -> Embedding:
        """Return the image embedding."""
        return self._network.get_image_embeddings(pixels)

    def decode(
        self, embedding: Embedding, points: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits [N,3,h,w] and predicted IoU [N,3] of points [N,2]."""
        found = self._network(image_embeddings=embedding, input_points=points[None, :, None])
        return found.pred_masks[0], found.iou_scores[0]


def load(
    *, device: torch.device, options: Options, resources: Resources | None = None
) -> PromptedSegments:
    """Load a SAM; PipelineError, in one line with the remedy, where that cannot work."""
    needs_weights('sam_hf', options.model, 'a directory or hub name such as facebook/sam-vit-base')
    directory = model_directory(options.model)
    backend = shared_network(resources, 'sam_hf', directory, lambda: _backend(directory, device))
    return PromptedSegments(backend, options, device)


def _backend(directory: Path, device: torch.device) -> TransformersBackend:
    from transformers import SamModel

    network = load_pretrained(SamModel, directory, ignore=_TIED)
    return TransformersBackend(network.requires_grad_(False).to(device))
