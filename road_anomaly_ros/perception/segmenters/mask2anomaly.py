# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Mask2Anomaly (Rai et al. 2023): Mask2Former whose queries also look at the background.

The authors' checkpoints are loaded as they are published, as detectron2 wrote them; those of plain
Mask2Former with a ResNet go through the same way. The flip averaging of the paper is the
pipeline's option `tta_hflip`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from road_anomaly_ros.perception.model_files import weights_file
from road_anomaly_ros.perception.registry import option
from road_anomaly_ros.perception.segmenters._detectron2 import global_branches, load_detectron2
from road_anomaly_ros.perception.segmenters._images import Preprocessing
from road_anomaly_ros.perception.segmenters._mask2former import Network
from road_anomaly_ros.perception.segmenters.mask2former import MaskSegmenter, labels_of
from road_anomaly_ros.perception.weights import read_state

SOURCE = 'Mask2Anomaly, Rai et al. 2023; global masked attention'
NEEDS = "the authors' .pth"

_SUFFIXES = ('.pth', '.pt', '.pkl', '.bin', '.safetensors')
_STRIDE, _DIVISOR = 4, 32  # of the mask logits, and of the padded input


@dataclass(frozen=True)
class Options:
    """What a user may choose about a Mask2Anomaly."""

    short_side: int = option(
        1024,
        'Short side of the network input; the long side is at most twice as long.',
        low=32,
        high=4096,
        unit='px',
        live=False,
    )
    features: str = option(
        'none',
        "Features handed on for learned heads: 'none', those of the 'pixel_decoder' or "
        "of the 'encoder'.",
        choices=('none', 'pixel_decoder', 'encoder'),
        live=False,
    )


def load(
    model: str, *, device: torch.device, precision: torch.dtype, options: Options
) -> MaskSegmenter:
    """Load the authors' .pth; PipelineError, in one line with the remedy, where it cannot work."""
    path = weights_file(model, _SUFFIXES, 'mask2anomaly')
    network = load_detectron2(read_state(path), path)
    size = {'shortest_edge': options.short_side, 'longest_edge': 2 * options.short_side}
    # Whole cells of the mask logits, so that cutting the padding off is exact.
    preprocessing = Preprocessing.from_stored({'size': size, 'size_divisor': _STRIDE}).padded_to(
        _DIVISOR
    )
    return MaskSegmenter(
        Network(network, global_branches),
        labels=labels_of(network.config, path),
        model_dir=path.parent,
        weights=path,
        preprocessing=preprocessing,
        device=device,
        precision=precision,
        features=options.features,
    )
