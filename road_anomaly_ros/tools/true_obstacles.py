# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The true obstacles of a rendered drive as boxes on the road, to lay beside those found."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from road_anomaly_ros.perception.geometry import GeometryOptions

_CUBE, _ADD, _DELETE_ALL = 1, 0, 3  # as visualization_msgs/Marker numbers them
_GREEN = {'r': 0.2, 'g': 0.9, 'b': 0.3, 'a': 0.5}
_LEAST = 30  # pixels of an obstacle that is told
_RIM = 0.02  # quantile of its points at which a side is taken to be
_DEEP, _THIN = 0.3, 0.05  # metres; how deep it is the picture does not tell


def markers(view: Any, camera: Any, stamp: Any) -> dict[str, Any]:
    """Return a box for each obstacle in a frame of a drive, and that those before are gone.

    `camera` is that of the frame. Boxes stand in the coordinates of the vehicle, near side first.
    """
    about = {'stamp': stamp, 'frame_id': GeometryOptions().base_frame}
    found: list[dict[str, Any]] = [{'header': about, 'action': _DELETE_ALL}]
    numbers, counts = np.unique(view.instances, return_counts=True)
    for number in numbers[(numbers > 0) & (counts >= _LEAST)].tolist():
        found.append({'header': about, **_box(number, places(view, camera, number))})
    return {'markers': found}


def places(view: Any, camera: Any, number: int) -> np.ndarray:
    """Return forward, left and up [n, 3] in metres of all that is seen of an obstacle."""
    rows, columns = np.nonzero(view.instances == number)
    depth, (u, v) = view.depth[rows, columns].astype(np.float64), camera.center
    right, down = (columns - u) / camera.focal * depth, (rows - v) / camera.focal * depth
    sine, cosine = math.sin(camera.pitch), math.cos(camera.pitch)
    ahead, below = depth * cosine - down * sine, down * cosine + depth * sine
    return np.stack((ahead, -right, camera.elevation - below), -1)


def _box(number: int, points: np.ndarray) -> dict[str, Any]:
    (near, low, _), (_, high, top) = np.quantile(points, (_RIM, 1 - _RIM), axis=0).tolist()
    top = max(top, _THIN)
    return {
        'ns': 'truth',
        'id': number,
        'type': _CUBE,
        'action': _ADD,
        'pose': {
            'position': {'x': near + _DEEP / 2, 'y': (low + high) / 2, 'z': top / 2},
            'orientation': {'w': 1.0},
        },
        'scale': {'x': _DEEP, 'y': max(high - low, _THIN), 'z': top},
        'color': _GREEN,
        'lifetime': {'sec': 1},
    }
