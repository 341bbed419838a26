# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""People on foot and on bicycles, lamp posts, signs and signals."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from road_anomaly_ros.rendering.textures import Texture, grain, with_alpha

PHASES = 8
WALKERS = 12
RIDERS = 8
SIGNS = 10
_CLOTHES = (
    (34, 36, 42),
    (58, 62, 72),
    (44, 54, 92),
    (104, 34, 36),
    (70, 66, 56),
    (130, 126, 120),
    (28, 60, 52),
    (150, 130, 96),
    (170, 172, 178),
    (92, 60, 44),
)
_SKIN = ((206, 160, 132), (150, 108, 80), (98, 68, 50), (224, 180, 150))
Point = tuple[float, float]


class _Figure:
    """A drawing of limbs in metres, y up from the ground, turned into a texture."""

    def __init__(self, width: float, height: float, scale: int = 64) -> None:
        self._scale, self._width, self._height = scale, width, height
        shape = (int(height * scale), int(width * scale))
        self._color = np.zeros((*shape, 3), np.uint8)
        self._alpha = np.zeros(shape, np.uint8)
        self._part: np.ndarray | None = None

    def begin_rest(self) -> None:
        """End the part of another class: what follows is painted over it."""
        self._part = self._alpha.copy()

    def _pixel(self, point: Point) -> tuple[int, int]:
        x, y = point
        return (
            int((x + self._width / 2) * self._scale * 16),
            int((self._height - y) * self._scale * 16),
        )

    def limb(self, start: Point, end: Point, thickness: float, color: tuple[int, ...]) -> None:
        """Draw a rounded stroke with a lit edge; lengths in metres."""
        a, b = self._pixel(start), self._pixel(end)
        wide = max(1, round(thickness * self._scale))
        cv2.line(self._alpha, a, b, 255, wide, cv2.LINE_AA, 4)
        if self._part is not None:
            cv2.line(self._part, a, b, 0, wide, cv2.LINE_AA, 4)
        cv2.line(self._color, a, b, tuple(int(c * 0.78) for c in color), wide + 2, cv2.LINE_AA, 4)
        shift = int(thickness * self._scale * 3)
        inner = max(1, wide // 2)
        cv2.line(
            self._color,
            (a[0] - shift, a[1]),
            (b[0] - shift, b[1]),
            tuple(min(255, int(c * 1.12)) for c in color),
            inner,
            cv2.LINE_AA,
            4,
        )

    def ring(self, center: Point, radius: float, thickness: float, color: tuple[int, ...]) -> None:
        """Draw a wheel."""
        wide = max(1, round(thickness * self._scale))
        for target, value in ((self._color, color), (self._alpha, 255)):
            cv2.circle(
                target,
                self._pixel(center),
                int(radius * self._scale * 16),
                value,
                wide,
                cv2.LINE_AA,
                4,
            )

    def texture(self, rng: np.random.Generator) -> Texture:
        """Finish with cloth-like noise and a darker lower half."""
        height, width = self._alpha.shape
        light = 1 + 0.06 * grain(rng, height, width, 1.2)
        light *= np.linspace(1.08, 0.86, height)[:, None]
        color = np.clip(cv2.GaussianBlur(self._color, (3, 3), 0) * light[..., None], 0, 255)
        return Texture(with_alpha(color.astype(np.uint8), self._alpha), self._part)


def _pick(rng: np.random.Generator, colors: tuple) -> tuple[int, ...]:
    return colors[rng.integers(len(colors))]


@cache
def pedestrian(variant: int, phase: int) -> Texture:
    """Walking person, 0.9 m by 1.8 m; `phase` of PHASES is the step."""
    rng = np.random.default_rng((31, variant))
    coat, trousers = _pick(rng, _CLOTHES), _pick(rng, _CLOTHES[:5])
    skin, hair = _pick(rng, _SKIN), _pick(rng, ((40, 32, 28), (90, 66, 40), (24, 22, 22)))
    facing = -0.5 if variant % 2 else 0.5
    swing = np.sin(2 * np.pi * phase / PHASES)
    figure = _Figure(0.9, 1.8)
    for side in (-1, 1):
        reach = side * swing * 0.2 * abs(facing) * 2
        hip, foot = (side * 0.07, 0.9), (side * 0.07 + reach, 0.05)
        knee = ((hip[0] + foot[0]) / 2 + 0.04 * facing, 0.48)
        figure.limb(hip, knee, 0.16, trousers)
        figure.limb(knee, foot, 0.13, trousers)
        figure.limb(foot, (foot[0] + 0.1 * facing, 0.04), 0.08, (30, 28, 28))
    figure.limb((0.0, 1.38), (0.0, 0.95 - 0.2 * (variant % 3 == 0)), 0.36, coat)
    for side in (-1, 1):
        elbow = (side * 0.22 - side * swing * 0.06, 1.12)
        hand = (elbow[0] - side * swing * 0.14, 0.88)
        figure.limb((side * 0.19, 1.38), elbow, 0.12, coat)
        figure.limb(elbow, hand, 0.1, coat)
        figure.limb(hand, hand, 0.09, skin)
    figure.limb((0.0, 1.5), (0.0, 1.62), 0.17, skin)
    figure.limb((-0.03 * facing, 1.65), (-0.05 * facing, 1.69), 0.19, hair)
    return figure.texture(rng)


def _bicycle(figure: _Figure, frame: tuple[int, ...], side_on: bool) -> None:
    tyre = (24, 24, 26)
    if not side_on:
        figure.limb((0.0, 0.06), (0.0, 0.66), 0.07, tyre)
        figure.limb((-0.26, 1.02), (0.26, 1.02), 0.04, frame)
        figure.limb((0.0, 0.66), (0.0, 0.92), 0.06, frame)
        return
    rear, pedals, fork = (-0.36, 0.34), (-0.08, 0.36), (0.34, 0.34)
    for hub in (rear, fork):
        figure.ring(hub, 0.31, 0.045, tyre)
    for tube in ((rear, pedals), (pedals, (0.28, 0.82)), ((-0.2, 0.84), (0.28, 0.82))):
        figure.limb(*tube, 0.04, frame)
    figure.limb(pedals, (-0.2, 0.88), 0.04, frame)
    figure.limb(fork, (0.26, 0.95), 0.04, frame)


@cache
def bicyclist(variant: int, phase: int) -> Texture:
    """Person on a bicycle seen from behind (even variants) or obliquely, 1.5 m by 1.8 m.

    The bicycle is the texture's part of another class.
    """
    rng = np.random.default_rng((32, variant))
    coat, trousers, skin = _pick(rng, _CLOTHES), _pick(rng, _CLOTHES[:5]), _pick(rng, _SKIN)
    turn = np.sin(2 * np.pi * phase / PHASES)
    side_on = 0.0 if variant % 2 == 0 else 0.4
    figure = _Figure(1.5, 1.8)
    _bicycle(figure, _pick(rng, ((60, 62, 66), (120, 30, 30), (40, 60, 110))), bool(side_on))
    figure.begin_rest()
    for side in (-1, 1):
        hip = (-0.16 * bool(side_on) + side * 0.06, 0.95)
        foot = (side * 0.09 * (not side_on) - 0.06 * bool(side_on), 0.38 + side * turn * 0.14)
        knee = (hip[0] / 2 + side * 0.08 + side_on * 0.5, 0.72 + side * turn * 0.09)
        figure.limb(hip, knee, 0.15, trousers)
        figure.limb(knee, foot, 0.12, trousers)
    neck = (side_on * 0.5, 1.42)
    figure.limb((-side_on * 0.3, 1.0), neck, 0.34, coat)
    for side in (-1, 1):
        grip = (side_on * 0.65 if side_on else side * 0.25, 1.04)
        figure.limb((neck[0] + side * 0.16 * (not side_on), 1.36), grip, 0.1, coat)
    figure.limb((neck[0] + 0.02, 1.54), (neck[0] + 0.03, 1.62), 0.17, skin)
    helmet = _pick(rng, ((40, 40, 44), (190, 190, 186), (60, 48, 40)))
    figure.limb((neck[0], 1.68), (neck[0] + 0.03, 1.69), 0.19, helmet)
    return figure.texture(rng)


@cache
def post(variant: int) -> Texture:
    """Round post or tube: grey steel, dark iron or pale concrete."""
    rng = np.random.default_rng((33, variant))
    color = np.array(((120, 124, 126), (48, 52, 52), (150, 148, 140), (70, 84, 74))[variant % 4])
    light = np.sin(np.linspace(0.35, 2.7, 12))[None, :] * (1 + 0.08 * grain(rng, 128, 1))
    return Texture(np.clip(color * light[..., None] * 1.15, 0, 255).astype(np.uint8))


@cache
def lamp_arm(variant: int) -> Texture:
    """Arm of a lamp post, 1.6 m by 0.5 m, its lantern on the left, on the right if odd."""
    color = np.full((32, 100, 3), (96, 98, 100), np.uint8)
    alpha = np.zeros((32, 100), np.uint8)
    cv2.ellipse(alpha, (98, 31), (74, 22), 0, 180, 270, 255, 4, cv2.LINE_AA)
    cv2.ellipse(alpha, (18, 24), (17, 6), 4, 0, 360, 255, -1, cv2.LINE_AA)
    color[24:] = (170, 168, 156)
    step = -1 if variant % 2 else 1
    return Texture(np.ascontiguousarray(with_alpha(color, alpha)[:, ::step]))


@cache
def sign(variant: int) -> Texture:
    """Plate of a traffic sign, square picture with transparent corners."""
    color = np.zeros((72, 72, 3), np.uint8)
    alpha = np.zeros((72, 72), np.uint8)
    kind = variant % 5
    if kind == 0:
        _disc(color, alpha, (188, 24, 30), (236, 234, 228))
    elif kind == 1:
        for grow, ink in ((34, (190, 26, 30)), (22, (238, 236, 228))):
            points = np.array([(36, 38 - grow), (36 + grow, 34 + grow), (36 - grow, 34 + grow)])
            cv2.fillConvexPoly(color, points, ink, cv2.LINE_AA)
            cv2.fillConvexPoly(alpha, points, 255, cv2.LINE_AA)
        cv2.rectangle(color, (34, 32), (38, 50), (24, 24, 26), -1)
    elif kind == 2:
        _disc(color, alpha, (236, 236, 232), (30, 76, 158))
        cv2.arrowedLine(color, (20, 50), (52, 22), (240, 240, 240), 7, cv2.LINE_AA)
    else:
        ink = (28, 92, 62) if kind == 3 else (34, 66, 140)
        color[8:64], alpha[8:64] = (232, 232, 228), 255
        color[11:61, 3:69] = ink
        for y in (20, 33, 46):
            cv2.rectangle(color, (10, y), (40 + 5 * (y % 4), y + 5), (232, 232, 228), -1)
    color = (color * np.linspace(1.0, 0.88, 72)[:, None, None]).astype(np.uint8)
    return Texture(with_alpha(color, alpha))


def _disc(color: np.ndarray, alpha: np.ndarray, rim: tuple, face: tuple) -> None:
    cv2.circle(color, (36, 36), 34, rim, -1, cv2.LINE_AA)
    cv2.circle(color, (36, 36), 25, face, -1, cv2.LINE_AA)
    cv2.circle(alpha, (36, 36), 34, 255, -1, cv2.LINE_AA)
    cv2.rectangle(color, (25, 28), (32, 46), (30, 30, 32), -1)
    cv2.rectangle(color, (38, 28), (46, 46), (30, 30, 32), 3)


@cache
def signal(phase: int) -> Texture:
    """Head of a traffic light showing red (0), amber (1) or green (2), 1 to 3."""
    color = np.full((108, 40, 3), (26, 28, 28), np.uint8)
    lamps = (
        ((255, 60, 50), (70, 20, 20)),
        ((255, 190, 60), (70, 52, 20)),
        ((60, 240, 160), (18, 60, 42)),
    )
    for row, (lit, dark) in enumerate(lamps):
        cv2.circle(color, (20, 20 + 34 * row), 13, lit if row == phase else dark, -1, cv2.LINE_AA)
    return Texture(color)
