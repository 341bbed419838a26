# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Cars and vans: a few textured faces per vehicle, in their own coordinates."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from road_anomaly_ros.rendering.textures import Texture, with_alpha

PAINTS = (
    (150, 154, 160),
    (40, 44, 50),
    (190, 194, 198),
    (110, 22, 26),
    (28, 52, 104),
    (88, 92, 96),
    (24, 66, 50),
    (220, 220, 216),
    (62, 78, 110),
    (160, 140, 96),
)
SHAPES = 4
Face = tuple[Texture, np.ndarray]
# length, width, sill, belt, height, then nose, windscreen foot, roof start, roof end, tail top
_FORMS = (
    (4.1, 1.72, 0.28, 0.92, 1.45, 0.95, 1.75, 3.55),
    (4.5, 1.8, 0.28, 0.95, 1.42, 1.2, 2.0, 3.3),
    (4.4, 1.78, 0.34, 1.0, 1.68, 1.0, 1.7, 4.2),
    (5.2, 1.95, 0.34, 1.15, 2.1, 0.6, 1.3, 5.1),
)
# radius and colour, from the tyre inwards
_WHEEL = ((0.38, (20, 20, 22)), (0.31, (30, 30, 32)), (0.2, (140, 142, 146)), (0.07, (70, 70, 74)))


def _shaded(color: np.ndarray, height: int, width: int, top: float, bottom: float) -> np.ndarray:
    """Paint with a vertical run of brightness, uint8 [height, width, 3]."""
    run = np.linspace(top, bottom, height)[:, None, None]
    return np.clip(np.tile(color * run, (1, width, 1)), 0, 255).astype(np.uint8)


