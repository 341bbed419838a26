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
import torch

from road_anomaly_ros.perception import (
    FrameResult,
    Pipeline,
    PipelineConfig,
    PipelineError,
    naming,
)
from road_anomaly_ros.perception.config import reload_names
from road_anomaly_ros.perception.resources import is_out_of_memory, relieve, untraced
from road_anomaly_ros.remarks import one_line
from road_anomaly_ros.tools.stages import Stages

_NO_ROOM = (
    'the device has no memory for one image; free it, choose a smaller model or input, '
    "set device to 'cpu' or fallback_to_cpu to true, then configure again"
)


class OutOfMemory(PipelineError):
    """The device has no room for one frame, nor could the CPU take over; the model is released.

    `chain` and `results` are what `run` would have returned, for the images before that one.
    """

    def __init__(
        self, text: str, chain: PipelineConfig, results: list[FrameResult | Exception]
    ) -> None:
        super().__init__(text)
        self.chain, self.results = chain, results


class NotLoaded(PipelineError):
    """There is no model, or none any more, to process an image with."""


class Engine:
    """Owns the pipeline. `run` belongs to one thread; everything else may be called from any."""

    def __init__(self, build: Callable[[PipelineConfig], Any] = Pipeline.from_config) -> None:
        self._build = build
        self._lock = threading.Lock()  # guards the references, never held while computing
        self._pipeline: Any = None
        self._wanted: PipelineConfig | None = None
        self._on_cpu = False
        self.fallback_to_cpu = False
        self.keep_stages = False  # taken over when a model is loaded
        self.recoveries = 0  # times the device ran out of memory
        self.refused = ''  # why the settings last wanted are not in force

    @property
    def pipeline(self) -> Any:
        """The loaded pipeline, or None."""
        return self._pipeline

    @property
    def loaded(self) -> bool:
        """Tell whether a model is loaded."""
        return self._pipeline is not None

    def load(self, config: PipelineConfig, *, warm_up: bool = True) -> None:
        """Build the pipeline and run one frame; raises ValueError, PipelineError or OSError.

        What `reconfigure` asks for meanwhile is taken over before the first frame.
        """
        with self._lock:
            self._wanted, self.refused = None, ''
        self._install(config, warm_up=warm_up, on_cpu=False)

    def _install(self, config: PipelineConfig, *, warm_up: bool, on_cpu: bool) -> None:
        failure = None
        try:
            pipeline = _apart(self._built, config, warm_up)
        except Exception as error:
            failure = untraced(error)
        if failure is not None:  # what was loaded so far is referenced no more
            relieve(torch.device('cuda'))
            raise failure
        with self._lock:
            self._pipeline, self._on_cpu = pipeline, on_cpu
        # A full collection walks half a million objects that stay anyway, 0.2 s for a late frame.
        # What nobody holds any more, such as the model before, must go first: it would stay, too.
        gc.collect()
        gc.freeze()

    def _built(self, config: PipelineConfig, warm_up: bool) -> Any:
        pipeline = self._build(config)
        pipeline.stages = Stages if self.keep_stages else None
        if warm_up:
            pipeline.warm_up()
        return pipeline

    def release(self) -> None:
        """Let go of the model and of the device's memory; does nothing when none is loaded."""
        with self._lock:
            self._wanted, self.refused = None, ''
        self._drop()

    def _drop(self) -> None:
        with self._lock:
            pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None:
            gc.unfreeze()
            pipeline.release()

    def check(self, config: PipelineConfig) -> None:
        """Raise ValueError or PipelineError when the loaded model cannot work with `config`.

        While no model is loaded nothing can be told; what is wrong then shows in `refused`.
        """
        pipeline = self._pipeline
        if pipeline is None:
            return
        config = self._adapted(config)
        for name in reload_names(pipeline.config, config):
            raise ValueError(f'{name} takes effect when the model is loaded: {RELOAD_REMEDY}')
        _apart(pipeline.prepare, config)

    def reconfigure(self, config: PipelineConfig) -> None:
        """Take `config` over before the next frame; that in flight ends with what it began."""
        with self._lock:
            self._wanted = config

    def run(
        self,
        images: Sequence[np.ndarray],
        stamps: Sequence[float | None],
        *maps: Sequence[np.ndarray],
    ) -> tuple[PipelineConfig, list[FrameResult | Exception]]:
        """Process images, all under one configuration, which is returned beside the results.

        `maps` are their anomaly maps, where the pipeline needs them, as one sequence. An image
        that fails yields its exception in its place and leaves the others alone. Raises
        OutOfMemory when the device has no room even for one image, and NotLoaded without a model.
        """
        pipeline = self._take_over()
        found = _tried(pipeline, images, stamps, *maps)
        if isinstance(found, list):
            return pipeline.chain, found
        if is_out_of_memory(found):
            relieve(pipeline.device)
        elif len(images) == 1:
            return pipeline.chain, [found]
        return self._one_by_one(images, stamps, *maps)

    def _take_over(self) -> Any:
        """Return the pipeline under the settings last wanted, or under those before."""
        with self._lock:
            pipeline, wanted, self._wanted = self._pipeline, self._wanted, None
        if pipeline is None:
            raise NotLoaded('expected a loaded model, there is none; configure the node')
        if wanted is not None:
            self.refused = ''
            try:
                pipeline.reconfigure(self._adapted(wanted))
            except Exception as error:  # frames go on as before, and somebody is told
                self.refused = f'settings are not in force: {one_line(error)}'
        return pipeline

    def _adapted(self, config: PipelineConfig) -> PipelineConfig:
        return _for_cpu(config) if self._on_cpu else config

    def _one_by_one(
        self, *inputs: Sequence[Any]
    ) -> tuple[PipelineConfig, list[FrameResult | Exception]]:
        results: list[FrameResult | Exception] = []
        for frame in zip(*inputs, strict=True):
            alone = [[part] for part in frame]
            found = _tried(self._pipeline, *alone)
            if isinstance(found, Exception) and is_out_of_memory(found):
                self._recover(results)
                found = _tried(self._pipeline, *alone)
            results += found if isinstance(found, list) else [found]
        return self._pipeline.chain, results

    def _recover(self, results: list[FrameResult | Exception]) -> None:
        """Let the CPU take over where it may; else OutOfMemory, with what is finished."""
        self.recoveries += 1
        chain, config = self._pipeline.chain, self._pipeline.config
        if not self.fallback_to_cpu or self._on_cpu:
            self.release()
            raise OutOfMemory(_NO_ROOM, chain, results)
        self._drop()
        failure = None
        try:
            self._install(_for_cpu(config), warm_up=False, on_cpu=True)
        except Exception as error:
            failure = untraced(error)
        if failure is not None:
            raise OutOfMemory(
                f'the device has no memory for one image and the CPU could not take '
                f'over: {one_line(failure)}',
                chain,
                results,
            )


