# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The camera: from pixels to directions and back, and where it is fixed to the vehicle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from road_anomaly_ros.perception.geometry.options import GeometryOptions

Floats = NDArray[np.float64]

GIVEN, GUESSED, ESTIMATED = 'given', 'guessed', 'pitch estimated'
GUESSED_ERROR = math.radians(2.0)  # of a pitch that nobody measured, one standard deviation
_STEEPEST_ROLL = math.radians(60.0)
_LENGTHS = {False: (0, 4, 5, 8, 12, 14), True: (4,)}
_STEPS = 10  # towards the inverse of a lens model
_TOLERANCE = 1.0  # pixels by which a lens model may miss its own inverse
# Forward, left, up of a camera's body, from right, down, forward of its picture (REP 103).
_BODY = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


@dataclass(frozen=True)
class CameraModel:
    """A calibrated camera; whole pixel coordinates are the middles of pixels.

    `matrix` are fx, fy, cx, cy in pixels; `distortion` that of OpenCV (none, 4, 5, 8, 12 or 14
    numbers, 4 for `fisheye`); `size` is (H, W). Raises ValueError for what is no calibration.
    """

    matrix: tuple[float, float, float, float]
    size: tuple[int, int]
    distortion: tuple[float, ...] = ()
    fisheye: bool = False

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) for value in (*self.matrix, *self.distortion)):
            raise ValueError(
                'expected finite numbers in K and D of the calibration, got '
                f'{list(self.matrix)} and {list(self.distortion)}'
            )
        if min(self.matrix[:2]) <= 0 or min(self.size) < 1:
            raise ValueError(
                f'expected a calibrated camera (fx and fy of K above 0), got fx '
                f'{self.matrix[0]:g} and fy {self.matrix[1]:g} for {self.size[1]}x{self.size[0]}: '
                f'calibrate it (camera_calibration)'
            )
        if len(self.distortion) not in _LENGTHS[self.fisheye]:
            raise ValueError(
                f'expected {_LENGTHS[self.fisheye]} numbers of distortion, got '
                f'{len(self.distortion)}: calibrate the camera again or rectify'
            )

    @property
    def array(self) -> Floats:
        """The matrix K, [3, 3]."""
        fx, fy, cx, cy = self.matrix
        return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])

    # A damaged calibration gives inf and NaN, which both mean nowhere; numpy would print them.
    @np.errstate(over='ignore', divide='ignore', invalid='ignore')
    def rays(self, pixels: Floats) -> Floats:
        """Return the directions (right, down, 1) of pixels [n, 2] as [n, 3].

        NaN where the distortion has no inverse, far outside of what was calibrated.
        """
        pixels = np.asarray(pixels, np.float64).reshape(-1, 2)
        fx, fy, cx, cy = self.matrix
        flat = (pixels - (cx, cy)) / (fx, fy)
        if self.distortion and len(pixels):
            flat = self._undistorted(pixels)
            missed = np.abs(self._distorted(flat) - pixels).max(1)
            flat[~(missed <= _TOLERANCE)] = np.nan
        return np.column_stack((flat, np.ones(len(flat))))

    @np.errstate(over='ignore', divide='ignore', invalid='ignore')
    def pixels(self, points: Floats) -> Floats:
        """Return where points [n, 3] before the camera (right, down, ahead) are seen, [n, 2].

        NaN for those behind it and where a lens model folds back into the picture.
        """
        points = np.asarray(points, np.float64).reshape(-1, 3)
        ahead = points[:, 2:] > 1e-6
        flat = np.divide(
            points[:, :2], points[:, 2:], where=ahead, out=np.full((len(points), 2), np.nan)
        )
        seen = np.flatnonzero(ahead[:, 0])
        found = np.full((len(points), 2), np.nan)
        if not self.distortion:
            fx, fy, cx, cy = self.matrix
            return flat * (fx, fy) + (cx, cy)
        if len(seen):
            found[seen] = self._distorted(flat[seen])
            back = self.rays(found[seen])[:, :2]
            wrong = ~(np.abs(back - flat[seen]).max(1) <= _TOLERANCE / min(self.matrix[:2]))
            found[seen[wrong]] = np.nan
        return found

    def _undistorted(self, pixels: Floats) -> Floats:
        source, lens = pixels[:, None], np.array(self.distortion)
        undistort = cv2.fisheye.undistortPoints if self.fisheye else cv2.undistortPoints
        flat = undistort(source, self.array, lens)[:, 0].astype(np.float64)
        # OpenCV stops 0.1 pixels away; its releases differ in how to ask for more steps.
        for _ in range(_STEPS):
            flat += (pixels - self._distorted(flat)) / self.matrix[:2]
        return flat

    def _distorted(self, flat: Floats) -> Floats:
        lens = np.array(self.distortion)
        if self.fisheye:
            bent = cv2.fisheye.distortPoints(flat[:, None], self.array, lens)
            return np.asarray(bent[:, 0], np.float64)
        points = np.column_stack((flat, np.ones(len(flat))))
        still = np.zeros(3)
        bent = cv2.projectPoints(points, still, still, self.array, lens)[0]
        return np.asarray(bent[:, 0], np.float64)


