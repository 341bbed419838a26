# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Refinements that average a score over class-agnostic segments.

Statistics are always those of the score that came in, in float64, and only of its finite pixels: a
pixel without a finite score keeps it, and a segment without finite pixels is skipped.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from road_anomaly_ros.perception.refinements.base import RefineContext, refinement
from road_anomaly_ros.perception.refinements.cover import Cover, cover_of
from road_anomaly_ros.perception.registry import option

LARGEST, SMALLEST, AVERAGE = 'largest_wins', 'smallest_wins', 'average'
POPULATION, NORMALISED = 'population', 'normalised'


@dataclass(frozen=True)
class OascOptions:
    """Options of `oasc`."""

    order: str = option(
        LARGEST,
        'Which of the masks over a pixel gives it its mean; among equals the later one.',
        choices=(LARGEST, SMALLEST),
    )


@dataclass(frozen=True)
class VarianceAwareOptions:
    """Options of `variance_aware`."""

    beta: float = option(
        50.0,
        'How fast the pull to the mean fades with the variance in a segment; 0 always '
        'averages. About 5 suits the normalised variance.',
        low=0.0,
        high=1e6,
    )
    variance: str = option(
        POPULATION,
        "Variance of the score ('population') or the same divided by mean (1 - mean) "
        "for scores in 0..1 ('normalised').",
        choices=(POPULATION, NORMALISED),
    )
    segment_overlap: str = option(
        SMALLEST,
        'Which of the segments over a pixel refines it; among equals the later one.',
        choices=(SMALLEST, LARGEST, AVERAGE),
    )


@refinement('oasc', OascOptions, source='Objectomaly eq. 7-10', needs_segments=True)
def oasc(score: torch.Tensor, context: RefineContext, options: OascOptions) -> torch.Tensor:
    """Object-aware score calibration: every mask is filled with its mean score.

    Source: Objectomaly, eq. 7-10; `largest_wins` is the order of its code, `smallest_wins` that of
    its text.
    """
    cover = cover_of(context.segments(), (score.shape[0], score.shape[1]))
    if not cover.count:
        return score
    finite = torch.isfinite(score)
    counts, sums, _ = cover.sums(score, score.new_zeros(()))
    means = (sums / counts).to(score.dtype)[None]
    mean = cover.pick(means, counts > 0, largest=options.order == LARGEST)[0]
    return torch.where(finite & ~mean.isnan(), mean, score)


@refinement(
    'variance_aware',
    VarianceAwareOptions,
    source='query-level uncertainty, eq. 12',
    needs_segments=True,
)
def variance_aware(
    score: torch.Tensor, context: RefineContext, options: VarianceAwareOptions
) -> torch.Tensor:
    """Pull scores to their segment's mean, the more the less they vary: a mean + (1 - a) score.

    Source: query-level uncertainty paper, eq. 12, with a = exp(-beta v), v the segment's variance.
    """
    cover = cover_of(context.segments(), (score.shape[0], score.shape[1]))
    if not cover.count:
        return score
    finite = torch.isfinite(score)
    counts, mean, variance = _moments(cover, score, finite)
    if options.variance == NORMALISED:
        variance = (variance / (mean * (1 - mean) + 1e-6)).clamp(0, 1)
    pull = torch.exp(-options.beta * variance)
    if options.segment_overlap == AVERAGE:
        refined = _average(cover, counts, mean, pull, score)
    else:
        values = torch.stack((pull * mean, 1 - pull)).to(score.dtype)
        means, rest = cover.pick(values, counts > 0, largest=options.segment_overlap == LARGEST)
        refined = means + rest * score
    return torch.where(finite & ~refined.isnan(), refined, score)


def _moments(cover: Cover, score: torch.Tensor, finite: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return count, mean and population variance per segment; a shift keeps the squares small."""
    shift = torch.where(finite, score, 0).sum() / finite.sum()
    counts, sums, squares = cover.sums(score, shift)
    mean = sums / counts
    return counts, mean + shift, (squares / counts - mean.square()).clamp_min(0)


def _average(
    cover: Cover, counts: torch.Tensor, mean: torch.Tensor, pull: torch.Tensor, score: torch.Tensor
) -> torch.Tensor:
    held = counts > 0
    weights = torch.where(held, torch.stack((held.double(), pull, pull * mean)), 0)
    number, pulls, means = cover.spread(weights.to(score.dtype))
    return (means + (number - pulls) * score) / number