def _for_cpu(config: PipelineConfig) -> PipelineConfig:
    """Return settings with which the CPU can go on: without arithmetic and engine of a GPU."""
    engine = f'{naming.prefix("segmenter", config.segmenter)}engine'
    of_gpu = {'precision': 'float16', engine: 'tensorrt'}
    values = config.as_dict()
    changes = {name: 'auto' for name, value in of_gpu.items() if values.get(name) == value}
    return config.replace({'device': 'cpu', **changes})


def _tried(pipeline: Any, *inputs: Sequence[Any]) -> list[FrameResult] | Exception:
    """Return the results of a batch, or why there are none, without a trace of its images.

    So whoever recovers does it where nothing holds the memory that the batch needed.
    """
    try:
        return list(pipeline.batch(*inputs))
    except Exception as error:
        return untraced(error)


def _apart(work: Callable[..., Any], *arguments: Any) -> Any:
    """Do some work in a thread of its own that ends with it.

    OpenMP keeps helpers for every living thread that once ran a parallel loop. With more of them
    than processors it puts them to sleep after each loop, which slows the frames of every other
    thread for ever.
    """
    with ThreadPoolExecutor(1, 'apart') as pool:
        return pool.submit(work, *arguments).result()


RELOAD_REMEDY = (
    "deactivate and clean up ('ros2 lifecycle set NODE deactivate', then 'cleanup'), "
    'set it, configure and activate again'
)
