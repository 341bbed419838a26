# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The only file that knows the order: segment, score, refine, find, track; all are timed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from road_anomaly_ros.perception import (
    arrays,
    devices,
    heads,
    objects,
    proposals,
    refinements,
    sanity,
    scorers,
    sharing,
)
from road_anomaly_ros.perception.calibration import Calibration, ScoreCalibration, chain_options
from road_anomaly_ros.perception.config import AUTO, METHODS, PipelineConfig, reload_names
from road_anomaly_ros.perception.contract import FrameResult, HostCopies, LabelSet, Segments
from road_anomaly_ros.perception.model_files import weights_digest
from road_anomaly_ros.perception.resources import Released, Resources, is_out_of_memory
from road_anomaly_ros.perception.scorers import SCORERS
from road_anomaly_ros.perception.segmenters import SEGMENTERS
from road_anomaly_ros.perception.segments import SEGMENTS
from road_anomaly_ros.perception.sharing import Scored
from road_anomaly_ros.perception.stages import Stages
from road_anomaly_ros.perception.stopwatch import Stopwatch
from road_anomaly_ros.perception.tracks import Tracks
from road_anomaly_ros.remarks import one_line

FALLBACK_SCORER = 'plain'
FALLBACK_SCORERS = {'map': 'external'}  # by kind of segmenter
_WARM_UP_SIZE = (360, 480)


@dataclasses.dataclass(frozen=True)
class _Chain:
    """All that is chosen for a frame; swapped as one reference: no frame sees two choices."""

    config: PipelineConfig
    scorer: str
    scorer_options: Any
    features: str  # the segmenter's map that the scorer reads, '' for none
    refinements: tuple[tuple[str, Callable[..., torch.Tensor], Any], ...]
    segment_source: Callable[..., Segments] | None
    segment_key: tuple[str, Any] | None
    object_options: Any
    levels: ScoreCalibration
    threshold_source: str
    calibration: Path | None  # the file that the levels come from
    doubt: str  # why a promise of that file does not hold for this chain, '' where it does


