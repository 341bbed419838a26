# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How boxes move: constant velocity of centre and size, each filtered by itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_GROWTH = 3.0  # fastest change of a log size per second; nearer is a collision
# Standard deviation of the first velocity, sizes per second: beside the lane of a fast car things
# pass with 10 to 25.
_FIRST_RATE = 5.0


class Motion:
    """A Kalman filter for each of four numbers of n boxes: centre x, y, log width, log height.

    The four hardly depend on one another, so that each has two states, value and rate, and no
    matrix is inverted. `noise` is that of a measured centre or size and `acceleration` that of the
    motion, both relative to the size of the box; `floor` [pixel] is added to what is measured, as
    the whole picture shakes.
    """

    def __init__(self, noise: float, acceleration: float) -> None:
        self._noise, self._acceleration = noise, acceleration
        self.value, self.rate = np.empty((0, 4)), np.empty((0, 4))
        self._variance = np.empty((3, 0, 4))  # of the value, of both, of the rate

    def __len__(self) -> int:
        return len(self.value)

    def boxes(self) -> Floats:
        """Return boxes [n, 4]: left, top, right, bottom."""
        half = 0.5 * np.exp(self.value[:, 2:])
        return np.concatenate((self.value[:, :2] - half, self.value[:, :2] + half), 1)

    def predict(self, seconds: float) -> None:
        """Move all boxes on by so many seconds."""
        self.value += self.rate * seconds
        np.clip(self.value[:, 2:], 0.0, 12.0, out=self.value[:, 2:])  # 1 to 160 000 pixels
        value, both, rate = self._variance
        drive = (self._acceleration * _scale(self.value)) ** 2
        value += 2 * seconds * both + seconds**2 * rate + drive * seconds**3 / 3
        both += seconds * rate + drive * seconds**2 / 2
        rate += drive * seconds

    def correct(self, rows: NDArray[np.intp], boxes: Floats, floor: float) -> None:
        """Take in boxes [m, 4] (left, top, right, bottom) that were measured of some rows."""
        measured = _measured(boxes)
        value, both, rate = (part[rows] for part in self._variance)
        spread = value + self._spread(measured, floor)
        gain, gain_of_rate = value / spread, both / spread
        surprise = measured - self.value[rows]
        self.value[rows] += gain * surprise
        self.rate[rows] += gain_of_rate * surprise
        self.rate[rows, 2:] = np.clip(self.rate[rows, 2:], -_GROWTH, _GROWTH)
        self._variance[:, rows] = (
            (1 - gain) * value,
            (1 - gain) * both,
            rate - gain_of_rate * both,
        )

    def begin(self, boxes: Floats, floor: float) -> None:
        """Append boxes [m, 4] that are seen for the first time."""
        measured = _measured(boxes)
        unknown = (_FIRST_RATE * _scale(measured)) ** 2
        variance = np.stack((self._spread(measured, floor), np.zeros_like(measured), unknown))
        self.value = np.concatenate((self.value, measured))
        self.rate = np.concatenate((self.rate, np.zeros_like(measured)))
        self._variance = np.concatenate((self._variance, variance), 1)

    def keep(self, rows: NDArray[np.intp]) -> None:
        """Forget all but some rows."""
        self.value, self.rate = self.value[rows], self.rate[rows]
        self._variance = self._variance[:, rows]

    def _spread(self, measured: Floats, floor: float) -> Floats:
        sizes = np.exp(measured[:, 2:])
        error = self._noise * _scale(measured)
        error[:, :2] += floor
        error[:, 2:] += floor / (sizes + floor)
        return error**2


def _measured(boxes: Floats) -> Floats:
    low, high = boxes[:, :2], boxes[:, 2:]
    return np.concatenate((0.5 * (low + high), np.log(np.maximum(high - low, 1.0))), 1)


def _scale(value: Floats) -> Floats:
    """Return the size [n, 4] to which errors are relative: of the box, and 1 for a log size."""
    size = np.exp(0.5 * (value[:, 2] + value[:, 3]))
    return np.stack((size, size, np.ones_like(size), np.ones_like(size)), 1)
