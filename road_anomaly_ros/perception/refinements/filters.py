# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Refinements without segments: smoothing, mask boundary processing, closeness to the road."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

from road_anomaly_ros.perception.contract import UNLABELLED
from road_anomaly_ros.perception.refinements.base import RefineContext, refinement
from road_anomaly_ros.perception.registry import option

try:
    from road_anomaly_ros.perception.kernels import boundary
except ImportError:  # numba is an optional dependency
    boundary = None  # type: ignore[assignment]

_DISTANCE_SIDE = 256  # the distance to the road is smooth: larger images are reduced to this


@dataclass(frozen=True)
class GaussianOptions:
    """Options of `gaussian`."""

    sigma: float = option(1.0, 'Standard deviation of the blur.', low=0.0, high=50.0, unit='pixel')


@dataclass(frozen=True)
class MbpOptions:
    """Options of `mbp`."""

    gauss_ksize: int = option(
        7, 'Side of the final blur, odd; 1 is none.', choices=tuple(range(1, 32, 2)), unit='pixel'
    )
    gauss_sigma: float = option(
        1.0, 'Standard deviation of the final blur.', low=0.01, high=50.0, unit='pixel'
    )


@dataclass(frozen=True)
class RoadPriorOptions:
    """Options of `road_prior`."""

    reach: float = option(
        0.1,
        'Distance from drivable ground at which the weight has fallen to 0.61 of its way.',
        low=0.001,
        high=10.0,
        unit='image height',
    )
    floor: float = option(0.3, 'Weight of scores far from drivable ground.', low=0.0, high=1.0)
    base: float = option(
        math.nan,
        'Score that means nothing strange, to which others are drawn; nan takes the '
        'lowest of the image.',
    )


@refinement('gaussian', GaussianOptions, source='blur of the score')
def gaussian(
    score: torch.Tensor, context: RefineContext, options: GaussianOptions
) -> torch.Tensor:
    """Blur with a Gaussian cut at three sigma, border reflect-101; NaN spreads as far."""
    return _blur(score, 2 * math.ceil(3 * options.sigma) + 1, options.sigma)


@refinement('mbp', MbpOptions, source='Objectomaly (code), in parallel')
def mbp(score: torch.Tensor, context: RefineContext, options: MbpOptions) -> torch.Tensor:
    """Mask boundary processing: edges of constant regions take the region's score, then a blur.

    Where the Laplacian is positive, an inner pixel takes the mean of those of its 3x3 neighbours
    whose Laplacian is exactly zero. No pixel that is read is ever written, so all go at once.
    Source: Objectomaly (code; the formula in the text would replace the scores by their edges).
    """
    return _blur(_sharpened(score), options.gauss_ksize, options.gauss_sigma)


@refinement('road_prior', RoadPriorOptions, source='ours', needs_labels=True)
def road_prior(
    score: torch.Tensor, context: RefineContext, options: RoadPriorOptions
) -> torch.Tensor:
    """Draw scores far from drivable ground to the base: base + w (score - base), never upwards.

    w = floor + (1 - floor) exp(-d^2 / (2 (reach H)^2)), d the city-block distance to the nearest
    pixel of a drivable class. Unchanged where no ground is seen at all: a lost road must not
    silence obstacles. Source: ours. Raises ValueError without labels or drivable classes.
    """
    if context.labels is None or context.label_set is None or not context.label_set.drivable:
        raise ValueError(
            'road_prior expects labels and drivable classes, got none; '
            'name the drivable classes or leave it out of refinements'
        )
    ground = _drivable(context.labels, context.label_set.drivable)
    distance = _distance_to(ground, (score.shape[0], score.shape[1]))
    near = torch.exp(-0.5 * (distance / (options.reach * score.shape[0])).square())
    weight = options.floor + (1 - options.floor) * near
    weight = torch.where(ground.any(), weight, 1).to(score.dtype)
    finite = torch.isfinite(score)
    base = (
        torch.where(finite, score, math.inf).amin()
        if math.isnan(options.base)
        else torch.full((), options.base, dtype=score.dtype, device=score.device)
    )
    return torch.where(finite, torch.minimum(score, base + weight * (score - base)), score)


