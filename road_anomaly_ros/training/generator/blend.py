# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How a cut-out becomes part of a photograph: colour, sharpness, soft edge, shadow."""

from __future__ import annotations

import cv2
import numpy as np

from road_anomaly_ros.training.generator.options import GeneratorOptions

_EPS = 1e-6
_MOST_BLUR = 1.5  # sigma in pixels
_SHADOW_SPREAD = (0.55, 0.07)  # half axes in widths and heights of the object


def feather(alpha: np.ndarray, feather_px: int) -> np.ndarray:
    """Return alpha [h,w] float32 in 0 .. 1 with a soft edge of `feather_px` pixels.

    A Gaussian of size k = 2 feather_px + 1 (OpenCV's sigma for k) of the mask alpha > 0.5, set to
    1 inside its erosion by k x k.
    """
    mask = (alpha > 0.5).astype(np.float32)
    size = 2 * feather_px + 1
    if size == 1:
        return mask
    soft = cv2.GaussianBlur(mask, (size, size), 0)
    core = cv2.erode(mask, np.ones((size, size), np.uint8))
    soft[core > 0.5] = 1.0
    return soft


def match_colour(
    patch: np.ndarray,
    place: np.ndarray,
    *,
    lab: bool = True,
    mean: bool = True,
    std: bool = False,
    strength: float = 1.0,
    inside: np.ndarray | None = None,
) -> np.ndarray:
    """Return `patch` with the colour statistics of `place`, both uint8 RGB [h,w,3].

    out = p g + (mean_b - mean_p g) per channel, g = 1 or std_b / std_p, in 8-bit Lab or RGB,
    clipped and truncated. `inside` bool [h,w] restricts the statistics of the patch; `strength`
    moves only part of the way.
    """
    if not (mean or std) or strength == 0:
        return patch
    source = cv2.cvtColor(patch, cv2.COLOR_RGB2LAB) if lab else patch
    target = cv2.cvtColor(place, cv2.COLOR_RGB2LAB) if lab else place
    own = source[inside] if inside is not None and inside.any() else source.reshape(-1, 3)
    own, there = own.astype(np.float32), target.reshape(-1, 3).astype(np.float32)
    own_mean, there_mean = own.mean(0), there.mean(0)
    gain = there.std(0) / (own.std(0) + _EPS) if std else np.ones(3, np.float32)
    gain = 1 + strength * (gain - 1)
    aim = own_mean + strength * (there_mean - own_mean) if mean else own_mean
    moved = source.astype(np.float32) * gain + (aim - own_mean * gain)
    found = np.clip(moved, 0, 255).astype(np.uint8)
    return cv2.cvtColor(found, cv2.COLOR_LAB2RGB) if lab else found


def match_blur(patch: np.ndarray, inside: np.ndarray, sharpness: float) -> np.ndarray:
    """Soften `patch` (uint8 RGB [h,w,3]) where it is sharper than the scene.

    Sharpness is the standard deviation of the grey Laplacian; `inside` bool [h,w] is the object.
    """
    own = _laplacian(patch)[inside]
    if own.size < 16 or sharpness <= 0:
        return patch
    sigma = min(_MOST_BLUR, 0.5 * np.sqrt(max(0.0, float(own.std()) / sharpness - 1)))
    return cv2.GaussianBlur(patch, (0, 0), sigma) if sigma > 0.2 else patch


def sharpness_of(image: np.ndarray) -> float:
    """Return the standard deviation of the grey Laplacian of an RGB image."""
    return float(_laplacian(image).std())


def _laplacian(image: np.ndarray) -> np.ndarray:
    return cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.CV_32F)


def composite(
    image: np.ndarray, patch: np.ndarray, alpha: np.ndarray, top_left: tuple[int, int]
) -> None:
    """Lay `patch` [h,w,3] over `image` in place at (x, y): alpha p + (1 - alpha) b, truncated."""
    x, y = top_left
    region = image[y : y + alpha.shape[0], x : x + alpha.shape[1]]
    blend = alpha[..., None]
    region[:] = (blend * patch + (1 - blend) * region).astype(np.uint8)


def cast_shadow(
    image: np.ndarray,
    alpha: np.ndarray,
    top_left: tuple[int, int],
    darkness: float,
    ground: np.ndarray,
) -> None:
    """Darken the `ground` (bool [H,W]) around an object's foot in place, at most by `darkness`."""
    x, y = top_left
    rows, columns = np.nonzero(alpha[-max(1, len(alpha) // 8) :] > 0.5)
    if darkness <= 0 or not len(rows):
        return
    middle = x + (columns.min() + columns.max()) / 2
    wide = max(2.0, _SHADOW_SPREAD[0] * (columns.max() - columns.min() + 1))
    tall = max(1.5, _SHADOW_SPREAD[1] * len(alpha))
    foot = y + len(alpha) - 1
    reach = np.array([tall, wide]) * 2.5
    top, left = (max(0, int(value)) for value in (foot - reach[0], middle - reach[1]))
    bottom, right = int(foot + reach[0]) + 1, int(middle + reach[1]) + 1
    region = image[top:bottom, left:right]
    row, column = np.ogrid[top : top + region.shape[0], left : left + region.shape[1]]
    distance = ((row - foot) / tall) ** 2 + ((column - middle) / wide) ** 2
    shade = darkness * np.exp(-0.5 * distance) * ground[top:bottom, left:right]
    region[:] = (region * (1 - shade[..., None])).astype(np.uint8)


def prepared(
    patch: np.ndarray,
    alpha: np.ndarray,
    place: np.ndarray,
    sharpness: float,
    options: GeneratorOptions,
) -> tuple[np.ndarray, np.ndarray]:
    """Return colours and soft alpha of an object for `place`, the pixels it will cover."""
    inside = alpha > 0.5
    region = inside if options.match_region == 'object' else None
    patch = match_colour(
        patch,
        place,
        lab=options.match_lab,
        mean=options.match_mean,
        std=options.match_std,
        strength=options.match_strength,
        inside=region,
    )
    if options.match_blur:
        patch = match_blur(patch, inside, sharpness)
    return patch, feather(alpha, options.feather_px)
