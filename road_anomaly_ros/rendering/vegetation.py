# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Trees, bushes, hedges and the wooded horizon."""

from __future__ import annotations

import math
from functools import cache

import cv2
import numpy as np

from road_anomaly_ros.rendering.textures import Texture, fractal_noise, grain, with_alpha

VARIANTS = 20
_GREENS = ((74, 92, 44), (58, 80, 40), (92, 102, 50), (52, 70, 44), (104, 104, 56))
_AUTUMN = ((140, 100, 44), (126, 84, 40), (116, 110, 54))


def _branch(
    alpha: np.ndarray,
    rng: np.random.Generator,
    start: tuple[float, float],
    angle: float,
    length: float,
    tips: list[tuple[float, float]],
) -> None:
    """Draw a branch and its children; collect where twigs end."""
    end = (start[0] + length * math.sin(angle), start[1] - length * math.cos(angle))
    thickness = max(1, round((length - 15) * 0.15))
    cv2.line(
        alpha,
        (int(start[0] * 16), int(start[1] * 16)),
        (int(end[0] * 16), int(end[1] * 16)),
        255,
        thickness,
        cv2.LINE_AA,
        4,
    )
    tips.append(end)
    if length < 12:
        return
    count = 4 if length > 24 else 2
    for child, (turn, share) in enumerate(rng.random((count, 2)).tolist()):
        spread = 1.6 * child / (count - 1) - 0.8 + 0.5 * turn - 0.25
        _branch(alpha, rng, end, angle * 0.8 + spread, length * (0.68 + 0.17 * share), tips)


def _foliage(
    rng: np.random.Generator,
    alpha: np.ndarray,
    tips: list[tuple[float, float]],
    color: tuple[int, int, int],
    density: float,
) -> np.ndarray:
    """Grow clumps of leaves around the twigs; returns the colour picture, changes alpha."""
    height, width = alpha.shape
    leaves = np.zeros((height, width), np.uint8)
    light = np.full((height, width), 0.5, np.float32)
    order = sorted(tips, key=lambda tip: -tip[1])
    for tip in order:
        if rng.random() > density:
            continue
        radius = int(rng.uniform(7, 17))
        center = (int(tip[0]), int(tip[1]))
        cv2.circle(leaves, center, radius, 255, -1)
        tone = rng.uniform(0.55, 0.85) + 0.35 * (1 - tip[1] / height)
        cv2.circle(light, center, radius, tone, -1)
        cv2.circle(light, (center[0] - 2, center[1] - 3), max(1, radius - 5), tone * 1.18, -1)
    light = cv2.GaussianBlur(light, (0, 0), 2.0)
    light *= 1 + 0.24 * grain(rng, height, width, 0.7) + 0.08 * fractal_noise(rng, height, width)
    ragged = cv2.GaussianBlur(leaves, (0, 0), 3).astype(np.float32) / 255
    ragged += 0.28 * np.minimum(1, ragged * 4) * grain(rng, height, width, 1.0)
    leaf_alpha = np.clip((ragged - 0.5) * 6, 0, 1)
    bark = np.array([74, 62, 52], np.float32) * (1 + 0.2 * grain(rng, height, width))[..., None]
    picture = bark + leaf_alpha[..., None] * (np.array(color) * light[..., None] * 1.25 - bark)
    alpha[:] = np.maximum(alpha, (leaf_alpha * 255).astype(np.uint8))
    return np.clip(picture, 0, 255).astype(np.uint8)


@cache
def tree(variant: int) -> Texture:
    """Tree on its trunk: summer, autumn or bare by `variant`; as high as it is drawn."""
    rng = np.random.default_rng((21, variant))
    height, width = 272, 304
    alpha = np.zeros((height, width), np.uint8)
    tips: list[tuple[float, float]] = []
    _branch(
        alpha, rng, (width / 2, height - 1.0), rng.uniform(-0.06, 0.06), rng.uniform(36, 50), tips
    )
    season = variant % 4
    palette = _AUTUMN if season == 2 else _GREENS
    color = palette[rng.integers(len(palette))]
    density = (0.9, 0.75, 0.6, 0.0)[season]
    picture = with_alpha(_foliage(rng, alpha, tips[3:], color, density), alpha)
    columns, rows = np.flatnonzero(alpha.max(0)), np.flatnonzero(alpha.max(1))
    return Texture(picture[rows[0] :, columns[0] : columns[-1] + 1])


@cache
def bush(variant: int) -> Texture:
    """Round bush or conifer without a visible trunk."""
    rng = np.random.default_rng((22, variant))
    height, width = 96, 112
    alpha = np.zeros((height, width), np.uint8)
    tall = variant % 3 == 0
    tips = []
    for _ in range(70):
        y = rng.uniform(0.1, 1.0)
        reach = (0.12 + 0.36 * y) if tall else 0.44 * np.sqrt(max(0.0, 1 - (1.15 - y) ** 2 * 0.7))
        tips.append((width * (0.5 + rng.uniform(-reach, reach) * 0.8), height * y))
    color = _GREENS[rng.integers(len(_GREENS))]
    return Texture(with_alpha(_foliage(rng, alpha, tips, color, 1.0), alpha))


@cache
def hedge(variant: int) -> Texture:
    """Eight metres of clipped or rough hedge."""
    rng = np.random.default_rng((23, variant))
    height, width = 64, 256
    light = 0.85 + 0.16 * fractal_noise(rng, height, width, 4, 4)
    light += 0.16 * grain(rng, height, width, 0.8)
    light *= np.linspace(1.25, 0.6, height, dtype=np.float32)[:, None]
    top = 6 + 3 * (variant % 3) * np.abs(fractal_noise(rng, 4, width, 2, 2)[0])
    alpha = np.clip(np.arange(height)[:, None] - top + grain(rng, height, width), 0, 1)
    color = np.array(_GREENS[rng.integers(len(_GREENS))]) * light[..., None] * 1.1
    return Texture(with_alpha(np.clip(color, 0, 255).astype(np.uint8), alpha))


@cache
def horizon(variant: int) -> Texture:
    """Tileable band of far trees, uint8 alpha with a ragged skyline."""
    rng = np.random.default_rng((24, variant))
    height, width = 64, 1024
    rise = fractal_noise(rng, 8, width, 2, 5)[0]
    top = np.clip(26 - 9 * rise, 2, 56)
    edge = np.arange(height)[:, None] - top + 1.6 * grain(rng, height, width, 0.8)
    light = 0.95 + 0.13 * fractal_noise(rng, height, width, 5, 4)
    light += 0.1 * grain(rng, height, width, 0.8)
    color = np.array(_GREENS[variant % len(_GREENS)], np.float32) * 0.95 * light[..., None]
    return Texture(with_alpha(np.clip(color, 0, 255).astype(np.uint8), np.clip(edge, 0, 1)))
