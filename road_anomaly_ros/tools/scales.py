# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Score maps as 16-bit pictures, and the scale beside them that gives the scores back."""

from __future__ import annotations

import numpy as np

NAME = 'scale.json'
_STEPS = 65534
FORMULA = f'score = low + (pixel - 1) / {_STEPS} * (high - low); pixel 0: no score'


def quantize(score: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Return a score map as uint16 1..65535 with the scores of both ends; NaN and inf become 0."""
    finite = np.isfinite(score)
    if not finite.any():
        return np.zeros(score.shape, np.uint16), 0.0, 0.0
    low, high = float(score[finite].min()), float(score[finite].max())
    unit = (score - low) / ((high - low) or 1.0)
    return (
        np.where(finite, 1 + np.rint(np.where(finite, unit, 0) * _STEPS), 0).astype(np.uint16),
        low,
        high,
    )


def restored(pixels: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return the scores, float32, that `quantize` made pixels of; NaN where there was none."""
    values = pixels.astype(np.float32)
    return np.where(values > 0, low + (values - 1) / _STEPS * (high - low), np.nan)
