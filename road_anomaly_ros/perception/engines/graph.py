# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""An exported graph in the place of the torch network, whichever runtime computes it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from road_anomaly_ros.perception.contract import PipelineError, RawOutput
from road_anomaly_ros.perception.engines import GRAPH, METADATA, onnx_runtime, open_vino
from road_anomaly_ros.perception.engines.base import Constants, PerSize
from road_anomaly_ros.perception.model_files import reason, weights_digest

RUNTIMES: dict[str, ModuleType] = {'onnxruntime': onnx_runtime, 'openvino': open_vino}
FEATURE_MAPS = ('pixel_decoder', 'two_scales')


def unusable(folder: Path, engine: str) -> str:
    """Return why the graph of a model's folder cannot be run here, '' where it can."""
    if not (folder / GRAPH).is_file():
        return f'{folder} holds no {GRAPH}; make one with road-anomaly export'
    return str(RUNTIMES[engine].missing())


def fastest(folder: Path) -> str:
    """Return the engine that computes the graph of a folder fastest here, '' where none can."""
    if not (folder / GRAPH).is_file():
        return ''
    first = 'openvino' if open_vino.is_fast() else 'onnxruntime'
    order = (first, *(name for name in RUNTIMES if name != first))
    return next((name for name in order if not unusable(folder, name)), '')


class GraphNetwork:
    """Raw output of normalised images [B,3,H,W], as the torch network gives it, on the CPU."""

    def __init__(self, folder: Path, engine: str, graph: Path | None = None) -> None:
        """Load `graph` or `folder`/model.onnx, made of the weights in `folder`.

        PipelineError for a graph of other weights or a damaged one.
        """
        self.engine = engine
        path = graph or folder / GRAPH
        try:
            self._session = RUNTIMES[engine].Session(path)
            stored = self._session.metadata
            digest = stored[f'{METADATA}weights']
            self.channels = int(stored[f'{METADATA}channels'])
            self.strides = tuple(int(part) for part in stored[f'{METADATA}strides'].split(','))
        except Exception as error:  # runtimes raise types of their own
            raise PipelineError(
                f'{path} could not be loaded: {reason(error)}; make it anew with '
                'road-anomaly export, or set engine to torch'
            ) from None
        if digest != weights_digest(folder):
            raise PipelineError(
                f'{path} was made of other weights than those beside it; make it '
                'anew with road-anomaly export, or set engine to torch'
            )
        self._constants = PerSize(self._make_constants)

    def _make_constants(self, height: int, width: int) -> dict[str, np.ndarray]:
        sizes = [(-(-height // stride), -(-width // stride)) for stride in self.strides[::-1]]
        found = Constants.of(sizes, self.channels, torch.device('cpu'))
        return {
            **{f'places{level}': places.numpy() for level, places in enumerate(found.places)},
            'scale': found.scale.numpy(),
            'reference': found.reference.numpy(),
        }

    def __call__(self, pixels: torch.Tensor) -> RawOutput:
        """Return the raw output; the stages of the backbone are not among it."""
        rows = [
            [
                torch.from_numpy(part)
                for part in self._session(
                    {
                        'pixels': image[None].contiguous().numpy(),
                        **self._constants(*image.shape[1:]),
                    }
                )
            ]
            for image in pixels
        ]
        classes, masks, features = (
            rows[0] if len(rows) == 1 else (torch.cat(part) for part in zip(*rows, strict=True))
        )
        return RawOutput(classes, masks, features, stages=())
