# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The camera of the rendered drive: pinhole geometry above a flat, gently curving road."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class GroundRows:
    """What the rows below the horizon see on the ground plane.

    first: first image row; depth, distance: float64 [rows] metres along the optical axis and
    along the level road; bend: float64 [rows] metres by which the road has moved to the right.
    """

    first: int
    depth: np.ndarray
    distance: np.ndarray
    bend: np.ndarray


@dataclass(frozen=True)
class Camera:
    """Pinhole camera above the road.

    Road coordinates: x metres to the right of the road's centre line, y metres up, s metres
    along the road. Camera coordinates: X right, Y down, Z forward (REP-103 optical frame).
    `bend(distance)` is how far the centre line has moved right at that distance ahead.
    """

    width: int
    height: int
    focal: float
    elevation: float
    pitch: float
    x: float
    station: float
    bend: Callable[[np.ndarray], np.ndarray]

    @property
    def center(self) -> tuple[float, float]:
        """Principal point in pixels; integer coordinates are pixel centres."""
        return (self.width - 1) / 2, (self.height - 1) / 2

    @property
    def matrix(self) -> np.ndarray:
        """Intrinsic matrix, float64 [3, 3]."""
        u, v = self.center
        return np.array([[self.focal, 0.0, u], [0.0, self.focal, v], [0.0, 0.0, 1.0]])

    @property
    def horizon(self) -> float:
        """Image row of the horizon."""
        return self.center[1] - self.focal * np.tan(self.pitch)

    def to_camera(self, points: np.ndarray) -> np.ndarray:
        """Road coordinates (x, y, s) [..., 3] to camera coordinates [..., 3], metres."""
        ahead = points[..., 2] - self.station
        right = points[..., 0] - self.x + self.bend(ahead)
        down = self.elevation - points[..., 1]
        sine, cosine = np.sin(self.pitch), np.cos(self.pitch)
        return np.stack([right, down * cosine - ahead * sine, ahead * cosine + down * sine], -1)

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """Camera coordinates [..., 3] with Z > 0 to pixel coordinates (u, v) [..., 2]."""
        u, v = self.center
        scale = self.focal / points[..., 2]
        return np.stack([points[..., 0] * scale + u, points[..., 1] * scale + v], -1)

    def project(self, points: np.ndarray) -> np.ndarray:
        """Road coordinates [..., 3] in front of the camera to pixel coordinates [..., 2]."""
        return self.to_pixels(self.to_camera(np.asarray(points, float)))

    def ground_rows(self, reach: float) -> GroundRows:
        """Rows that see the ground plane closer than `reach` metres."""
        slope = (np.arange(self.height) - self.center[1]) / self.focal
        sine, cosine = np.sin(self.pitch), np.cos(self.pitch)
        fall = sine + slope * cosine
        seen = np.flatnonzero(fall > self.elevation / reach)
        first = int(seen[0]) if len(seen) else self.height
        depth = self.elevation / fall[first:]
        distance = depth * (cosine - slope[first:] * sine)
        return GroundRows(first, depth, distance, self.bend(distance))

    def upright_depth(self, ahead: float, rows: np.ndarray) -> np.ndarray:
        """Depth of a wall across the road at `ahead` metres, for image rows [n], float32."""
        slope = (rows - self.center[1]) / self.focal
        return (ahead / (np.cos(self.pitch) - slope * np.sin(self.pitch))).astype(np.float32)
