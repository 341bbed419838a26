# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Surfaces that line a road: house fronts, gables, roofs, fences, walls."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from road_anomaly_ros.rendering.textures import (
    Texture,
    fractal_noise,
    grain,
    modulated,
    with_alpha,
)

PIXELS_PER_METRE = 26
VARIANTS = 36

_WALLS = (
    (150, 92, 72),
    (128, 78, 62),
    (196, 170, 128),
    (182, 176, 164),
    (214, 208, 196),
    (168, 132, 98),
    (116, 104, 96),
    (232, 226, 214),
    (172, 150, 120),
    (94, 84, 80),
)
_SHOPS = (
    (24, 52, 110),
    (120, 24, 28),
    (22, 70, 48),
    (40, 40, 44),
    (190, 150, 40),
    (90, 30, 80),
    (200, 196, 190),
    (20, 90, 130),
)
_DOORS = ((50, 60, 80), (90, 30, 28), (36, 60, 44), (70, 50, 36), (200, 200, 196))


def _masonry(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Wall surface uint8 [height, width, 3]: brick courses or render, with stains."""
    color = np.array(_WALLS[rng.integers(len(_WALLS))], np.float32)
    factor = 1 + 0.06 * fractal_noise(rng, height, width, 3, 4)
    if rng.random() < 0.6:
        factor += (
            0.07
            * grain(rng, -(-height // 2), -(-width // 5))
            .repeat(2, 0)
            .repeat(5, 1)[:height, :width]
        )
        factor[::3] *= 0.94
    factor += 0.03 * grain(rng, height, width)
    factor *= np.linspace(1.04, 0.9, height, dtype=np.float32)[:, None]
    return modulated(color, factor)


def _window(
    wall: np.ndarray,
    rng: np.random.Generator,
    box: tuple[int, int, int, int],
    frame: tuple[int, int, int],
    bars: tuple[int, int],
) -> None:
    """Draw a window with reveal, sill, panes and a reflection in `box` (x, y, w, h)."""
    x, y, w, h = box
    cv2.rectangle(wall, (x - 2, y - 2), (x + w + 1, y + h + 1), (60, 56, 52), -1)
    cv2.rectangle(wall, (x - 3, y + h + 1), (x + w + 3, y + h + 3), (188, 182, 172), -1)
    cv2.rectangle(wall, (x, y), (x + w, y + h), frame, -1)
    light = rng.uniform(0.5, 1.5)
    shine = np.linspace(88, 36, max(h - 3, 1)) * light
    glass = (
        shine[:, None, None]
        * np.array([0.92, 1.0, 1.1])
        * np.linspace(1.0, rng.uniform(0.7, 1.2), max(w - 3, 1))[None, :, None]
    )
    if rng.random() < 0.35:
        glass[: max(1, int(h * rng.uniform(0.2, 0.6)))] = rng.uniform(120, 190)
    wall[y + 2 : y + h - 1, x + 2 : x + w - 1] = np.clip(glass, 0, 255)
    for column in range(1, bars[0]):
        at = x + w * column // bars[0]
        cv2.line(wall, (at, y), (at, y + h), frame, 1)
    for row in range(1, bars[1]):
        at = y + h * row // bars[1]
        cv2.line(wall, (x, at), (x + w, at), frame, 1)


def _shop(wall: np.ndarray, rng: np.random.Generator, top: int) -> None:
    """Turn the ground floor into a shop front with a sign board and large panes."""
    height, width = wall.shape[:2]
    color = _SHOPS[rng.integers(len(_SHOPS))]
    wall[top:] = np.array(color) * 0.8
    wall[top : top + 16] = color
    ink = (235, 230, 215) if sum(color) < 380 else (30, 30, 40)
    for x in range(int(width * 0.25), int(width * 0.75), 9):
        cv2.rectangle(wall, (x, top + 4), (x + int(rng.integers(3, 7)), top + 11), ink, -1)
    pane = int(rng.integers(34, 60))
    for x in range(5, width - pane, pane + 5):
        _window(wall, rng, (x, top + 22, pane, height - top - 36), color, (1, 1))
    for _ in range(width // 12):
        x, y = int(rng.integers(8, width - 8)), int(rng.integers(top + 34, height - 18))
        goods = tuple(int(c) for c in rng.integers(30, 90) + rng.integers(0, 50, 3))
        cv2.rectangle(wall, (x, y), (x + 4, y + int(rng.integers(3, 9))), goods, -1)


@cache
def house_front(variant: int) -> Texture:
    """Front of a house, about 12 m wide; `variant` picks style, floors and colours."""
    rng = np.random.default_rng((11, variant))
    floors = int(rng.integers(2, 5))
    storey = int(2.9 * PIXELS_PER_METRE)
    height, width = floors * storey, int(rng.integers(8, 14)) * PIXELS_PER_METRE
    wall = _masonry(rng, height, width)
    frame = ((232, 230, 224), (70, 64, 60), (150, 140, 126))[rng.integers(3)]
    bars = (int(rng.integers(1, 4)), int(rng.integers(1, 3)))
    pitch = int(rng.uniform(1.9, 3.4) * PIXELS_PER_METRE)
    w, h = int(pitch * rng.uniform(0.4, 0.66)), int(storey * rng.uniform(0.48, 0.66))
    for floor in range(floors):
        y = floor * storey + (storey - h) // 2
        for x in range((pitch - w) // 2 + 3, width - w - 3, pitch):
            _window(wall, rng, (x, y, w, h), frame, bars)
    if rng.random() < 0.5:
        for floor in range(1, floors):
            cv2.line(wall, (0, floor * storey), (width, floor * storey), (200, 194, 182), 3)
    if rng.random() < 0.5:
        _shop(wall, rng, height - storey)
    else:
        _door(wall, rng, height)
    cv2.rectangle(wall, (0, 0), (width, 5), (72, 66, 60), -1)
    x = int(rng.integers(4, width - 4))
    cv2.line(wall, (x, 0), (x, height), (60, 58, 58), 2)
    return Texture(wall)


def _door(wall: np.ndarray, rng: np.random.Generator, height: int) -> None:
    """Draw a front door with its surround."""
    w, h = int(1.0 * PIXELS_PER_METRE), int(2.1 * PIXELS_PER_METRE)
    x = int(rng.integers(4, wall.shape[1] - w - 4))
    cv2.rectangle(wall, (x - 4, height - h - 8), (x + w + 4, height), (206, 200, 190), -1)
    cv2.rectangle(wall, (x, height - h), (x + w, height), _DOORS[rng.integers(len(_DOORS))], -1)
    cv2.rectangle(wall, (x + 5, height - h + 5), (x + w - 5, height - h // 2), (52, 54, 60), -1)


@cache
def gable(variant: int) -> Texture:
    """Side wall of a house without windows, in the masonry of the same variant."""
    rng = np.random.default_rng((11, variant))
    floors = int(rng.integers(2, 5))
    height = floors * int(2.9 * PIXELS_PER_METRE)
    rng.integers(8, 14)
    return Texture(_masonry(rng, height, 8 * PIXELS_PER_METRE))


def storeys(variant: int) -> int:
    """Number of floors of a house variant."""
    return round(house_front(variant).height / int(2.9 * PIXELS_PER_METRE))


@cache
def roof(variant: int) -> Texture:
    """Tiled or slated roof, 12 m by 4 m."""
    rng = np.random.default_rng((12, variant))
    color = ((112, 66, 52), (84, 82, 86), (66, 64, 66), (130, 84, 62))[variant % 4]
    height, width = 64, 192
    factor = 1 + 0.1 * fractal_noise(rng, height, width, 3, 4) + 0.08 * grain(rng, height, width)
    factor[::5] *= 0.78
    return Texture(modulated(color, factor))


def is_wall(variant: int) -> bool:
    """Tell whether a variant of `fence` is the low brick wall."""
    return variant % 4 == 2


@cache
def fence(variant: int) -> Texture:
    """Eight metres of fence: iron railings, boards, low brick wall, guard rail, in turn."""
    rng = np.random.default_rng((13, variant))
    kind, height, width = variant % 4, 48, 256
    shade = 1 + 0.1 * fractal_noise(rng, height, width, 4, 4)
    alpha = np.zeros((height, width), np.uint8)
    if kind == 0:
        color = modulated((46, 50, 50), shade)
        alpha[:, ::6] = alpha[:, 1::6] = 255
        alpha[3:7] = alpha[40:44] = 255
    elif kind == 1:
        shade[:, ::8] *= 0.5
        color = modulated(
            ((134, 104, 72), (150, 140, 126))[variant // 4 % 2],
            shade + 0.08 * grain(rng, 1, width // 8).repeat(8, 1),
        )
        alpha[2:] = 255
    elif is_wall(kind):
        shade += 0.1 * grain(rng, height // 3, width // 8).repeat(3, 0).repeat(8, 1)
        shade[::6] *= 0.8
        color = modulated(((146, 92, 74), (166, 156, 140))[variant // 4 % 2], shade)
        alpha[:] = 255
    else:
        profile = 1 + 0.35 * np.sin(np.linspace(0, 9.4, height, dtype=np.float32))
        color = modulated((158, 160, 162), shade * profile[:, None])
        alpha[4:28] = 255
        alpha[:, ::64] = alpha[:, 1::64] = alpha[:, 2::64] = alpha[:, 3::64] = 255
    return Texture(with_alpha(color, alpha))
