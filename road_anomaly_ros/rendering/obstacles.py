# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Things that no road model knows: boxes, blobs and piles to be put on the road."""

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

BOXES = ('crate', 'mattress', 'sofa', 'appliance', 'pallets')
BLOBS = ('boulder', 'barrel', 'tyres', 'animal', 'sacks', 'ball')
KINDS = BOXES + BLOBS
Face = tuple[Texture, np.ndarray]


def _ellipsoid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Light and coverage of a round body lit from the upper left, float32 [height, width]."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    inside = 1 - x * x - y * y
    depth = np.sqrt(np.clip(inside, 0, 1))
    return np.clip(0.45 - 0.4 * x - 0.5 * y + 0.35 * depth, 0.12, 1.3), inside


def _boulder(rng: np.random.Generator) -> np.ndarray:
    light, inside = _ellipsoid(96, 120)
    rough = fractal_noise(rng, 96, 120, 3, 5)
    light *= 1 + 0.3 * rough
    color = (np.array((150, 130, 112)) + rng.uniform(-25, 25, 3)) * (
        1 + 0.08 * grain(rng, 96, 120)
    )[..., None]
    inside = inside + 0.16 * rough
    inside[60:] += np.linspace(0, 0.8, 36)[:, None] * (np.abs(np.linspace(-1, 1, 120)) < 0.82)
    return with_alpha(modulated(color, light), np.clip(inside * 9, 0, 1))


