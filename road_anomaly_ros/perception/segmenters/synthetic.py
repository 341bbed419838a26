# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A segmenter without weights that knows classes by their colour; for tests and first steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch.nn import functional as F

from road_anomaly_ros.perception.contract import MaskOutput
from road_anomaly_ros.perception.labels import label_set
from road_anomaly_ros.perception.registry import option
from road_anomaly_ros.perception.segmenters._images import same_size_batches

SOURCE = 'ours, for tests and first steps'
NEEDS = 'nothing'

# Class, its hue as (red - green, blue - green), and whether it lies above or below the horizon.
_CLASSES = (
    ('road', (0.0, 0.01), 1.0),
    ('building', (0.0, 0.01), -1.0),
    ('vegetation', (-0.12, -0.15), 0.0),
    ('sky', (-0.2, 0.2), -1.0),
)
_HORIZON = 0.42  # of the image's height
_RADIUS = 0.15  # how far a hue may lie from that of its class
_SHARPNESS = 60.0  # mask logit per unit of hue
_CERTAINTY = 8.0  # class logit of a query's own class


@dataclass(frozen=True)
class Options:
    """What a user may choose about the synthetic segmenter."""

    stride: int = option(
        4, 'Image pixels per pixel of the mask logits.', low=1, high=32, unit='px', live=False
    )


class SyntheticSegmenter:
    """One query per class; grey below the horizon is road, what has no class's hue is unknown."""

    kind: Literal['mask'] = 'mask'
    model_dir: Path | None = None
    weights: Path | None = None
    feature_maps: tuple[str, ...] = ()
    labels = label_set([name for name, _, _ in _CLASSES])

    def __init__(self, device: torch.device, options: Options) -> None:
        self._stride = options.stride
        self._hues = torch.tensor([hue for _, hue, _ in _CLASSES], device=device)
        self._sides = torch.tensor([side for _, _, side in _CLASSES], device=device)
        known = torch.eye(len(_CLASSES), len(_CLASSES) + 1, device=device)
        self._class_logits = known * _CERTAINTY

    @torch.inference_mode()
    def __call__(self, images: Sequence[torch.Tensor], *, features: str = '') -> list[MaskOutput]:
        """Return one output per uint8 RGB image [3,H,W]."""
        found: dict[int, MaskOutput] = {}
        for positions, batch in same_size_batches(images):
            size = (batch.shape[-2], batch.shape[-1])
            masks = self._mask_logits(batch.to(self._hues.device))
            found.update(
                (position, MaskOutput(self._class_logits, masks[row], size))
                for row, position in enumerate(positions)
            )
        return [found[position] for position in range(len(images))]

    def _mask_logits(self, batch: torch.Tensor) -> torch.Tensor:
        """Return mask logits [B,Q,h,w] of a uint8 batch [B,3,H,W]."""
        height, width = (math.ceil(length / self._stride) for length in batch.shape[-2:])
        red, green, blue = F.adaptive_avg_pool2d(batch.float() / 255, (height, width)).unbind(1)
        hue = torch.stack([red - green, blue - green], 1)
        distance = (hue[:, None] - self._hues[:, :, None, None]).norm(dim=2)
        rows = (torch.arange(height, device=batch.device) + 0.5) / height - _HORIZON
        inside = rows[:, None] * self._sides[:, None, None] >= 0
        return _SHARPNESS * torch.where(inside, _RADIUS - distance, -torch.ones_like(distance))


def load(
    model: str, *, device: torch.device, precision: torch.dtype, options: Options
) -> SyntheticSegmenter:
    """Return the segmenter; `model` and `precision` mean nothing to it."""
    return SyntheticSegmenter(device, options)
