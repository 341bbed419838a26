# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What segmenters with one logit per pixel and class share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from road_anomaly_ros.perception.contract import LabelSet, PixelOutput
from road_anomaly_ros.perception.devices import layout, placed
from road_anomaly_ros.perception.engines import cuda_graph
from road_anomaly_ros.perception.engines.graph import Graph
from road_anomaly_ros.perception.segmenters._images import Preprocessing, same_size_batches


class PixelSegmenter:
    """Images to PixelOutput; `forward` runs the network on normalised images [B,3,h,w]."""

    kind: Literal['pixel'] = 'pixel'
    feature_maps: tuple[str, ...] = ()

    def __init__(
        self,
        network: nn.Module | Graph,
        forward: Callable[..., torch.Tensor],
        *,
        labels: LabelSet,
        model_dir: Path | None,
        weights: Path | None = None,
        preprocessing: Preprocessing,
        device: torch.device,
        precision: torch.dtype,
    ) -> None:
        self.labels, self.model_dir = labels, model_dir
        self.weights = weights or model_dir
        self._layout = layout(device, precision)
        if isinstance(network, nn.Module):
            network = placed(network, device, precision, self._layout)
        self._network = network
        self._compute, self._preprocessing = forward, preprocessing
        self._device, self._precision = device, precision

    @torch.inference_mode()
    def __call__(self, images: Sequence[torch.Tensor], *, features: str = '') -> list[PixelOutput]:
        """Return one output per uint8 RGB image [3,H,W]; images of one size share a batch."""
        found: dict[int, PixelOutput] = {}
        for positions, batch in same_size_batches(images):
            size = (batch.shape[-2], batch.shape[-1])
            pixels = self._preprocessing(batch.to(self._device))
            pixels = pixels.contiguous(memory_format=self._layout)
            (logits,) = cuda_graph.run(self._network, self._forward, pixels)
            logits = self._preprocessing.crop(logits, size)
            found.update(
                (position, PixelOutput(logits[row], size))
                for row, position in enumerate(positions)
            )
        return [found[position] for position in range(len(images))]

    def _forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        mixed = self._precision != torch.float32
        with torch.autocast(self._device.type, self._precision, enabled=mixed):
            return [self._compute(self._network, pixels)]


def first_output(network: Graph, pixels: torch.Tensor) -> torch.Tensor:
    """Return the logits that a graph of a per-pixel network gives."""
    return network(pixels)[0]
