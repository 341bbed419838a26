# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""SegFormer (Xie et al. 2021) as transformers stores it; a per-pixel model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from road_anomaly_ros.perception.model_files import model_directory
from road_anomaly_ros.perception.registry import option
from road_anomaly_ros.perception.segmenters._images import Preprocessing
from road_anomaly_ros.perception.segmenters._pixels import PixelSegmenter
from road_anomaly_ros.perception.segmenters.mask2former import labels_of
from road_anomaly_ros.perception.weights import load_pretrained

SOURCE = 'SegFormer, Xie et al. 2021; transformers'
NEEDS = 'directory or hub name'


@dataclass(frozen=True)
class Options:
    """What a user may choose about a SegFormer."""

    short_side: int = option(
        0,
        'Short side of the network input; 0 takes the size rule stored with the model.',
        low=0,
        high=4096,
        unit='px',
        live=False,
    )


def _logits(network: Any, pixels: torch.Tensor) -> torch.Tensor:
    return network(pixel_values=pixels).logits


def load(
    model: str, *, device: torch.device, precision: torch.dtype, options: Options
) -> PixelSegmenter:
    """Load a SegFormer; PipelineError, in one line with the remedy, where that cannot work."""
    from transformers import SegformerForSemanticSegmentation

    directory = model_directory(model)
    preprocessing = Preprocessing.from_directory(
        directory, default={'size': 512, 'default_to_square': True}, short_side=options.short_side
    )
    network = load_pretrained(SegformerForSemanticSegmentation, directory)
    return PixelSegmenter(
        network,
        _logits,
        labels=labels_of(network.config, directory),
        model_dir=directory,
        preprocessing=preprocessing,
        device=device,
        precision=precision,
    )
