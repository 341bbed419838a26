# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""An exported graph in the place of the torch network, whichever runtime computes it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import TypeVar

import torch

from road_anomaly_ros.perception.contract import PipelineError, RawOutput
from road_anomaly_ros.perception.engines import GRAPH, METADATA, onnx_runtime, open_vino, tensorrt
from road_anomaly_ros.perception.engines.base import Constants, PerSize, Size
from road_anomaly_ros.perception.model_files import reason, weights_digest

_CPU = torch.device('cpu')
RUNTIMES: dict[str, ModuleType] = {
    'onnxruntime': onnx_runtime,
    'openvino': open_vino,
    'tensorrt': tensorrt,
}


def unusable(folder: Path, engine: str) -> str:
    """Return why the graph of a model's folder cannot be run here, '' where it can."""
    if not (folder / GRAPH).is_file():
        return f'{folder} holds no {GRAPH}; make one with road-anomaly export'
    return str(RUNTIMES[engine].missing())


def fastest(folder: Path) -> str:
    """Return the engine that computes the graph of a folder fastest, '' where the CPU has none."""
    if not (folder / GRAPH).is_file():
        return ''
    first = 'openvino' if open_vino.is_fast() else 'onnxruntime'
    order = (first, *(name for name in RUNTIMES if name != first))
    here = (name for name in order if 'cpu' in RUNTIMES[name].DEVICES)
    return next((name for name in here if not unusable(folder, name)), '')


def _chosen(folder: Path, device: torch.device, precision: torch.dtype, engine: str) -> str:
    """Return what computes the graph of a folder, '' for torch.

    PipelineError, in one line with the remedy, for an engine that is asked for and cannot be had.
    """
    if engine == 'torch':
        return ''
    if engine == 'auto':
        # In half precision torch is what was asked for; a GPU's engine takes minutes to build.
        fits = device.type == 'cpu' and precision == torch.float32
        return fastest(folder) if fits else ''
    devices = RUNTIMES[engine].DEVICES
    if device.type not in devices or precision != torch.float32:
        raise PipelineError(
            f'engine {engine} computes in float32 on {" or ".join(devices)}, got '
            f'{str(precision).removeprefix("torch.")} on {device.type}; set device and precision '
            'to these, or engine to torch'
        )
    problem = unusable(folder, engine)
    if problem:
        raise PipelineError(f'engine {engine}: {problem}, or set engine to torch')
    return engine


class Graph:
    """The outputs of normalised images [B,3,H,W] as tensors, in the graph's own order.

    `size` is the one (H, W) that it takes, None for any; `facts` is what else was noted of it.
    """

    def __init__(
        self, weights: Path, engine: str, graph: Path | None = None, device: torch.device = _CPU
    ) -> None:
        """Load `graph`, or the one beside `weights`, a folder or a file, to compute on a device.

        PipelineError where it is damaged or was made of other weights.
        """
        folder = weights if weights.is_dir() else weights.parent
        self.engine, self.path = engine, graph or folder / GRAPH
        try:
            self._session = RUNTIMES[engine].Session(self.path, device)
            stored = {
                name.removeprefix(METADATA): str(value)
                for name, value in self._session.metadata.items()
                if name.startswith(METADATA)
            }
            digest = stored['weights']
            self.facts = stored
            self.size = _sides(stored.get('size', ''))
            self.strides = tuple(map(int, filter(None, stored.get('strides', '').split(','))))
        except Exception as error:  # runtimes raise types of their own
            raise PipelineError(
                f'{self.path} could not be loaded: {reason(error)}; make it anew with '
                'road-anomaly export, or set engine to torch'
            ) from None
        if digest != weights_digest(weights):
            raise PipelineError(
                f'{self.path} was made of other weights than those beside it; make it '
                'anew with road-anomaly export, or set engine to torch'
            )
        self._constants = PerSize(self._make_constants)

    def _make_constants(
        self, height: int, width: int, device: torch.device
    ) -> dict[str, torch.Tensor]:
        if not self.strides:
            return {}
        sizes = [(-(-height // stride), -(-width // stride)) for stride in self.strides[::-1]]
        found = Constants.of(sizes, int(self.facts['channels']), _CPU)
        given = {f'places{level}': places for level, places in enumerate(found.places)}
        given |= {'scale': found.scale, 'reference': found.reference}
        return {name: value.contiguous().to(device) for name, value in given.items()}

    def __call__(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Return the outputs, each [B, ...] on the device of `pixels`; ValueError for its size."""
        size = (pixels.shape[-2], pixels.shape[-1])
        if self.size not in (None, size):
            raise ValueError(
                f'{self.path} takes {self.size[1]}x{self.size[0]} alone, the input is '
                f'{size[1]}x{size[0]}; export it with --size {size[1]}x{size[0]}, or set engine '
                'to torch'
            )
        constants = self._constants(*size, pixels.device)
        rows = [
            self._session({'pixels': image[None].contiguous(), **constants}) for image in pixels
        ]
        if len(rows) == 1:
            return list(rows[0])
        return [torch.cat(part) for part in zip(*rows, strict=True)]


class GraphNetwork(Graph):
    """The raw output of a Mask2Former, as the torch network gives it."""

    @property
    def feature_maps(self) -> tuple[str, ...]:
        """The features that it can hand on; those of two scales need a graph for any size."""
        return ('pixel_decoder', 'two_scales') if self.size is None else ('pixel_decoder',)

    def __call__(self, pixels: torch.Tensor) -> RawOutput:  # type: ignore[override]
        """Return the raw output; the stages of the backbone are not among it."""
        classes, masks, features = super().__call__(pixels)
        return RawOutput(classes, masks, features, stages=())


Loaded = TypeVar('Loaded', bound=Graph)


def load(
    weights: Path,
    network: type[Loaded],
    *,
    engine: str,
    device: torch.device,
    precision: torch.dtype,
    one_size: bool = False,
) -> Loaded | None:
    """Return the graph beside the weights, a folder or a file, as `network`; None for torch.

    'auto' leaves a graph for one size alone, unless the network's input has only `one_size`.
    PipelineError, in one line with the remedy, for an engine that is asked for and cannot be had.
    """
    folder = weights if weights.is_dir() else weights.parent
    name = _chosen(folder, device, precision, engine)
    found = network(weights, name, device=device) if name else None
    if found is not None and found.size is not None and engine == 'auto' and not one_size:
        return None
    return found


def _sides(text: str) -> Size | None:
    """Read 'WxH' as (H, W)."""
    if not text:
        return None
    width, height = (int(part) for part in text.split('x'))
    return height, width