class Pipeline:
    """Camera image to labels, anomaly score and obstacles, on one device.

    Raises ValueError for settings that cannot work and PipelineError for models and devices that
    cannot be used, each with one line that says what to do, when it is built or reconfigured,
    never at a frame. On the CPU call it from the thread that built it, or let that one end: once
    two living threads have run torch, OpenMP makes frames 1.25 times as slow on two cores.
    """

    stopwatch: type[Stopwatch] = Stopwatch  # a benchmark may measure more than time
    keep_stages = False  # whether results hold what their intermediate pictures are made of

    def __init__(self, config: PipelineConfig | None = None) -> None:
        self._config = config or PipelineConfig()
        self._device = devices.select_device(self._config.device)
        self._resources = Resources(self._device)
        self._tracks = Tracks()
        entry = SEGMENTERS[self._config.segmenter]
        self._segmenter = entry.make(
            self._config.model,
            device=self._device,
            precision=devices.select_precision(self._config.precision, self._device),
            options=self._config.options('segmenter', self._config.segmenter),
        )
        self._chain = self._build(self._config)

    @classmethod
    def from_config(
        cls,
        config: str | Path | Mapping[str, Any] | PipelineConfig | None = None,
        **overrides: Any,
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
    def labels(self) -> LabelSet:
        """The known classes of the model."""
        return self._segmenter.labels

    @property
    def model_dir(self) -> Path | None:
        """The directory of the model's weights; None where it has none."""
        return self._segmenter.model_dir

    def weights_digest(self) -> str:
        """Return the SHA-256 of the network's weights, '' where it has none."""
        return weights_digest(heads.weights_of(self._segmenter))

    @property
    def segmenter(self) -> Any:
        """The loaded network, which gives outputs to score."""
        return self._segmenter

    @property
    def device(self) -> torch.device:
        """Where the chain computes."""
        return self._device

    @property
    def resources(self) -> Resources:
        """What was loaded onto the device beside the network, and the faults of its kernels."""
        return self._resources

    def release(self) -> None:
        """Let go of the networks and of the device's memory; settings and classes stay known.

        Whoever asks for another frame gets a PipelineError.
        """
        self._segmenter = Released(self._segmenter)
        self._chain = dataclasses.replace(
            self._chain, scorer_options=None, segment_source=None, refinements=()
        )
        self.forget_tracks()  # they hold the chain that was followed last
        self._resources.release()

    def forget_tracks(self) -> None:
        """Begin all tracks anew, as for another drive."""
        self._tracks = Tracks()

    @property
    def calibration(self) -> Calibration:
        """What was measured for the model, or the file named by the option `calibration`."""
        return self._calibration(self._config)

    @property
    def prepared(self) -> _Chain:
        """The chain in force: what was chosen, its levels, and where they come from."""
        return self._chain

    @property
    def needs_anomaly(self) -> bool:
        """Whether every image must come with an anomaly map (segmenter 'external')."""
        return self._segmenter.kind == 'map'

    def warm_up(self, size: tuple[int, int] = _WARM_UP_SIZE) -> None:
        """Run one black frame of `size` (H, W), so that the first real one is not the slow one."""
        anomaly = np.zeros(size, np.uint8) if self.needs_anomaly else None
        self(np.zeros((*size, 3), np.uint8), anomaly=anomaly)

    def __call__(
        self,
        image: np.ndarray | torch.Tensor,
        stamp: float | None = None,
        *,
        anomaly: np.ndarray | torch.Tensor | None = None,
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
        images: Sequence[np.ndarray | torch.Tensor],
        stamps: Sequence[float | None] | None = None,
        anomalies: Sequence[np.ndarray | torch.Tensor | None] | None = None,
        cameras: Sequence[str] | None = None,
    ) -> list[FrameResult]:
        """Process several images through one call of the network; results in their order.

        `anomalies` may hold None for images without a map; `cameras` names whose images they are.
        """
        chain = self._chain
        watch = self.stopwatch(self._device)
        tensors = [arrays.upload(image, self._device) for image in images]
        watch.lap('upload')
        outputs = self._segment(chain, tensors, anomalies)
        watch.lap('segment')
        shared = {stage: spent / max(1, len(images)) for stage, spent in watch.times().items()}
        results = []
        for index, image in enumerate(tensors):
            pair = outputs[index :: len(tensors)]
            stamp = None if stamps is None else stamps[index]
            results.append(self._finish(chain, image, pair, stamp, shared))
        # Only now: an image that failed has moved no track, so that the others may come again.
        names = cameras or [''] * len(results)
        pairs = zip(results, names, strict=True)
        return [self._tracks.follow(result, chain, camera) for result, camera in pairs]

    def _segment(
        self, chain: _Chain, tensors: list[torch.Tensor], anomalies: Sequence[Any] | None
    ) -> Sequence[Any]:
        """Return one output per image, then one per mirrored image where those are asked for."""
        foreign = self.needs_anomaly
        maps = [part for part in anomalies or () if part is not None]
        if len(maps) != (len(tensors) if foreign else 0):
            raise ValueError(
                "the segmenter 'external' needs an anomaly map with every image, got "
                f'{len(maps) or "none"}'
                if foreign
                else "anomaly maps are taken by the segmenter 'external' only; choose that one"
            )
        if foreign:
            return self._segmenter(tensors, maps)
        mirrored = [image.flip(-1) for image in tensors] if chain.config.tta_hflip else []
        asked = {'features': chain.features} if chain.features else {}
        return self._segmenter([*tensors, *mirrored], **asked)

    @torch.inference_mode()
    def output(self, image: np.ndarray | torch.Tensor) -> Any:
        """Return what the network says about one image: the MaskOutput or its like, unscored."""
        return self._segment(self._chain, [arrays.upload(image, self._device)], None)[0]

    def prepare(self, config: PipelineConfig) -> _Chain:
        """Return the chain of other live settings for `scores`; raises as `reconfigure` does."""
        self._refuse_reload(config)
        return self._build(config)

    @torch.inference_mode()
    def scores(self, image: np.ndarray | torch.Tensor, chains: Sequence[_Chain]) -> list[Scored]:
        """Score one image by several chains of `prepare`; see `sharing` for what they share."""
        tensor = arrays.upload(image, self._device)
        work = sharing.Work(
            segment=lambda chain: self._segment(chain, [tensor], None),
            score=self._score,
            segments=lambda chain: chain.segment_source(tensor),
            refine=lambda chain, dense: self._refine(
                chain, self._context(chain, tensor, dense), dense.score
            ),
            watch=lambda: self.stopwatch(self._device),
        )
        return sharing.score_chains(chains, work)

    def check(self, config: PipelineConfig) -> None:
        """Raise what `reconfigure` would raise, and change nothing."""
        self._refuse_reload(config)
        self._build(config)

    def reconfigure(self, config: PipelineConfig) -> None:
        """Take over new live settings between two frames; ValueError when one needs a reload."""
        self._refuse_reload(config)
        self._chain = self._build(config)
        self._config = config

    def _refuse_reload(self, config: PipelineConfig) -> None:
        for name in reload_names(self._config, config):
            before, after = self._config.get(name), config.get(name)
            raise ValueError(
                f'{name} cannot change while the model is loaded '
                f'({before!r} to {after!r}); build the pipeline anew'
            )

    def _calibration(self, config: PipelineConfig) -> Calibration:
        if config.calibration:
            return Calibration.read(config.calibration)
        return Calibration.of_model(self._segmenter.model_dir)

    def _build(self, config: PipelineConfig) -> _Chain:
        calibration = self._calibration(config)
        config = _resolve(config, calibration, self._segmenter.kind)
        options = config.options('scorer', config.scorer)
        scorers.check(
            config.scorer, options, kind=self._segmenter.kind, labels=self._segmenter.labels
        )
        options, features = scorers.bind(config.scorer, options, self._segmenter)
        options = scorers.load(config.scorer, options, self._resources)
        levels, threshold_source = _levels(config, calibration)
        if threshold_source == 'option' and self._segmenter.kind == 'mask':
            top = SCORERS[config.scorer].make.top
            sanity.refuse_unreachable(
                levels.threshold,
                1.0 if getattr(options, 'unit_range', False) else top,
                config.scorer,
            )
        objects.check(config.options('objects'), self._segmenter.labels.drivable, levels.threshold)
        for name in config.refinements:
            refinements.check(name, self._segmenter.labels)
        steps = tuple(
            (name, METHODS['refinement'][name].make, config.options('refinement', name))
            for name in config.refinements
        )
        found_in_segments = config.options('objects').mode != objects.COMPONENTS
        wanted = found_in_segments or any(
            refinements.REFINEMENTS[name].make.needs_segments for name in config.refinements
        )
        key, source = self._segments_for(config) if wanted else (None, None)
        doubt = calibration.doubt(
            config.scorer,
            self.weights_digest() if levels.promise is not None else '',
            chain_options(config.as_dict()),
        )
        if levels.promise is not None and threshold_source == 'option':
            doubt = 'the threshold is set by an option, not by the calibration'
        if levels.promise is not None and not doubt:
            threshold_source = 'promise'
        found = config.options('objects'), levels, threshold_source, calibration.path, doubt
        return _Chain(config, config.scorer, options, features, steps, source, key, *found)

    def _segments_for(self, config: PipelineConfig) -> tuple[Any, Any]:
        key = (config.segments, config.options('segments', config.segments))
        before = getattr(self, '_chain', None)
        if before is not None and before.segment_key == key:
            return key, before.segment_source
        make = SEGMENTS[config.segments].make
        return key, make(device=self._device, options=key[1], resources=self._resources)

    def _finish(
        self,
        chain: _Chain,
        image: torch.Tensor,
        outputs: Sequence[Any],
        stamp: float | None,
        shared: Mapping[str, float],
    ) -> FrameResult:
        watch = self.stopwatch(self._device)
        dense = self._score(chain, outputs)
        watch.lap('score')
        context = self._context(chain, image, dense)
        score, notes = self._refine(chain, context, dense.score)
        watch.lap('refine')
        object_options, candidates, failures = proposals.or_components(
            context.segments,
            score,
            threshold=chain.levels.threshold,
            options=chain.object_options,
        )
        host = HostCopies()
        mask, instances, found = objects.find(
            score,
            threshold=chain.levels.threshold,
            low_threshold=chain.levels.low_threshold,
            options=object_options,
            proposals=candidates,
            labels=dense.labels,
            drivable=self.labels.drivable,
            host=host,
        )
        repaired = int(dense.sanitized)
        sanity.refuse_meaningless(outputs, score, repaired)
        watch.lap('objects')
        times = watch.times()
        times = {**shared, **times, 'total': shared['total'] + times['total']}
        return FrameResult(
            image=image,
            labels=dense.labels,
            score=score,
            mask=mask,
            instances=instances,
            objects=found,
            label_set=self.labels,
            scorer=chain.scorer,
            threshold=chain.levels.threshold,
            threshold_source=chain.threshold_source,
            display_range=chain.levels.display,
            stamp=stamp,
            timings=times,
            sanitized=repaired,
            notes=(*notes, *failures),
            host=host,
            stages=self._stages(chain, context, image, dense.score, outputs[0])
            if self.keep_stages
            else None,
        )

    def _stages(
        self,
        chain: _Chain,
        context: refinements.RefineContext,
        image: torch.Tensor,
        score: torch.Tensor,
        output: Any,
    ) -> Stages:
        fused = dataclasses.replace(chain.config.options('scorer', 's2'), stage='fuse')

        def segments() -> Segments:
            if context.source is None:
                context.source = self._segments_for(chain.config)[1]
            return context.segments()

        return Stages(image, score, chain.levels.display, output, fused, segments, self._resources)

    def _score(self, chain: _Chain, outputs: Sequence[Any]) -> scorers.DenseResult:
        results = [
            scorers.evaluate(
                output,
                chain.scorer,
                chain.scorer_options,
                upsample=chain.config.upsample,
                sanitize=chain.config.sanitize_inputs,
                resources=self._resources,
            )
            for output in outputs
        ]
        if len(results) == 1:
            return results[0]
        straight, mirrored = results
        return dataclasses.replace(
            straight,
            score=(straight.score + mirrored.score.flip(-1)) / 2,
            sanitized=straight.sanitized + mirrored.sanitized,
        )

    def _context(
        self, chain: _Chain, image: torch.Tensor, dense: scorers.DenseResult
    ) -> refinements.RefineContext:
        return refinements.RefineContext(
            image=image,
            labels=dense.labels,
            label_set=self.labels,
            source=chain.segment_source,
            score=dense.score,
            threshold=chain.levels.low_threshold,
        )

    def _refine(
        self, chain: _Chain, context: refinements.RefineContext, score: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[str, ...]]:
        notes = []
        for name, step, options in chain.refinements:
            try:
                score = step(score, context, options)
            except Exception as error:  # one failing refinement must not cost the frame
                if is_out_of_memory(error):
                    raise
                notes.append(f'refinement {name} skipped: {one_line(error)}')
        return score, tuple(notes)


def _resolve(config: PipelineConfig, calibration: Calibration, kind: str) -> PipelineConfig:
    """Replace 'auto' by what was measured for the model; options that the user set are kept."""
    measured = dict(calibration.default)
    changes: dict[str, Any] = {}
    if config.scorer == AUTO and config.calibration and 'scorer' not in measured:
        raise ValueError(
            f'{calibration.path} names no scorer under default, so none can be chosen '
            f'automatically; set the scorer to one of {list(calibration.scorers)}'
        )
    if config.scorer == AUTO:
        changes['scorer'] = measured.get('scorer', FALLBACK_SCORERS.get(kind, FALLBACK_SCORER))
    if config.refinements == (AUTO,):
        changes['refinements'] = tuple(measured.get('refinements', ())) or ('none',)
    for name, value in measured.items():
        if '.' in name and not config.is_set(name):
            changes[name] = value
    return config.replace(changes)


def _levels(config: PipelineConfig, calibration: Calibration) -> tuple[ScoreCalibration, str]:
    chosen = config.options('objects')
    scorer = SCORERS[config.scorer].make
    levels = calibration.scorers.get(config.scorer)
    source = 'calibration' if levels is not None else 'default'
    if levels is None:
        levels = ScoreCalibration(scorer.threshold, scorer.threshold, scorer.display, 'default')
    if not math.isnan(chosen.threshold):
        levels, source = (
            dataclasses.replace(
                levels,
                threshold=chosen.threshold,
                low_threshold=min(levels.low_threshold, chosen.threshold),
            ),
            'option',
        )
    if not math.isnan(chosen.low_threshold):
        if chosen.low_threshold > levels.threshold:
            raise ValueError(
                f'objects.low_threshold: expected at most the threshold {levels.threshold:g}, '
                f'got {chosen.low_threshold:g}'
            )
        levels = dataclasses.replace(levels, low_threshold=chosen.low_threshold)
        source = 'option' if levels.promise is not None else source
    return levels, source
