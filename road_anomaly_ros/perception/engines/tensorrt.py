# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A graph on an NVIDIA GPU through onnxruntime's TensorRT provider.

TensorRT builds an engine for the GPU and the size at hand, which takes minutes once; it is kept
beside the graph where that folder can be written to.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from road_anomaly_ros.files import sha256
from road_anomaly_ros.perception.engines import onnx_runtime
from road_anomaly_ros.perception.engines.base import KEPT_SIZES

DEVICES = ('cuda',)
PROVIDER = 'TensorrtExecutionProvider'
_CACHE = 'tensorrt'
_INSTALL = (
    "install it with pip install onnxruntime-gpu 'tensorrt', after pip uninstall onnxruntime, "
    'which lies in the same place'
)


def missing() -> str:
    """Return what is missing to run graphs here, '' for nothing."""
    problem = onnx_runtime.missing()
    if problem:
        return problem
    import onnxruntime

    if PROVIDER in onnxruntime.get_available_providers():
        return ''
    return f'this onnxruntime has no TensorRT; {_INSTALL}'


class Session(onnx_runtime.Session):
    """A loaded graph; what TensorRT cannot compute CUDA does, and the CPU what that cannot.

    Inputs and outputs stay on the device.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        with contextlib.suppress(ImportError):  # the libraries of a wheel are found once loaded
            importlib.import_module('tensorrt')
        super().__init__(path, device)
        # A provider that is named by the package and lacks its libraries is left out in silence.
        if PROVIDER not in self._session.get_providers():
            raise RuntimeError(f'onnxruntime did not find the libraries of TensorRT; {_INSTALL}')
        self._names = [part.name for part in self._session.get_outputs()]
        self._shapes: dict[tuple[int, ...], dict[str, tuple[int, ...]]] = {}

    @staticmethod
    def _providers(path: Path, device: torch.device) -> list[Any]:
        # Engines are known by the names in a graph alone: one of other weights would be taken.
        kept, writable = path.parent / _CACHE / sha256(path)[:16], os.access(path.parent, os.W_OK)
        if writable:
            kept.mkdir(parents=True, exist_ok=True)
        here = {'device_id': device.index or 0}
        options = {
            **here,
            'trt_engine_cache_enable': writable,
            'trt_engine_cache_path': str(kept),
            'trt_timing_cache_enable': writable,
            'trt_timing_cache_path': str(kept),
        }
        return [(PROVIDER, options), ('CUDAExecutionProvider', here), 'CPUExecutionProvider']

    def __call__(self, values: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """Return the graph's outputs, in its order, as tensors of their own beside the inputs."""
        size = tuple(values['pixels'].shape)
        if size not in self._shapes:
            while len(self._shapes) >= KEPT_SIZES:
                self._shapes.pop(next(iter(self._shapes)))
            found = self._run(values, {})  # builds the engine as well
            self._shapes[size] = {
                name: tuple(part.shape()) for name, part in zip(self._names, found, strict=True)
            }
        device = values['pixels'].device
        outputs = {
            name: torch.empty(shape, device=device) for name, shape in self._shapes[size].items()
        }
        self._run(values, outputs)
        return list(outputs.values())

    def _run(
        self, values: Mapping[str, torch.Tensor], outputs: Mapping[str, torch.Tensor]
    ) -> Sequence[Any]:
        """Compute what the graph says, in `outputs` where these are given; return it."""
        device = values['pixels'].device
        binding, where = self._session.io_binding(), (device.type, device.index or 0)
        for name, value in values.items():
            binding.bind_input(name, *where, *_placed(value))
        for name in self._names:
            binding.bind_output(name, *where, *(_placed(outputs[name]) if outputs else ()))
        if device.type == 'cuda':  # the runtime has a stream of its own, for which it waits itself
            torch.cuda.current_stream(device).synchronize()
        self._session.run_with_iobinding(binding)
        return binding.get_outputs()


def _placed(part: torch.Tensor) -> tuple[type, tuple[int, ...], int]:
    """Return what a runtime must know of a contiguous float32 tensor."""
    return np.float32, tuple(part.shape), part.data_ptr()
