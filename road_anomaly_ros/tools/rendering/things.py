# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Things in the world: upright pictures and solids made of faces, and how they are painted."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from road_anomaly_ros.tools.rendering.camera import Camera
from road_anomaly_ros.tools.rendering.canvas import Canvas, surface_code
from road_anomaly_ros.tools.rendering.style import Light
from road_anomaly_ros.tools.rendering.textures import Texture

NEAR = 0.6


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

    def paint(self, canvas: Canvas, camera: Camera, light: Light) -> None:
        """Draw as an upright rectangle."""
        ahead = self.s - camera.station
        if ahead < NEAR:
            return
        foot = camera.to_camera(np.array([[self.x, self.y, self.s],
                                          [self.x, self.y + self.height, self.s]]))
        pixels = camera.to_pixels(foot)
        half = self.width / 2 * camera.focal / foot[:, 2].mean()
        middle = pixels[:, 0].mean()
        if middle + half < 0 or middle - half > canvas.width:
            return
        depth = camera.upright_depth(ahead, np.arange(canvas.height))
        canvas.board(self.texture, np.array([middle - half, pixels[1, 1]]) + 0.0,
                     np.array([middle + half, pixels[0, 1]]), depth,
                     surface_code(self.label, self.instance), self.shade)

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

    def paint(self, canvas: Canvas, camera: Camera, light: Light) -> None:
        """Draw the faces turned to the camera, far ones first."""
        points = camera.to_camera(self.points)
        depth = points[..., 2]
        if depth.max() < NEAR:
            return
        side = np.cross(points[:, 1] - points[:, 0], points[:, 3] - points[:, 0])
        facing = (side * points[:, 0]).sum(-1) > 0
        order = np.argsort(-depth.mean(1))
        code = surface_code(self.label, self.instance)
        for face in order[facing[order]]:
            self._paint_face(canvas, camera, points[face], int(face), code)

    def _paint_face(self, canvas: Canvas, camera: Camera, points: np.ndarray, face: int,
                    code: int) -> None:
        """Cut one face at the near plane along its width and paint it."""
        begin, end = 0.0, 1.0
        left, right = points[[0, 3], 2].min(), points[[1, 2], 2].min()
        if max(left, right) < NEAR:
            return
        if left < NEAR:
            begin = (NEAR - left) / (right - left)
        elif right < NEAR:
            end = (NEAR - left) / (right - left)
        if begin or end < 1.0:
            top, low = points[1] - points[0], points[2] - points[3]
            points = np.stack([points[0] + begin * top, points[0] + end * top,
                               points[3] + end * low, points[3] + begin * low])
            points[:, 2] = np.maximum(points[:, 2], NEAR * 0.99)
        pixels = camera.to_pixels(points)
        if (pixels[:, 0].max() < 0 or pixels[:, 0].min() > canvas.width
                or pixels[:, 1].max() < 0 or pixels[:, 1].min() > canvas.height):
            return
        canvas.quad(self.textures[face], pixels, 1.0 / points[:, 2], code,
                    float(self.shades[face]), (begin, end))

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


def paint_shadows(things: list[Thing], canvas: Canvas, camera: Camera, light: Light,
                  reach: float) -> np.ndarray:
    """Brightness of the ground under shadows, uint8 [H, W], 255 = lit."""
    shade = np.full((canvas.height, canvas.width), 255, np.uint8)
    dark = int(255 * (light.ambient / (light.ambient + light.sun * light.direction[1])))
    for thing in things:
        if thing.s - camera.station > reach:
            continue
        for polygon in thing.shadow(light):
            _fill(shade, polygon, camera, max(dark, 90) if light.sun > 0.3 else 200)
    return cv2.blur(shade, (5, 3))


def _fill(shade: np.ndarray, polygon: np.ndarray, camera: Camera, value: int) -> None:
    """Fill one ground polygon, cut at the near plane."""
    points = np.column_stack([polygon[:, 0], np.zeros(len(polygon)), polygon[:, 1]])
    points[:, 2] = np.maximum(points[:, 2], camera.station + 1.5)
    if np.ptp(points[:, 2]) < 0.05:
        return
    pixels = camera.project(points)
    limit = 4 * max(shade.shape)
    cv2.fillPoly(shade, [(np.clip(pixels, -limit, limit) * 16).astype(np.int32)], value,
                 cv2.LINE_8, 4)