@dataclass(frozen=True)
class Mounting:
    """Where a camera is fixed to the vehicle, whose origin lies on the road.

    Metres and radians after REP 103: the camera looks down by `pitch`, left by `yaw` and leans
    to its right by `roll`. `source` says where that is known from. Raises ValueError for a
    camera that is not above the road or lies on its side.
    """

    height: float
    pitch: float = 0.0
    roll: float = 0.0
    yaw: float = 0.0
    forward: float = 0.0
    left: float = 0.0
    source: str = GIVEN

    def __post_init__(self) -> None:
        if not self.height > 0 or not math.isfinite(self.height):
            raise ValueError(
                f'expected a camera above the road, got a height of '
                f'{self.height:g} m: is the origin of the vehicle on the road?'
            )
        if abs(self.roll) > _STEEPEST_ROLL:
            raise ValueError(
                f'expected a camera mounted upright (roll up to 60 degrees), got a roll of '
                f'{math.degrees(self.roll):.0f}: turn its pictures or correct the mounting'
            )

    @classmethod
    def from_options(cls, options: GeometryOptions) -> Mounting | None:
        """Return the mounting given in options, None without a height."""
        if math.isnan(options.camera_height):
            return None
        angles = [options.camera_pitch, options.camera_roll]
        guessed = any(math.isnan(angle) for angle in angles)
        pitch, roll = (0.0 if math.isnan(angle) else math.radians(angle) for angle in angles)
        return cls(
            options.camera_height,
            pitch,
            roll,
            math.radians(options.camera_yaw),
            options.camera_forward,
            options.camera_left,
            GUESSED if guessed else GIVEN,
        )

    @classmethod
    def from_transform(
        cls, position: Sequence[float], quaternion: Sequence[float], source: str = GIVEN
    ) -> Mounting:
        """Return the mounting of an optical frame in the vehicle's frame.

        `position` x, y, z in metres; `quaternion` x, y, z, w, of any length but 0. Raises
        ValueError for what is no transform.
        """
        length = float(np.linalg.norm(quaternion))
        if not (0 < length < math.inf and np.isfinite(position).all()):
            raise ValueError(
                f'expected a position and a rotation of the camera, got {list(position)} and '
                f'{list(quaternion)}: correct the transform that is published'
            )
        x, y, z, w = np.asarray(quaternion, np.float64) / length
        rotation = (
            np.array(
                [
                    [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                    [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                    [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
                ]
            )
            @ _BODY.T
        )
        pitch = math.asin(min(1.0, max(-1.0, -rotation[2, 0])))
        roll = math.atan2(rotation[2, 1], rotation[2, 2])
        yaw = math.atan2(rotation[1, 0], rotation[0, 0])
        return cls(
            float(position[2]), pitch, roll, yaw, float(position[0]), float(position[1]), source
        )

    @property
    def position(self) -> Floats:
        """Forward, left and up of the camera, [3]."""
        return np.array([self.forward, self.left, self.height])

    @property
    def rotation(self) -> Floats:
        """The matrix [3, 3] that turns (right, down, ahead) of the camera to the vehicle's."""
        (cr, sr), (cp, sp), (cy, sy) = (
            (math.cos(angle), math.sin(angle)) for angle in (self.roll, self.pitch, self.yaw)
        )
        roll = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
        pitch = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
        yaw = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
        return np.asarray(yaw @ pitch @ roll @ _BODY)

    @property
    def quaternion(self) -> tuple[float, float, float, float]:
        """The same as x, y, z, w."""
        axis = cv2.Rodrigues(self.rotation)[0].ravel()
        angle = float(np.linalg.norm(axis))
        x, y, z = (axis * (math.sin(angle / 2) / angle if angle else 0.0)).tolist()
        return x, y, z, math.cos(angle / 2)

    def pitch_error(self, options: GeometryOptions) -> float:
        """Return the standard deviation of the pitch in radians; a guess is worse than told."""
        told = math.radians(options.pitch_error)
        return max(told, GUESSED_ERROR) if self.source == GUESSED else told

    def __str__(self) -> str:
        angles = ', '.join(
            f'{name} {math.degrees(value):.2f}'
            for name, value in (('pitch', self.pitch), ('roll', self.roll), ('yaw', self.yaw))
        )
        return f'{self.source}: height {self.height:.2f} m, {angles} deg'
