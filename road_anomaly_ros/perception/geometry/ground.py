# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The road as a plane: where a direction of view meets it, and how sure that is.

On the ground polar coordinates around the foot of the camera are used, because both errors that
count, of the pixel and of the pitch, are errors of the angle by which one looks down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from road_anomaly_ros.perception.geometry.camera import CameraModel, Floats, Mounting
from road_anomaly_ros.perception.geometry.options import GeometryOptions

SIGMAS = 2.0  # of every error that is told
_STEEPEST = np.pi / 2


@dataclass(frozen=True)
class Spots:
    """n places on the road as seen from the foot of the camera; NaN above the horizon."""

    bearing: Floats  # [n] radians, from the vehicle's forward to its left
    distance: Floats  # [n] metres
    nearest: Floats  # [n] metres, bounds of two standard deviations
    farthest: Floats  # [n] metres, inf where the horizon may be meant
    distance_error: Floats  # [n] metres, two standard deviations, linearised
    bearing_error: Floats  # [n] radians, two standard deviations


def directions(model: CameraModel, mounting: Mounting, pixels: Floats) -> Floats:
    """Return the directions of view of pixels [n, 2] as forward, left, up, [n, 3], any length."""
    return model.rays(pixels) @ mounting.rotation.T


def meet(model: CameraModel, mounting: Mounting, pixels: Floats) -> Floats:
    """Return forward and left [n, 2] of the road at pixels [n, 2], NaN above the horizon."""
    view = directions(model, mounting, pixels)
    down = -view[:, 2:]
    scale = np.divide(mounting.height, down, where=down > 1e-9, out=np.full(down.shape, np.nan))
    return view[:, :2] * scale + mounting.position[:2]


def spots(
    model: CameraModel, mounting: Mounting, pixels: Floats, options: GeometryOptions
) -> Spots:
    """Return where pixels [n, 2] see the road, with the errors of pixel and pitch."""
    steps = np.array([[0.0, 0.0], [0.5, 0.0], [-0.5, 0.0], [0.0, 0.5], [0.0, -0.5]])
    pixels = np.asarray(pixels, np.float64).reshape(-1, 2)
    around = (pixels[None] + steps[:, None]).reshape(-1, 2)
    view = directions(model, mounting, around).reshape(len(steps), len(pixels), 3)
    fall, bearing = _angles(view)
    fall_slope = np.hypot(fall[1] - fall[2], fall[3] - fall[4])
    turn = [_wrapped(bearing[1] - bearing[2]), _wrapped(bearing[3] - bearing[4])]
    fall_error = SIGMAS * np.hypot(mounting.pitch_error(options), options.pixel_error * fall_slope)
    bearing_error = SIGMAS * options.pixel_error * np.hypot(*turn)
    down = np.where(fall[0] > 1e-9, fall[0], np.nan)
    with np.errstate(invalid='ignore'):
        return Spots(
            bearing=np.where(np.isnan(down), np.nan, bearing[0]),
            distance=_reach(mounting.height, down),
            nearest=_reach(mounting.height, np.minimum(down + fall_error, _STEEPEST)),
            farthest=_reach(mounting.height, down - fall_error),
            distance_error=mounting.height / np.sin(down) ** 2 * fall_error,
            bearing_error=bearing_error,
        )


def _angles(view: Floats) -> tuple[Floats, Floats]:
    """Return by how much directions [..., 3] fall and where they point, in radians."""
    level = np.hypot(view[..., 0], view[..., 1])
    return np.arctan2(-view[..., 2], level), np.arctan2(view[..., 1], view[..., 0])


def _reach(height: float, fall: Floats) -> Floats:
    """Return the distance at which a view that falls by an angle meets the road; inf for none."""
    slope = np.tan(fall)
    with np.errstate(divide='ignore', invalid='ignore'):
        return np.where(np.isnan(fall), np.nan, np.where(slope > 0, height / slope, np.inf))


def _wrapped(angle: Floats) -> NDArray[np.float64]:
    return (angle + np.pi) % (2 * np.pi) - np.pi
