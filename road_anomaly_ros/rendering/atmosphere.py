# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The sky with its clouds, the wooded horizon, and what the lens and sensor add at the end."""

from __future__ import annotations

from functools import cache, lru_cache

import cv2
import numpy as np

from road_anomaly_ros.rendering.camera import Camera
from road_anomaly_ros.rendering.canvas import SKY, VEGETATION, Canvas
from road_anomaly_ros.rendering.style import Style
from road_anomaly_ros.rendering.textures import fractal_noise
from road_anomaly_ros.rendering.vegetation import horizon

_FAR = 450.0
_ZENITH = (
    (76, 126, 190),
    (92, 140, 200),
    (62, 108, 176),
    (110, 150, 196),
    (120, 160, 206),
    (86, 120, 160),
)


@cache
def _clouds(variant: int) -> np.ndarray:
    """Cloud density, tileable, uint8 [512, 512]."""
    rng = np.random.default_rng((71, variant))
    density = fractal_noise(rng, 512, 512, 3, 7, 0.6)
    return np.clip(128 + 60 * density, 0, 255).astype(np.uint8)


class Sky:
    """Sky of one drive at one image size; painted once, then shifted with the heading."""

    def __init__(self, style: Style, width: int, height: int, focal: float) -> None:
        """Render a sky a little larger than the frame."""
        self._style, self._focal = style, focal
        self._margin_x, self._margin_y = int(width * 0.3) + 2, int(height * 0.06) + 2
        size = (width + 2 * self._margin_x, height + 2 * self._margin_y)
        self._picture = cv2.resize(self._render(*size), size, interpolation=cv2.INTER_LINEAR)

    def _render(self, width: int, height: int) -> np.ndarray:
        """Gradient and clouds on a layer above the camera, uint8, horizon in the middle.

        At a third of the size that it will have: nothing in a sky is sharp.
        """
        style, rows, columns = self._style, -(-height // 3), -(-width // 3)
        rise = (rows / 2 - np.arange(rows, dtype=np.float32)) * 3 / self._focal
        fade = np.clip(rise * 2.0, 0, 1)[:, None, None] ** 0.6
        base = (
            np.array(style.haze_color, np.float32) * (1 - fade)
            + np.array(_ZENITH[style.sky], np.float32) * fade
        )
        layer = 1.0 / np.clip(rise, 0.02, None)
        across = (np.arange(columns, dtype=np.float32) - columns / 2) * 3 / self._focal
        map_x = across[None] * layer[:, None] * 46 + 256
        map_y = np.repeat((layer * 52)[:, None], columns, 1).astype(np.float32)
        density = cv2.remap(
            _clouds(style.sky),
            map_x.astype(np.float32),
            map_y,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_WRAP,
        ).astype(np.float32)
        threshold = 255 * (1.02 - style.cloud)
        cover = np.clip((density - threshold) / 60, 0, 1)
        cover *= np.clip(rise * 9, 0, 1)[:, None]
        tone = np.clip(1.0 - (density - threshold) / 620, 0.6, 1.0)
        white = np.full(3, style.cloud_tone, np.float32)
        picture = base + cover[..., None] * (white * tone[..., None] - base)
        picture += self._glow(across, rise)
        return np.clip(picture, 0, 255).astype(np.uint8)

    def _glow(self, across: np.ndarray, rise: np.ndarray) -> np.ndarray:
        """Brightness around the sun when it stands ahead, [rows, columns, 1]."""
        x, y, s = self._style.light.direction
        if s < 0.15:
            return np.zeros((len(rise), len(across), 1), np.float32)
        distance = (across[None] - x / s) ** 2 + (rise[:, None] - y / s) ** 2
        return (self._style.light.sun * 90 * np.exp(-distance * 5))[..., None]

    def paint(self, canvas: Canvas, camera: Camera, heading: float) -> None:
        """Fill the frame down to the horizon; `heading` in radians turns the sky."""
        top = self._margin_y + canvas.height / 2 - camera.horizon
        rows, columns = self._picture.shape[:2]
        y = int(np.clip(round(top), 0, rows - canvas.height))
        turn = round(0.5 * heading * self._focal)
        x = int(np.clip(self._margin_x + turn, 0, columns - canvas.width))
        canvas.color[:] = self._picture[y : y + canvas.height, x : x + canvas.width]
        self._paint_horizon(canvas, camera, heading)

    def _paint_horizon(self, canvas: Canvas, camera: Camera, heading: float) -> None:
        """Band of far trees and hills that closes the view, 450 m away."""
        texture = horizon(self._style.grass)
        tall = 0.032 * camera.focal
        low, high = camera.horizon - tall, camera.horizon + camera.focal * 0.006 + 1
        scale = texture.height / (high - low)
        period = texture.width / scale
        offset = (-heading * camera.focal + 0.37 * period) % period - period
        for start in np.arange(offset, canvas.width, period):
            canvas.board(
                texture,
                np.array([start - 0.5, low]),
                np.array([start + period + 0.5, high]),
                np.full(canvas.height, _FAR, np.float32),
                VEGETATION,
                0.9,
            )


class Sensor:
    """Haze, exposure, vignetting, blur and noise of one drive at one image size."""

    def __init__(self, style: Style, width: int, height: int, seed: int) -> None:
        """Prepare the tables."""
        self._seed, self._style = seed, style
        self._vignette = _vignette(width, height)
        distance = np.arange(256) * 2.0
        clear = 255 * np.exp(-distance / (style.haze * 1.6))
        self._clear = np.clip(clear, 0, 255).astype(np.uint8)
        values = np.linspace(0, 1, 256)
        gains = (1 + style.warmth, 1.0, 1 - style.warmth)
        curves = [
            255 * np.clip(style.exposure * gain * values, 0, 1.3) ** style.gamma for gain in gains
        ]
        soft = [np.where(c > 200, 200 + 55 * np.tanh((c - 200) / 55), c) for c in curves]
        self._curve = np.stack(soft, -1).clip(0, 255).astype(np.uint8)[None]

    def develop(self, canvas: Canvas, index: int) -> np.ndarray:
        """Turn the painted canvas into the camera's picture, uint8 [H, W, 3]."""
        clear = cv2.LUT(cv2.convertScaleAbs(canvas.depth, alpha=0.5), self._clear)
        clear[canvas.codes == SKY] = 255
        veil = cv2.cvtColor(cv2.bitwise_not(clear), cv2.COLOR_GRAY2RGB)
        picture = cv2.multiply(
            canvas.color, cv2.cvtColor(clear, cv2.COLOR_GRAY2RGB), scale=1 / 255
        )
        veil = cv2.multiply(veil, (*self._style.haze_color, 0), scale=1 / 255)
        cv2.add(picture, veil, dst=picture)
        picture = cv2.GaussianBlur(picture, (3, 3), 0.55)
        cv2.multiply(picture, self._vignette, dst=picture, scale=1 / 255)
        picture = cv2.LUT(picture, self._curve)
        return self._with_noise(picture, index)

    def _with_noise(self, picture: np.ndarray, index: int) -> np.ndarray:
        """Add sensor noise cut at a place that depends on seed and frame."""
        height, width = picture.shape[:2]
        rng = np.random.default_rng((72, self._seed, index))
        bright, dark = _noise(round(self._style.noise * 2))
        y, x = rng.integers(0, 256, 2)
        tiles = (-(-(height + y) // 512), -(-(width + x) // 512))
        for tile, apply in ((bright, cv2.add), (dark, cv2.subtract)):
            if tiles != (1, 1):
                tile = np.tile(tile, (*tiles, 1))
            apply(picture, np.ascontiguousarray(tile[y : y + height, x : x + width]), dst=picture)
        return picture


@lru_cache(maxsize=4)
def _vignette(width: int, height: int) -> np.ndarray:
    """Brightness over the picture, falling to 0.86 in the corners, uint8 [H, W, 3]."""
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    fall = 255 * (1 - 0.035 * (x * x + y * y) ** 2)
    return cv2.cvtColor(fall.astype(np.uint8), cv2.COLOR_GRAY2RGB)


@cache
def _noise(doubled: int) -> tuple[np.ndarray, np.ndarray]:
    """Positive and negative part of noise with deviation doubled / 2, uint8 [512, 512, 3]."""
    rng = np.random.default_rng((73, doubled))
    noise = rng.normal(0, doubled / 2, (512, 512, 3))
    noise = 0.7 * noise + 0.6 * noise.mean(-1, keepdims=True)
    return (
        np.clip(noise, 0, 255).round().astype(np.uint8),
        np.clip(-noise, 0, 255).round().astype(np.uint8),
    )
