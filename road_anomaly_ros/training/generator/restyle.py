# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Other looks of a scene whose content stays: classes of other colours, other weather and camera.

A head that saw one town, one season and one camera takes what looks otherwise for an anomaly.
What is changed here stays normal in the truth.
"""

from __future__ import annotations

import cv2
import numpy as np

_SOFT = 3  # pixels over which one class's colours pass into another's


def restyled(rng: np.random.Generator, image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return uint8 RGB [H,W,3] with about half of the classes in `labels` [H,W] recoloured."""
    found = image.astype(np.float32)
    for kind in np.unique(labels):
        if rng.random() < 0.5:
            region = cv2.blur((labels == kind).astype(np.float32), (_SOFT, _SOFT))[..., None]
            found += region * (_recoloured(rng, image) - image)
    return np.clip(found + 0.5, 0, 255).astype(np.uint8)


def _recoloured(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Return float32 [H,W,3] of another hue, saturation, brightness, contrast and grain."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.float32)
    hsv[..., 0] = (hsv[..., 0] + rng.normal(0, 18)) % 180
    hsv[..., 1] = np.clip(hsv[..., 1] * np.exp(rng.normal(0, 0.5)) + rng.normal(0, 15), 0, 255)
    found = cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB).astype(np.float32)
    found *= np.exp(rng.normal(0, 0.3))
    if rng.random() < 0.5:
        cells = tuple(
            max(2, int(side / np.exp(rng.uniform(0.7, 3.5)))) for side in image.shape[:2]
        )
        grain = cv2.resize(
            rng.standard_normal(cells).astype(np.float32),
            image.shape[1::-1],
            interpolation=cv2.INTER_LINEAR,
        )
        found *= 1 + rng.uniform(0.02, 0.2) * grain[..., None]
    return np.clip(found, 0, 255)


def weathered(rng: np.random.Generator, image: np.ndarray, horizon: float) -> np.ndarray:
    """Return uint8 RGB [H,W,3] under other light and through another camera.

    Exposure and tint always change; haze (thickest at the row `horizon`, a share of the height),
    blur, noise and compression sometimes.
    """
    found = image.astype(np.float32) / 255
    found = found ** np.exp(rng.normal(0, 0.25)) * np.exp(rng.normal(0, 0.2))
    found = found * np.exp(rng.normal(0, 0.08, 3)).astype(np.float32)
    grey = found.mean(2, keepdims=True)
    found = grey + (found - grey) * np.exp(rng.normal(0, 0.3))
    if rng.random() < 0.3:
        found = _hazed(rng, found, horizon)
    if rng.random() < 0.3:
        found = cv2.GaussianBlur(found, (0, 0), rng.uniform(0.4, 1.5))
    if rng.random() < 0.3:
        found = found + rng.normal(0, rng.uniform(0.005, 0.04), found.shape)
    drawn = np.clip(found * 255 + 0.5, 0, 255).astype(np.uint8)
    return _compressed(drawn, int(rng.integers(30, 90))) if rng.random() < 0.3 else drawn


def _hazed(rng: np.random.Generator, image: np.ndarray, horizon: float) -> np.ndarray:
    rows = np.linspace(0, 1, len(image))
    nearness = np.clip((rows - horizon) / max(1 - horizon, 0.05), 0, 1)
    share = rng.uniform(0.1, 0.6) * (1 - nearness)[:, None, None]
    return image * (1 - share) + share * rng.uniform(0.6, 0.95)


def _compressed(image: np.ndarray, quality: int) -> np.ndarray:
    _, data = cv2.imencode('.jpg', image, (cv2.IMWRITE_JPEG_QUALITY, quality))
    return cv2.imdecode(data, cv2.IMREAD_COLOR)
