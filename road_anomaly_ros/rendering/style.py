# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What one seed decides: the kind of street, its width, light, season, traffic and camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from road_anomaly_ros.rendering.canvas import SIDEWALK, TERRAIN

SETTINGS = ('city', 'suburb', 'country')


@dataclass(frozen=True)
class Light:
    """Sun and sky. direction: unit vector towards the sun (x, y, s); sun: 0 overcast to 1."""

    direction: tuple[float, float, float]
    sun: float
    ambient: float

    @property
    def shadow(self) -> int:
        """Brightness of level ground in shadow, 255 = in the open."""
        return max(108, int(255 * self.ambient / (self.ambient + self.sun * self.direction[1])))

    @property
    def contact(self) -> int:
        """Brightness of the ground where something stands on it, 255 = in the open."""
        return 110 if self.sun < 0.3 else int(self.shadow * 0.6)

    def on_face(self, normal: np.ndarray) -> np.ndarray:
        """Brightness of faces with unit normals [..., 3]; 1 is level ground in the open."""
        facing = np.clip(normal @ np.array(self.direction), 0, None)
        skyward = 0.82 + 0.18 * normal[..., 1]
        level = self.ambient + self.sun * self.direction[1]
        return (self.ambient * skyward + self.sun * facing) / level


@dataclass(frozen=True)
class Style:
    """Look and layout of one drive; lengths in metres, brightness as factors."""

    setting: str
    half_road: float
    pavement: float
    verge: int
    lane_centers: tuple[float, ...]
    lines: tuple[tuple[float, float, float, float], ...]
    side: int
    parking: float
    asphalt: int
    asphalt_light: float
    paving: int
    grass: int
    kerb: tuple[int, int, int]
    paint_color: tuple[float, float, float, float]
    paint_strength: int
    light: Light
    sky: int
    cloud: float
    cloud_tone: float
    haze: float
    haze_color: tuple[int, int, int]
    exposure: float
    gamma: float
    warmth: float
    noise: float
    camera_height: float
    pitch: float
    focal: float
    speed: float
    traffic: float
    people: float
    trees: float
    fence: int
    season: int
    bends: tuple[tuple[float, float, float], ...]


def _layout(rng: np.random.Generator, setting: str) -> dict:
    """Lanes, lines and widths. `side` is 1 where one drives on the right, -1 on the left."""
    side = int(rng.choice((-1, 1)))
    lane = float(rng.uniform(3.0, 3.7))
    per_side = 2 if rng.random() < 0.3 else 1
    parking = 2.2 if setting != 'country' and rng.random() < 0.55 else 0.0
    half = lane * per_side + parking + float(rng.uniform(0.7, 1.5))
    centers = tuple(sign * lane * (i + 0.5) for sign in (-1, 1) for i in range(per_side))
    dash, gap = ((2.0, 4.0), (3.0, 6.0), (4.0, 2.0))[rng.integers(3)]
    lines = (
        [(0.0, 0.12, dash, gap)]
        if rng.random() < 0.8
        else [(-0.12, 0.1, 1.0, 0.0), (0.12, 0.1, 1.0, 0.0)]
    )
    if per_side == 2:
        lines += [(sign * lane, 0.12, dash, gap * 1.5) for sign in (-1, 1)]
    edge = half - parking - 0.25
    if setting == 'country' or rng.random() < 0.6:
        lines += [(sign * edge, 0.12, 1.0, 0.0) for sign in (-1, 1)]
    walk = {
        'city': rng.uniform(2.2, 4.5),
        'suburb': rng.uniform(1.5, 2.5),
        'country': 0.0 if rng.random() < 0.5 else 1.4,
    }[setting]
    return {
        'side': side,
        'parking': parking,
        'half_road': half,
        'lane_centers': centers,
        'lines': tuple(lines),
        'pavement': float(walk),
        'verge': SIDEWALK if setting == 'city' else TERRAIN,
    }


def _weather(rng: np.random.Generator) -> dict:
    """Sun, sky, haze and how the camera exposes them."""
    azimuth, height = rng.uniform(-np.pi, np.pi), rng.uniform(0.25, 1.1)
    direction = (
        float(np.cos(height) * np.sin(azimuth)),
        float(np.sin(height)),
        float(np.cos(height) * np.cos(azimuth)),
    )
    overcast = rng.random() < 0.35
    sun = float(rng.uniform(0.0, 0.12) if overcast else rng.uniform(0.5, 1.1))
    dusk = rng.random() < 0.15
    haze = (196, 202, 208) if overcast else (188, 204, 220)
    return {
        'light': Light(direction, sun, 0.62),
        'cloud': float(rng.uniform(0.75, 1.0) if overcast else rng.uniform(0.0, 0.6)),
        'cloud_tone': float(rng.uniform(190, 255) if overcast else 246),
        'haze': float(rng.uniform(90, 240) if overcast else rng.uniform(200, 700)),
        'haze_color': haze,
        'sky': int(rng.integers(6)),
        'exposure': float(rng.uniform(0.45, 0.7) if dusk else rng.uniform(0.95, 1.3)),
        'gamma': float(rng.uniform(0.9, 1.2)),
        'warmth': float(rng.uniform(-0.05, 0.06)),
        'noise': float(rng.uniform(1.0, 3.0)),
    }


def sample_style(seed: int) -> Style:
    """Draw the style of a drive; every seed gives another street."""
    rng = np.random.default_rng((109, seed))
    setting = SETTINGS[rng.choice(3, p=(0.45, 0.35, 0.2))]
    grey = int(rng.integers(128, 178))
    paint = float(rng.uniform(190, 226))
    green, blue = (0.82, 0.4) if rng.random() < 0.15 else (1.0, 0.97)
    bends = tuple(
        (
            float(rng.uniform(0.2, 1.0) * length**2 / 9000),
            float(length),
            float(rng.uniform(0, 2 * np.pi)),
        )
        for length in rng.uniform(120, 420, 2)
    )
    return Style(
        setting=setting,
        asphalt=int(rng.integers(8)),
        asphalt_light=float(rng.uniform(0.8, 1.15)),
        paving=int(rng.integers(8)),
        grass=int(rng.integers(8)),
        kerb=(grey, grey - 4, grey - 10),
        paint_color=(paint, paint * green, paint * blue, 0.0),
        paint_strength=int(rng.integers(150, 235)),
        camera_height=float(rng.uniform(1.15, 1.75)),
        pitch=float(rng.uniform(-0.01, 0.06)),
        focal=float(rng.uniform(0.78, 1.0)),
        speed=float(rng.uniform(14.5, 17.0)),
        traffic=float(rng.uniform(0.2, 1.0)),
        people=float(rng.uniform(0.1, 1.0) * (0.3 if setting == 'country' else 1.0)),
        trees=float(rng.uniform(0.1, 0.9)),
        fence=int(rng.integers(8)),
        season=int(rng.integers(4)),
        bends=bends,
        **_layout(rng, setting),
        **_weather(rng),
    )