def _end(paint: np.ndarray, rear: bool) -> Texture:
    """Lower half of a car seen from behind or from the front."""
    h, w = 64, 160
    picture = _shaded(paint, h, w, 1.1, 0.62)
    cv2.rectangle(picture, (0, 40), (w, 52), tuple(int(c * 0.75) for c in paint), -1)
    cv2.rectangle(picture, (6, 53), (w - 7, h), (34, 34, 36), -1)
    lamp = (168, 20, 18) if rear else (226, 228, 224)
    for x in (5, w - 32):
        cv2.rectangle(picture, (x, 9), (x + 26, 24), (50, 46, 46), -1)
        cv2.rectangle(picture, (x + 1, 10), (x + 25, 23), lamp, -1)
        glint = tuple(min(255, c + 60) for c in lamp)
        cv2.rectangle(picture, (x + 3, 12), (x + 12, 16), glint, -1)
    if not rear:
        cv2.rectangle(picture, (46, 10), (w - 46, 22), (30, 32, 34), -1)
    plate = (206, 176, 60) if rear else (216, 216, 210)
    cv2.rectangle(picture, (w // 2 - 22, 29), (w // 2 + 22, 39), plate, -1)
    for x in range(w // 2 - 18, w // 2 + 16, 6):
        cv2.rectangle(picture, (x, 31), (x + 3, 36), (40, 40, 40), -1)
    alpha = np.full((h, w), 255, np.uint8)
    for x in (8, w - 30):
        cv2.rectangle(picture, (x, 50), (x + 22, h), (18, 18, 20), -1)
    alpha[56:, 32 : w - 32] = 0
    for corner, flip in (((0, 0), 1), ((w - 1, 0), -1)):
        cv2.fillConvexPoly(alpha, np.array([corner, (corner[0] + 7 * flip, 0), (corner[0], 9)]), 0)
    return Texture(with_alpha(picture, alpha))


def _glass(paint: np.ndarray, border: int) -> Texture:
    """Slanted pane with pillars of the car's paint, and the sky in it."""
    h, w = 40, 128
    picture = _shaded(paint, h, w, 1.15, 0.9)
    pane = np.linspace(150, 42, h - 7)[:, None, None] * np.array([0.82, 0.94, 1.0])
    picture[4 : h - 3, border : w - border] = pane.astype(np.uint8)
    for x in (w // 3, 2 * w // 3):
        cv2.rectangle(picture, (x - 7, 14), (x + 7, h - 8), (36, 38, 42), -1)
    return Texture(picture)


def _side(form: tuple[float, ...], paint: np.ndarray) -> np.ndarray:
    """Whole side of a vehicle with windows and wheels, nose to the right, uint8 [h, w, 4]."""
    length, _, sill, belt, height, nose, screen, tail = form
    scale = 48
    h, w = int(height * scale), int(length * scale)

    def at(x: float, y: float) -> tuple[int, int]:
        return int((length - x) * scale * 16), int((height - y) * scale * 16)

    def fill(target: np.ndarray, points: list[tuple[float, float]], color: object) -> None:
        cv2.fillPoly(target, [np.array([at(*p) for p in points], np.int32)], color, cv2.LINE_AA, 4)

    def post(left: float, low: float, high: float, wide: float, dim: float) -> None:
        color = tuple(int(c * dim) for c in paint)
        right = left + wide
        fill(picture, [(left, low), (left, high), (right, high), (right, low)], color)

    picture, alpha = _shaded(paint, h, w, 1.2, 0.55), np.zeros((h, w), np.uint8)
    ridge = int((height - belt + 0.12) * scale)
    cv2.line(picture, (0, ridge), (w, ridge), tuple(int(c * 1.15) for c in paint), 2)
    window = [(nose + 0.22, belt + 0.03), (screen + 0.08, height - 0.1)]
    window += [(tail - 0.1, height - 0.1), (length - 0.45, belt + 0.06)]
    fill(picture, window, (46, 54, 62))
    for x in np.linspace(nose, tail, 4)[1:3]:
        post(x, belt, height, 0.09, 0.9)
        post(x, sill, belt, 0.03, 0.6)
    outline = [(0.04, sill), (0.0, 0.62), (0.12, belt - 0.18), (nose, belt), (screen, height)]
    outline += [(tail, height), (length - 0.1, belt + 0.05), (length, 0.6), (length - 0.05, sill)]
    fill(alpha, outline, 255)
    for x in (0.82, length - 0.8):
        for radius, color in _WHEEL:
            cv2.circle(picture, at(x, 0.32), int(radius * scale * 16), color, -1, cv2.LINE_AA, 4)
        cv2.circle(alpha, at(x, 0.32), int(0.32 * scale * 16), 255, -1, cv2.LINE_AA, 4)
    return with_alpha(picture, alpha)


@lru_cache(maxsize=64)
def vehicle(shape: int, paint: int) -> tuple[Face, ...]:
    """Faces (texture, corners [4, 3]) of a vehicle: x right, y up, s forward from its middle.

    Corners run top left, top right, bottom right, bottom left as seen from outside.
    """
    form = _FORMS[shape % SHAPES]
    length, width, _, belt, height, nose, screen, tail = form
    color = np.array(PAINTS[paint % len(PAINTS)], float)
    half, top, mid = width / 2, width / 2 - 0.2, length / 2
    low = 0.02

    def across(texture: Texture, upper: tuple[float, ...], lower: tuple[float, ...]) -> Face:
        """Face from edge to edge, each its right end (x, y, s); x < 0 is seen from the front."""
        (x1, y1, s1), (x2, y2, s2) = upper, lower
        return texture, np.array([(-x1, y1, s1), (x1, y1, s1), (x2, y2, s2), (-x2, y2, s2)])

    side = _side(form, color)
    right, left = Texture(side), Texture(np.ascontiguousarray(side[:, ::-1]))
    flank = np.array([(top, height), (half, low)])[[0, 0, 1, 1]]
    edges = np.column_stack([flank, np.array([-mid, mid, mid, -mid])])
    pane, bonnet = _glass(color, 8), Texture(_shaded(color, 16, 32, 1.2, 1.05))
    return (
        across(bonnet, (top, height, mid - screen), (top, height, mid - tail)),
        across(bonnet, (half, belt - 0.18, mid - 0.05), (half, belt, mid - nose)),
        (right, edges),
        (left, edges[[1, 0, 3, 2]] * (-1, 1, 1)),
        across(pane, (top, height, mid - tail), (half, belt, mid - (length - 0.1))),
        across(pane, (-top, height, mid - screen), (-half, belt, mid - nose)),
        across(_end(color, True), (half, belt + 0.04, -mid), (half, low, -mid)),
        across(_end(color, False), (-half, belt - 0.1, mid), (-half, low, mid)),
    )


def size(shape: int) -> tuple[float, float, float]:
    """Length, width and height of a shape in metres."""
    form = _FORMS[shape % SHAPES]
    return form[0], form[1], form[4]
