# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Puts the things of the world on the canvas: all geometry of a frame in a few array steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np

from road_anomaly_ros.rendering.camera import Camera
from road_anomaly_ros.rendering.canvas import Canvas, surface_code
from road_anomaly_ros.rendering.style import Light
from road_anomaly_ros.rendering.things import Board, Solid, Thing, cross, ground_polygons

_NEAR = 0.6
_Job = tuple[tuple[float, float, float], Callable[[], None]]


def paint_things(things: Sequence[Thing], canvas: Canvas, camera: Camera) -> None:
    """Paint boards and solids from the outer layers inwards, far ones first."""
    jobs = list(_board_jobs([t for t in things if isinstance(t, Board)], canvas, camera))
    jobs += _solid_jobs([t for t in things if isinstance(t, Solid)], canvas, camera)
    for _, paint in sorted(jobs, key=lambda job: job[0]):
        paint()


def _board_jobs(boards: list[Board], canvas: Canvas, camera: Camera) -> Iterator[_Job]:
    """Boards in view with their painting order."""
    if not boards:
        return
    spots = np.array([((b.x, b.y + b.height, b.s), (b.x, b.y, b.s)) for b in boards])
    points = camera.to_camera(spots)
    points[..., 2] = np.maximum(points[..., 2], 1e-3)
    pixels = camera.to_pixels(points)
    middle = pixels[..., 0].mean(1)
    half = np.array([b.width for b in boards]) / 2 * camera.focal / points[..., 2].mean(1)
    seen = (
        (points[..., 2].min(1) > _NEAR)
        & (middle + half > 0)
        & (middle - half < canvas.width)
        & (half > 0.3)
        & (pixels[:, 1, 1] - pixels[:, 0, 1] > 2.0)
    )
    rows = np.arange(canvas.height)
    for i in np.flatnonzero(seen):
        board = boards[i]
        low = np.array([middle[i] - half[i], pixels[i, 0, 1]])
        high = np.array([middle[i] + half[i], pixels[i, 1, 1]])
        yield (
            (-board.layer, -board.s, 0.0),
            lambda board=board, low=low, high=high: canvas.board(
                board.texture,
                low,
                high,
                camera.upright_depth(board.s - camera.station, rows),
                surface_code(board.label, board.instance),
                board.shade,
                None
                if board.part_label is None
                else surface_code(board.part_label, board.instance),
            ),
        )


def _solid_jobs(solids: list[Solid], canvas: Canvas, camera: Camera) -> Iterator[_Job]:
    """Visible faces of the solids with their painting order."""
    if not solids:
        return
    owner = np.repeat(np.arange(len(solids)), [len(s.textures) for s in solids])
    textures = [texture for s in solids for texture in s.textures]
    shades = np.concatenate([s.shades for s in solids])
    points = camera.to_camera(np.concatenate([s.points for s in solids]))
    points, begin, end, alive = _cut_near(points)
    planes, facing = _planes(points, camera)
    pixels = camera.to_pixels(points)
    width, height = _extents(pixels)
    low, high = pixels.min(1), pixels.max(1)
    seen = (
        alive
        & facing
        & (high > 0).all(1)
        & (low[:, 0] < canvas.width)
        & (low[:, 1] < canvas.height)
        & (width > 0.7)
        & (height > 0.7)
        & (width * height > 5)
    )
    for i in np.flatnonzero(seen):
        thing = solids[owner[i]]
        yield (
            (-thing.layer, -thing.s, -float(points[i, :, 2].mean())),
            lambda i=i, thing=thing: canvas.quad(
                textures[i],
                pixels[i],
                (width[i], height[i]),
                planes[i],
                surface_code(thing.label, thing.instance),
                float(shades[i]),
                (begin[i], end[i]),
            ),
        )


