# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Watershed of the colour gradient, its basins merged by colour; no weights.

On real frames with pasted objects the segments follow the objects as well as Felzenszwalb's at the
same number of segments, in half of the time.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from skimage import segmentation

from road_anomaly_ros.perception.registry import option
from road_anomaly_ros.perception.resources import Resources
from road_anomaly_ros.perception.segments._images import Partition

SOURCE = 'ours: watershed of the gradient, basins merged'
NEEDS = 'nothing'

Index = NDArray[np.int32]
Numbers = NDArray[np.int64]
Floats = NDArray[np.float64]
Colors = NDArray[np.float32]
_SMALL_FIRST = 1e-6  # factor on the cost of joining a region below min_size


@dataclass(frozen=True)
class Options:
    """Options of `watershed`."""

    scale: float = option(
        100.0,
        'Regions join while their difference in colour (Lab, 0..255) times the square root '
        'of their reduced size stays below this; higher gives larger segments.',
        low=0.0,
        high=100_000.0,
    )
    sigma: float = option(
        0.0, 'Standard deviation of the blur before.', low=0.0, high=5.0, unit='pixel'
    )
    min_size: int = option(
        12,
        'Smaller segments join their most similar neighbour, in the reduced image.',
        low=1,
        high=100_000,
        unit='pixel',
    )
    max_side: int = option(
        256,
        'Longer side of the reduced image; the time grows with its square.',
        low=16,
        high=4096,
        unit='pixel',
    )


def load(
    *, device: torch.device, options: Options, resources: Resources | None = None
) -> Partition:
    """Return the source."""
    return Partition(lambda pixels: cut(pixels, options), options.max_side)


def cut(pixels: NDArray[np.uint8], options: Options) -> Index:
    """Return the regions of an RGB image [h, w, 3], [h, w] numbered from 0."""
    colors = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB), np.float32)
    if options.sigma > 0:
        colors = np.asarray(cv2.GaussianBlur(colors, (0, 0), options.sigma), np.float32)
    return merge(basins(colors), colors, options.scale, options.min_size)


def basins(colors: Colors) -> Index:
    """Return the basins of the gradient of colours [h, w, 3], [h, w] numbered from 0.

    Gradients of less than four grey levels per pixel count as flat: fewer basins, equal contours.
    """
    across, down = (cv2.Sobel(colors, cv2.CV_32F, *axes) for axes in ((1, 0), (0, 1)))
    height = np.sqrt((across * across + down * down).sum(axis=2))
    levels = np.clip(height / 4 - 8, 0, 255).astype(np.uint8)
    minima = cv2.erode(levels, np.ones((3, 3), np.uint8)) == levels
    _, markers = cv2.connectedComponents(minima.astype(np.uint8))
    return (segmentation.watershed(levels, markers) - 1).astype(np.int32)


def merge(index: Index, colors: Colors, scale: float, min_size: int) -> Index:
    """Join neighbours in the order of what it costs, as long as that is below scale squared.

    The cost is Ward's: squared difference of the mean colours times n m / (n + m). In every round
    all pairs join that are each other's cheapest, so that some rounds of array operations do.
    """
    count = int(index.max()) + 1
    flat = index.ravel()
    sums: Floats = np.stack(
        [
            np.bincount(flat, channel, count).astype(np.float64)
            for channel in (np.ones(flat.size), *colors.reshape(-1, 3).T)
        ]
    )
    owner = np.arange(count)
    first, second = _neighbours(index, count)
    while len(first):
        joined = _cheapest(first, second, sums, scale, min_size)
        if not joined.any():
            break
        into, gone = first[joined], second[joined]
        sums[:, into] += sums[:, gone]
        parent = np.arange(count)
        parent[gone] = into
        owner, first, second = parent[owner], parent[first], parent[second]
        apart = first != second
        first, second = first[apart], second[apart]
    used = np.zeros(count, np.int32)
    used[owner] = 1
    return (np.cumsum(used, dtype=np.int32) - 1)[owner][index]


def _cheapest(
    first: Numbers, second: Numbers, sums: Floats, scale: float, min_size: int
) -> NDArray[np.bool_]:
    """Return which pairs are each other's cheapest neighbour and may join, one per region."""
    size, means = sums[0], sums[1:] / sums[0]
    gap = means[:, first] - means[:, second]
    one, other = size[first], size[second]
    cost = (gap * gap).sum(axis=0) * one * other / (one + other)
    small = np.minimum(one, other) < min_size
    order = np.argsort(np.where(small, _SMALL_FIRST * cost, cost), kind='stable')[::-1]
    best = np.empty(len(size), np.int64)
    # Of several values written to one place the last one stays: that of the cheapest pair.
    best[np.stack((first[order], second[order]), axis=1).ravel()] = np.repeat(order, 2)
    places = np.arange(len(first))
    return (small | (cost < scale * scale)) & (best[first] == places) & (best[second] == places)


def _neighbours(index: Index, count: int) -> tuple[Numbers, Numbers]:
    """Return every pair of regions that share a border once, the lower number first."""
    sides = ((index[:, :-1], index[:, 1:]), (index[:-1], index[1:]))
    first, second = (np.concatenate([side[place].ravel() for side in sides]) for place in (0, 1))
    apart = first != second
    first, second = first[apart].astype(np.int64), second[apart].astype(np.int64)
    keys = np.unique(np.minimum(first, second) * count + np.maximum(first, second))
    return keys // count, keys % count
