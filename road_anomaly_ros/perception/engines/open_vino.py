# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A graph on the CPU through OpenVINO, in bfloat16 where the processor computes in it.

Mask logits then differ by some hundredths of their size, which no figure of ranking shows (model
card); what it gains: docs/performance.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from road_anomaly_ros.perception.engines.base import KEPT_SIZES, SETTLED

DEVICES = ('cpu',)
_COMPILED = 8  # images of one size that make a graph of their own worth its second
Shapes = tuple[tuple[str, tuple[int, ...]], ...]  # of the inputs; () where any will do


def missing() -> str:
    """Return what is missing to run graphs here, '' for nothing."""
    if find_spec('openvino') is None:
        return 'openvino is not installed; install it with pip install openvino'
    return ''


def is_fast() -> bool:
    """Tell whether the processor computes in bfloat16, where OpenVINO beats other runtimes."""
    try:
        import openvino
    except ImportError:  # an optional dependency
        return False
    return 'BF16' in openvino.Core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES')


def _text(value: Any) -> str:
    return str(value.astype(str) if hasattr(value, 'astype') else value)


class Session:
    """A loaded graph, compiled for every frequent size of image; raises whatever OpenVINO does.

    A graph for one size is a quarter faster than one for all, rounds in another way, and takes
    about a second to compile. Nobody waits for it: the first images of a size go through the graph
    for all sizes while theirs is compiled. Their number is fixed, so that the same images give the
    same results however long it takes.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        import openvino

        self._core = openvino.Core()
        self._path = str(path)
        graph = self._core.read_model(self._path)
        stored = graph.get_rt_info('framework').astype(dict)
        self.metadata: Mapping[str, str] = {
            str(key): _text(value) for key, value in stored.items()
        }
        self._any_size = graph.is_dynamic()
        self._general: Any = None
        self._seen: Counter[Shapes] = Counter()
        self._own: dict[Shapes, Future[Any]] = {}
        self._worker = ThreadPoolExecutor(1, 'compile')

    def _compiled(self, shapes: Shapes) -> Any:
        graph = self._core.read_model(self._path)
        if shapes:
            graph.reshape({name: list(shape) for name, shape in shapes})
        compiled = self._core.compile_model(
            graph,
            'CPU',
            {
                'PERFORMANCE_HINT': 'LATENCY',
                'NUM_STREAMS': 1,
                'ENABLE_CPU_PINNING': False,
                'INFERENCE_NUM_THREADS': torch.get_num_threads(),
            },
        )
        return compiled.create_infer_request()

    def _request(self, shapes: Shapes) -> Any:
        """Return what computes images of this size now."""
        self._seen[shapes] += 1
        if self._any_size and self._seen[shapes] == _COMPILED:
            while len(self._own) >= KEPT_SIZES:
                oldest = next(iter(self._own))
                del self._own[oldest], self._seen[oldest]
            self._own[shapes] = self._worker.submit(self._compiled, shapes)
        if self._any_size and self._seen[shapes] >= SETTLED:
            return self._own[shapes].result()
        if self._general is None:
            self._general = self._compiled(())
        return self._general

    def __call__(self, values: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """Return the graph's outputs, in its order, as tensors of their own."""
        given = {name: value.numpy() for name, value in values.items()}
        request = self._request(tuple((name, value.shape) for name, value in given.items()))
        found = request.infer(given, share_inputs=True)
        return [torch.from_numpy(found[index]) for index in range(len(found))]
