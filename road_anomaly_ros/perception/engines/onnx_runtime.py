# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""An exported graph on the CPU through onnxruntime, in the place of the torch network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from road_anomaly_ros.perception.contract import PipelineError
from road_anomaly_ros.perception.engines import GRAPH, METADATA
from road_anomaly_ros.perception.engines.base import Constants, PerSize, RawOutput
from road_anomaly_ros.perception.weights import reason, weights_digest

try:
    import onnxruntime
except ImportError:                                 # an optional dependency
    onnxruntime = None                              # type: ignore[assignment]


def unusable(folder: Path) -> str:
    """Return why the graph of a model's folder cannot be run here, '' where it can."""
    if not (folder / GRAPH).is_file():
        return f'{folder} holds no {GRAPH}; make one with road-anomaly export'
    if onnxruntime is None:
        return 'onnxruntime is not installed; install it with pip install onnxruntime'
    return ''


class OnnxNetwork:
    """Raw output of normalised images [B,3,H,W], as the torch network gives it, on the CPU."""

    feature_maps = ('pixel_decoder', 'two_scales')

    def __init__(self, folder: Path, graph: Path | None = None) -> None:
        """Load `graph` or `folder`/model.onnx, made of the weights in `folder`.

        PipelineError for a graph of other weights or a damaged one.
        """
        path = graph or folder / GRAPH
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4      # what fails is raised
        # Threads that wait by turning would keep the cores from the dense pass.
        options.add_session_config_entry('session.intra_op.allow_spinning', '0')
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(path), options, providers=['CPUExecutionProvider'])
            stored = self._session.get_modelmeta().custom_metadata_map
            digest = stored[f'{METADATA}weights']
            self.channels = int(stored[f'{METADATA}channels'])
            self.strides = tuple(int(part) for part in stored[f'{METADATA}strides'].split(','))
        except Exception as error:          # onnxruntime raises types of its own
            raise PipelineError(f'{path} could not be loaded: {reason(error)}; make it anew with '
                                'road-anomaly export, or set engine to torch') from None
        if digest != weights_digest(folder):
            raise PipelineError(f'{path} was made of other weights than those beside it; make it '
                                'anew with road-anomaly export, or set engine to torch')
        self._constants = PerSize(self._make_constants)

    def _make_constants(self, height: int, width: int) -> dict[str, np.ndarray]:
        sizes = [(-(-height // stride), -(-width // stride)) for stride in self.strides[::-1]]
        found = Constants.of(sizes, self.channels, torch.device('cpu'))
        return {**{f'places{level}': places.numpy() for level, places in enumerate(found.places)},
                'scale': found.scale.numpy(), 'reference': found.reference.numpy()}

    def __call__(self, pixels: torch.Tensor) -> RawOutput:
        """Return the raw output; the stages of the backbone are not among it."""
        rows = [self._session.run(None, {'pixels': image[None].contiguous().numpy(),
                                         **self._constants(*image.shape[1:])})
                for image in pixels]
        classes, masks, features = (torch.from_numpy(np.concatenate(part))
                                    for part in zip(*rows, strict=True))
        return RawOutput(classes, masks, features, stages=())
