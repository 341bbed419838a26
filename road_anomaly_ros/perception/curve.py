# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""From scores of known and of strange pixels to average precision, AUROC, FPR95 and best F1."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

try:
    from road_anomaly_ros.perception.kernels import counting
except ImportError:  # numba is an optional dependency
    counting = None  # type: ignore[assignment]

FPR_MODES = ('ge', 'gt', 'interp')
TPR_LEVEL = 0.95

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Steps:
    """The thresholds at which recall rises, downwards; false alarms in between need no step."""

    values: NDArray[np.float64]  # scores that anomalies have
    hits: Counts  # anomalies of exactly this score
    above: Counts  # known pixels of a higher score
    equal: Counts  # known pixels of exactly this score
    known: int


class ExactCurve:
    """Counts known pixels between the scores of all anomalies, image by image.

    Exact, and it holds no known pixel: `places` may run in threads, `add` takes what it returns.
    """

    def __init__(self, anomalies: Iterable[NDArray[np.float32]]) -> None:
        every = np.concatenate([np.empty(0, np.float32), *anomalies])
        self._values, self._hits = np.unique(every, return_counts=True)
        self._counts = np.zeros(2 * self._values.size + 1, np.int64)  # between and at, in turn
        self._known = 0

    def places(self, known: NDArray[np.float32]) -> tuple[int, Counts, Counts]:
        """Return how many scores there are, the places that hold any, and how many each holds.

        Place 2 i is below value i and above value i - 1, place 2 i + 1 is at value i; place 0 is
        left out. Places ascend.
        """
        size = known.size
        least = self._values[0] if self._values.size else np.float32(np.inf)
        known = np.sort(known[known >= least])  # the others are never false alarms
        if counting is not None and known.size:
            used, found = np.empty((2, known.size), np.int64)
            count = counting.count_between(known, self._values, used, found)
            return size, used[:count], found[:count]
        found = 2 * np.searchsorted(self._values, known)
        at = found < 2 * self._values.size
        at[at] = self._values[found[at] // 2] == known[at]
        found += at
        starts = np.flatnonzero(np.diff(found, prepend=-1))  # they ascend, as `known` does
        return size, found[starts], np.diff(starts, append=found.size)

    def add(self, places: tuple[int, Counts, Counts]) -> None:
        """Count the known pixels of one image."""
        size, used, found = places
        self._known += size
        self._counts[used] += found

    def steps(self) -> Steps:
        """Return the curve so far."""
        up_to = np.cumsum(self._counts)
        return Steps(
            self._values[::-1].astype(np.float64),
            self._hits[::-1],
            (up_to[-1] - up_to[1::2])[::-1],
            self._counts[1::2][::-1],
            self._known,
        )


def summarize(steps: Steps, fpr_mode: str = 'ge') -> dict[str, float]:
    """Return ap (no interpolation), auroc (ties count half), fpr95, best_f1 and best_threshold."""
    positives = int(steps.hits.sum())
    if positives == 0 or steps.known == 0:
        warnings.warn(
            'pixel metrics need both anomalies and known pixels; they are NaN', stacklevel=3
        )
        return dict.fromkeys(('ap', 'auroc', 'fpr95', 'best_f1', 'best_threshold'), math.nan)
    true = np.cumsum(steps.hits)
    false = steps.above + steps.equal
    f1 = 2 * true / (true + false + positives)
    best = int(np.argmax(f1))
    below = np.nextafter(np.float32(steps.values[best]), np.float32(-np.inf))
    return {
        'ap': float(np.sum(steps.hits / positives * (true / (true + false)))),
        'auroc': 1
        - float(np.sum(steps.hits * (steps.above + steps.equal / 2)) / (positives * steps.known)),
        'fpr95': _fpr95(steps, true / positives, false / steps.known, fpr_mode),
        'best_f1': float(f1[best]),
        'best_threshold': float(below),
    }


def _fpr95(steps: Steps, tpr: NDArray[np.float64], fpr: NDArray[np.float64], mode: str) -> float:
    first = int(np.argmax(tpr >= TPR_LEVEL if mode == 'ge' else tpr > TPR_LEVEL))
    if mode != 'interp':
        return float(fpr[first])
    before = float(tpr[first - 1]) if first else 0.0
    start = steps.above[first] / steps.known
    share = (TPR_LEVEL - before) / (tpr[first] - before)
    return float(start + share * (fpr[first] - start))
