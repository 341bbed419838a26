# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""EoMT, the encoder-only mask transformer (Kerssies et al. 2025), over windows of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import nn
from torchvision.transforms.v2 import functional as vision

from road_anomaly_ros.perception.contract import MaskOutput, PipelineError, WindowedOutput
from road_anomaly_ros.perception.devices import layout, placed
from road_anomaly_ros.perception.engines import ENGINE_TEXT, ENGINES, cuda_graph, graph
from road_anomaly_ros.perception.model_files import (
    model_directory,
    model_kind,
    read_config,
    resolve_model,
)
from road_anomaly_ros.perception.registry import option
from road_anomaly_ros.perception.segmenters._eomt_layout import (
    is_original,
    load_original,
    pixel_statistics,
)
from road_anomaly_ros.perception.segmenters._images import Preprocessing, same_size_batches
from road_anomaly_ros.perception.segmenters.mask2former import labels_of
from road_anomaly_ros.perception.weights import load_pretrained, read_state
from road_anomaly_ros.perception.windows import WindowPlan, plan_windows

SOURCE = 'EoMT, Kerssies et al. 2025; transformers'
NEEDS = 'directory, hub name or original checkpoint'

_CLASSES = {
    'eomt': 'EomtForUniversalSegmentation',
    'eomt_dinov3': 'EomtDinov3ForUniversalSegmentation',
}
_MAX_WINDOWS = 32  # of one image: a strip one pixel high would need thousands


@dataclass(frozen=True)
class Options:
    """What a user may choose about an EoMT."""

    engine: str = option('auto', ENGINE_TEXT, choices=ENGINES, live=False)
    keep_aspect: bool = option(
        True,
        'Slide windows over the image; otherwise squeeze all of it into one window.',
        live=False,
    )
    window_batch: int = option(
        4, 'Windows that go through the network at once.', low=1, high=64, live=False
    )
    features: str = option(
        'none',
        "Features handed on for learned heads: 'none' or the patches of the 'encoder'.",
        choices=('none', 'encoder'),
        live=False,
    )


