# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What was chosen for a frame, with every 'auto' resolved, and how each of its steps is done."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np
import torch

from road_anomaly_ros.perception import objects, proposals, refinements, sanity, scorers
from road_anomaly_ros.perception.calibration import Calibration, ScoreCalibration, chain_options
from road_anomaly_ros.perception.config import AUTO, PipelineConfig
from road_anomaly_ros.perception.contract import (
    AnomalyObject,
    ForeignMaps,
    HostCopies,
    LabelSet,
    Output,
    Segmenter,
    SegmentSource,
)
from road_anomaly_ros.perception.devices import select_precision
from road_anomaly_ros.perception.engines import cuda_graph
from road_anomaly_ros.perception.model_files import weights_digest
from road_anomaly_ros.perception.object_options import ObjectOptions
from road_anomaly_ros.perception.refinements import REFINEMENTS, RefineContext, Refinement
from road_anomaly_ros.perception.resources import Released, Resources, is_out_of_memory
from road_anomaly_ros.perception.scorers import SCORERS, DenseResult
from road_anomaly_ros.perception.segmenters import SEGMENTERS
from road_anomaly_ros.perception.segments import SEGMENTS
from road_anomaly_ros.remarks import one_line

FALLBACK_SCORER = 'plain'
FALLBACK_SCORERS = {'map': 'external'}  # by kind of segmenter


@dataclasses.dataclass(frozen=True)
class Step:
    """One refinement with its options."""

    name: str
    refinement: Refinement
    options: object