def _cut_near(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Cut faces [n, 4, 3] at the near plane along their width: points, begin, end, alive."""
    left, right = points[:, [0, 3], 2].min(1), points[:, [1, 2], 2].min(1)
    alive = np.maximum(left, right) > _NEAR
    span = np.where(np.abs(right - left) < 1e-9, 1e-9, right - left)
    crossing = (_NEAR - left) / span
    begin = np.where(alive & (left < _NEAR), crossing, 0.0)
    end = np.where(alive & (right < _NEAR), crossing, 1.0)
    top, bottom = points[:, 1] - points[:, 0], points[:, 2] - points[:, 3]
    cut = np.stack(
        [
            points[:, 0] + begin[:, None] * top,
            points[:, 0] + end[:, None] * top,
            points[:, 3] + end[:, None] * bottom,
            points[:, 3] + begin[:, None] * bottom,
        ],
        1,
    )
    cut[..., 2] = np.maximum(cut[..., 2], _NEAR * 0.99)
    return cut, begin, end, alive


def _planes(points: np.ndarray, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Planes of faces as 1/Z = a u + b v + c [n, 3], and which faces look at the camera [n]."""
    normal = cross(points[:, 1] - points[:, 0], points[:, 3] - points[:, 0])
    offset = (normal * points[:, 0]).sum(1)
    facing = offset > 1e-9
    normal /= np.where(facing, offset, 1.0)[:, None]
    u, v = camera.center
    along_u, along_v = normal[:, 0] / camera.focal, normal[:, 1] / camera.focal
    planes = np.stack([along_u, along_v, normal[:, 2] - along_u * u - along_v * v], 1)
    return planes.astype(np.float32), facing


def _extents(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean width and height in pixels of faces [n, 4, 2]."""
    edges = np.linalg.norm(np.roll(pixels, -1, 1) - pixels, axis=2)
    return (edges[:, 0] + edges[:, 2]) / 2, (edges[:, 1] + edges[:, 3]) / 2


def paint_shadows(
    things: Sequence[Thing], canvas: Canvas, camera: Camera, light: Light, reach: float
) -> np.ndarray:
    """Brightness of the ground under shadows, uint8 [H, W], 255 = lit."""
    shade = np.full((canvas.height, canvas.width), 255, np.uint8)
    near = [ground_polygons(t, light) for t in things if t.s - camera.station < reach]
    cast = [polygon for shadow, _ in near for polygon in shadow]
    feet = [polygon for _, foot in near for polygon in foot]
    soft = max(1, canvas.width // 100) | 1
    _fill(shade, cast, camera, light.shadow)
    shade = cv2.blur(shade, (max(3, soft // 2 | 1), 3))
    _fill(shade, feet, camera, light.contact)
    return cv2.blur(shade, (soft, max(3, soft // 2 | 1)))


def _fill(shade: np.ndarray, polygons: list[np.ndarray], camera: Camera, value: int) -> None:
    """Fill ground polygons [n, 2] of (x, s), held in front of the camera."""
    if not polygons:
        return
    spots = np.concatenate(polygons)
    ahead = np.maximum(spots[:, 1], camera.station + 1.5)
    pixels = camera.project(np.column_stack([spots[:, 0], np.zeros(len(spots)), ahead]))
    limit = 4 * max(shade.shape)
    pixels = (np.clip(pixels, -limit, limit) * 16).astype(np.int32)
    starts = np.cumsum([0] + [len(polygon) for polygon in polygons[:-1]])
    low, high = np.minimum.reduceat(pixels, starts), np.maximum.reduceat(pixels, starts)
    inside = (
        (high > 0).all(1)
        & (low[:, 0] < 16 * shade.shape[1])
        & (low[:, 1] < 16 * shade.shape[0])
        & (high[:, 1] - low[:, 1] > 4)
    )
    for i in np.flatnonzero(inside):
        cv2.fillConvexPoly(
            shade, pixels[starts[i] : starts[i] + len(polygons[i])], value, cv2.LINE_8, 4
        )
