# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The pitch of a camera out of its own motion: a vehicle drives along the road, not into it."""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from road_anomaly_ros.perception.geometry.camera import ESTIMATED, CameraModel, Floats, Mounting

_LEAST_S, _MOST_S = 0.12, 1.0  # between two pictures that are compared
_CORNERS, _LEAST_CORNERS = 300, 40
_SHIFT = 1.0  # pixels by which the picture moves at least when the vehicle does
_NOISE = 0.3  # pixels of the compared pictures by which a corner is missed
_RETURN = 0.5  # pixels by which one may be missed that is followed there and back
_NEAR = 0.02  # of the vanishing point, in focal lengths, where its direction is not seen
_STEPS = 15
_MEMORY, _ENOUGH = 150, 20  # pairs of pictures that count, and from which on they are believed
_WORST = math.radians(0.5)  # standard error of what is believed
_MOST = math.radians(10.0)  # by which a mounting is corrected
_STEP = math.radians(0.05)  # in which it is, so that what depends on it is seldom made anew
_WIDEST = 640  # pixels of the pictures that are compared
_ASIDE = 0.8  # cosine of the yaw up to which the direction of travel tells the pitch


class PitchEstimate:
    """Corrects the pitch of one camera's mounting while it drives; has a state.

    Corners are followed from one picture to another (Lucas and Kanade 1981). The point from which
    they move apart and the turn of the camera between both (Longuet-Higgins and Prazdny 1980) are
    fitted to them; that point lies on the horizon. The median over many pairs is the pitch.
    """

    def __init__(self) -> None:
        self._last: tuple[float, NDArray[np.uint8]] | None = None
        self._key: tuple[CameraModel, Mounting] | None = None
        self._found: deque[float] = deque(maxlen=_MEMORY)

    def add(
        self, image: NDArray[np.uint8], stamp: float, model: CameraModel, mounting: Mounting
    ) -> Mounting:
        """Take a picture [H, W, 3] at a time in seconds; returns the mounting as far as is known.

        Another calibration or mounting is a new start, and so is a stamp that runs backwards.
        """
        if self._key != (model, mounting) or (self._last and stamp < self._last[0]):
            self._key, self._last = (model, mounting), None
            self._found.clear()
        since = math.inf if self._last is None else stamp - self._last[0]
        if since >= _LEAST_S and abs(math.cos(mounting.yaw)) >= _ASIDE:
            picture = _grey(image)
            if self._last is not None and since <= _MOST_S:
                self._compare(self._last[1], picture, model, mounting)
            self._last = stamp, picture
        return self._corrected(mounting)

    def _compare(
        self,
        before: NDArray[np.uint8],
        after: NDArray[np.uint8],
        model: CameraModel,
        mounting: Mounting,
    ) -> None:
        pixels = followed(before, after)
        shift = np.median(np.hypot(*(pixels[:, 1] - pixels[:, 0]).T)) if len(pixels) else 0.0
        if len(pixels) < _LEAST_CORNERS or shift < _SHIFT:
            return
        scale = model.size[1] / before.shape[1]
        rays = model.rays((pixels.reshape(-1, 2) + 0.5) * scale - 0.5)[:, :2].reshape(-1, 2, 2)
        right, down, ahead = mounting.rotation[0]  # of the camera, as the vehicle drives
        point = vanishing_point(
            rays[np.isfinite(rays).all((1, 2))],
            np.array([right, down]) / ahead,
            _NOISE * scale / model.matrix[0],
        )
        if point is not None:
            forward, _, up = mounting.rotation @ (*point, 1.0)
            self._found.append(math.atan(up / forward) / math.cos(mounting.yaw))

    def _corrected(self, mounting: Mounting) -> Mounting:
        if len(self._found) < _ENOUGH:
            return mounting
        middle = float(np.median(self._found))
        spread = 1.4826 * float(np.median(np.abs(np.subtract(self._found, middle))))
        error = 1.2533 * spread / math.sqrt(len(self._found))  # of a median
        if error > _WORST or abs(middle) > _MOST:
            return mounting
        pitch = mounting.pitch + round(middle / _STEP) * _STEP
        return dataclasses.replace(mounting, pitch=pitch, source=ESTIMATED)


def _grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture RGB [H, W, 3] as grey [h, w], no wider than is compared."""
    scale = min(1.0, _WIDEST / image.shape[1])
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    if scale < 1.0:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.asarray(grey, np.uint8)


def followed(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> Floats:
    """Return where corners are in two grey pictures [H, W], as [n, 2, 2]: corner, picture, x y."""
    corners: Any = cv2.goodFeaturesToTrack(before, _CORNERS, 0.01, 7)
    if corners is None:
        return np.empty((0, 2, 2))
    first = np.asarray(corners, np.float32)
    there, seen = _flow(before, after, first)
    back, seen_back = _flow(after, before, there)
    good = seen & seen_back & (np.abs(back - first).max((1, 2)) < _RETURN)
    return np.concatenate((first, there), 1)[good].astype(np.float64)


def _flow(
    before: NDArray[np.uint8], after: NDArray[np.uint8], corners: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return where corners [n, 1, 2] are in the other picture, and which are seen there, [n]."""
    there, seen, _ = cv2.calcOpticalFlowPyrLK(
        before, after, corners, np.empty_like(corners), winSize=(15, 15)
    )
    return np.asarray(there, np.float32), np.asarray(seen, bool).ravel()


def vanishing_point(rays: Floats, start: Floats, noise: float) -> Floats | None:
    """Return the point (right, down) at depth 1 from which points move apart; None for none.

    `rays` [n, 2, 2] before and after, found from `start` on; `noise` as a standard deviation.
    Points that move otherwise, as other vehicles do, hardly count (weights of Cauchy).
    """
    before, after = rays[:, 0], np.column_stack((rays[:, 1], np.ones(len(rays))))
    point, turn = np.array(start, np.float64), np.zeros(3)
    for _ in range(_STEPS):
        turned = after @ cv2.Rodrigues(turn)[0].T
        x, y = (turned[:, :2] / turned[:, 2:]).T
        moved = np.stack((x, y), 1) - before
        away = before - point
        length = np.maximum(np.hypot(*away.T), _NEAR)
        missed = (away[:, 0] * moved[:, 1] - away[:, 1] * moved[:, 0]) / length
        across = np.stack((-x * y, 1 + x * x, -y), 1)
        down = np.stack((-1 - y * y, x * y, x), 1)
        slope = np.column_stack(
            (-moved[:, 1], moved[:, 0], away[:, :1] * down - away[:, 1:] * across)
        )
        slope /= length[:, None]
        weight = 1 / (1 + (missed / noise) ** 2)
        try:
            step = -np.linalg.solve((slope.T * weight) @ slope, (slope.T * weight) @ missed)
        except np.linalg.LinAlgError:
            return None
        point, turn = point + step[:2], turn + step[2:]
        if np.abs(step).max() < 1e-6:
            break
    return point if np.isfinite(point).all() else None
