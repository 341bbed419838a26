# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Scores that weigh single queries: S2 rejection, EAM."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from road_anomaly_ros.perception.contract import LabelSet
from road_anomaly_ros.perception.dense import Block, MaskSource, QueryVectors
from road_anomaly_ros.perception.registry import NoOptions, option
from road_anomaly_ros.perception.scorers.base import MASKS_ONLY, SCORERS, Scorer


@dataclass(frozen=True)
class EamOptions:
    """Options of `eam`."""

    clip_unit: bool = option(
        False, 'Clip the score to [0, 1]; it is negative where masks overlap.'
    )
    negative_objectness: bool = option(
        False,
        'For models with an outlier class as the last one before no-object: score by how far it '
        'beats the best known class.',
    )


def best_vectors(source: MaskSource, options: object) -> QueryVectors:
    """Weigh queries by their best known class, max_k p_q(k), for the maximum over queries."""
    del options
    known = source.probabilities()[:, :-1].float()
    return QueryVectors(known, maxima={'best': known.amax(1)})


def s2_reject(block: Block, options: NoOptions) -> Tensor:
    """1 - max_q m_q max_k p_q(k); range [0, 1] (query-level uncertainty, eq. 1)."""
    del options
    return 1 - block['best']


def eam_vectors(source: MaskSource, options: EamOptions) -> QueryVectors:
    """Weigh queries by their best known class, minus the outlier class where there is one."""
    known = source.probabilities()[:, :-1].float()
    if not options.negative_objectness:
        return QueryVectors(known, sums={'mass': known.amax(1)})
    return QueryVectors(known[:, :-1], sums={'mass': known[:, :-1].amax(1) - known[:, -1]})


def eam(block: Block, options: EamOptions) -> Tensor:
    """1 - sum_q m_q max_k p_q(k); range (1-Q, 1]; the negative-objectness form lacks the 1."""
    score = -block['mass'] if options.negative_objectness else 1 - block['mass']
    return score.clamp_(0, 1) if options.clip_unit else score


def check_eam(options: EamOptions, kind: str, labels: LabelSet) -> None:
    """Refuse the outlier column where only one class is known."""
    del kind
    if options.negative_objectness and len(labels) < 2:
        raise ValueError(
            'negative_objectness: expected at least one class before the outlier class, '
            f'got a model of {len(labels)}'
        )


SCORERS.register('s2_reject')(
    Scorer(
        s2_reject,
        'query-level uncertainty, eq. 1',
        best_vectors,
        MASKS_ONLY,
        threshold=0.7,
        top=1.0,
    )
)
SCORERS.register('eam', EamOptions)(
    Scorer(eam, 'EAM, Grcic et al. 2023', eam_vectors, MASKS_ONLY, threshold=0.7, check=check_eam)
)
