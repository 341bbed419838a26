# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a researcher asks of a loaded pipeline: raw outputs, and several chains on one image."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch

from road_anomaly_ros.perception import arrays
from road_anomaly_ros.perception.chain import Chain
from road_anomaly_ros.perception.contract import Output, Prompts, Segments
from road_anomaly_ros.perception.pipeline import Pipeline
from road_anomaly_ros.perception.resources import is_out_of_memory
from road_anomaly_ros.perception.stopwatch import Stopwatch

T = TypeVar('T')


@dataclasses.dataclass(frozen=True)
class Scored:
    """What one chain says about an image, without obstacles."""

    labels: torch.Tensor  # [H, W] uint8
    score: torch.Tensor  # [H, W] float32, higher is stranger
    notes: tuple[str, ...]  # refinements that were skipped, and why
    milliseconds: float  # that the chain would take alone, without obstacles
    stages: Mapping[str, float]  # the same in parts: segment, score, segments, refine


@torch.inference_mode()
def output(pipeline: Pipeline, image: np.ndarray | torch.Tensor) -> Output:
    """Return what the network says about one uint8 RGB image, unscored."""
    return pipeline.prepared.segment([arrays.upload(image, pipeline.device)])[0]


@torch.inference_mode()
def scores(
    pipeline: Pipeline, image: np.ndarray | torch.Tensor, chains: Sequence[Chain]
) -> list[Scored]:
    """Score one uint8 RGB image by several chains of `Pipeline.prepare`.

    Equal passes, scores and segments are made once, and each chain is charged for what it shares.
    A chain with `tta_hflip`, or with features that differ from those of others, needs a pass of
    its own kind.
    """
    tensor = arrays.upload(image, pipeline.device)
    features = next((chain.features for chain in chains if chain.features), '')
    memo = _Memo(pipeline.device)
    return [_score(chain, tensor, chain.features or features, memo) for chain in chains]


class _Memo:
    """Results by stage and key with the milliseconds that the first to ask has waited."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._made: dict[tuple[str, Hashable], tuple[object, float]] = {}

    def __call__(self, stage: str, key: Hashable, make: Callable[[], T]) -> tuple[T, float]:
        if (stage, key) not in self._made:
            watch = Stopwatch(self.device)
            found = make()
            watch.lap(stage)
            self._made[stage, key] = found, watch.times()['total']
        return self._made[stage, key]


@dataclasses.dataclass(frozen=True)
class _Ready:
    """A source of segments that were made already."""

    segments: Segments
    of_image_only: bool = True

    def __call__(self, image: torch.Tensor, prompts: Prompts | None = None) -> Segments:
        return self.segments


def _score(chain: Chain, image: torch.Tensor, features: str, memo: _Memo) -> Scored:
    config, stages = chain.config, {}
    network = features, config.tta_hflip
    asked = dataclasses.replace(chain, features=features)
    outputs, stages['segment'] = memo('segment', network, lambda: asked.segment([image]))
    scoring = chain.scorer, chain.scorer_options, config.upsample, config.sanitize_inputs
    dense, stages['score'] = memo('score', (network, scoring), lambda: chain.score(outputs))
    source = chain.segment_source
    if chain.refinements and source is not None and source.of_image_only:
        chain, stages['segments'] = _with_segments(chain, image, memo)
    watch = Stopwatch(memo.device)
    score, notes = chain.refine(dense.score, chain.context(image, dense))
    watch.lap('refine')
    if chain.refinements:
        stages['refine'] = watch.times()['total']
    return Scored(dense.labels, score, notes, sum(stages.values()), stages)


def _with_segments(chain: Chain, image: torch.Tensor, memo: _Memo) -> tuple[Chain, float]:
    """Return the chain with segments at hand; where they fail the refinement will say why."""
    source = chain.segment_source
    try:
        made, spent = memo('segments', chain.segment_key, lambda: source(image))
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return chain, 0.0
    return dataclasses.replace(chain, segment_source=_Ready(made)), spent
