# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Obstacles as places on the road: forward, left, width, and how sure each of them is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from road_anomaly_ros.perception.contract import AnomalyObject
from road_anomaly_ros.perception.geometry import depth as depths
from road_anomaly_ros.perception.geometry.camera import CameraModel, Floats, Mounting
from road_anomaly_ros.perception.geometry.contact import ContactLine, Table, contact_line, feet
from road_anomaly_ros.perception.geometry.ground import SIGMAS, Spots, directions, spots
from road_anomaly_ros.perception.geometry.options import GeometryOptions

ROAD, DEPTH = 'road', 'depth'
_LEAST_REACH = 0.5  # metres behind its nearest point that an obstacle may stand


@dataclass(frozen=True, eq=False)
class Position:
    """Where one obstacle stands, in metres; errors and bounds are of two standard deviations.

    `forward` and `left` of the vehicle's origin are those of the middle of its near side,
    `distance`, `nearest` and `farthest` those from the foot of the camera; `farthest` is inf
    where it may be as far as the horizon. `line` [k, 3] is where it touches the road, forward,
    left and up, one point for each column of the image. One that is `cut` by the lower border is
    at most so far, by a side at least so wide.
    """

    id: int
    forward: float
    left: float
    width: float
    height: float
    distance: float
    forward_error: float
    left_error: float
    width_error: float
    nearest: float
    farthest: float
    source: str  # 'road' or 'depth'
    cut: bool
    line: Floats


def locate(
    objects: Sequence[AnomalyObject],
    instances: NDArray[np.int32],
    model: CameraModel,
    mounting: Mounting,
    options: GeometryOptions,
    depth: NDArray[np.uint16] | NDArray[np.float32] | None = None,
) -> tuple[Position, ...]:
    """Return the positions of those objects that have one, in their order.

    `instances` [H, W] holds the objects' ids; `depth` [H, W], uint16 in mm or float32 in m,
    wins over the road where it knows an obstacle. Left out is what ends above the horizon or is
    farther away than `max_range`. Raises ValueError where sizes differ.
    """
    if instances.shape != model.size:
        raise ValueError(
            f'expected a calibration for {instances.shape[1]}x{instances.shape[0]}, '
            f'got one for {model.size[1]}x{model.size[0]}'
        )
    if depth is not None and depth.shape != instances.shape:
        raise ValueError(
            f'expected a depth image registered to {instances.shape[1]}x'
            f'{instances.shape[0]}, got {depth.shape[1]}x{depth.shape[0]}'
        )
    line = contact_line(instances)
    if not len(line):
        return ()
    scene = _Scene(line, instances, model, mounting, options, depth)
    places = dict(zip(line.ids.tolist(), range(len(line)), strict=True))
    known = [(found, places[found.id]) for found in objects if found.id in places]
    lines = np.split(scene.points, line.begin[1:])
    with np.errstate(invalid='ignore'):
        good = scene.distance <= options.max_range
    return tuple(
        scene.position(found, place, lines[place]) for found, place in known if good[place]
    )


