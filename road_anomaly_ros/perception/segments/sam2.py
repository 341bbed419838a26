# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Segment Anything 2 (Ravi et al. 2024) as transformers stores it; images only, no memory."""

from __future__ import annotations

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
from road_anomaly_ros.perception.segments.sam_hf import TransformersBackend
from road_anomaly_ros.perception.weights import load_pretrained

SOURCE = 'Segment Anything 2, Ravi et al. 2024; transformers'
NEEDS = 'directory or hub name'

# The published checkpoints are of the video model; its memory has no part in single images.
_VIDEO = (
    r'^memory_|^mask_downsample|^object_pointer_proj|^temporal_|^no_object_pointer'
    r'|^no_memory_positional|^occlusion_spatial|^prompt_encoder\.shared_embedding\.'
)


@dataclass(frozen=True)
class Options(PromptOptions):
    """What a user may choose about SAM 2."""

    model: str = option('', 'Local directory or hub name, such as facebook/sam2.1-hiera-tiny.')


class Sam2Backend(TransformersBackend):
    """Sam2Model behind the interface of promptable sources; it stretches images to a square."""

    stretches = True
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)

    def __init__(self, network: nn.Module) -> None:
        self._network = cast(Any, network)
        self.side = int(self._network.config.prompt_encoder_config.image_size)


def load(
    *, device: torch.device, options: Options, resources: Resources | None = None
) -> PromptedSegments:
    """Load a SAM 2; PipelineError, in one line with the remedy, where that cannot work."""
    needs_weights(
        'sam2', options.model, 'a directory or hub name such as facebook/sam2.1-hiera-tiny'
    )
    directory = model_directory(options.model)
    backend = shared_network(resources, 'sam2', directory, lambda: _backend(directory, device))
    return PromptedSegments(backend, options, device)


def _backend(directory: Path, device: torch.device) -> Sam2Backend:
    from transformers import Sam2Model

    network = load_pretrained(Sam2Model, directory, ignore=_VIDEO, also='sam2_video')
    return Sam2Backend(network.requires_grad_(False).to(device))
