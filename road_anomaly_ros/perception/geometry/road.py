# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The free road: how far each bearing is drivable and without an obstacle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from road_anomaly_ros.perception.geometry.camera import CameraModel, Floats, Mounting
from road_anomaly_ros.perception.geometry.ground import meet
from road_anomaly_ros.perception.geometry.options import GeometryOptions

_COARSE = 33  # pixels of each axis that tell what part of the road is seen
_MOST_STEPS = 1024  # places looked at along a bearing


@dataclass(frozen=True, eq=False)
class FreeRoad:
    """A polar profile around the vehicle's origin, bearings rising to the left.

    `distances` [b] in metres end where the road does, at an obstacle or at the rim of the view;
    inf is free up to `longest`, NaN unseen. Nearer than `shortest` no road is seen.
    """

    bearings: Floats  # [b] radians
    distances: Floats  # [b] metres
    shortest: float
    longest: float


class RoadGrid:
    """Which pixels lie along each bearing, for one camera; None of them may see the road.

    Its places are even in 1/distance, as rows of the image are.
    """

    def __init__(self, model: CameraModel, mounting: Mounting, options: GeometryOptions) -> None:
        self.longest = options.max_range
        span = self._span(model, mounting)
        self.bearings = np.linspace(span[0], span[1], options.bearings)
        self.shortest = span[2]
        steps = min(2 * model.size[0], _MOST_STEPS)
        self._ranges = 1 / np.linspace(1 / self.shortest, 1 / self.longest, steps)
        self._places = self._seen(model, mounting)

    def _span(self, model: CameraModel, mounting: Mounting) -> tuple[float, float, float]:
        """Return the right and left end of the bearings seen and the shortest distance."""
        height, width = model.size
        across = np.linspace(0, width - 1, _COARSE)
        down = np.linspace(0, height - 1, _COARSE)
        pixels = np.stack(np.meshgrid(across, down), -1).reshape(-1, 2)
        spots = meet(model, mounting, pixels)
        distance = np.hypot(spots[:, 0], spots[:, 1])
        spots = spots[distance < self.longest]
        if not len(spots):
            raise ValueError(
                f'no road within {self.longest:g} m is in view: look at the pitch of '
                f'the mounting ({mounting})'
            )
        # Around the camera's own direction, so that a view to the rear has no seam.
        turn = np.arctan2(spots[:, 1], spots[:, 0]) - mounting.yaw
        turn = (turn + np.pi) % (2 * np.pi) - np.pi + mounting.yaw
        nearest = float(np.nanmin(distance))
        return float(turn.min()), float(turn.max()), max(nearest, 0.01 * self.longest)

    def _seen(self, model: CameraModel, mounting: Mounting) -> NDArray[np.int64]:
        """Return the flat place of the pixel at each bearing and distance, -1 out of view."""
        flat = (
            np.stack((np.cos(self.bearings), np.sin(self.bearings)), -1)[:, None]
            * (self._ranges[:, None])
        )
        points = np.dstack((flat, np.zeros(flat.shape[:2]))).reshape(-1, 3) - mounting.position
        pixels = model.pixels(points @ mounting.rotation)
        height, width = model.size
        with np.errstate(invalid='ignore'):
            inside = ((pixels > -0.5) & (pixels < (width - 0.5, height - 0.5))).all(1)
        found = np.full(len(points), -1)
        column, row = np.rint(pixels[inside]).astype(np.int64).T
        found[inside] = row * width + column
        return found.reshape(flat.shape[:2])

    def profile(self, free: NDArray[np.bool_], obstacles: Floats) -> FreeRoad:
        """Return the profile of a map of free road [H, W] and of points [k, 2] or more columns.

        A point of an obstacle that is narrower than the bearings are apart ends the nearest one.
        """
        seen = self._places >= 0
        blocked = seen & ~free.ravel()[self._places]
        first = np.where(blocked.any(1), blocked.argmax(1), -1)
        last = seen.shape[1] - 1 - seen[:, ::-1].argmax(1)
        ends = np.where(last == seen.shape[1] - 1, np.inf, self._ranges[last])
        distances = np.where(first >= 0, self._ranges[first], ends)
        distances[~seen.any(1)] = np.nan
        self._end_at(distances, obstacles)
        return FreeRoad(self.bearings, distances, self.shortest, self.longest)

    def _end_at(self, distances: Floats, obstacles: Floats) -> None:
        points = np.asarray(obstacles, np.float64)[:, :2]
        middle = (self.bearings[0] + self.bearings[-1]) / 2
        turn = (np.arctan2(points[:, 1], points[:, 0]) - middle + np.pi) % (2 * np.pi) - np.pi
        step = self.bearings[1] - self.bearings[0]
        place = np.rint((turn + middle - self.bearings[0]) / step).astype(np.int64)
        inside = (place >= 0) & (place < len(distances))
        np.fmin.at(distances, place[inside], np.hypot(*points[inside].T))
