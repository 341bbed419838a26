# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The pipeline of a live system: loaded, changed between frames, brought back after faults."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from road_anomaly_ros.perception import FrameResult, Pipeline, PipelineConfig, PipelineError
from road_anomaly_ros.perception.pipeline import reload_names


class OutOfMemory(PipelineError):
    """The device has no room for one frame, nor may the CPU take over; the model is released."""


class Engine:
    """Owns the pipeline. `run` belongs to one thread; everything else may be called from any."""

    def __init__(self, build: Callable[[PipelineConfig], Any] = Pipeline.from_config) -> None:
        self._build = build
        self._lock = threading.Lock()           # guards the references, never held while computing
        self._pipeline: Any = None
        self._wanted: PipelineConfig | None = None
        self._on_cpu = False
        self.fallback_to_cpu = False
        self.keep_stages = False                # taken over when a model is loaded
        self.recoveries = 0                     # times the device ran out of memory

    @property
    def pipeline(self) -> Any:
        """The loaded pipeline, or None."""
        return self._pipeline

    @property
    def loaded(self) -> bool:
        """Tell whether a model is loaded."""
        return self._pipeline is not None

    def load(self, config: PipelineConfig, *, warm_up: bool = True) -> None:
        """Build the pipeline and run one frame; raises ValueError, PipelineError or OSError."""
        pipeline = _apart(self._built, config, warm_up)
        with self._lock:
            self._pipeline, self._wanted, self._on_cpu = pipeline, None, False
        # A full collection walks half a million objects that stay anyway, 0.2 s for a late frame.
        gc.freeze()

    def _built(self, config: PipelineConfig, warm_up: bool) -> Any:
        pipeline = self._build(config)
        pipeline.keep_stages = self.keep_stages
        if warm_up:
            pipeline.warm_up()
        return pipeline

    def release(self) -> None:
        """Let go of the model and of the device's memory; does nothing when none is loaded."""
        with self._lock:
            pipeline, self._pipeline, self._wanted = self._pipeline, None, None
        if pipeline is None:
            return
        cuda = pipeline.device.type == 'cuda'
        del pipeline
        gc.unfreeze()
        if cuda:
            _empty_cache()

    def check(self, config: PipelineConfig) -> None:
        """Raise ValueError or PipelineError when the loaded model cannot work with `config`."""
        pipeline = self._pipeline
        if pipeline is None:
            return
        names = reload_names(pipeline.config, config)
        if self._on_cpu:
            names = [name for name in names if name != 'device']
        if names:
            raise ValueError(f'{names[0]} takes effect when the model is loaded: {RELOAD_REMEDY}')
        _apart(pipeline.check, self._adapted(config))

    def reconfigure(self, config: PipelineConfig) -> None:
        """Take `config` over before the next frame; that in flight ends with what it began."""
        with self._lock:
            self._wanted = config

    def run(self, images: Sequence[np.ndarray], stamps: Sequence[float | None],
            *maps: Sequence[np.ndarray]) -> tuple[PipelineConfig, list[FrameResult | Exception]]:
        """Process images, all under one configuration, which is returned beside the results.

        `maps` are their anomaly maps, where the pipeline needs them, as one sequence. An image
        that fails yields its exception in its place and leaves the others alone. Raises
        OutOfMemory when the device has no room even for one image.
        """
        self._take_over()
        try:
            return self._pipeline.chain, list(self._pipeline.batch(images, stamps, *maps))
        except Exception as error:
            if is_out_of_memory(error):
                _empty_cache()
            elif len(images) == 1:
                return self._pipeline.chain, [error]
            return self._one_by_one(images, stamps, *maps)

    def _take_over(self) -> None:
        with self._lock:
            wanted, self._wanted = self._wanted, None
        if wanted is not None:
            self._pipeline.reconfigure(self._adapted(wanted))

    def _adapted(self, config: PipelineConfig) -> PipelineConfig:
        return config.replace({'device': 'cpu'}) if self._on_cpu else config

    def _one_by_one(self, *inputs: Sequence[Any]
                    ) -> tuple[PipelineConfig, list[FrameResult | Exception]]:
        results: list[FrameResult | Exception] = []
        for frame in zip(*inputs, strict=True):
            try:
                results += self._pipeline.batch(*([part] for part in frame))
            except Exception as error:
                results.append(self._recover(frame, error))
        return self._pipeline.chain, results

    def _recover(self, frame: Sequence[Any], error: Exception) -> FrameResult | Exception:
        if not is_out_of_memory(error):
            return error
        self.recoveries += 1
        config = self._pipeline.config
        if not self.fallback_to_cpu or self._on_cpu:
            self.release()
            raise OutOfMemory(
                'the device has no memory for one image; free it, choose a smaller model or '
                "input, set device to 'cpu' or fallback_to_cpu to true, then configure again")
        self.release()
        self.load(config.replace({'device': 'cpu'}), warm_up=False)
        self._on_cpu = True
        return self._pipeline.batch(*([part] for part in frame))[0]


def _apart(work: Callable[..., Any], *arguments: Any) -> Any:
    """Do some work in a thread of its own that ends with it.

    OpenMP keeps helpers for every living thread that once ran a parallel loop. With more of them
    than processors it puts them to sleep after each loop: frames of another thread take 1.25 times
    as long, for ever.
    """
    with ThreadPoolExecutor(1, 'apart') as pool:
        return pool.submit(work, *arguments).result()


RELOAD_REMEDY = ("deactivate and clean up ('ros2 lifecycle set NODE deactivate', then 'cleanup'), "
                 'set it, configure and activate again')


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that a device's memory is exhausted."""
    import torch
    known = isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError))
    return known or (isinstance(error, RuntimeError) and 'out of memory' in str(error).lower())


def _empty_cache() -> None:
    import torch
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
