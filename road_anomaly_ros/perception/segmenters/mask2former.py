# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Mask2Former (Cheng et al. 2022) as transformers stores it: built-in, local or from the hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from road_anomaly_ros.perception.contract import LabelSet, MaskOutput, PipelineError, Pyramid
from road_anomaly_ros.perception.labels import label_set
from road_anomaly_ros.perception.registry import option
from road_anomaly_ros.perception.segmenters._images import Preprocessing, same_size_batches
from road_anomaly_ros.perception.segmenters._mask2former import Network, RawOutput
from road_anomaly_ros.perception.weights import load_pretrained, model_directory

SOURCE = 'Mask2Former, Cheng et al. 2022; transformers'
NEEDS = 'built-in model, directory or hub name'

_PREPROCESSING = {'size': {'shortest_edge': 800, 'longest_edge': 1333}, 'size_divisor': 32}
FEATURE_MAPS = ('pixel_decoder', 'encoder', 'pyramid')


@dataclass(frozen=True)
class Options:
    """What a user may choose about a Mask2Former."""

    short_side: int = option(
        0, 'Short side of the network input; 0 takes the size rule stored with the model.',
        low=0, high=4096, unit='px', live=False)
    features: str = option(
        'none', "Features always handed on: 'none', those of the 'pixel_decoder', of the "
        "'encoder', or the 'pyramid' of both at every scale; a learned head asks for its own.",
        choices=('none', *FEATURE_MAPS), live=False)


class MaskSegmenter:
    """Images to MaskOutput through a network of the Mask2Former family."""

    kind = 'mask'
    feature_maps = FEATURE_MAPS

    def __init__(self, network: nn.Module, *, labels: LabelSet, num_queries: int,
                 model_dir: Path | None, preprocessing: Preprocessing, device: torch.device,
                 precision: torch.dtype, features: str = 'none') -> None:
        self.labels, self.num_queries, self.model_dir = labels, num_queries, model_dir
        self.weights = model_dir                # the file, where that is not the whole directory
        # Convolutions of the CPU are a quarter faster on channels_last, at equal results.
        cpu = device.type == 'cpu'
        self._layout = torch.channels_last if cpu else torch.contiguous_format
        self._network = network.requires_grad_(False).to(memory_format=self._layout).to(device)
        self._preprocessing, self._features = preprocessing, features
        self._device, self._precision = device, precision

    @torch.inference_mode()
    def __call__(self, images: Sequence[torch.Tensor], *, features: str = '') -> list[MaskOutput]:
        """Return one output per uint8 RGB image [3,H,W]; images of one size share a batch.

        `features` names one of `feature_maps` to hand on; '' is what the options say.
        """
        found: dict[int, MaskOutput] = {}
        for positions, batch in same_size_batches(images):
            size = (batch.shape[-2], batch.shape[-1])
            raw = self._run(self._preprocessing(batch.to(self._device)))
            masks = self._preprocessing.crop(raw.mask_logits, size)
            kept = self._kept_features(raw, size, features or self._features)
            for row, position in enumerate(positions):
                found[position] = MaskOutput(raw.class_logits[row], masks[row], size, kept[row])
        return [found[position] for position in range(len(images))]

    def _run(self, pixels: torch.Tensor) -> RawOutput:
        mixed = self._precision != torch.float32
        with torch.autocast(self._device.type, self._precision, enabled=mixed):
            return self._network(pixels.contiguous(memory_format=self._layout))

    def _kept_features(self, raw: RawOutput, size: tuple[int, int],
                       name: str) -> Sequence[torch.Tensor | Pyramid | None]:
        """Return the features of every image of the batch."""
        if name == 'none':
            return [None] * len(raw.class_logits)
        if name not in FEATURE_MAPS:
            raise ValueError(f'expected features one of {list(FEATURE_MAPS)}, got {name!r}')
        if name == 'pyramid':
            levels = [self._preprocessing.crop(level, size)
                      for level in (*raw.stages, raw.mask_features)]
            height, width = levels[1].shape[-2:]        # the second finest
            return [Pyramid(row, (height, width)) for row in zip(*levels, strict=True)]
        chosen = raw.stages[-1] if name == 'encoder' else raw.mask_features
        return list(self._preprocessing.crop(chosen, size))


def load(model: str, *, device: torch.device, precision: torch.dtype,
         options: Options) -> MaskSegmenter:
    """Load a Mask2Former; PipelineError, in one line with the remedy, where that cannot work."""
    from transformers import Mask2FormerForUniversalSegmentation
    directory = model_directory(model)
    preprocessing = Preprocessing.from_directory(
        directory, default=_PREPROCESSING, short_side=options.short_side)
    network = load_pretrained(Mask2FormerForUniversalSegmentation, directory)
    return MaskSegmenter(
        Network(network), labels=labels_of(network.config, directory),
        num_queries=network.config.num_queries, model_dir=directory, preprocessing=preprocessing,
        device=device, precision=precision, features=options.features)


def labels_of(config: Any, directory: Path) -> LabelSet:
    """Return the label set that `id2label` of a transformers configuration describes."""
    try:
        return label_set({int(index): name for index, name in config.id2label.items()})
    except ValueError as error:
        raise PipelineError(f'{directory / "config.json"}: id2label is no list of classes: '
                            f'{error}') from None
