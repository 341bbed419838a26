# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What every tracker lets choose: where tracks may start and when a thing is believed."""

from __future__ import annotations

from dataclasses import dataclass

from road_anomaly_ros.perception.registry import option

ALL, CONFIRMED = 'all', 'confirmed'


@dataclass(frozen=True)
class TrackOptions:
    """When tracks begin, are confirmed, and what becomes of obstacles that are not."""

    start: float = option(
        0.0,
        'Where a track may start: at the threshold (1), at the low threshold (0) to which '
        'obstacles grow, or between. What is fainter than an obstacle is one once its track is '
        'confirmed.',
        low=0.0,
        high=1.0,
    )
    confirm: float = option(
        2.5,
        'Evidence, summed over the frames of a track, from which it is confirmed; a frame '
        'with a clear obstacle brings 2, one at the threshold and of the least area none.',
        low=0.0,
        high=1000.0,
    )
    miss: float = option(
        1.0,
        'Evidence that a frame takes away in which the thing is not seen.',
        low=0.0,
        high=1000.0,
    )
    listed: str = option(
        ALL,
        "Obstacles in results and pictures: 'all', each with its state, or those that are "
        "'confirmed'.",
        choices=(ALL, CONFIRMED),
    )
