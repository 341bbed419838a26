# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Cars and vans: a few textured faces per vehicle, in their own coordinates."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from road_anomaly_ros.tools.rendering.textures import Texture, with_alpha

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

    outline = [
        (0.04, sill),
        (0.0, 0.62),
        (0.12, belt - 0.18),
        (nose, belt),
        (screen, height),
        (tail, height),
        (length - 0.1, belt + 0.05),
        (length, 0.6),
        (length - 0.05, sill),
    ]
    picture = _shaded(paint, h, w, 1.2, 0.55)
    cv2.line(
        picture,
        (0, int((height - belt + 0.12) * scale)),
        (w, int((height - belt + 0.12) * scale)),
        tuple(int(c * 1.15) for c in paint),
        2,
    )
    fill(
        picture,
        [
            (nose + 0.22, belt + 0.03),
            (screen + 0.08, height - 0.1),
            (tail - 0.1, height - 0.1),
            (length - 0.45, belt + 0.06),
        ],
        (46, 54, 62),
    )
    for x in np.linspace(nose, tail, 4)[1:3]:
        fill(
            picture,
            [(x, belt), (x, height), (x + 0.09, height), (x + 0.09, belt)],
            tuple(int(c * 0.9) for c in paint),
        )
        fill(
            picture,
            [(x, sill), (x, belt), (x + 0.03, belt), (x + 0.03, sill)],
            tuple(int(c * 0.6) for c in paint),
        )
    alpha = np.zeros((h, w), np.uint8)
    fill(alpha, outline, 255)
    for x in (0.82, length - 0.8):
        center = at(x, 0.32)
        for radius, color in (
            (0.38, (20, 20, 22)),
            (0.31, (30, 30, 32)),
            (0.2, (140, 142, 146)),
            (0.07, (70, 70, 74)),
        ):
            cv2.circle(picture, center, int(radius * scale * 16), color, -1, cv2.LINE_AA, 4)
        cv2.circle(alpha, center, int(0.32 * scale * 16), 255, -1, cv2.LINE_AA, 4)
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

    def face(texture: Texture, *corners: tuple[float, float, float]) -> Face:
        return texture, np.array(corners)

    side = _side(form, color)
    right, left = Texture(side), Texture(np.ascontiguousarray(side[:, ::-1]))
    back, front = _end(color, True), _end(color, False)
    pane, bonnet = _glass(color, 8), Texture(_shaded(color, 16, 32, 1.2, 1.05))
    lid = length - 0.1
    return (
        face(
            bonnet,
            (-top, height, mid - screen),
            (top, height, mid - screen),
            (top, height, mid - tail),
            (-top, height, mid - tail),
        ),
        face(
            bonnet,
            (-half, belt - 0.18, mid - 0.05),
            (half, belt - 0.18, mid - 0.05),
            (half, belt, mid - nose),
            (-half, belt, mid - nose),
        ),
        face(right, (top, height, -mid), (top, height, mid), (half, low, mid), (half, low, -mid)),
        face(
            left, (-top, height, mid), (-top, height, -mid), (-half, low, -mid), (-half, low, mid)
        ),
        face(
            pane,
            (-top, height, mid - tail),
            (top, height, mid - tail),
            (half, belt, mid - lid),
            (-half, belt, mid - lid),
        ),
        face(
            pane,
            (top, height, mid - screen),
            (-top, height, mid - screen),
            (-half, belt, mid - nose),
            (half, belt, mid - nose),
        ),
        face(
            back,
            (-half, belt + 0.04, -mid),
            (half, belt + 0.04, -mid),
            (half, low, -mid),
            (-half, low, -mid),
        ),
        face(
            front,
            (half, belt - 0.1, mid),
            (-half, belt - 0.1, mid),
            (-half, low, mid),
            (half, low, mid),
        ),
    )


def size(shape: int) -> tuple[float, float, float]:
    """Length, width and height of a shape in metres."""
    form = _FORMS[shape % SHAPES]
    return form[0], form[1], form[4]
