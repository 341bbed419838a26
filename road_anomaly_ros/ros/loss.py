# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Images that never arrived: what the middleware counts, and what gaps in the stamps tell."""

from __future__ import annotations

import time
from collections import deque

import numpy as np

from road_anomaly_ros.ros.transport import VARIABLES

LARGE = 512 * 1024  # bytes of shared memory that Fast DDS has as it comes
NOTICED = 0.1  # share of missing images that is worth a word
_WINDOW_S = 10.0
_FEWEST = 15  # stamps from which gaps are judged
_CHANGES = 4  # two gaps
REMEDIES = (
    f'images above {LARGE // 1024} KiB need room in Fast DDS: set '
    f"{' and '.join(VARIABLES)} to what 'python -m road_anomaly_ros.ros.transport' prints "
    f"before the camera driver starts, or let both sides be reliable (the driver's QoS, "
    f"and here reliability 'auto' or 'reliable')"
)


class Loss:
    """Counts of one camera; `total` is what the middleware says was lost."""

    def __init__(self) -> None:
        self.total = 0
        self.size = 0  # bytes of the newest image
        self._stamps: deque[tuple[float, int]] = deque(maxlen=300)
        self._lost: deque[tuple[float, int]] = deque(maxlen=300)

    def restart(self) -> None:
        """Forget what came before a pause in which nobody listened; `total` goes on."""
        self._stamps.clear()
        self._lost.clear()

    def add(self, stamp_ns: int, size: int) -> None:
        """Note an image that came."""
        self.size = size
        self._stamps.append((time.monotonic(), stamp_ns))

    def add_lost(self, count: int) -> None:
        """Note images of which the middleware says that they were lost."""
        self.total += count
        self._lost.append((time.monotonic(), count))

    def share(self) -> float:
        """Return which part of the images of the last seconds is missing, 0..1."""
        since = time.monotonic() - _WINDOW_S
        stamps = [stamp for moment, stamp in list(self._stamps) if moment > since]
        lost = sum(count for moment, count in list(self._lost) if moment > since)
        counted = lost / (lost + len(stamps)) if lost else 0.0
        return max(counted, gaps(np.diff(stamps)) if len(stamps) >= _FEWEST else 0.0)


def gaps(steps: np.ndarray) -> float:
    """Return which part of a camera's images is missing, from the steps of its stamps [N].

    A lost image makes a step twice as long as the others. Nothing is concluded where steps are no
    multiples of one period, or change once or twice, as those of a camera that was given another
    rate or paused, or of a clock that was set.
    """
    steps = steps[steps > 0].astype(np.float64)
    if len(steps) < _FEWEST - 1:
        return 0.0
    period = np.percentile(steps, 10)
    multiples = np.maximum(1, np.rint(steps / period))
    regular = np.abs(steps / period - multiples) < 0.2
    changes = np.count_nonzero(np.diff(multiples))
    if regular.mean() < 0.8 or changes < max(_CHANGES, 0.1 * len(steps)):
        return 0.0
    return float(1 - len(steps) / multiples.sum())
