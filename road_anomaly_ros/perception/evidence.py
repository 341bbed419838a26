# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How much it takes to be an obstacle: by the size of the image, by the row, by the score."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from road_anomaly_ros.perception.object_options import EXCESS, ObjectOptions

Values = NDArray[np.float64]
_SURE = 1e-6  # distance from 0 and 1 within which log-odds grow no further


def least_area(pixels: int, options: ObjectOptions) -> float:
    """Return the area of the smallest obstacle anywhere in an image of so many pixels."""
    return float(options.min_area * _scale(pixels, options) * options.far_area)


def least_area_at(foot: ArrayLike, pixels: int, options: ObjectOptions) -> Values:
    """Return the area [pixel] that an obstacle needs; for `foot` see `near_share`."""
    return options.min_area * _scale(pixels, options) * near_share(foot, options)


def least_evidence_at(foot: ArrayLike, pixels: int, options: ObjectOptions) -> Values:
    """Return the evidence that an obstacle needs; for `foot` see `near_share`."""
    return options.min_evidence * _scale(pixels, options) * near_share(foot, options)


def _scale(pixels: int, options: ObjectOptions) -> float:
    return float(pixels / options.reference_area) if options.reference_area else 1.0


def near_share(foot: ArrayLike, options: ObjectOptions) -> Values:
    """Return the share of the least area and evidence that is asked for, from `far_area` to 1.

    `foot` is the lower edge of an obstacle, from the top of the image, in image heights; numbers
    or arrays. A thing on the ground has an area that falls with the square of the distance of its
    foot below the horizon.
    """
    below = np.clip((np.asarray(foot) - options.horizon) / (1.0 - options.horizon), 0.0, 1.0)
    return options.far_area + (1.0 - options.far_area) * below**2


def strength(scores: ArrayLike, options: ObjectOptions) -> Values:
    """Return scores, numbers or arrays, on the scale on which evidence is summed, float64."""
    scores = np.asarray(scores, np.float64)
    if options.evidence == EXCESS:
        return scores
    shares = np.clip(scores, _SURE, 1.0 - _SURE)
    return np.log(shares) - np.log1p(-shares)


def above(scores: ArrayLike, threshold: float, options: ObjectOptions) -> Values:
    """Return what each score [n] adds to the evidence, float64, at least 0.

    What cannot be judged counts as strange, as it does at the threshold: infinity for NaN.
    """
    with np.errstate(invalid='ignore'):
        excess = strength(scores, options) - strength(threshold, options)
    return np.where(np.isnan(excess), np.inf, np.maximum(excess, 0.0))


def highest_threshold(scores: ArrayLike, least: float, options: ObjectOptions) -> float:
    """Return the highest threshold at which finite scores [n] have the `least` evidence.

    The evidence is the largest of S_k - k t, S_k being the sum of the k highest strengths.
    """
    ordered = np.sort(strength(scores, options))[::-1]
    limit = float(np.max((np.cumsum(ordered) - least) / np.arange(1, len(ordered) + 1)))
    return limit if options.evidence == EXCESS else float(1.0 / (1.0 + np.exp(-limit)))