def _barrel(rng: np.random.Generator) -> np.ndarray:
    x = np.linspace(-1, 1, 72, dtype=np.float32)
    light = np.tile(0.3 + 0.85 * np.sqrt(np.clip(1 - (x + 0.25) ** 2 / 1.6, 0, 1)), (100, 1))
    color = np.full((100, 72, 3), (232, 110, 24), np.float32)
    second = ((236, 232, 222), (30, 120, 190), (30, 30, 34))[rng.integers(3)]
    bow = (5 * np.sqrt(np.clip(1 - x * x, 0, 1))).astype(int)
    row = np.arange(100)[:, None] - bow[None]
    color[(row // 18) % 2 == 1] = second
    light[(row % 18) == 0] *= 0.7
    light += 0.03 * grain(rng, 100, 72)
    alpha = np.zeros((100, 72), np.uint8)
    cv2.rectangle(alpha, (1, 6), (70, 93), 255, -1)
    cv2.ellipse(alpha, (36, 7), (35, 6), 0, 0, 360, 255, -1)
    cv2.ellipse(alpha, (36, 93), (35, 6), 0, 0, 360, 255, -1)
    picture = modulated(color, light)
    cv2.ellipse(picture, (36, 7), (34, 5), 0, 0, 360, (168, 84, 30), -1, cv2.LINE_AA)
    return with_alpha(picture, alpha)


def _tyres(rng: np.random.Generator) -> np.ndarray:
    picture = np.full((110, 130, 3), 28, np.uint8)
    alpha = np.zeros((110, 130), np.uint8)
    stack = [(33, 92), (97, 93), (34, 70), (98, 71), (64, 50), (66, 29)]
    for x, y in stack:
        x, y = x + int(rng.integers(-4, 5)), y + int(rng.integers(-2, 3))
        for grow, tone in ((0, 20), (-3, 58), (-7, 34)):
            cv2.ellipse(
                picture,
                (x, y),
                (31 + grow, 15 + grow // 2),
                0,
                0,
                360,
                (tone, tone, tone + 4),
                -1,
                cv2.LINE_AA,
            )
        cv2.ellipse(picture, (x, y - 3), (15, 6), 0, 0, 360, (12, 12, 14), -1, cv2.LINE_AA)
        cv2.ellipse(picture, (x, y + 1), (29, 13), 0, 20, 120, (190, 60, 40), 2, cv2.LINE_AA)
        cv2.ellipse(alpha, (x, y), (31, 15), 0, 0, 360, 255, -1, cv2.LINE_AA)
    noise = 1 + 0.15 * grain(rng, 110, 130, 0.7)
    return with_alpha(modulated(picture.astype(np.float32), noise), alpha)


def _animal(rng: np.random.Generator) -> np.ndarray:
    alpha = np.zeros((100, 140), np.uint8)
    for x in (34, 48, 92, 106):
        cv2.line(alpha, (x, 55), (x + int(rng.integers(-4, 5)), 98), 255, 9, cv2.LINE_AA)
    cv2.ellipse(alpha, (70, 48), (48, 22), -3, 0, 360, 255, -1, cv2.LINE_AA)
    cv2.line(alpha, (108, 44), (122, 20), 255, 17, cv2.LINE_AA)
    cv2.ellipse(alpha, (125, 18), (13, 9), 25, 0, 360, 255, -1, cv2.LINE_AA)
    cv2.line(alpha, (118, 12), (114, 2), 255, 4, cv2.LINE_AA)
    cv2.line(alpha, (24, 42), (10, 60), 255, 4, cv2.LINE_AA)
    light = np.tile(np.linspace(1.25, 0.45, 100, dtype=np.float32)[:, None], (1, 140))
    light *= 1 + 0.12 * grain(rng, 100, 140, 0.8)
    patches = fractal_noise(rng, 100, 140, 5, 2) > 0.3
    pair = (
        ((214, 196, 166), (92, 58, 34)),
        ((60, 54, 50), (216, 212, 204)),
        ((196, 140, 70), (240, 226, 196)),
    )[rng.integers(3)]
    color = np.where(patches[..., None], np.array(pair[1]), np.array(pair[0])).astype(np.float32)
    return with_alpha(modulated(color, light), alpha)


def _sacks(rng: np.random.Generator) -> np.ndarray:
    picture = np.zeros((80, 140, 3), np.uint8)
    alpha = np.zeros((80, 140), np.uint8)
    for x, y in ((34, 56), (104, 57), (70, 34)):
        light, inside = _ellipsoid(46, 68)
        color = np.array(((206, 60, 140), (70, 190, 180), (216, 200, 70))[rng.integers(3)])
        sack = modulated(color.astype(np.float32), light + 0.1 * fractal_noise(rng, 46, 68, 5, 3))
        part = np.clip(inside * 12, 0, 1) > 0.5
        picture[y - 23 : y + 23, x - 34 : x + 34][part] = sack[part]
        alpha[y - 23 : y + 23, x - 34 : x + 34][part] = 255
    return with_alpha(picture, cv2.GaussianBlur(alpha, (3, 3), 0))


def _ball(rng: np.random.Generator) -> np.ndarray:
    light, inside = _ellipsoid(96, 96)
    y, x = np.mgrid[-1:1:96j, -1:1:96j]
    wave = np.sin(9 * (x + 0.4 * y) / np.sqrt(np.clip(1.25 - x * x - y * y, 0.1, 2)))
    colors = np.array(((226, 214, 60), (180, 40, 150)), np.float32)
    return with_alpha(modulated(colors[(wave > 0).astype(int)], light), np.clip(inside * 24, 0, 1))


_DRAW = {
    'boulder': (_boulder, 1.3, 1.0),
    'barrel': (_barrel, 0.78, 1.1),
    'tyres': (_tyres, 1.35, 1.15),
    'animal': (_animal, 1.5, 1.05),
    'sacks': (_sacks, 1.5, 0.85),
    'ball': (_ball, 1.0, 1.0),
}


@cache
def blob(kind: str, variant: int) -> tuple[Texture, float, float]:
    """Picture of a round thing with its width and height in metres."""
    draw, width, height = _DRAW[kind]
    rng = np.random.default_rng((41, KINDS.index(kind), variant))
    return Texture(draw(rng)), width, height


def _boards(rng: np.random.Generator) -> Texture:
    light = 1 + 0.1 * fractal_noise(rng, 64, 64, 3, 3) + 0.06 * grain(rng, 64, 1)
    light[::13] *= 0.45
    picture = modulated((186, 140, 84), light)
    for box in ((0, 0, 63, 6), (0, 57, 63, 63), (0, 0, 6, 63), (57, 0, 63, 63)):
        cv2.rectangle(picture, box[:2], box[2:], (150, 106, 60), -1)
    cv2.line(picture, (4, 60), (60, 4), (160, 116, 68), 6)
    return Texture(picture)


def _quilt(rng: np.random.Generator) -> Texture:
    y, x = np.mgrid[0:64, 0:128].astype(np.float32)
    light = 0.9 + 0.12 * np.sin(x * 0.39) * np.sin(y * 0.39) + 0.04 * fractal_noise(rng, 64, 128)
    color = np.array(((206, 196, 222), (236, 214, 160), (160, 200, 224))[rng.integers(3)])
    picture = modulated(color.astype(np.float32), light)
    picture[:4], picture[-4:] = (90, 110, 170), (90, 110, 170)
    return Texture(picture)


def _cloth(rng: np.random.Generator) -> Texture:
    color = ((150, 40, 70), (40, 120, 110), (196, 130, 40))[rng.integers(3)]
    light = 0.95 + 0.08 * fractal_noise(rng, 48, 96, 3, 4) + 0.05 * grain(rng, 48, 96)
    light[:, 46:50] *= 0.55
    light[:4] *= 1.2
    return Texture(modulated(color, light))


def _enamel(rng: np.random.Generator) -> Texture:
    picture = modulated((226, 228, 230), np.tile(np.linspace(1.05, 0.85, 96)[:, None], (1, 72)))
    cv2.circle(picture, (36, 56), 22, (150, 154, 160), -1, cv2.LINE_AA)
    cv2.circle(picture, (36, 56), 16, (40, 48, 60), -1, cv2.LINE_AA)
    cv2.rectangle(picture, (6, 6), (66, 20), (190, 194, 200), -1)
    cv2.circle(picture, (56, 13), 4, (60, 60, 70), -1, cv2.LINE_AA)
    return Texture(picture)


def _slats(rng: np.random.Generator) -> Texture:
    light = np.ones((64, 96), np.float32) + 0.12 * grain(rng, 64, 96, 1.5)
    for y in range(0, 64, 16):
        light[y + 8 : y + 15] *= 0.25
        light[y + 8 : y + 15, ::32] *= 3.2
    return Texture(modulated(((96, 150, 200), (202, 160, 96))[rng.integers(2)], light))


def box(
    texture: Texture,
    width: float,
    height: float,
    length: float,
    at: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> tuple[Face, ...]:
    """Five faces of a box standing on y = at[1], its middle at (at[0], at[2])."""
    x0, x1 = at[0] - width / 2, at[0] + width / 2
    y0, y1 = at[1], at[1] + height
    s0, s1 = at[2] - length / 2, at[2] + length / 2
    corners = (
        ((x1, y1, s1), (x0, y1, s1), (x0, y0, s1), (x1, y0, s1)),
        ((x0, y1, s1), (x0, y1, s0), (x0, y0, s0), (x0, y0, s1)),
        ((x1, y1, s0), (x1, y1, s1), (x1, y0, s1), (x1, y0, s0)),
        ((x0, y1, s1), (x1, y1, s1), (x1, y1, s0), (x0, y1, s0)),
        ((x0, y1, s0), (x1, y1, s0), (x1, y0, s0), (x0, y0, s0)),
    )
    return tuple((texture, np.array(face)) for face in corners)


@cache
def boxes(kind: str, variant: int) -> tuple[tuple[Face, ...], tuple[float, float, float]]:
    """Faces of an angular thing and its width, height and length in metres."""
    rng = np.random.default_rng((42, KINDS.index(kind), variant))
    if kind == 'crate':
        size = (1.1, 1.0, 1.0)
        return box(_boards(rng), *size), size
    if kind == 'mattress':
        size = (1.9, 0.75, 0.5)
        cover = _quilt(rng)
        return box(cover, 1.9, 0.3, 0.9) + box(cover, 1.9, 0.5, 0.25, (0.0, 0.28, 0.3)), size
    if kind == 'sofa':
        cover = _cloth(rng)
        parts = (
            ((1.7, 0.85, 0.25), (0, 0, 0.35)),
            ((0.25, 0.6, 0.9), (-0.85, 0, 0)),
            ((0.25, 0.6, 0.9), (0.85, 0, 0)),
            ((1.45, 0.42, 0.65), (0, 0, -0.1)),
        )
        faces: tuple[Face, ...] = ()
        for size, at in parts:
            faces += box(cover, *size, at)
        return faces, (1.95, 0.85, 0.95)
    if kind == 'appliance':
        size = (0.9, 1.25, 0.8)
        return box(_enamel(rng), *size), size
    size = (1.3, 0.95, 1.1)
    return box(_slats(rng), *size), size
