# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A graph on the CPU through onnxruntime, in float32."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

DEVICES = ('cpu',)


def missing() -> str:
    """Return what is missing to run graphs here, '' for nothing."""
    if find_spec('onnxruntime') is None:
        return 'onnxruntime is not installed; install it with pip install onnxruntime'
    return ''


class Session:
    """A loaded graph; raises whatever onnxruntime does."""

    def __init__(self, path: Path, device: torch.device) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4  # what fails is raised
        # Threads that wait by turning would keep the cores from the dense pass.
        options.add_session_config_entry('session.intra_op.allow_spinning', '0')
        self._session: Any = onnxruntime.InferenceSession(
            str(path), options, providers=self._providers(path, device)
        )
        self.metadata: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map

    @staticmethod
    def _providers(path: Path, device: torch.device) -> list[Any]:
        """Return what computes it, the first that can."""
        return ['CPUExecutionProvider']

    def __call__(self, values: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """Return the graph's outputs, in its order, as tensors of their own."""
        found = self._session.run(None, {name: value.numpy() for name, value in values.items()})
        return [torch.from_numpy(part) for part in found]
