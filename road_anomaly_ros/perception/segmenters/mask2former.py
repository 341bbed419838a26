# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Mask2Former (Cheng et al. 2022) as transformers stores it: built-in, local or from the hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from road_anomaly_ros.perception.contract import (
    Engine,
    LabelSet,
    MaskOutput,
    PipelineError,
    Pyramid,
    RawOutput,
)
from road_anomaly_ros.perception.devices import layout, placed
from road_anomaly_ros.perception.engines import ENGINE_TEXT, ENGINES, cuda_graph, graph
from road_anomaly_ros.perception.labels import label_set, names_of
from road_anomaly_ros.perception.model_files import model_directory, read_config
from road_anomaly_ros.perception.registry import option
from road_anomaly_ros.perception.segmenters import _backbones
from road_anomaly_ros.perception.segmenters._images import Preprocessing, same_size_batches
from road_anomaly_ros.perception.segmenters._mask2former import fastest
from road_anomaly_ros.perception.weights import load_pretrained

SOURCE = 'Mask2Former, Cheng et al. 2022; transformers'
NEEDS = 'built-in model, directory or hub name'

_PREPROCESSING = {'size': {'shortest_edge': 800, 'longest_edge': 1333}, 'size_divisor': 32}
_CONTEXT = 272  # rows
FEATURE_MAPS = ('pixel_decoder', 'encoder', 'pyramid', 'two_scales')


@dataclass(frozen=True)
class Options:
    """What a user may choose about a Mask2Former."""

    engine: str = option('auto', ENGINE_TEXT, choices=ENGINES, live=False)
    short_side: int = option(
        0,
        'Short side of the network input; 0 takes the size rule stored with the model.',
        low=0,
        high=4096,
        unit='px',
        live=False,
    )
    features: str = option(
        'none',
        "Features always handed on: 'none', those of the 'pixel_decoder', of the "
        "'encoder', the 'pyramid' of both at every scale, or the pixel decoder's of the image at "
        "'two_scales'; a learned head asks for its own.",
        choices=('none', *FEATURE_MAPS),
        live=False,
    )