class _Scene:
    """All obstacles of one frame at once, rows of n; points [m, 3] of their contact lines."""

    def __init__(
        self,
        line: ContactLine,
        instances: NDArray[np.int32],
        model: CameraModel,
        mounting: Mounting,
        options: GeometryOptions,
        depth: NDArray[np.uint16] | NDArray[np.float32] | None,
    ) -> None:
        self._model, self._mounting, self._options = model, mounting, options
        self._row, self._column = feet(line)
        ends = np.append(line.begin[1:], len(line.owner)) - 1
        self._left, self._right = line.column[line.begin], line.column[ends]
        height, width = instances.shape
        self._at_bottom = self._row >= height - 1
        self.cut = self._at_bottom | (self._left == 0) | (self._right == width - 1)
        foot = np.column_stack((self._column, self._row + 0.5))
        view = directions(model, mounting, foot)
        self._bearing = np.arctan2(view[:, 1], view[:, 0])
        self._take(spots(model, mounting, foot, options))
        known = None if depth is None else depths.metres(depth)
        sides = np.full(len(line), np.nan)
        if known is not None:
            sides = depths.near_sides(known, instances, line)
            self._take_depth(sides, view)
        self._spread()
        self.points = self._lines(line, known, sides)

    def _take(self, found: Spots) -> None:
        self.distance, self.nearest, self.farthest = found.distance, found.nearest, found.farthest
        self.nearest = np.where(self._at_bottom, 0.0, self.nearest)
        self._distance_error, self._bearing_error = found.distance_error, found.bearing_error
        self._by_depth = np.zeros(len(found.distance), bool)

    def _take_depth(self, sides: Floats, view: Floats) -> None:
        """Put the distances of depths [n] in the place of those of the road."""
        self._by_depth = ~np.isnan(sides)
        distance = np.hypot(view[:, 0], view[:, 1]) * sides
        error = np.minimum(SIGMAS * self._options.depth_error, 1.0) * distance
        for name, value in (
            ('distance', distance),
            ('_distance_error', error),
            ('nearest', distance - error),
            ('farthest', distance + error),
        ):
            setattr(self, name, np.where(self._by_depth, value, getattr(self, name)))

    def _spread(self) -> None:
        """Find sides and top where they meet the upright plane across the view of the foot."""
        below, ahead = self._row + 0.5, self._bearing
        left = self._across(np.column_stack((self._left - 0.5, below)))
        right = self._across(np.column_stack((self._right + 0.5, below)))
        middle = (left + right) / 2
        self.width = left - right
        cosine, sine = np.cos(ahead), np.sin(ahead)
        forward = self.distance * cosine - middle * sine
        aside = self.distance * sine + middle * cosine
        self.forward = forward + self._mounting.forward
        self.left = aside + self._mounting.left
        share, turn = self._distance_error / self.distance, self._bearing_error
        self.forward_error = np.hypot(forward * share, aside * turn)
        self.left_error = np.hypot(aside * share, forward * turn)
        self.width_error = np.hypot(self.width * share, math.sqrt(2) * self.distance * turn)

    def _across(self, pixels: Floats) -> Floats:
        """Return how far left of the view of the foot pixels [n, 2] are at its distance."""
        view = directions(self._model, self._mounting, pixels)
        cosine, sine = np.cos(self._bearing), np.sin(self._bearing)
        along = view[:, 0] * cosine + view[:, 1] * sine
        along = np.where(along > 1e-9, along, np.nan)
        return self.distance * (view[:, 1] * cosine - view[:, 0] * sine) / along

    def _top(self, row: float, place: int) -> float:
        """Return how high above the road an obstacle reaches that begins at an image row."""
        pixel = np.array([[self._column[place], row - 0.5]])
        right, left, up = directions(self._model, self._mounting, pixel)[0]
        return float(self._mounting.height + self.distance[place] * up / math.hypot(right, left))

    def _lines(
        self, line: ContactLine, depth: NDArray[np.float32] | None, sides: Floats
    ) -> Floats:
        """Return the contact line on the road, or where the depth image sees it, [m, 3]."""
        own: Table = line.owner
        pixels = np.column_stack((line.column, line.row + 0.5))
        view = directions(self._model, self._mounting, pixels)
        level = np.hypot(view[:, 0], view[:, 1])
        with np.errstate(divide='ignore', invalid='ignore'):
            reach = np.where(view[:, 2] < 0, self._mounting.height * level / -view[:, 2], np.inf)
            # What hangs over the road is seen against ground far behind it.
            limit = np.fmax(self.width, _LEAST_REACH)
            reach = np.fmin(reach, (self.distance + limit)[own])
        up = np.zeros(len(own))
        if depth is not None:
            found = depths.at(depth, line, sides, limit)
            measured = self._by_depth[own]
            reach = np.where(measured, level * found, reach)
            up = np.where(measured, self._mounting.height + view[:, 2] * found, up)
        flat = view[:, :2] / level[:, None] * reach[:, None] + self._mounting.position[:2]
        return np.column_stack((flat, up))

    def position(self, found: AnomalyObject, place: int, line: Floats) -> Position:
        """Return one row as the public noun."""
        row = {
            name: float(getattr(self, name)[place])
            for name in (
                'forward',
                'left',
                'width',
                'distance',
                'forward_error',
                'left_error',
                'width_error',
                'nearest',
                'farthest',
            )
        }
        return Position(
            id=found.id,
            height=self._top(found.box[1], place),
            source=DEPTH if self._by_depth[place] else ROAD,
            cut=bool(self.cut[place]),
            line=line,
            **row,
        )