@dataclasses.dataclass(frozen=True)
class Obstacles:
    """What stands out of one score, [H, W], and notes on what was skipped on the way."""

    mask: torch.Tensor  # bool
    instances: torch.Tensor  # int32
    objects: tuple[AnomalyObject, ...]
    host: HostCopies
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Chain:
    """All that is chosen for a frame; swapped as one reference: no frame sees two choices."""

    config: PipelineConfig  # without 'auto'
    segmenter: Segmenter | ForeignMaps
    resources: Resources
    scorer_options: object  # with what they name loaded
    features: str  # the segmenter's map that the scorer reads, '' for none
    refinements: tuple[Step, ...]
    segment_source: SegmentSource | None  # None where no step asks for segments
    object_options: ObjectOptions
    levels: ScoreCalibration
    threshold_source: str  # as FrameResult calls it
    calibration: Path | None  # the file that the levels come from
    doubt: str  # why a promise of that file does not hold for this chain, '' where it does

    @classmethod
    def build(
        cls,
        config: PipelineConfig,
        segmenter: Segmenter | ForeignMaps,
        resources: Resources,
        before: Chain | None = None,
    ) -> Chain:
        """Choose and load what `config` asks for; segments that `before` loaded are used again.

        ValueError for settings that cannot work together, PipelineError for what cannot be loaded,
        each with one line that says what to do.
        """
        calibration = calibration_of(config, segmenter)
        config = resolve(config, calibration, segmenter.kind)
        options = config.options('scorer', config.scorer)
        scorers.check(config.scorer, options, kind=segmenter.kind, labels=segmenter.labels)
        options, features = scorers.bind(config.scorer, options, segmenter)
        options = scorers.load(config.scorer, options, resources)
        levels, threshold_source = levels_of(config, calibration)
        if threshold_source == 'option' and segmenter.kind == 'mask':
            top = 1.0 if getattr(options, 'unit_range', False) else SCORERS[config.scorer].make.top
            sanity.refuse_unreachable(levels.threshold, top, config.scorer)
        object_options: ObjectOptions = config.options('objects')
        objects.check(object_options, segmenter.labels.drivable, levels.threshold)
        steps = _steps(config, segmenter.labels, resources)
        segmented = config.needs_segments
        source = _segment_source(config, resources, before) if segmented else None
        doubt = _doubt(config, calibration, levels, threshold_source, segmenter)
        if levels.promise is not None and not doubt:
            threshold_source = 'promise'
        found = object_options, levels, threshold_source, calibration.path, doubt
        return cls(config, segmenter, resources, options, features, steps, source, *found)

    @property
    def scorer(self) -> str:
        """The name of the score."""
        return self.config.scorer

    def segment(
        self, images: Sequence[torch.Tensor], maps: Sequence[torch.Tensor | np.ndarray] = ()
    ) -> Sequence[Output]:
        """Return one output per image, then one per mirrored image where those are asked for.

        Images are uint8 RGB [3,H,W]; `maps` are theirs [h,w] where no network segments them.
        """
        foreign = self.segmenter.kind == 'map'
        if len(maps) != (len(images) if foreign else 0):
            raise ValueError(
                "the segmenter 'external' needs an anomaly map with every image, got "
                f'{len(maps) or "none"}'
                if foreign
                else "anomaly maps are taken by the segmenter 'external' only; choose that one"
            )
        if self.segmenter.kind == 'map':
            return self.segmenter(images, maps)
        mirrored = [image.flip(-1) for image in images] if self.config.tta_hflip else []
        with cuda_graph.allowed(self.resources, self.config.cuda_graphs == AUTO):
            return self.segmenter([*images, *mirrored], features=self.features)

    def score(self, outputs: Sequence[Output]) -> DenseResult:
        """Return labels and score of one image: of its output, and of that of its mirror image."""
        results = [
            scorers.evaluate(
                output,
                self.scorer,
                self.scorer_options,
                upsample=self.config.upsample,
                sanitize=self.config.sanitize_inputs,
                resources=self.resources,
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

    def context(self, image: torch.Tensor, dense: DenseResult, camera: str = '') -> RefineContext:
        """Return what refinements may ask for; segments are made once, when first asked for."""
        return RefineContext(
            image=image,
            labels=dense.labels,
            label_set=self.segmenter.labels,
            source=self.segment_source,
            score=dense.score,
            threshold=self.levels.low_threshold,
            camera=camera,
            resources=self.resources,
        )

    def refine(
        self, score: torch.Tensor, context: RefineContext
    ) -> tuple[torch.Tensor, tuple[str, ...]]:
        """Return the refined score [H, W], and a note for every step that failed."""
        for step in self.refinements:
            try:
                score = step.refinement(score, context, step.options)
            except Exception as error:  # one failing refinement must not cost the frame
                if is_out_of_memory(error):
                    raise
                context.notes.append(f'refinement {step.name} skipped: {one_line(error)}')
        return score, tuple(context.notes)

    def find(self, score: torch.Tensor, context: RefineContext) -> Obstacles:
        """Return the obstacles of a refined score; without segments they are its components."""
        options, candidates, notes = proposals.or_components(
            context.segments, score, threshold=self.levels.threshold, options=self.object_options
        )
        host = HostCopies()
        mask, instances, things = objects.find(
            score,
            threshold=self.levels.threshold,
            low_threshold=self.levels.low_threshold,
            options=options,
            proposals=candidates,
            labels=context.labels,
            drivable=self.segmenter.labels.drivable,
            host=host,
        )
        named = [(item.name, item.mask) for item in context.named]
        return Obstacles(mask, instances, objects.named(things, instances, named), host, notes)

    @property
    def segment_key(self) -> Hashable:
        """What segments depend on, beside image and score."""
        return _segment_key(self.config)

    def released(self) -> Chain:
        """Return the settings and classes alone, without anything that was loaded."""
        return dataclasses.replace(
            self,
            segmenter=Released(self.segmenter),
            scorer_options=None,
            segment_source=None,
            refinements=(),
        )

    def any_segment_source(self) -> SegmentSource:
        """Return the source of segments, loaded now where no step of the chain asks for any."""
        return self.segment_source or _segment_source(self.config, self.resources, None)


def load_segmenter(config: PipelineConfig, device: torch.device) -> Segmenter | ForeignMaps:
    """Load the network that `config` names; PipelineError, with the remedy, where it cannot be."""
    return SEGMENTERS[config.segmenter].make(
        config.model,
        device=device,
        precision=select_precision(config.precision, device),
        options=config.options('segmenter', config.segmenter),
    )


def calibration_of(config: PipelineConfig, segmenter: Segmenter | ForeignMaps) -> Calibration:
    """Return what was measured for the model, or the file named by the option `calibration`."""
    if config.calibration:
        return Calibration.read(config.calibration)
    return Calibration.of_model(segmenter.model_dir)


def resolve(config: PipelineConfig, calibration: Calibration, kind: str) -> PipelineConfig:
    """Replace 'auto' by what was measured for the model; options that the user set are kept."""
    measured = dict(calibration.default)
    changes: dict[str, object] = {}
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
    return _completed(config.replace(changes))


def _completed(config: PipelineConfig) -> PipelineConfig:
    """Add the refinement without which the score says nothing, with its options for that."""
    wanted = SCORERS[config.scorer].make.completed_by
    if not wanted:
        return config
    name = wanted['refinements']
    others = tuple(other for other in config.refinements if other != name)
    options = {
        option: value
        for option, value in wanted.items()
        if option != 'refinements' and not config.is_set(option)
    }
    return config.replace({'refinements': (name, *others), **options})


def levels_of(config: PipelineConfig, calibration: Calibration) -> tuple[ScoreCalibration, str]:
    """Return thresholds and display range of the scorer, and where the threshold comes from."""
    chosen: ObjectOptions = config.options('objects')
    scorer = SCORERS[config.scorer].make
    levels = calibration.scorers.get(config.scorer)
    source = 'calibration' if levels is not None else 'default'
    if levels is None:
        levels = ScoreCalibration(scorer.threshold, scorer.threshold, scorer.display, 'default')
    if not math.isnan(chosen.threshold):
        low, source = min(levels.low_threshold, chosen.threshold), 'option'
        levels = dataclasses.replace(levels, threshold=chosen.threshold, low_threshold=low)
    if not math.isnan(chosen.low_threshold):
        if chosen.low_threshold > levels.threshold:
            raise ValueError(
                f'objects.low_threshold: expected at most the threshold {levels.threshold:g}, '
                f'got {chosen.low_threshold:g}'
            )
        levels = dataclasses.replace(levels, low_threshold=chosen.low_threshold)
        source = 'option' if levels.promise is not None else source
    return levels, source


def _steps(config: PipelineConfig, labels: LabelSet, resources: Resources) -> tuple[Step, ...]:
    for name in config.refinements:
        refinements.check(name, labels)
    steps = tuple(
        Step(name, REFINEMENTS[name].make, config.options('refinement', name))
        for name in config.refinements
    )
    for step in steps:
        if step.refinement.load is not None:
            step.refinement.load(step.options, resources)
    return steps


def _doubt(
    config: PipelineConfig,
    calibration: Calibration,
    levels: ScoreCalibration,
    threshold_source: str,
    segmenter: Segmenter | ForeignMaps,
) -> str:
    promised = levels.promise is not None
    weights = weights_digest(segmenter.weights) if promised else ''
    doubt = calibration.doubt(config.scorer, weights, chain_options(config.as_dict()))
    if promised and threshold_source == 'option':
        return 'the threshold is set by an option, not by the calibration'
    return doubt


def _segment_key(config: PipelineConfig) -> Hashable:
    return config.segments, config.options('segments', config.segments)


def _segment_source(
    config: PipelineConfig, resources: Resources, before: Chain | None
) -> SegmentSource:
    loaded = before.segment_source if before is not None else None
    if before is not None and loaded is not None and before.segment_key == _segment_key(config):
        return loaded
    options = config.options('segments', config.segments)
    make = SEGMENTS[config.segments].make
    return make(device=resources.device, options=options, resources=resources)
