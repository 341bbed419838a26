# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Things in the world: upright pictures, solids made of faces, and the shadows they cast."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from road_anomaly_ros.rendering.style import Light
from road_anomaly_ros.rendering.textures import Texture

# Height share, sideways offset and radius (in widths) of the parts of a crown's shadow.
_CLUMPS = (
    (0.55, -0.2, 0.2),
    (0.62, 0.22, 0.22),
    (0.75, -0.1, 0.3),
    (0.85, 0.16, 0.24),
    (0.95, -0.06, 0.18),
)


@dataclass(frozen=True, eq=False)
class Board:
    """Picture standing upright across the road, its foot's middle at (x, y, s).

    layer: 0 on the road and pavement, larger further out; outer layers are painted first.
    radius: half-depth of the shadow's foot, 0 for none; part_label: class of the texture's part,
    where it has one.
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
    part_label: int | None = None

    def foot(self) -> list[np.ndarray]:
        """Ground polygons [n, 2] of (x, s) that the thing stands on."""
        if not self.radius:
            return []
        return [_ellipse(self.x, self.s, max(self.radius, self.width * 0.3), self.radius)]

    def shadow(self, light: Light) -> list[np.ndarray]:
        """Ground polygons [n, 2] of (x, s) in the shadow: the stem and clumps of the crown."""
        if not self.radius:
            return []
        spot, top = (self.x, self.s), self.height + self.y
        middle = _cast(spot, top * 0.6, light)
        polygons = [
            np.array([(self.x - self.radius, self.s), (self.x + self.radius, self.s), middle])
        ]
        for share, aside, size in _CLUMPS:
            x, s = _cast(spot, top * share, light)
            radius = self.width * size
            polygons.append(_ellipse(x + aside * self.width, s, radius, radius))
        return polygons


@dataclass(frozen=True, eq=False)
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

    def foot(self) -> list[np.ndarray]:
        """Ground polygons [n, 2] of (x, s) that the thing stands on."""
        return [] if self.footprint is None else [self.footprint]

    def shadow(self, light: Light) -> list[np.ndarray]:
        """Ground polygons [n, 2] of (x, s) in the shadow."""
        if self.footprint is None:
            return []
        tips = np.stack(_cast(self.footprint.T, self.height, light), -1)
        hull = cv2.convexHull(np.concatenate([self.footprint, tips]).astype(np.float32))
        return [hull[:, 0]]


Thing = Board | Solid


@lru_cache(maxsize=4096)
def ground_polygons(thing: Thing, light: Light) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Cast shadow and foot of a thing; without sun there is only the foot."""
    return (thing.shadow(light) if light.sun >= 0.3 else []), thing.foot()


def _cast(foot: tuple, height: float, light: Light) -> tuple:
    """Where the shadow of a point `height` above `foot` falls; at most 3 heights away."""
    x, y, s = light.direction
    reach = min(height / max(y, 0.05), 3 * height)
    return foot[0] - x * reach, foot[1] - s * reach


def _ellipse(x: float, s: float, half_x: float, half_s: float) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 14)[:-1]
    return np.stack([x + half_x * np.cos(angle), s + half_s * np.sin(angle)], -1)


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cross product of [n, 3] arrays; numpy's own costs ten times more on small ones."""
    return a[:, [1, 2, 0]] * b[:, [2, 0, 1]] - a[:, [2, 0, 1]] * b[:, [1, 2, 0]]


def _posed(faces: tuple, yaw: float, light: Light) -> tuple:
    """Turn faces about the vertical and light them: textures, points, shades."""
    points = np.stack([corners for _, corners in faces])
    cosine, sine = np.cos(yaw), np.sin(yaw)
    turned = points.copy()
    turned[..., 0] = cosine * points[..., 0] + sine * points[..., 2]
    turned[..., 2] = cosine * points[..., 2] - sine * points[..., 0]
    normal = cross(turned[:, 1] - turned[:, 0], turned[:, 3] - turned[:, 0])
    normal /= np.sqrt((normal**2).sum(1, keepdims=True)) + 1e-9
    return tuple(texture for texture, _ in faces), turned, light.on_face(normal)


def solid(
    faces: tuple,
    x: float,
    s: float,
    yaw: float,
    size: tuple[float, float, float],
    label: int,
    light: Light,
    instance: int = 0,
    layer: int = 0,
) -> Solid:
    """Stand a body (faces about its middle) at (x, s); size is width, height, length."""
    textures, points, shades = _posed(faces, yaw, light)
    half = np.array([size[0], size[2]]) / 2
    corners = half * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
    return Solid(
        textures,
        points + np.array([x, 0.0, s]),
        shades,
        s,
        label,
        instance,
        layer,
        corners @ turn + (x, s),
        size[1],
    )
