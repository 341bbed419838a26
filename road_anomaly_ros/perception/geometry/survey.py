# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One frame in metres: obstacles with positions and speeds, the free road; made when asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from road_anomaly_ros.perception.contract import AnomalyObject, FrameResult
from road_anomaly_ros.perception.geometry.camera import CameraModel, Mounting
from road_anomaly_ros.perception.geometry.closing import Closing, Histories
from road_anomaly_ros.perception.geometry.options import GeometryOptions
from road_anomaly_ros.perception.geometry.pitch import PitchEstimate
from road_anomaly_ros.perception.geometry.positions import Position, locate
from road_anomaly_ros.perception.geometry.road import FreeRoad, RoadGrid


@dataclass(frozen=True)
class Located:
    """An obstacle with its position and, for one that is tracked, how it comes nearer."""

    found: AnomalyObject
    position: Position
    closing: Closing | None

    @property
    def id(self) -> int:
        """The number of the track, where there is none that of the obstacle in its frame."""
        return self.found.track_id or self.found.id


class Surveyor:
    """Surveys the frames of one camera; keeps what lasts from frame to frame."""

    def __init__(self) -> None:
        self._histories = Histories()
        self._pitch = PitchEstimate()
        self._grid: tuple[Any, RoadGrid] | None = None

    def survey(
        self,
        result: FrameResult,
        model: CameraModel,
        mounting: Mounting,
        options: GeometryOptions,
        depth: NDArray[np.uint16] | NDArray[np.float32] | None = None,
    ) -> Survey:
        """Return what a frame says in metres; `depth` [H, W] as in `locate`."""
        if options.estimate_pitch and result.stamp is not None:
            image = result.array('image').transpose(1, 2, 0)
            mounting = self._pitch.add(image, result.stamp, model, mounting)
        return Survey(self, result, model, mounting, options, depth)

    def closings(
        self, result: FrameResult, positions: tuple[Position, ...]
    ) -> Mapping[int, Closing | None]:
        """Note the positions of a frame and return how the tracked ones come nearer, by id."""
        if result.stamp is None:
            return {}
        self._histories.begin(result.stamp)
        tracks = {found.id: found.track_id for found in result.objects if found.track_id}
        return {
            place.id: self._histories.add(
                tracks[place.id], place.distance, place.distance - place.nearest
            )
            for place in positions
            if place.id in tracks
        }

    def grid(self, model: CameraModel, mounting: Mounting, options: GeometryOptions) -> RoadGrid:
        """Return the places to look at, made once for a camera."""
        key = model, mounting, options.max_range, options.bearings
        if self._grid is None or self._grid[0] != key:
            self._grid = key, RoadGrid(model, mounting, options)
        return self._grid[1]


class Survey:
    """One frame in metres; each part is made when it is first asked for."""

    def __init__(
        self,
        surveyor: Surveyor,
        result: FrameResult,
        model: CameraModel,
        mounting: Mounting,
        options: GeometryOptions,
        depth: NDArray[np.uint16] | NDArray[np.float32] | None,
    ) -> None:
        self.result, self.mounting, self.options = result, mounting, options
        self._surveyor, self._model, self._depth = surveyor, model, depth

    @cached_property
    def obstacles(self) -> tuple[Located, ...]:
        """The confirmed obstacles that have a position, in the order of the result."""
        confirmed = {found.id: found for found in self.result.objects if found.confirmed}
        places = locate(
            tuple(confirmed.values()),
            self.result.array('instances'),
            self._model,
            self.mounting,
            self.options,
            self._depth,
        )
        speeds = self._surveyor.closings(self.result, places)
        return tuple(Located(confirmed[place.id], place, speeds.get(place.id)) for place in places)

    @property
    def told(self) -> FrameResult:
        """The result, its obstacles with their distances where they have one."""
        metres = {one.found.id: one.position.distance for one in self.obstacles}
        found = self.result.objects
        return dataclasses.replace(
            self.result,
            objects=tuple(
                dataclasses.replace(item, distance=metres.get(item.id)) for item in found
            ),
        )

    @property
    def unknown(self) -> int:
        """How many confirmed obstacles have no position."""
        return sum(found.confirmed for found in self.result.objects) - len(self.obstacles)

    @cached_property
    def road(self) -> FreeRoad:
        """How far the road is free; an obstacle that is not confirmed yet ends it too.

        Raises ValueError where no road is in view or the labels know no drivable class.
        """
        drivable = self.result.label_set.drivable
        if not drivable:
            raise ValueError(
                'the label set of the model names no drivable class: the free road is unknown'
            )
        free = np.isin(self.result.array('labels'), drivable) & ~self.result.array('mask')
        lines = [place.position.line for place in self.obstacles]
        points = np.concatenate(lines) if lines else np.empty((0, 3))
        return self._surveyor.grid(self._model, self.mounting, self.options).profile(free, points)
