# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The Maskomaly score: rejection by confident masks, borders, hand-picked queries."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from road_anomaly_ros.perception.dense import Block, MaskSource, QueryVectors
from road_anomaly_ros.perception.registry import option
from road_anomaly_ros.perception.scorers.base import MASKS_ONLY, SCORERS, Scorer, chosen


@dataclass(frozen=True)
class MaskomalyOptions:
    """Options of `maskomaly`; the query ids belong to one checkpoint and are empty by default."""

    conf: float = option(
        0.7, 'Queries reject when their best probability is above this.', low=0.0, high=1.0
    )
    border_thresh: float = option(
        0.1, 'Pixels where two masks are above this are a border and score 0.', low=0.0, high=0.999
    )
    lam: float = option(0.6, 'Weight of rejection; acceptance has the rest.', low=0.0, high=1.0)
    accept_query_ids: tuple[int, ...] = option(
        (),
        'Queries whose masks are anomalies; the authors chose 49,31,83,32 on labelled data.',
        low=0,
        high=9999,
    )
    ground_query_ids: tuple[int, ...] = option(
        (), 'Queries whose masks are ground; the authors chose 19,24.', low=0, high=9999
    )
    strict: bool = option(
        False, 'Keep lam when both id lists are empty; otherwise the score is the rejection alone.'
    )


def _weights(source: MaskSource, options: MaskomalyOptions, name: str, weight: Tensor) -> Tensor:
    ids, queries = getattr(options, name), source.output.num_queries
    if queries == 0:
        return torch.zeros_like(weight)
    if max(ids) >= queries:
        raise ValueError(
            f'scorers.maskomaly.{name}: expected ids below {queries}, the number of '
            f'queries, got {max(ids)}'
        )
    return torch.where(chosen(ids, queries, weight.device), weight, 0.0)


def vectors(source: MaskSource, options: MaskomalyOptions) -> QueryVectors:
    """Weigh queries by their best probability: confident, ground and acceptance queries apart."""
    probabilities = source.probabilities().float()
    best, label = probabilities.max(1)
    known = label < probabilities.shape[1] - 1
    maxima = {'best': torch.where(known & (best > options.conf), best, 0.0)}
    if options.ground_query_ids:
        maxima['ground'] = _weights(source, options, 'ground_query_ids', best)
    if options.accept_query_ids:
        maxima['chosen'] = _weights(source, options, 'accept_query_ids', best)
    return QueryVectors(
        probabilities[:, :-1], maxima=maxima, votes={'border': (known, options.border_thresh)}
    )


def maskomaly(block: Block, options: MaskomalyOptions) -> Tensor:
    """Rejection R with borders and ground at 0, and acceptance a: lam R + (1-lam) a, in [0, 1]."""
    reject = (1 - block['best']).masked_fill_(block['border'] >= 2, 0.0)
    if options.ground_query_ids:
        reject = torch.minimum(reject, 1 - block['ground'])
    if options.accept_query_ids:
        return options.lam * reject + (1 - options.lam) * block['chosen']
    return reject if not (options.ground_query_ids or options.strict) else options.lam * reject


SCORERS.register('maskomaly', MaskomalyOptions)(
    Scorer(
        maskomaly, 'Maskomaly, Ackermann et al. 2023', vectors, MASKS_ONLY, threshold=0.7, top=1.0
    )
)
