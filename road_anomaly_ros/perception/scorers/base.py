# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a scorer declares: how it weighs queries, its epilogue, and what it is good for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from road_anomaly_ros.perception.contract import ForeignMaps, LabelSet, Segmenter
from road_anomaly_ros.perception.dense import Block, MaskSource, QueryVectors
from road_anomaly_ros.perception.registry import Registry
from road_anomaly_ros.perception.resources import Resources

T = TypeVar('T')
Maps = Mapping[str, Tensor]
ANY_KIND = ('mask', 'pixel')
MASKS_ONLY = ('mask',)


def semantic_vectors(source: MaskSource, options: object) -> QueryVectors:
    """Weigh queries by their class probabilities without 'no object': the plain semantic map."""
    del options
    return QueryVectors(source.probabilities()[:, :-1].float(), keep=True)


def accept_all(options: object, kind: str, labels: LabelSet) -> None:
    """Accept every choice of options."""


def keep_options(options: T, segmenter: Segmenter | ForeignMaps) -> tuple[T, str]:
    """Leave the options as they are and ask for no features."""
    del segmenter
    return options, ''


def nothing_to_load(options: T, resources: Resources) -> T:
    """Leave the options as they are."""
    del resources
    return options


def chosen(ids: tuple[int, ...], length: int, device: torch.device) -> Tensor:
    """Return bool [length], true at `ids`; built without waiting for the device."""
    marks = torch.zeros(length, dtype=torch.bool)
    marks[list(ids)] = True
    return marks.to(device, non_blocking=True)


@dataclass(frozen=True)
class Scorer:
    """One anomaly score as two functions around the dense pass.

    `prepare(source, options)` returns Q-sized weights (never called for pixel models);
    `epilogue(block, options)` turns a block's accumulators into the score [r,W] or into {'score':
    ..., name: map}. `kinds` are the outputs it can score, `extras` the maps that its epilogue
    gives besides the score. `threshold` (inf = must be calibrated) and `display` are starting
    values for models without a calibration; obstacles lie above the threshold. No score of a mask
    model lies above `top`, before the option `unit_range`. `check` refuses options that cannot
    work. `bind(options, segmenter)` completes options for one model, of whose feature maps it
    names one or ''; `load(options, resources)` puts in what must be loaded onto the device. Of
    `extras`, `merged` are averaged over windows instead of being computed from the merged
    semantic map. `completed_by` names the refinement without which it says nothing, and what its
    options are where nobody sets them.
    """

    epilogue: Callable[[Block, Any], Tensor | Maps]
    source: str
    prepare: Callable[[MaskSource, Any], QueryVectors] = semantic_vectors
    kinds: tuple[str, ...] = ANY_KIND
    extras: tuple[str, ...] = ()
    threshold: float = math.inf
    display: tuple[float, float] = (0.0, 1.0)
    top: float = math.inf
    check: Callable[[Any, str, LabelSet], None] = field(default=accept_all)
    bind: Callable[[Any, Any], tuple[Any, str]] = field(default=keep_options)
    load: Callable[[Any, Resources], Any] = field(default=nothing_to_load)
    merged: tuple[str, ...] = ()
    completed_by: Mapping[str, Any] = field(default_factory=dict)


SCORERS: Registry[Scorer] = Registry('scorer')
