# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Textures with alpha, their small versions, and tileable noise."""

from __future__ import annotations

import cv2
import numpy as np


class Texture:
    """Premultiplied RGBA picture with area-averaged smaller versions per axis.

    Takes uint8 [h, w, 3] (opaque) or [h, w, 4] (straight alpha). Smaller versions are made
    when first asked for, halved separately along x and y, because a road scene is mostly seen
    at grazing angles where the two axes shrink differently. `part` uint8 [h, w] is the coverage
    of what belongs to another class than the rest, such as the bicycle under its rider.
    """

    def __init__(self, pixels: np.ndarray, part: np.ndarray | None = None) -> None:
        """Keep the premultiplied form of `pixels`."""
        self._part = part
        if pixels.shape[2] == 3:
            alpha = np.full(pixels.shape[:2], 255, np.uint8)
            self._levels = {(0, 0): np.dstack([pixels, alpha])}
        else:
            alpha = pixels[..., 3]
            color = cv2.multiply(
                pixels[..., :3].copy(), cv2.cvtColor(alpha, cv2.COLOR_GRAY2RGB), scale=1 / 255
            )
            self._levels = {(0, 0): np.dstack([color, alpha])}
        self.height, self.width = pixels.shape[:2]
        self._deepest = (max(0, self.width.bit_length() - 2), max(0, self.height.bit_length() - 2))

    @property
    def aspect(self) -> float:
        """Width over height."""
        return self.width / self.height

    def level_for(self, scale_x: float, scale_y: float) -> np.ndarray:
        """Return the version for `scale` texels per pixel along each axis, uint8 [h, w, 4]."""
        key = (_halvings(scale_x, self._deepest[0]), _halvings(scale_y, self._deepest[1]))
        found = self._levels.get(key)
        if found is None:
            size = (max(1, self.width >> key[0]), max(1, self.height >> key[1]))
            found = cv2.resize(self._levels[0, 0], size, interpolation=cv2.INTER_AREA)
            self._levels[key] = found
        return found

    def part_like(self, level: np.ndarray) -> np.ndarray | None:
        """Return the part's coverage at the size of a version, uint8 [h, w]; None without one."""
        if self._part is None:
            return None
        return cv2.resize(self._part, level.shape[1::-1], interpolation=cv2.INTER_AREA)


def _halvings(scale: float, deepest: int) -> int:
    """Number of halvings that leaves between 0.7 and 1.4 texels per pixel."""
    return min(deepest, max(0, int(np.log2(max(scale, 1e-6)) + 0.5)))


def value_noise(
    rng: np.random.Generator, height: int, width: int, rows: int, columns: int
) -> np.ndarray:
    """Smooth tileable noise of one frequency, float32 [height, width] in about [-1, 1]."""
    grid = rng.uniform(-1.0, 1.0, (rows, columns)).astype(np.float32)
    grid = np.pad(grid, 2, mode='wrap')
    cell_y, cell_x = -(-height // rows), -(-width // columns)
    large = cv2.resize(
        grid, ((columns + 4) * cell_x, (rows + 4) * cell_y), interpolation=cv2.INTER_CUBIC
    )
    large = large[
        2 * cell_y : 2 * cell_y + rows * cell_y, 2 * cell_x : 2 * cell_x + columns * cell_x
    ]
    if large.shape != (height, width):
        large = cv2.resize(large, (width, height), interpolation=cv2.INTER_LINEAR)
    return large


def fractal_noise(
    rng: np.random.Generator,
    height: int,
    width: int,
    coarsest: int = 3,
    octaves: int = 5,
    gain: float = 0.55,
) -> np.ndarray:
    """Tileable sum of octaves, float32 [height, width], zero mean, unit deviation."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        rows = min(height, coarsest << octave)
        columns = min(width, max(1, round(rows * width / height)))
        total += gain**octave * value_noise(rng, height, width, rows, columns)
    total -= total.mean()
    return total / max(float(total.std()), 1e-6)


def grain(rng: np.random.Generator, height: int, width: int, blur: float = 0.0) -> np.ndarray:
    """Per-pixel noise, float32 [height, width], unit deviation; `blur` in pixels."""
    noise = rng.standard_normal((height, width), np.float32)
    if blur > 0:
        noise = cv2.GaussianBlur(noise, (0, 0), blur, borderType=cv2.BORDER_REFLECT)
        noise /= max(float(noise.std()), 1e-6)
    return noise


def modulated(color: tuple[float, float, float] | np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Colour (3 values or [h, w, 3], 0 to 255) times `factor` [h, w] as uint8 [h, w, 3]."""
    picture = np.asarray(color, np.float32) * factor[..., None]
    return np.clip(picture, 0, 255).astype(np.uint8)


def with_alpha(color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Join uint8 [h, w, 3] and an alpha in [0, 1] or uint8 to uint8 [h, w, 4]."""
    if alpha.dtype != np.uint8:
        alpha = np.clip(alpha * 255, 0, 255).astype(np.uint8)
    return np.dstack([color, alpha])
