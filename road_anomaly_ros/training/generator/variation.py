# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""More kinds of objects than there are cut-outs: cut-outs changed strongly, and drawn ones.

A head that sees a few dozen animals learns those animals. What it should learn is 'none of the
known classes', so outline, colour and texture of what it is shown must vary more than they do.
"""

from __future__ import annotations

import cv2
import numpy as np

from road_anomaly_ros.training.generator.cutouts import Cutout

_SIDE = 160  # pixels of a drawn object's canvas


def varied(rng: np.random.Generator, cutout: Cutout, donor: Cutout) -> Cutout:
    """Return `cutout` with other colours, perhaps the texture of `donor`, another outline."""
    colours, alpha = cutout
    if rng.random() < 0.4:
        colours = _with_texture(rng, colours, _texture(rng, alpha.shape, donor[0]))
    colours = recoloured(rng, colours)
    if rng.random() < 0.5:
        colours, alpha = _warped(rng, colours, alpha)
    if rng.random() < 0.25:
        alpha = _with_part_only(rng, alpha)
    return colours, alpha


def drawn(rng: np.random.Generator, donor: Cutout) -> Cutout:
    """Return an object made by rule: a random outline filled with a random texture."""
    aspect = np.exp(rng.uniform(-0.8, 0.8))
    height, width = (max(24, int(_SIDE * value)) for value in (min(1, aspect), min(1, 1 / aspect)))
    alpha = _outline(rng, (height, width))
    colours = _texture(rng, (height, width), donor[0])
    return shaded(rng, recoloured(rng, colours)), alpha


def recoloured(rng: np.random.Generator, colours: np.ndarray) -> np.ndarray:
    """Return RGB uint8 with another hue, saturation, brightness and contrast."""
    hsv = cv2.cvtColor(colours, cv2.COLOR_RGB2HSV).astype(np.float32)
    hsv[..., 0] = (hsv[..., 0] + rng.uniform(0, 180)) % 180
    hsv[..., 1] = np.clip(hsv[..., 1] * rng.uniform(0.2, 1.8) + rng.uniform(-10, 40), 0, 255)
    value = hsv[..., 2]
    value = (value - value.mean()) * rng.uniform(0.5, 1.5) + value.mean() + rng.normal(0, 35)
    hsv[..., 2] = np.clip(value, 0, 255)
    return cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB)


def shaded(rng: np.random.Generator, colours: np.ndarray) -> np.ndarray:
    """Return RGB uint8 lit from one side, as a solid thing would be."""
    height, width = colours.shape[:2]
    angle, depth = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.6)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    light = 1 + depth * (np.cos(angle) * x + np.sin(angle) * y) / 1.4
    return np.clip(colours * light[..., None], 0, 255).astype(np.uint8)


def _with_texture(
    rng: np.random.Generator, colours: np.ndarray, texture: np.ndarray
) -> np.ndarray:
    share = rng.uniform(0.3, 0.9)
    return cv2.addWeighted(colours, 1 - share, texture, share, 0)


def _warped(
    rng: np.random.Generator, colours: np.ndarray, alpha: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Bend the outline smoothly by up to a sixth of the size, and stretch it."""
    stretch = np.exp(rng.uniform(-0.4, 0.4))
    height = max(8, int(alpha.shape[0] * stretch))
    width = max(8, int(alpha.shape[1] / stretch))
    y, x = np.mgrid[0 : alpha.shape[0] - 1 : height * 1j, 0 : alpha.shape[1] - 1 : width * 1j]
    bend = rng.normal(0, 0.06, (2, 4, 4)) * np.array(alpha.shape)[:, None, None]
    offsets = [cv2.resize(part, (width, height), interpolation=cv2.INTER_CUBIC) for part in bend]
    maps = [
        (axis + offset).astype(np.float32) for axis, offset in ((x, offsets[1]), (y, offsets[0]))
    ]
    moved = cv2.remap(colours, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return moved, cv2.remap(alpha, *maps, cv2.INTER_LINEAR, borderValue=0)


def _with_part_only(rng: np.random.Generator, alpha: np.ndarray) -> np.ndarray:
    """Keep what lies inside a random blob that touches the object's foot."""
    blob = cv2.resize(_outline(rng, (64, 64)), alpha.shape[::-1])
    kept = np.where(blob > 0.5, alpha, 0).astype(np.float32)
    return kept if (kept > 0.5).sum() > 0.2 * (alpha > 0.5).sum() else alpha


def _outline(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Return a mask float32 of a blob, a polygon, or a few boxes on each other."""
    height, width = size
    mask = np.zeros(size, np.float32)
    kind = rng.integers(3)
    if kind == 2:
        for _ in range(rng.integers(1, 4)):
            top, left = rng.uniform(0, 0.6, 2) * size
            tall, wide = rng.uniform(0.25, 1.0, 2) * size
            mask[int(top) : int(top + tall) + 1, int(left) : int(left + wide) + 1] = 1
        return mask
    count = 48 if kind == 0 else int(rng.integers(3, 9))
    angles = (
        np.sort(rng.uniform(0, 2 * np.pi, count))
        if kind
        else np.linspace(0, 2 * np.pi, count, endpoint=False)
    )
    waves = sum(
        rng.normal(0, 0.5 / order) * np.cos(order * angles + rng.uniform(0, 2 * np.pi))
        for order in range(2, 6)
    )
    radius = np.clip(0.75 + (0.3 * waves if kind == 0 else rng.uniform(-0.3, 0.25, count)), 0.2, 1)
    corners = np.stack(
        [
            (1 + radius * np.cos(angles)) * (width - 1) / 2,
            (1 + radius * np.sin(angles)) * (height - 1) / 2,
        ],
        1,
    )
    cv2.fillPoly(mask, [corners.round().astype(np.int32)], 1.0)
    return mask


def _texture(rng: np.random.Generator, size: tuple[int, int], donor: np.ndarray) -> np.ndarray:
    """Return RGB uint8 [h,w,3]: noise of some grain, stripes or checks, plain, or the donor's."""
    kind = rng.integers(4)
    if kind == 3:
        return cv2.resize(donor, size[::-1], interpolation=cv2.INTER_LINEAR)
    if kind == 0:
        plane = _noise(rng, size)
    elif kind == 1:
        plane = _pattern(rng, size)
    else:
        plane = np.full(size, 0.5, np.float32) + 0.1 * _noise(rng, size)
    ends = rng.uniform(0, 255, (2, 3))
    colours = ends[0] + (ends[1] - ends[0]) * plane[..., None]
    return np.clip(colours, 0, 255).astype(np.uint8)


def _noise(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Return float32 of octaves of noise, about 0 .. 1."""
    total = np.zeros(size, np.float32)
    fall = rng.uniform(0.4, 0.9)
    for octave in range(6):
        cells = rng.random((2 << octave, 2 << octave)).astype(np.float32) - 0.5
        total += fall**octave * cv2.resize(cells, size[::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(total + 0.5, 0, 1)


def _pattern(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    y, x = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float32)
    angle, pitch = rng.uniform(0, np.pi), rng.uniform(6, 40)
    along = np.sin(2 * np.pi * (np.cos(angle) * x + np.sin(angle) * y) / pitch)
    if rng.random() < 0.5:
        along = along * np.sin(2 * np.pi * (np.cos(angle) * y - np.sin(angle) * x) / pitch)
    hard = rng.uniform(1, 8)
    return (0.5 + 0.5 * np.tanh(hard * along)).astype(np.float32)
