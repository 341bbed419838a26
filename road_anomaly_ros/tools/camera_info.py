# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The calibration of a camera out of its camera_info, of a node or of a bag."""

from __future__ import annotations

from typing import Any

import numpy as np

from road_anomaly_ros.perception.geometry import CameraModel

_LENSES = {'plumb_bob': False, 'rational_polynomial': False, 'equidistant': True}


def picture_size(info: Any) -> tuple[int, int]:
    """Return (H, W) of the pictures of a sensor_msgs/CameraInfo, binned and cut as it says."""
    across, down = _binning(info)
    height, width = info.roi.height or info.height, info.roi.width or info.width
    return int(height) // down, int(width) // across


def _binning(info: Any) -> tuple[int, int]:
    return max(1, int(info.binning_x)), max(1, int(info.binning_y))


def to_model(info: Any, *, rectified: bool) -> CameraModel:
    """Return a sensor_msgs/CameraInfo as a model of the pictures that it belongs to.

    K and the distortion, or P for rectified pictures; binning and region of interest are taken
    into account. Raises ValueError, one line, for what is no calibration.
    """
    matrix = np.asarray(info.p if rectified else info.k, np.float64)
    fx, _, cx, *row = matrix[:7] if rectified else matrix[:6]
    fy, cy = (row[2], row[3]) if rectified else (row[1], row[2])
    distortion: tuple[float, ...] = ()
    model = str(info.distortion_model)
    if not rectified and any(info.d):
        if model not in _LENSES:
            raise ValueError(
                f'expected a distortion model of {sorted(_LENSES)}, got {model!r}: '
                f'rectify the images and set geometry.rectified'
            )
        distortion = tuple(float(value) for value in info.d)
    across, down = _binning(info)
    part = info.roi
    return CameraModel(
        (
            float(fx) / across,
            float(fy) / down,
            (float(cx) - part.x_offset + 0.5) / across - 0.5,
            (float(cy) - part.y_offset + 0.5) / down - 0.5,
        ),
        picture_size(info),
        distortion,
        _LENSES.get(model, False),
    )
