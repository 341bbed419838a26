# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The knobs of what counts as an obstacle, and the words of their choices."""

from __future__ import annotations

import math
from dataclasses import dataclass

from road_anomaly_ros.perception.registry import option

OFF, TOUCHES, STANDS = 'off', 'touches', 'stands'
COMPONENTS, SEGMENTS, BOTH = 'components', 'segments', 'both'
EXCESS, LOG_ODDS = 'excess', 'log_odds'


@dataclass(frozen=True)
class ObjectOptions:
    """How a score becomes obstacles."""

    mode: str = option(
        COMPONENTS,
        "What may be an obstacle: connected 'components' of the score, class-agnostic "
        "'segments' with a mean above the threshold, or 'both', where a component that lies by "
        'more than half in such a segment gives way to it.',
        choices=(COMPONENTS, SEGMENTS, BOTH),
    )
    threshold: float = option(
        math.nan, "Obstacles lie strictly above this score; nan takes the model's calibration."
    )
    low_threshold: float = option(
        math.nan,
        'An obstacle grows to all connected pixels above this score; at or above the '
        "threshold nothing grows; nan takes the model's calibration.",
    )
    min_area: int = option(
        500,
        'Smaller obstacles are dropped; counted in an image of reference_area and scaled '
        'with the area of the image.',
        low=0,
        high=10_000_000,
        unit='pixel',
    )
    reference_area: int = option(
        1024 * 2048,
        'Image area to which min_area refers; 0 takes min_area as it is.',
        low=0,
        high=100_000_000,
        unit='pixel',
    )
    far_area: float = option(
        1.0,
        'Share of min_area and min_evidence that is enough at the horizon and above; by the '
        'row of the foot it grows with the square of the distance below the horizon, as things '
        'do, up to 1 at the lowest row. 1 asks for the same everywhere.',
        low=0.0,
        high=1.0,
    )
    horizon: float = option(
        0.4,
        'Row of the horizon, from the top, to which far_area refers.',
        low=0.0,
        high=0.95,
        unit='image height',
    )
    min_evidence: float = option(
        0.0,
        'Obstacles with less evidence are dropped, however large: the sum over their pixels '
        'of how far the score lies above the threshold. Scaled as min_area; 0 asks for none.',
        low=0.0,
        high=1e9,
    )
    evidence: str = option(
        EXCESS,
        "How far a score lies above the threshold: the 'excess' of its value, or of its "
        "'log_odds', for scores from 0 to 1.",
        choices=(EXCESS, LOG_ODDS),
    )
    max_area_frac: float = option(
        0.25, 'Larger segments are no obstacles.', low=0.0, high=1.0, unit='image area'
    )
    nms_iou: float = option(
        0.7,
        'Of segments that overlap by a larger intersection over union the strangest stays.',
        low=0.0,
        high=1.0,
    )
    max_objects: int = option(
        100, 'Longest list of obstacles; the mask still shows those beyond it.', low=0, high=10_000
    )
    connectivity: int = option(8, 'Neighbours that join pixels to one obstacle.', choices=(4, 8))
    opening: int = option(
        0,
        'Side of the square of a morphological opening, which removes specks; 0 is none.',
        low=0,
        high=99,
        unit='pixel',
    )
    closing: int = option(
        0,
        'Side of the square of a morphological closing, which fills cracks; 0 is none.',
        low=0,
        high=99,
        unit='pixel',
    )
    on_drivable: str = option(
        OFF,
        "Keep all obstacles ('off'), those with drivable ground somewhere around them "
        "('touches') or right beneath them ('stands').",
        choices=(OFF, TOUCHES, STANDS),
    )
    contact: float = option(
        0.1,
        'Share of the known ground around or beneath an obstacle that must be drivable.',
        low=0.0,
        high=1.0,
    )
    ring: float = option(
        0.01,
        'Width of the surroundings of an obstacle, at least two pixels.',
        low=0.0,
        high=0.25,
        unit='image height',
    )
