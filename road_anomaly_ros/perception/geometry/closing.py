# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Time to contact: how fast the distance of a track shrinks, and when nothing is left of it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MEMORY_S = 1.0  # how long ago distances still count
_LEAST_S = 0.2
_LEAST_COUNT = 3


@dataclass(frozen=True)
class Closing:
    """How a distance changes: `speed` m/s, above 0 for nearer, with two standard deviations.

    `seconds` until contact at this speed; inf where it is not certain that the thing comes nearer.
    """

    speed: float
    speed_error: float
    seconds: float


def closing(
    times: Sequence[float], distances: Sequence[float], errors: Sequence[float]
) -> Closing | None:
    """Return the line through distances [n] m with errors [n] at times [n] s; None for too few.

    An error of scale, such as that of the height of the camera, leaves `seconds` as they are.
    """
    if len(times) < _LEAST_COUNT or times[-1] - times[0] < _LEAST_S:
        return None
    weight = 1 / np.maximum(np.asarray(errors, np.float64), 1e-3) ** 2
    moments, values = np.asarray(times, np.float64), np.asarray(distances, np.float64)
    middle = np.average(moments, weights=weight)
    spread = float(weight @ (moments - middle) ** 2)
    speed = -float(weight @ ((moments - middle) * values)) / spread
    error = 1 / math.sqrt(spread)
    now = float(np.average(values, weights=weight)) - speed * (times[-1] - middle)
    return Closing(speed, error, max(now, 0.0) / speed if speed > error else math.inf)


class Histories:
    """The distances of every track over the last second; has a state.

    A stamp that runs backwards is a new start, one that repeats counts once.
    """

    def __init__(self) -> None:
        self._rows: dict[int, deque[tuple[float, float, float]]] = {}
        self._now = -math.inf

    def begin(self, stamp: float) -> None:
        """Take a frame's time in seconds; tracks not seen for a second are forgotten."""
        if stamp < self._now:
            self._rows.clear()
        self._now = stamp
        for track in [
            track for track, rows in self._rows.items() if rows[-1][0] < stamp - MEMORY_S
        ]:
            del self._rows[track]

    def add(self, track: int, distance: float, error: float) -> Closing | None:
        """Note a distance in metres of the frame begun; returns what is known of the track."""
        rows = self._rows.setdefault(track, deque())
        if not rows or rows[-1][0] < self._now:
            rows.append((self._now, distance, error))
        while rows[0][0] < self._now - MEMORY_S:
            rows.popleft()
        return closing(*map(list, zip(*rows, strict=True)))
