# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""HOTA: detection and association of tracks in one figure (Luiten et al., IJCV 2021).

TrackEval gives the same figures (compared with 1.3.0); it is no dependency because it installs
opencv-python over opencv-python-headless, and cv2 then needs a display's libraries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

ALPHAS = np.arange(1, 20) / 20  # least overlap of a match, averaged over
_ROUNDING = 1e-9


class Likeness(NamedTuple):
    """What one frame shows: names of things [n], ids of tracks [m], intersection over union."""

    names: Sequence[int]
    ids: Sequence[int]
    overlap: NDArray[np.float64]  # [n, m]


def hota(frames: Sequence[Likeness]) -> dict[str, float]:
    """Return HOTA, DetA and AssA in 0..1, means over ALPHAS; NaN where nothing is there at all."""
    names = sorted({name for frame in frames for name in frame.names})
    ids = sorted({number for frame in frames for number in frame.ids})
    placed = [
        (np.searchsorted(names, frame.names), np.searchsorted(ids, frame.ids), frame.overlap)
        for frame in frames
    ]
    of_things, of_tracks = np.zeros((len(names), 1)), np.zeros((1, len(ids)))
    together = np.zeros((len(names), len(ids)))
    for rows, columns, overlap in placed:
        of_things[rows] += 1
        of_tracks[:, columns] += 1
        union = overlap.sum(0) + overlap.sum(1)[:, None] - overlap
        together[np.ix_(rows, columns)] += overlap / np.where(union > 0, union, 1)
    alignment = together / (of_things + of_tracks - together)
    matched = np.zeros((len(ALPHAS), *together.shape))
    for rows, columns, overlap in placed:
        pairs = linear_sum_assignment(alignment[np.ix_(rows, columns)] * overlap, maximize=True)
        alike = overlap[pairs] >= ALPHAS[:, None] - _ROUNDING
        matched[:, rows[pairs[0]], columns[pairs[1]]] += alike
    hits = matched.sum((1, 2))
    total = of_things.sum() + of_tracks.sum()
    with np.errstate(invalid='ignore'):
        found = hits / (total - hits)
    kept = matched * matched / (of_things + of_tracks - matched)
    tied = kept.sum((1, 2)) / np.maximum(hits, 1)
    return {
        'HOTA': float(np.sqrt(found * tied).mean()),
        'DetA': float(found.mean()),
        'AssA': float(tied.mean()),
    }
