# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The Mask2Anomaly score with the refinement of its code, of its paper, or none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from road_anomaly_ros.perception.contract import LabelSet
from road_anomaly_ros.perception.dense import Block, MaskSource, QueryVectors
from road_anomaly_ros.perception.labels import CITYSCAPES, counted_as
from road_anomaly_ros.perception.registry import option
from road_anomaly_ros.perception.scorers.base import MASKS_ONLY, SCORERS, Scorer, chosen

CITYSCAPES_CLASSES = len(CITYSCAPES)
STUFF = tuple(range(2, 11))  # building .. sky, without road and sidewalk
ROAD_AND_THINGS = (0, *range(11, 19))


@dataclass(frozen=True)
class Mask2AnomalyOptions:
    """Options of `mask2anomaly`; the class ids of the defaults are Cityscapes train ids."""

    refine_mode: str = option(
        'code',
        "Refinement: 'code' and 'code_any' silence confident stuff masks (from refine_min_kept "
        "or from one such query on), 'paper' keeps only confident road and thing masks, 'none' is "
        'the plain score.',
        choices=('code', 'code_any', 'paper', 'none'),
    )
    refine_min_kept: int = option(
        2, "Mode 'code': refine only with at least this many confident queries.", low=1, high=1000
    )
    refine_conf: float = option(
        0.95, 'A query is confident when its best probability is above this.', low=0.0, high=1.0
    )
    refine_mask_thresh: float = option(
        0.5, 'Level from which a confident mask counts as there.', low=0.0, high=1.0
    )
    refine_class_ids: tuple[int, ...] = option(
        STUFF,
        "Classes whose confident masks are silenced in the modes 'code' and 'code_any'.",
        low=0,
        high=254,
    )
    paper_class_ids: tuple[int, ...] = option(
        ROAD_AND_THINGS,
        "Classes whose confident masks keep their score in the mode 'paper'.",
        low=0,
        high=254,
    )
    score_includes_kept: bool = option(
        True,
        'Let confident stuff queries compete with the class maximum, as the code does; false is '
        'equation 2.',
    )
    clip_unit: bool = option(
        False, 'Clip the score to [0, 1]; it is negative where masks overlap.'
    )


def _confident(probabilities: Tensor, ids: tuple[int, ...], conf: float) -> Tensor:
    """Return which queries [Q] are confident of one of the classes `ids`."""
    best, label = probabilities.max(1)
    return (best > conf) & chosen(ids, probabilities.shape[1], label.device)[label]


def vectors(source: MaskSource, options: Mask2AnomalyOptions) -> QueryVectors:
    """Weigh confident stuff queries by their probability; count confident road and things."""
    probabilities = source.probabilities()
    known = probabilities[:, :-1].float()
    check_class_ids(options, known.shape[1])
    kept = _confident(probabilities, options.refine_class_ids, options.refine_conf)
    weight = torch.where(kept, probabilities.amax(1), 0.0).float()
    needs_kept = options.score_includes_kept or options.refine_mode.startswith('code')
    maxima = {'kept': weight} if needs_kept else {}
    if options.refine_mode != 'paper':
        return QueryVectors(known, maxima=maxima, frame={'n_kept': kept.sum()})
    road = _confident(probabilities, options.paper_class_ids, options.refine_conf)
    return QueryVectors(known, maxima=maxima, votes={'things': (road, options.refine_mask_thresh)})


def mask2anomaly(block: Block, options: Mask2AnomalyOptions) -> Tensor:
    """1 - max(max_k S_k, max_kept s_q m_q), then the refinement (Mask2Anomaly eq. 2 and 4-5)."""
    peak = block.max_s
    if options.score_includes_kept:
        peak = torch.maximum(peak, block['kept'])
    score = 1 - peak
    if options.refine_mode.startswith('code'):
        least = options.refine_min_kept if options.refine_mode == 'code' else 1
        silent = (block['kept'] >= options.refine_mask_thresh) & (block.frame['n_kept'] >= least)
        score = score.masked_fill_(silent, 0.0)
    elif options.refine_mode == 'paper':
        score = score.masked_fill_(block['things'] == 0, 0.0)
    return score.clamp_(0, 1) if options.clip_unit else score


def class_ids(names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return the options with ids for a model of the classes `names`: the defaults, by name."""
    places = counted_as(CITYSCAPES, names)
    found = {}
    for name, ids in (('refine_class_ids', STUFF), ('paper_class_ids', ROAD_AND_THINGS)):
        own = {place for index, place in enumerate(places) if index in ids and place is not None}
        found[name] = tuple(sorted(own))
    return found


def check(options: Mask2AnomalyOptions, kind: str, labels: LabelSet) -> None:
    """Refuse Cityscapes ids for a model of other classes, and ids that the model does not have."""
    del kind
    check_class_ids(options, len(labels))


def check_class_ids(options: Mask2AnomalyOptions, classes: int) -> None:
    """Refuse ids in use that are the Cityscapes defaults or beyond the model's classes."""
    for name, default, used in (
        ('refine_class_ids', STUFF, options.score_includes_kept or 'code' in options.refine_mode),
        ('paper_class_ids', ROAD_AND_THINGS, options.refine_mode == 'paper'),
    ):
        ids = getattr(options, name)
        if used and ids == default and classes != CITYSCAPES_CLASSES:
            raise ValueError(
                f'{name}: the default {list(default)} are Cityscapes classes, but this '
                f'model has {classes}; give the ids of its own classes'
            )
        if used and ids and max(ids) >= classes:
            raise ValueError(
                f'{name}: expected ids below {classes}, the number of classes, got {max(ids)}'
            )


SCORERS.register('mask2anomaly', Mask2AnomalyOptions)(
    Scorer(
        mask2anomaly,
        'Mask2Anomaly, Rai et al. 2023',
        vectors,
        MASKS_ONLY,
        threshold=0.7,
        top=1.0,
        check=check,
    )
)