def laplacian(score: torch.Tensor) -> torch.Tensor:
    """Return the four neighbours minus four times the centre, [H, W], border reflect-101.

    Exactly zero on constant regions, and to the last bit as OpenCV: up, left, centre, right, down
    are added in this order.
    """
    rows, columns = _reflected(score, 1, 0), _reflected(score, 1, 1)
    edges = rows[:-2] + columns[:, :-2]
    return edges.sub_(score, alpha=4).add_(columns[:, 2:]).add_(rows[2:])


def _sharpened(score: torch.Tensor) -> torch.Tensor:
    if boundary is not None and score.device.type == 'cpu':
        result = torch.empty(score.shape, dtype=score.dtype)
        boundary.sharpen(score.detach().contiguous().numpy(), result.numpy())
        return result
    edges = laplacian(score)
    flat = edges == 0
    number = _box3(flat.to(torch.uint8))
    mean = _box3(torch.where(flat, score, 0)).div_(number)
    written = (edges > 0).logical_and_(number)
    for rim in (written[0], written[-1], written[:, 0], written[:, -1]):
        rim.fill_(False)
    return torch.where(written, mean, score)


def _box3(values: torch.Tensor) -> torch.Tensor:
    padded = functional.pad(values, (1, 1, 1, 1))
    rows = (padded[:-2] + padded[1:-1]).add_(padded[2:])
    return (rows[:, :-2] + rows[:, 1:-1]).add_(rows[:, 2:])


def _blur(score: torch.Tensor, side: int, sigma: float) -> torch.Tensor:
    """Return the separable Gaussian of odd `side`; slices, as convolutions may round to TF32."""
    radius = side // 2
    if radius == 0 or sigma == 0:
        return score
    weights = [math.exp(-0.5 * (place / sigma) ** 2) for place in range(-radius, radius + 1)]
    total = sum(weights)
    for axis in (0, 1):
        padded = _reflected(score, radius, axis)
        length = score.shape[axis]
        score = torch.zeros_like(score)
        for place, weight in enumerate(weights):
            score.add_(padded.narrow(axis, place, length), alpha=weight / total)
    return score


def _reflected(score: torch.Tensor, radius: int, axis: int) -> torch.Tensor:
    """Return the map padded reflect-101 along one axis, however short it is."""
    length = score.shape[axis]
    place = torch.arange(-radius, length + radius, device=score.device)
    period = max(1, 2 * (length - 1))
    place = place.remainder(period)
    return score.index_select(axis, torch.minimum(place, period - place).clamp_max(length - 1))


def _drivable(labels: torch.Tensor, drivable: tuple[int, ...]) -> torch.Tensor:
    table = torch.zeros(UNLABELLED + 1, dtype=torch.bool)
    table[list(drivable)] = True
    return table.to(labels.device, non_blocking=True)[labels.long()]


def _distance_to(ground: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return the city-block distance to the nearest True, [H, W], by four running minima."""
    step = max(1, math.ceil(min(ground.shape) / _DISTANCE_SIDE))
    seen = ground.float()[None, None]
    seen = functional.max_pool2d(seen, step, ceil_mode=True)[0, 0] if step > 1 else seen[0, 0]
    far = float(seen.shape[0] + seen.shape[1])
    distance = torch.where(seen > 0, 0.0, far)
    for axis in (1, 0):
        place = torch.arange(seen.shape[axis], device=seen.device, dtype=torch.float32)
        place = place if axis == 1 else place[:, None]
        before = (distance - place).cummin(axis).values + place
        after = (distance + place).flip(axis).cummin(axis).values.flip(axis) - place
        distance = torch.minimum(before, after)
    if step == 1:
        return distance
    return functional.interpolate((step * distance)[None, None], size=size, mode='bilinear')[0, 0]
