# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A graph on an NVIDIA GPU through onnxruntime's TensorRT provider.

TensorRT builds an engine for the GPU and the size at hand, which takes minutes once; it is kept
beside the graph where that folder can be written to.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from road_anomaly_ros.perception.engines import onnx_runtime

DEVICES = ('cuda',)
PROVIDER = 'TensorrtExecutionProvider'
_CACHE = 'tensorrt'


def missing() -> str:
    """Return what is missing to run graphs here, '' for nothing."""
    problem = onnx_runtime.missing()
    if problem:
        return problem
    import onnxruntime

    if PROVIDER in onnxruntime.get_available_providers():
        return ''
    return (
        "this onnxruntime has no TensorRT; install it with pip install onnxruntime-gpu 'tensorrt'"
    )


class Session(onnx_runtime.Session):
    """A loaded graph; what TensorRT cannot compute CUDA does, and the CPU what that cannot."""

    @staticmethod
    def _providers(path: Path) -> list[Any]:
        options = {
            'trt_engine_cache_enable': os.access(path.parent, os.W_OK),
            'trt_engine_cache_path': str(path.parent / _CACHE),
            'trt_timing_cache_enable': True,
        }
        return [(PROVIDER, options), 'CUDAExecutionProvider', 'CPUExecutionProvider']
