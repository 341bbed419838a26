# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The zero-shot score from query-level uncertainty: rejection, selection (acceptance), fusion."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from road_anomaly_ros.perception.dense import Block, MaskSource, QueryVectors
from road_anomaly_ros.perception.registry import option
from road_anomaly_ros.perception.scorers.base import MASKS_ONLY, SCORERS, Maps, Scorer

COPY_REJECTION = -1.0


@dataclass(frozen=True)
class S2Options:
    """Options of `s2`; names as in the specification, `lam` is lambda."""

    stage: str = option(
        'fuse',
        "Which map is the score: 'fuse' (eq. 10), 'reject' (eq. 1) or 'accept' (eq. 9).",
        choices=('fuse', 'reject', 'accept'),
    )
    lam: float = option(
        0.6, 'Weight of rejection in the fusion; selection has the rest.', low=0.0, high=1.0
    )
    tau: float = option(
        0.01, 'Queries with a normalised entropy below this are confident.', low=0.0, high=1.0
    )
    temperature: float = option(
        1.0,
        'Softmax temperature over the queries that cover a pixel; small prefers '
        'the most uncertain one.',
        low=1e-6,
        high=1e3,
    )
    eps: float = option(1e-8, 'Guard of divisions and logarithms.', low=0.0, high=1e-2)
    accept_fill: float = option(
        0.0,
        "Selection score where no query covers a pixel; 'reject' copies the rejection score.",
        low=COPY_REJECTION,
        high=1.0,
        words={'reject': COPY_REJECTION},
    )
    drop_void_queries: bool = option(
        False, 'Leave queries whose best column is no-object out of the selection stage.'
    )
    weight_by_objectness: bool = option(
        False, "Multiply a query's entropy by its probability of any class."
    )
    overlap_resolution: str = option(
        'output',
        "Where overlaps with confident queries are counted: 'output' grid (as published) or "
        "on the 'native' mask grid (cheap, differs at boundaries).",
        choices=('output', 'native'),
    )
    rejection: str = option(
        's2_reject',
        "Rejection map: 's2_reject' (eq. 1) or 'rba' as 1 + clip(rba, -1, 0).",
        choices=('s2_reject', 'rba'),
    )


@dataclass(frozen=True)
class QueryUncertainty:
    """What the selection stage knows of each query, float64 [Q]; `selected` ones take part."""

    p_fg: Tensor  # [Q, K] class distribution without no-object, eq. 2
    s_init: Tensor  # normalised entropy in [0, 1], eq. 3
    overlap: Tensor  # share of the mask inside confident masks, eq. 6
    s_adj: Tensor  # s_init (1 - overlap), eq. 7
    selected: Tensor


def query_uncertainty(source: MaskSource, options: S2Options) -> QueryUncertainty:
    """Return equations 2 to 7; reads the signs of the mask logits once."""
    probabilities = source.probabilities()
    known = probabilities[:, :-1]
    objectness = known.sum(1)
    p_fg = known / (objectness + options.eps)[:, None]
    s_init = _entropy(p_fg, options.eps)
    if options.weight_by_objectness:
        s_init = s_init * objectness
    selected = torch.ones_like(s_init, dtype=torch.bool)
    if options.drop_void_queries:
        selected = probabilities.argmax(1) < known.shape[1]
    confident = (s_init < options.tau) & selected
    overlap = torch.zeros_like(s_init)
    if options.tau > 0:
        areas, shared = source.support_overlap(
            confident, native=options.overlap_resolution == 'native'
        )
        overlap = shared / (areas + options.eps).clamp_min(torch.finfo(s_init.dtype).tiny)
    return QueryUncertainty(p_fg, s_init, overlap, s_init * (1 - overlap), selected)


def _entropy(p_fg: Tensor, eps: float) -> Tensor:
    if p_fg.shape[1] == 1:
        return torch.zeros_like(p_fg[:, 0])
    terms = torch.where(p_fg > 0, p_fg * (p_fg + eps).log(), 0.0)
    return (-terms.sum(1) / math.log(p_fg.shape[1])).clamp(0, 1)


def s2_vectors(source: MaskSource, options: S2Options) -> QueryVectors:
    """Weigh queries for the stages that the options ask for."""
    known = source.probabilities()[:, :-1].float()
    by_rba = options.rejection == 'rba'
    maxima = {} if by_rba else {'best': known.amax(1)}
    tanh = 1.0 if by_rba else None
    if options.stage == 'reject':
        return QueryVectors(known, maxima=maxima, tanh=tanh)
    found = query_uncertainty(source, options)
    accept = torch.where(found.selected, found.s_adj, -torch.inf).float()
    return QueryVectors(
        known, maxima=maxima, accept=accept, temperature=options.temperature, tanh=tanh
    )


def s2(block: Block, options: S2Options) -> Maps:
    """Score of the chosen stage, range [0, 1], with the maps of all stages that were computed."""
    by_rba = options.rejection == 'rba'
    reject = 1 - (block.tanh(1.0).clamp(0, 1) if by_rba else block['best'])
    if options.stage == 'reject':
        return {'score': reject, 's_reject': reject}
    fill = reject if options.accept_fill < 0 else options.accept_fill
    accept = torch.where(block['covered'] > 0, block['accept'], fill)
    fuse = options.lam * reject + (1 - options.lam) * accept
    score = accept if options.stage == 'accept' else fuse
    return {
        'score': score,
        's_reject': reject,
        's_accept': accept,
        's_fuse': fuse,
        'covered': block['covered'] > 0,
    }


SCORERS.register('s2', S2Options)(
    Scorer(
        s2,
        'query-level uncertainty, eq. 1-10',
        s2_vectors,
        MASKS_ONLY,
        extras=('s_reject', 's_accept', 's_fuse', 'covered'),
        threshold=0.6,
        top=1.0,
    )
)