class EomtSegmenter:
    """Images to the outputs of their windows."""

    kind: Literal['mask'] = 'mask'
    feature_maps: tuple[str, ...] = ('encoder',)

    def __init__(
        self,
        model: Any,
        *,
        model_dir: Path,
        source: Path,
        preprocessing: Preprocessing,
        device: torch.device,
        precision: torch.dtype,
        options: Options,
    ) -> None:
        self.labels = labels_of(model.config, source)
        self.model_dir: Path | None = model_dir
        self.weights: Path | None = source
        self._network = model
        if isinstance(model, nn.Module):
            self._network = placed(model, device, precision, layout(device, precision))
        self._input = (model.config.image_size, model.config.image_size)
        self._preprocessing, self._options = preprocessing, options
        self._device, self._precision = device, precision

    @torch.inference_mode()
    def __call__(
        self, images: Sequence[torch.Tensor], *, features: str = ''
    ) -> list[WindowedOutput]:
        """Return one output per uint8 RGB image [3,H,W]; windows of one size share batches.

        `features` names one of `feature_maps` to hand on; '' is what the options say.
        ValueError for an image so long and narrow that it would need more than 32 windows.
        """
        found: dict[int, WindowedOutput] = {}
        for positions, batch in same_size_batches(images):
            size = (batch.shape[-2], batch.shape[-1])
            plan = self._plan(size)
            pixels = vision.resize(batch.to(self._device), list(plan.scaled_size), antialias=True)
            windows = self._windows(
                self._preprocessing.normalize(plan.cut(pixels)),
                plan,
                features or self._options.features,
            )
            for row, position in enumerate(positions):
                found[position] = WindowedOutput(
                    tuple(windows[row :: len(positions)]), plan.offsets, plan.scaled_size, size
                )
        return [found[position] for position in range(len(images))]

    def _plan(self, size: tuple[int, int]) -> WindowPlan:
        if not self._options.keep_aspect:
            return WindowPlan(self._input, ((0, 0),), self._input)
        if max(size) > _MAX_WINDOWS * min(size):
            raise ValueError(
                f'expected an image with sides of at most 1:{_MAX_WINDOWS}, got '
                f'{size[0]}x{size[1]}; crop it'
            )
        return plan_windows(size, self._input)

    def _windows(self, pixels: torch.Tensor, plan: WindowPlan, wanted: str) -> list[MaskOutput]:
        found: list[MaskOutput] = []
        for part in pixels.split(self._options.window_batch):
            classes, masks, *tokens = cuda_graph.run(self._network, self._forward, part, wanted)
            features = self._features(tokens[0]) if tokens else [None] * len(part)
            found += [
                MaskOutput(classes[row], masks[row], plan.window, features[row])
                for row in range(len(part))
            ]
        return found

    def _forward(self, pixels: torch.Tensor, wanted: str) -> list[torch.Tensor]:
        """Return class and mask logits, and the last hidden state where features are wanted."""
        mixed = self._precision != torch.float32
        with torch.autocast(self._device.type, self._precision, enabled=mixed):
            raw = self._network(pixel_values=pixels)
        found = [raw.class_queries_logits, raw.masks_queries_logits]
        return found if wanted == 'none' else [*found, raw.last_hidden_state]

    def _features(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the patch tokens as maps [B,C,gh,gw]."""
        patches = self._network.grid_size[0] * self._network.grid_size[1]
        return tokens[:, -patches:].transpose(1, 2).unflatten(-1, self._network.grid_size)


def _without_chance(model: Any) -> Any:
    """Fix whether each last layer masks its attention: half-annealed checkpoints throw dice.

    The choices are numbers, which the forward pass reads without waiting for a device; a buffer
    would move there with the weights.
    """
    chosen = (model.attn_mask_probs >= 0.5).tolist()
    del model.attn_mask_probs
    model.attn_mask_probs = [float(masked) for masked in chosen]
    return model


class GraphModel(graph.Graph):
    """An EoMT as a graph, to be called like the model of transformers."""

    def __init__(
        self, weights: Path, engine: str, path: Path | None = None, **where: torch.device
    ) -> None:
        super().__init__(weights, engine, path, **where)
        rows, columns = self.facts['grid'].split('x')
        self.grid_size = (int(rows), int(columns))
        self.config = SimpleNamespace(
            image_size=(self.size or (0, 0))[0], id2label=read_config(weights).get('id2label')
        )

    def __call__(self, pixel_values: torch.Tensor) -> SimpleNamespace:  # type: ignore[override]
        """Return class and mask logits and the last hidden state."""
        classes, masks, tokens = super().__call__(pixel_values)
        return SimpleNamespace(
            class_queries_logits=classes, masks_queries_logits=masks, last_hidden_state=tokens
        )


def read_model(directory: Path) -> nn.Module:
    """Return the model of transformers in a directory; PipelineError where it is none."""
    return _without_chance(load_pretrained(_model_class(directory), directory))


def load(
    model: str, *, device: torch.device, precision: torch.dtype, options: Options
) -> EomtSegmenter:
    """Load an EoMT in transformers' or the original layout; PipelineError where it cannot work."""
    found = resolve_model(model)
    pickle = _original_file(found)
    if pickle is not None:
        state = read_state(pickle)
        if is_original(state):
            statistics = Preprocessing.from_stored({'do_resize': False, **pixel_statistics(state)})
            return EomtSegmenter(
                _without_chance(load_original(state, pickle)),
                model_dir=pickle.parent,
                source=pickle,
                preprocessing=statistics,
                device=device,
                precision=precision,
                options=options,
            )
    directory = model_directory(model)
    preprocessing = Preprocessing.from_directory(
        directory, default={'size': {'shortest_edge': 640}}
    )
    network: Any = graph.load(
        directory,
        GraphModel,
        engine=options.engine,
        device=device,
        precision=precision,
        one_size=True,
    )
    return EomtSegmenter(
        network or read_model(directory),
        model_dir=directory,
        source=directory,
        preprocessing=preprocessing,
        device=device,
        precision=precision,
        options=options,
    )


def _original_file(found: str | Path) -> Path | None:
    """Return the pickle that may be of the original layout: a file, or that of a directory."""
    if isinstance(found, str):
        return None
    if found.is_file():
        return found
    pickle = found / 'pytorch_model.bin'
    return pickle if pickle.is_file() and not any(found.glob('*.safetensors')) else None


def _model_class(directory: Path) -> Any:
    import transformers

    kind = model_kind(directory)
    found = getattr(transformers, _CLASSES.get(kind, ''), None)
    if found is None:
        raise PipelineError(
            f'{directory} holds a model of the kind {kind!r}, expected one of '
            f'{sorted(_CLASSES)} that this version of transformers knows; name '
            'another model'
        )
    return found
