# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Metres of the rendered drive, which knows its camera: results with distances, and the truth."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from road_anomaly_ros.perception.geometry import CameraModel, Mounting
from road_anomaly_ros.tools.sources import Frame
from road_anomaly_ros.tools.truth import MIN_AREA, TRUE_SHARE

MIN_OVERLAP = 0.25  # intersection over union of a track and its obstacle
_NEAR_SIDE = 0.05  # quantile of the distances of an obstacle's pixels


def mounting(drive: Any) -> Mounting:
    """Return where a drive's camera is mounted; while it drives it nods a little around that."""
    return Mounting(float(drive.style.camera_height), pitch=float(drive.style.pitch))


def mounting_options(drive: Any) -> dict[str, float]:
    """Return the same as options of the geometry."""
    place = mounting(drive)
    return {
        'geometry.camera_height': place.height,
        'geometry.camera_pitch': math.degrees(place.pitch),
        'geometry.camera_roll': 0.0,
    }


def model_of(drive: Any, size: tuple[int, int]) -> CameraModel:
    """Return the calibration of a drive's camera for pictures of `size` (H, W)."""
    (height, width), camera = size, drive.camera(0)
    across, down = width / camera.width, height / camera.height
    u, v = camera.center
    place = (u + 0.5) * across - 0.5, (v + 0.5) * down - 0.5
    return CameraModel((camera.focal * across, camera.focal * down, *place), size)


def near_side(drive: Any, index: int, depth: Any, mask: np.ndarray) -> float:
    """Return how far over the road the near side of what `mask` [H, W] shows is, in metres.

    By the exact `depth` [H, W] of a frame of a drive.
    """
    known, camera = np.asarray(depth)[mask], drive.camera(index)
    fx, fy, u, v = model_of(drive, mask.shape).matrix
    rows, columns = np.nonzero(mask)
    ahead = known * (math.cos(camera.pitch) - (rows - v) / fy * math.sin(camera.pitch))
    level = np.hypot(ahead, (columns - u) / fx * known)
    return float(np.quantile(level, _NEAR_SIDE))


class Compared:
    """Tracks and distances of many frames beside the truth of a drive."""

    def __init__(self, drive: Any) -> None:
        self._drive = drive
        self._both: Counter[tuple[int, int]] = Counter()  # frames of a thing and a track
        self._things = self._tracks = 0  # appearances
        self._errors: list[float] = []  # relative, of distances

    def add(self, result: Any, frame: Frame) -> None:
        """Take one frame with its truth and its depth."""
        truth = np.asarray(frame.truth)
        areas = np.bincount(truth.ravel())
        due = np.flatnonzero(areas > MIN_AREA)
        self._things += int((due > 0).sum())
        instances = result.array('instances')
        for item in result.objects:
            if not (item.confirmed and item.track_id):
                continue
            inside = np.bincount(truth[instances == item.id], minlength=len(areas))
            size, inside[0] = inside.sum(), 0
            name = int(inside.argmax())
            overlap = inside[name] / (size + areas[name] - inside[name])
            small = inside[areas <= MIN_AREA].sum() >= TRUE_SHARE * size
            self._tracks += not small
            if areas[name] > MIN_AREA and overlap >= MIN_OVERLAP:
                self._both[name, item.track_id] += 1
            known = item.distance is not None and frame.depth is not None
            if known and inside[name] >= TRUE_SHARE * size:
                true = near_side(self._drive, int(frame.name), frame.depth, truth == name)
                self._errors.append(abs(item.distance - true) / true)

    def figures(self) -> dict[str, Any]:
        """Return IDF1 and the median error of range in shares of it; nothing without tracks."""
        if not self._tracks:
            return {}
        names, ids = (sorted({pair[place] for pair in self._both}) for place in (0, 1))
        table = np.array([[self._both[name, number] for number in ids] for name in names])
        kept = table[linear_sum_assignment(table, maximize=True)].sum() if len(names) else 0
        found = {
            'IDF1': round(float(2 * kept / (self._things + self._tracks)), 4),
            'range_error': round(float(np.median(self._errors)), 4) if self._errors else None,
            'ranges': len(self._errors),
        }
        return {'tracking': found}
