# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Tell whether live scores still look like those that a threshold was calibrated on.

Every block of driving is one number: how far quantiles of its scores lie from the usual ones. Its
rank among the calibrated blocks and those seen since is a conformal p-value, uniform as long as
blocks are exchangeable (Vovk, Nouretdinov, Gammerman 2003). A Shiryaev-Roberts sum of the bets
e p^(e-1) on small p-values alarms falsely once in `1 / rate` blocks at most on average
(Volkhonskiy et al. 2017; Shin, Ramdas, Rinaldo 2022).
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

LEVELS = (0.5, 0.9, 0.99)  # of the scores of one image
FALSE_ALARM_S = 24 * 3600.0  # average time between false alarms is at least this
MIN_BLOCKS = 10  # fewer cannot tell drift from chance
_SAMPLES = 10_000  # pixels of one image that are looked at
_BETS = np.array([0.1, 0.3, 0.5, 0.7])
_LONGEST_GAP = 10.0  # blocks without a frame after which one begins anew
_CLEAR = 10.0  # how far above the alarm the evidence may grow


def statistic(score: torch.Tensor) -> torch.Tensor:
    """Return quantiles [levels] of a score [H, W], on its device and without waiting for it."""
    stride = max(1, round(math.sqrt(score.numel() / _SAMPLES)))
    values = score[::stride, ::stride].flatten().sort().values
    # Not values[places]: an index of a list would be copied to the device and wait for it.
    return torch.stack([values[round(level * (len(values) - 1))] for level in LEVELS])


def blindness(reference: Sequence[Sequence[float]]) -> str:
    """Return in one line why a reference [blocks, levels] cannot tell drift, or ''."""
    if len(reference) >= MIN_BLOCKS:
        return ''
    return f'it takes {MIN_BLOCKS} blocks of footage, the calibration has {len(reference)}'


class Exchangeability:
    """A running test whether new blocks look like the reference [blocks, levels].

    Half of the reference says what is usual, the other half and every block without alarm how far
    blocks lie from it. `rate` is the false alarms per block, on average at most. ValueError for a
    reference with fewer than MIN_BLOCKS blocks.
    """

    def __init__(self, reference: Sequence[Sequence[float]], rate: float) -> None:
        if len(reference) < MIN_BLOCKS:
            raise ValueError(
                f'expected at least {MIN_BLOCKS} blocks to compare with, got '
                f'{len(reference)}; calibrate on more driving'
            )
        rows = np.asarray(reference, np.float64)
        usual = rows[::2]
        self._center = np.median(usual, axis=0)
        spread = np.median(np.abs(usual - self._center), axis=0)
        tiny = 1e-6 * np.maximum(np.abs(self._center), 1e-6)
        self._spread = np.maximum(spread, tiny)
        self._seen = sorted(self._distance(row) for row in rows[1::2])
        self._capital = np.zeros(len(_BETS))
        self.limit = 1.0 / rate

    def _distance(self, row: NDArray[np.float64]) -> float:
        return float(np.max(np.abs(row - self._center) / self._spread))

    @property
    def evidence(self) -> float:
        """The Shiryaev-Roberts sum; it alarms at `limit`."""
        return float(self._capital.mean())

    @property
    def drifted(self) -> bool:
        """Tell whether the blocks look different now."""
        return self.evidence >= self.limit

    def update(self, row: Sequence[float]) -> float:
        """Take one block [levels] and return its p-value; NaN blocks count as strange."""
        distance = self._distance(np.asarray(row, np.float64))
        distance = math.inf if math.isnan(distance) else distance
        below = bisect.bisect_left(self._seen, distance)
        p = (1 + len(self._seen) - below) / (1 + len(self._seen))
        self._capital = (1 + self._capital) * _BETS * p ** (_BETS - 1)
        self._capital = np.minimum(self._capital, _CLEAR * self.limit)
        if not self.drifted:
            bisect.insort(self._seen, distance)
        return p


class Monitor:
    """Feeds the frames of one camera to the test, block by block; one thread at a time.

    Nothing is copied from the device but one row per block.
    """

    def __init__(self, reference: Sequence[Sequence[float]], block_seconds: float) -> None:
        self._test = Exchangeability(reference, block_seconds / FALSE_ALARM_S)
        self._length = block_seconds
        self._rows: list[torch.Tensor] = []
        self._begin = self._last = math.inf
        self.blocks = 0

    @property
    def drifted(self) -> bool:
        """Tell whether scores look different from those calibrated on."""
        return self._test.drifted

    @property
    def evidence(self) -> float:
        """Evidence of drift as a share of what makes an alarm."""
        return self._test.evidence / self._test.limit

    def add(self, score: torch.Tensor, stamp: float) -> None:
        """Take the score [H, W] of a frame at `stamp` seconds; a stamp that goes back restarts."""
        if stamp < self._last or stamp - self._last > _LONGEST_GAP * self._length:
            self._begin, self._rows = stamp, []
        elif stamp - self._begin >= self._length:
            self._test.update(torch.stack(self._rows).mean(dim=0).tolist())
            self.blocks += 1
            self._begin, self._rows = stamp, []
        self._last = stamp
        self._rows.append(statistic(score))
