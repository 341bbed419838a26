# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Things in the world: upright pictures, solids made of faces, and the shadows they cast."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from road_anomaly_ros.tools.rendering.style import Light
from road_anomaly_ros.tools.rendering.textures import Texture


@dataclass(frozen=True)
class Board:
    """Picture standing upright across the road, its foot's middle at (x, y, s).

    layer: 0 on the road and pavement, larger further out; outer layers are painted first.
    radius: half-depth of the shadow's foot, 0 for none.
    """

    texture: Texture
    x: float
    s: float
    width: float
    height: float
    label: int
    y: float = 0.0
    instance: int = 0
    layer: int = 0
    radius: float = 0.0
    shade: float = 1.0

    def shadow(self, light: Light) -> list[np.ndarray]:
        """Ground polygons [n, 2] of (x, s): the cast shadow and the foot."""
        if not self.radius:
            return []
        foot = _ellipse(self.x, self.s, max(self.radius, self.width * 0.3), self.radius)
        tip = _cast((self.x, self.s), self.height + self.y, light)
        crown = _ellipse(*tip, self.width * 0.45, self.width * 0.45)
        middle = _cast((self.x, self.s), (self.height + self.y) * 0.5, light)
        stem = np.array([(self.x - self.radius, self.s), (self.x + self.radius, self.s), middle])
        low = _ellipse(*middle, self.width * 0.4, self.width * 0.4)
        hull = cv2.convexHull(np.concatenate([crown, low]).astype(np.float32))[:, 0]
        return [foot, stem, hull]


@dataclass(frozen=True)
class Solid:
    """Body of textured faces: points float64 [n, 4, 3] in road coordinates."""

    textures: tuple[Texture, ...]
    points: np.ndarray
    shades: np.ndarray
    s: float
    label: int
    instance: int = 0
    layer: int = 0
    footprint: np.ndarray | None = None
    height: float = 0.0

    def shadow(self, light: Light) -> list[np.ndarray]:
        """Ground polygons [n, 2] of (x, s)."""
        if self.footprint is None:
            return []
        tips = np.stack(_cast(self.footprint.T, self.height, light), -1)
        hull = cv2.convexHull(np.concatenate([self.footprint, tips]).astype(np.float32))
        return [hull[:, 0]]


Thing = Board | Solid


def _cast(foot: tuple, height: float, light: Light) -> tuple:
    """Where the shadow of a point `height` above `foot` falls; at most 3 heights away."""
    x, y, s = light.direction
    reach = min(height / max(y, 0.05), 3 * height)
    return foot[0] - x * reach, foot[1] - s * reach


def _ellipse(x: float, s: float, half_x: float, half_s: float) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 14)[:-1]
    return np.stack([x + half_x * np.cos(angle), s + half_s * np.sin(angle)], -1)


def _posed(faces: tuple, yaw: float, light: Light) -> tuple:
    """Turn faces about the vertical and light them: textures, points, shades."""
    points = np.stack([corners for _, corners in faces])
    cosine, sine = np.cos(yaw), np.sin(yaw)
    turned = points.copy()
    turned[..., 0] = cosine * points[..., 0] + sine * points[..., 2]
    turned[..., 2] = cosine * points[..., 2] - sine * points[..., 0]
    normal = np.cross(turned[:, 1] - turned[:, 0], turned[:, 3] - turned[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    return tuple(texture for texture, _ in faces), turned, light.on_face(normal)


def solid(faces: tuple, x: float, s: float, yaw: float, size: tuple[float, float, float],
          label: int, light: Light, instance: int = 0, layer: int = 0) -> Solid:
    """Stand a body (faces about its middle) at (x, s); size is width, height, length."""
    textures, points, shades = _posed(faces, yaw, light)
    half = np.array([size[0], size[2]]) / 2
    corners = half * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
    return Solid(textures, points + (x, 0.0, s), shades, s, label, instance, layer,
                 corners @ turn + (x, s), size[1])
