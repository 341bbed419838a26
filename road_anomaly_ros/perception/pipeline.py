# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The only file that knows the order: segment, score, refine, find, track; all are timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from road_anomaly_ros.perception import arrays, contract, devices, sanity
from road_anomaly_ros.perception.chain import Chain, load_segmenter
from road_anomaly_ros.perception.config import PipelineConfig, reload_names
from road_anomaly_ros.perception.contract import FrameResult, LabelSet, Output
from road_anomaly_ros.perception.refinements import RefineContext
from road_anomaly_ros.perception.resources import Resources
from road_anomaly_ros.perception.stopwatch import Stopwatch
from road_anomaly_ros.perception.tracks import Tracks

Image = np.ndarray | torch.Tensor


class Pipeline:
    """Camera image to labels, anomaly score and obstacles, on one device.

    ValueError for settings that cannot work, PipelineError for what cannot be used, when it is
    built or reconfigured. On the CPU call it from the thread that built it, or let that one end:
    once two living threads have run torch, OpenMP makes frames 1.25 times as slow on two cores.
    """

    # Makes the pictures that results carry as `stages`, of what the frame was made of.
    stages: Callable[[Chain, RefineContext, Output], contract.Pictures] | None = None

    def __init__(self, config: PipelineConfig | None = None) -> None:
        self._config = config or PipelineConfig()
        # What was loaded onto the device beside the network, and the faults of its kernels.
        self.resources = Resources(devices.select_device(self._config.device))
        self._tracks = Tracks()
        segmenter = load_segmenter(self._config, self.device)
        self._chain = Chain.build(self._config, segmenter, self.resources)

    @classmethod
    def from_config(
        cls,
        config: str | Path | Mapping[str, object] | PipelineConfig | None = None,
        **overrides: object,
    ) -> Pipeline:
        """Build from a YAML file, a dict (nested or flat) or nothing; keyword `overrides` win."""
        return cls(PipelineConfig.from_any(config, **overrides))

    @property
    def config(self) -> PipelineConfig:
        """The settings as given; what 'auto' stands for is told by `chain`."""
        return self._config

    @property
    def chain(self) -> PipelineConfig:
        """The settings in force, with every 'auto' resolved."""
        return self._chain.config

    @property
    def prepared(self) -> Chain:
        """The chain in force: what was chosen, its levels, and where they come from."""
        return self._chain

    @property
    def segmenter(self) -> contract.Segmenter | contract.ForeignMaps:
        """The loaded network, which gives outputs to score."""
        return self._chain.segmenter

    @property
    def labels(self) -> LabelSet:
        """The known classes of the model."""
        return self.segmenter.labels

    @property
    def device(self) -> torch.device:
        """Where the chain computes."""
        return self.resources.device

    @property
    def needs_anomaly(self) -> bool:
        """Whether every image must come with an anomaly map (segmenter 'external')."""
        return self.segmenter.kind == 'map'

    def warm_up(self, size: tuple[int, int] = (360, 480)) -> None:
        """Run one black frame of `size` (H, W), so that the first real one is not the slow one."""
        anomaly = np.zeros(size, np.uint8) if self.needs_anomaly else None
        self(np.zeros((*size, 3), np.uint8), anomaly=anomaly)

    def __call__(
        self,
        image: Image,
        stamp: float | None = None,
        *,
        anomaly: Image | None = None,
        camera: str = '',
    ) -> FrameResult:
        """Process one uint8 RGB image, array [H,W,3] or tensor [3,H,W]; `stamp` is in seconds.

        `anomaly` [h,w] is the map of the segmenter 'external': uint8, uint16 or floats. `camera`
        names whose image it is, as each has obstacles of its own to follow.
        """
        return self.batch([image], [stamp], None if anomaly is None else [anomaly], [camera])[0]

    @torch.inference_mode()
    def batch(
        self,
        images: Sequence[Image],
        stamps: Sequence[float | None] | None = None,
        anomalies: Sequence[Image | None] | None = None,
        cameras: Sequence[str] | None = None,
        *,
        stopwatch: Callable[[torch.device], Stopwatch] = Stopwatch,
    ) -> list[FrameResult]:
        """Process several images through one call of the network; results in their order.

        `anomalies` may hold None for images without a map; `cameras` names whose images they are;
        `stopwatch` starts what measures the stages.
        """
        chain = self._chain
        watch = stopwatch(self.device)
        tensors = [arrays.upload(image, self.device) for image in images]
        watch.lap('upload')
        outputs = chain.segment(tensors, [part for part in anomalies or () if part is not None])
        watch.lap('segment')
        pairs = [outputs[index :: len(tensors)] for index in range(len(tensors))]
        names = cameras or [''] * len(pairs)
        frames = zip(tensors, pairs, stamps or [None] * len(pairs), names, strict=True)

        def shared() -> dict[str, float]:
            return {stage: spent / len(images) for stage, spent in watch.times().items()}

        results = [self._finish(chain, *frame, stopwatch(self.device), shared) for frame in frames]
        # Only now: an image that failed has moved no track, so that the others may come again.
        named = zip(results, names, strict=True)
        return [self._tracks.follow(result, chain, camera) for result, camera in named]

    def _finish(
        self,
        chain: Chain,
        image: torch.Tensor,
        outputs: Sequence[Output],
        stamp: float | None,
        camera: str,
        watch: Stopwatch,
        shared: Callable[[], Mapping[str, float]],
    ) -> FrameResult:
        dense = chain.score(outputs)
        watch.lap('score')
        context = chain.context(image, dense, camera)
        score, notes = chain.refine(dense.score, context)
        watch.lap('refine')
        found = chain.find(score, context)
        repaired = int(dense.sanitized)
        sanity.refuse_meaningless(outputs, torch.from_numpy(found.host(score)), repaired)
        watch.lap('objects')
        # Times are asked for at the end: earlier the device would be waited for, without work.
        before, times = shared(), watch.times()
        return FrameResult(
            image=image,
            labels=dense.labels,
            score=score,
            mask=found.mask,
            instances=found.instances,
            objects=found.objects,
            label_set=chain.segmenter.labels,
            scorer=chain.scorer,
            threshold=chain.levels.threshold,
            threshold_source=chain.threshold_source,
            display_range=chain.levels.display,
            stamp=stamp,
            timings={**before, **times, 'total': before['total'] + times['total']},
            sanitized=repaired,
            notes=(*notes, *found.notes),
            host=found.host,
            stages=None if self.stages is None else self.stages(chain, context, outputs[0]),
        )

    def prepare(self, config: PipelineConfig) -> Chain:
        """Return the chain of other settings; ValueError for one that needs a reload."""
        for name in reload_names(self._config, config):
            raise ValueError(
                f'{name} cannot change while the model is loaded ({self._config.get(name)!r} to '
                f'{config.get(name)!r}); build the pipeline anew'
            )
        return Chain.build(config, self.segmenter, self.resources, self._chain)

    def reconfigure(self, config: PipelineConfig) -> None:
        """Take over new live settings between two frames; raises what `prepare` does."""
        self._chain, self._config = self.prepare(config), config

    def release(self) -> None:
        """Let go of all that was loaded; settings stay known, another frame is a PipelineError."""
        self._chain = self._chain.released()
        self.forget_tracks()  # they hold the chain that was followed last
        self.resources.release()

    def forget_tracks(self) -> None:
        """Begin all tracks anew, as for another drive."""
        self._tracks = Tracks()