class MaskSegmenter:
    """Images to MaskOutput through a network of the Mask2Former family.

    `feature_maps` names the features that the network can hand on.
    """

    kind: Literal['mask'] = 'mask'

    def __init__(
        self,
        network: Engine,
        *,
        labels: LabelSet,
        model_dir: Path | None,
        weights: Path | None = None,
        preprocessing: Preprocessing,
        device: torch.device,
        precision: torch.dtype,
        features: str = 'none',
        feature_maps: tuple[str, ...] = FEATURE_MAPS,
    ) -> None:
        self.feature_maps = feature_maps
        self.labels, self.model_dir, self.weights = labels, model_dir, weights or model_dir
        # Convolutions of the CPU are a quarter faster on channels_last, at equal results.
        on_cpu = isinstance(network, nn.Module) and device.type == 'cpu'
        self._layout = torch.channels_last if on_cpu else layout(device, precision)
        if isinstance(network, nn.Module):
            network = placed(network, device, precision, self._layout)
        self._network = network
        self._preprocessing, self._features = preprocessing, features
        self._device, self._precision = device, precision

    @torch.inference_mode()
    def __call__(self, images: Sequence[torch.Tensor], *, features: str = '') -> list[MaskOutput]:
        """Return one output per uint8 RGB image [3,H,W]; images of one size share a batch.

        `features` names one of `feature_maps` to hand on; '' is what the options say.
        """
        found: dict[int, MaskOutput] = {}
        name = features or self._features
        if name not in ('none', *self.feature_maps):
            raise ValueError(f'expected features one of {list(self.feature_maps)}, got {name!r}')
        for positions, batch in same_size_batches(images):
            size = batch.shape[-2], batch.shape[-1]
            pixels = self._preprocessing(batch.to(self._device))
            classes, masks, *levels = self._run(pixels, name)
            if name == 'two_scales':
                levels.append(self._again(pixels))
            masks, *levels = (self._preprocessing.crop(part, size) for part in (masks, *levels))
            for row, position in enumerate(positions):
                kept = _row(levels, row, name)
                found[position] = MaskOutput(classes[row], masks[row], size, kept)
        return [found[position] for position in range(len(images))]

    def _run(self, pixels: torch.Tensor, name: str) -> Sequence[torch.Tensor]:
        """Return class and mask logits and the levels of the features `name`."""
        pixels = pixels.contiguous(memory_format=self._layout)
        return cuda_graph.run(self._network, self._forward, pixels, name)

    def _forward(self, pixels: torch.Tensor, name: str) -> list[torch.Tensor]:
        mixed = self._precision != torch.float32
        with torch.autocast(self._device.type, self._precision, enabled=mixed):
            raw = self._network(pixels)
        return [raw.class_logits, raw.mask_logits, *_levels(raw, name)]

    def _again(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the pixel decoder's features of a small copy of the images.

        What fills the image at its own size is a thing of ordinary size in the copy.
        """
        size = context_size((pixels.shape[-2], pixels.shape[-1]))
        small = nn.functional.interpolate(pixels, size=size, mode='bilinear', antialias=True)
        return self._run(small, 'pixel_decoder')[-1]


def _levels(raw: RawOutput, name: str) -> Sequence[torch.Tensor]:
    """Return the maps of a batch that the features `name` consist of, finest first."""
    if name == 'none':
        return ()
    if name == 'pyramid':
        return (*raw.stages, raw.mask_features)
    return (raw.stages[-1] if name == 'encoder' else raw.mask_features,)


def _row(levels: Sequence[torch.Tensor], row: int, name: str) -> torch.Tensor | Pyramid | None:
    """Return the features of one image of the batch."""
    if len(levels) < 2:
        return levels[0][row] if levels else None
    height, width = levels[name == 'pyramid'].shape[-2:]  # of a pyramid the second finest
    return Pyramid(tuple(level[row] for level in levels), (height, width))


def context_size(size: tuple[int, int], divisor: int = 32) -> tuple[int, int]:
    """Return the (H, W) at which an input of `size` is seen once more, as a whole.

    Half of it, or less where its short side would still exceed `_CONTEXT`; in multiples of
    `divisor`.
    """
    factor = min(0.5, _CONTEXT / min(size))
    height, width = (max(divisor, round(side * factor / divisor) * divisor) for side in size)
    return height, width


def load(
    model: str, *, device: torch.device, precision: torch.dtype, options: Options
) -> MaskSegmenter:
    """Load a Mask2Former; PipelineError, in one line with the remedy, where that cannot work."""
    directory = model_directory(model)
    preprocessing = Preprocessing.from_directory(
        directory, default=_PREPROCESSING, short_side=options.short_side
    )
    found = _graph(directory, device, precision, options)
    if found is not None:
        stored = read_config(directory)
        return MaskSegmenter(
            found,
            labels=labels_from(stored.get('id2label'), directory),
            model_dir=directory,
            preprocessing=preprocessing,
            device=device,
            precision=precision,
            features=options.features,
            feature_maps=found.feature_maps,
        )
    network = read_model(directory)
    return MaskSegmenter(
        fastest(network),
        labels=labels_of(network.config, directory),
        model_dir=directory,
        preprocessing=preprocessing,
        device=device,
        precision=precision,
        features=options.features,
    )


def read_model(directory: Path) -> Any:
    """Return the model of transformers in a directory; PipelineError where it is none."""
    from transformers import Mask2FormerForUniversalSegmentation

    if _backbones.needed(read_config(directory)):
        _backbones.register()
    return load_pretrained(Mask2FormerForUniversalSegmentation, directory)


def _graph(
    directory: Path, device: torch.device, precision: torch.dtype, options: Options
) -> graph.GraphNetwork | None:
    """Return the graph that computes the model, None for torch; PipelineError as `graph.load`."""
    engine = options.engine
    found = graph.load(
        directory, graph.GraphNetwork, engine=engine, device=device, precision=precision
    )
    if found is None or options.features in ('none', *found.feature_maps):
        return found
    if engine == 'auto':
        return None
    raise PipelineError(
        f'engine {engine} hands on {list(found.feature_maps)} alone'
        f'{" through a graph for one size" if found.size else ""}; set features to one of these '
        'or none, or engine to torch'
    )


def labels_of(config: Any, directory: Path) -> LabelSet:
    """Return the label set that `id2label` of a transformers configuration describes.

    Without names transformers writes LABEL_0, LABEL_1, ...; 19 of them are Cityscapes'.
    """
    return labels_from(config.id2label, directory)


def labels_from(stored: Mapping[str, str] | None, directory: Path) -> LabelSet:
    """Return the label set of an `id2label`; PipelineError where it is none."""
    try:
        names = {int(index): name for index, name in dict(stored or {}).items()}
        if all(name == f'LABEL_{index}' for index, name in names.items()):
            names = dict(zip(names, names_of(len(names)), strict=True))
        return label_set(names)
    except (TypeError, ValueError, AttributeError) as error:
        raise PipelineError(
            f'{directory / "config.json"}: id2label is no list of classes: {error}'
        ) from None
