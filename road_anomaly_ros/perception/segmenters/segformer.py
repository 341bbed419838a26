# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""SegFormer (Xie et al. 2021) as transformers stores it; a per-pixel model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from road_anomaly_ros.perception.engines import ENGINE_TEXT, ENGINES, graph
from road_anomaly_ros.perception.model_files import model_directory, read_config
from road_anomaly_ros.perception.registry import option
from road_anomaly_ros.perception.segmenters._images import Preprocessing
from road_anomaly_ros.perception.segmenters._pixels import PixelSegmenter, first_output
from road_anomaly_ros.perception.segmenters.mask2former import labels_from
from road_anomaly_ros.perception.weights import load_pretrained

SOURCE = 'SegFormer, Xie et al. 2021; transformers'
NEEDS = 'directory or hub name'


@dataclass(frozen=True)
class Options:
    """What a user may choose about a SegFormer."""

    engine: str = option('auto', ENGINE_TEXT, choices=ENGINES, live=False)
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


def read_model(directory: Path) -> nn.Module:
    """Return the model of transformers in a directory; PipelineError where it is none."""
    from transformers import SegformerForSemanticSegmentation

    return load_pretrained(SegformerForSemanticSegmentation, directory)


def load(
    model: str, *, device: torch.device, precision: torch.dtype, options: Options
) -> PixelSegmenter:
    """Load a SegFormer; PipelineError, in one line with the remedy, where that cannot work."""
    directory = model_directory(model)
    preprocessing = Preprocessing.from_directory(
        directory, default={'size': 512, 'default_to_square': True}, short_side=options.short_side
    )
    found = graph.load(
        directory, graph.Graph, engine=options.engine, device=device, precision=precision
    )
    network: Any = read_model(directory) if found is None else found
    stored = network.config.id2label if found is None else read_config(directory).get('id2label')
    return PixelSegmenter(
        network,
        _logits if found is None else first_output,
        labels=labels_from(stored, directory),
        model_dir=directory,
        preprocessing=preprocessing,
        device=device,
        precision=precision,
    )
