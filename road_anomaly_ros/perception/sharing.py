# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Several chains on one image, with nothing computed twice."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch

from road_anomaly_ros.perception.resources import is_out_of_memory


@dataclasses.dataclass(frozen=True)
class Scored:
    """What one chain says about an image, without obstacles."""

    labels: torch.Tensor  # [H, W] uint8
    score: torch.Tensor  # [H, W] float32, higher is stranger
    notes: tuple[str, ...]  # refinements that were skipped, and why
    milliseconds: float  # that the chain would take alone, without obstacles
    stages: Mapping[str, float]  # the same in parts: segment, score, segments, refine


@dataclasses.dataclass(frozen=True)
class Work:
    """What can be done with one image, as the pipeline does it."""

    segment: Callable[[Any], Sequence[Any]]  # chain to network outputs
    score: Callable[[Any, Sequence[Any]], Any]  # chain, outputs to DenseResult
    segments: Callable[[Any], Any]  # chain to Segments
    refine: Callable[[Any, Any], tuple[torch.Tensor, tuple[str, ...]]]  # chain, DenseResult
    watch: Callable[[], Any]  # starts a stopwatch


class _Memo:
    """Results by stage and key with the milliseconds that the first to ask has waited."""

    def __init__(self, watch: Callable[[], Any]) -> None:
        self._watch = watch
        self._made: dict[tuple[str, Hashable], tuple[Any, float]] = {}

    def __call__(self, stage: str, key: Hashable, make: Callable[[], Any]) -> tuple[Any, float]:
        if (stage, key) not in self._made:
            watch = self._watch()
            found = make()
            watch.lap(stage)
            self._made[stage, key] = found, watch.times()['total']
        return self._made[stage, key]


def score_chains(chains: Sequence[Any], work: Work) -> list[Scored]:
    """Score one image by several chains: equal passes, scores and segments are made once.

    A chain with `tta_hflip`, or with features that differ from those of others, needs a pass of
    its own kind. Each chain is charged for what it shares.
    """
    features = next((chain.features for chain in chains if chain.features), '')
    memo = _Memo(work.watch)
    return [_score(chain, chain.features or features, work, memo) for chain in chains]


def _score(chain: Any, features: str, work: Work, memo: _Memo) -> Scored:
    config, stages = chain.config, {}
    network = features, config.tta_hflip
    outputs, stages['segment'] = memo(
        'segment', network, lambda: work.segment(dataclasses.replace(chain, features=features))
    )
    scoring = chain.scorer, chain.scorer_options, config.upsample, config.sanitize_inputs
    dense, stages['score'] = memo('score', (network, scoring), lambda: work.score(chain, outputs))
    if chain.refinements and getattr(chain.segment_source, 'of_image_only', False):
        chain, stages['segments'] = _with_segments(chain, work, memo)
    watch = work.watch()
    score, notes = work.refine(chain, dense)
    watch.lap('refine')
    if chain.refinements:
        stages['refine'] = watch.times()['total']
    return Scored(dense.labels, score, notes, sum(stages.values()), stages)


def _with_segments(chain: Any, work: Work, memo: _Memo) -> tuple[Any, float]:
    """Return the chain with segments at hand; where they fail the refinement will say why."""
    try:
        made, spent = memo('segments', chain.segment_key, lambda: work.segments(chain))
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return chain, 0.0
    return dataclasses.replace(chain, segment_source=lambda *_: made), spent
