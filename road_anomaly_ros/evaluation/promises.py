# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The statistics of a promise about false obstacles, made from frames that depend on each other.

Frames of a drive resemble their neighbours, so they are no independent trials. They are cut into
blocks of several correlation times (batch means; Flegal, Jones 2010), which stand for independent
stretches of driving. The loss falls as the threshold rises, so the lowest threshold at which an
upper confidence bound of the risk, and that of all higher ones, is within the rate keeps the
promise with the stated confidence (risk-controlling prediction sets, Bates et al. 2021; learn then
test, Angelopoulos et al. 2021). Nothing is promised for roads unlike those of the footage.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special, stats

METHODS = {
    'frame': 'Hoeffding-Bentkus bound over blocks, learn then test',
    'minute': 'Clopper-Pearson bound over blocks, learn then test',
}
_WINDOW = 5.0  # correlation times until which correlations are summed (Sokal 1997)
_BLOCK = 4.0  # correlation times per block: neighbours are then correlated by about 0.15


def correlation_time(series: np.ndarray) -> float:
    """Return the integrated autocorrelation time of a series [n] in samples, at least 0.5.

    tau = 1/2 + sum of rho(t) up to the first t >= 5 tau (Sokal 1997), of ranks, so that one peak
    does not rule it. 0.5 means independent samples, n / (2 tau) is the effective sample size. NaN
    for a constant series, which tells nothing.
    """
    ranks = stats.rankdata(series)
    ranks -= ranks.mean()
    power = float(ranks @ ranks)
    if power == 0:
        return math.nan
    spectrum = np.abs(np.fft.rfft(ranks, 2 * len(ranks))) ** 2
    rho = np.fft.irfft(spectrum)[: len(ranks)] / power
    tau = np.cumsum(rho) - 0.5
    end = np.flatnonzero(np.arange(len(tau)) >= _WINDOW * tau)
    return max(0.5, float(tau[end[0] if len(end) else -1]))


def block_length(series: np.ndarray, least: int) -> int:
    """Return the frames of a block for this series [n]; `least` where it never changes."""
    tau = correlation_time(series)
    return least if math.isnan(tau) else max(least, math.ceil(_BLOCK * tau))


def block_means(values: np.ndarray, length: int) -> np.ndarray:
    """Return means [blocks, ...] of values [n, ...] over blocks of `length` or a little more."""
    count = max(1, len(values) // length)
    edges = np.arange(count) * len(values) // count
    sizes = np.diff(np.append(edges, len(values)))
    sums = np.add.reduceat(np.asarray(values, np.float64), edges, axis=0)
    return sums / sizes.reshape(-1, *[1] * (sums.ndim - 1))


def hoeffding_bentkus(mean: float, count: int, risk: float) -> float:
    """Return a p-value of 'the expectation is above `risk`' for a mean of `count` in [0, 1].

    min(exp(-n h(min(mean, risk), risk)), e P(Binomial(n, risk) <= ceil(n mean))), h the relative
    entropy of two coins (Bates et al. 2021, theorem 4).
    """
    low = min(mean, risk)
    entropy = special.rel_entr(low, risk) + special.rel_entr(1 - low, 1 - risk)
    hits = math.ceil(round(count * mean, 9))
    bentkus = math.e * stats.binom.cdf(hits, count, risk)
    return float(min(1.0, math.exp(-count * entropy), bentkus))


def clopper_pearson(mean: float, count: int, risk: float) -> float:
    """Return the exact p-value of 'the probability is above `risk`' for `count` yes-no trials."""
    return float(stats.binom.cdf(round(count * mean), count, risk))


@dataclass(frozen=True)
class Bound:
    """What blocks say about a risk; `unit` is 'frame' or 'minute'."""

    unit: str
    confidence: float
    block_seconds: float = math.nan  # needed for 'minute' only

    @property
    def _p_value(self) -> Callable[[float, int, float], float]:
        return hoeffding_bentkus if self.unit == 'frame' else clopper_pearson

    @property
    def scale(self) -> float:
        """The rate that a risk of 1 stands for."""
        return 1.0 if self.unit == 'frame' else 60.0 / self.block_seconds

    def losses(self, false: np.ndarray, length: int) -> np.ndarray:
        """Return the loss in [0, 1] of every block from what frames are false, bool [n]."""
        means = block_means(false, length)
        return means if self.unit == 'frame' else (means > 0).astype(np.float64)

    def holds(self, losses: np.ndarray, rate: float) -> bool:
        """Tell whether the blocks support the rate with the confidence."""
        risk = rate / self.scale
        return risk >= 1 or self._p_value(float(losses.mean()), len(losses), risk) <= self._doubt

    @property
    def _doubt(self) -> float:
        return 1 - self.confidence + 1e-12

    def upper(self, losses: np.ndarray) -> float:
        """Return the lowest rate that the blocks support."""
        mean, count = float(losses.mean()), len(losses)

        def excess(risk: float) -> float:
            return self._p_value(mean, count, risk) - self._doubt

        low, high = max(mean, 1e-12), 1 - 1e-12
        if excess(high) > 0:
            return self.scale
        return self.scale * float(optimize.brentq(excess, low, high, xtol=1e-9))

    def needed(self, rate: float) -> int:
        """Return how many blocks without a false obstacle it takes: (1 - risk)^n <= 1 - conf."""
        risk = rate / self.scale
        return 1 if risk >= 1 else math.ceil(math.log(self._doubt) / math.log1p(-risk) - 1e-6)

    def reached(self, count: int, rate: float) -> float:
        """Return the confidence that `count` blocks without a false obstacle give to a rate."""
        risk = rate / self.scale
        return 1.0 if risk >= 1 else 1 - (1 - risk) ** count


@dataclass(frozen=True)
class Choice:
    """The threshold found, and what the footage itself shows at it."""

    threshold: float
    measured: float  # rate of the bound's unit
    upper: float  # lowest rate that the blocks support there


def choose(
    peaks: np.ndarray,
    lowest: float,
    length: int,
    bound: Bound,
    rate: float,
    mean_count: Callable[[float], float],
) -> Choice | None:
    """Return the lowest threshold >= `lowest` that keeps the rate; None where none can.

    `peaks` [n] is, per frame, the threshold from which on nothing false is shown, -inf where
    nothing ever is. `mean_count(threshold)` are the false obstacles per frame; where the unit is
    'frame' they, too, must be measured below the rate. From the highest threshold downwards the
    first failure ends the search (fixed sequence); losses only grow, so halving finds it.
    """

    def judge(threshold: float) -> np.ndarray | None:
        losses = bound.losses(peaks > threshold, length)
        crowded = bound.unit == 'frame' and mean_count(threshold) > rate
        return None if crowded or not bound.holds(losses, rate) else losses

    candidates = np.unique(np.append(peaks[peaks > lowest], lowest))
    good, bad = len(candidates), -1
    while good - bad > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if judge(candidates[middle]) is not None else (good, middle)
    if good == len(candidates):
        return None
    threshold = float(candidates[good])
    losses = bound.losses(peaks > threshold, length)
    return Choice(threshold, float(losses.mean()) * bound.scale, bound.upper(losses))
