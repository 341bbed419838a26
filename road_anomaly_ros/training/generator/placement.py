# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Where an object stands and how large it is there."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from road_anomaly_ros.training.generator.options import GeneratorOptions

_SMALLEST = 12  # pixels of height: less is smaller than a cell of the networks
_LIMITS = (0.05, 10.0)  # of the published scale after the area was bounded


class Size(NamedTuple):
    """Scale of a cut-out and the pixels it then has."""

    scale: float
    height: int
    width: int


class Place(NamedTuple):
    """Top left corner of an object in the image, and its size."""

    x: int
    y: int
    size: Size


def published_size(
    image: tuple[int, int], patch: tuple[int, int], row: int, options: GeneratorOptions
) -> Size:
    """Return the published size of a cut-out `patch` (h, w) for a row of an `image` (H, W).

    s = scale_min + (scale_max - scale_min) y / (H - 1), multiplied by sqrt(bound / area) where the
    box area as a share of the image is out of bounds, clamped to [0.05, 10]; half to even.
    """
    share = row / max(image[0] - 1, 1)
    scale = options.scale_min + (options.scale_max - options.scale_min) * share
    height, width = round(patch[0] * scale), round(patch[1] * scale)
    area = height * width / (image[0] * image[1])
    bound = min(max(area, options.area_min), options.area_max)
    if bound != area and area > 0:
        scale *= math.sqrt(bound / area)
    scale = min(max(scale, _LIMITS[0]), _LIMITS[1])
    return _size(patch, scale)


def perspective_size(
    image: tuple[int, int],
    patch: tuple[int, int],
    foot: int,
    share: float,
    options: GeneratorOptions,
) -> Size:
    """Return the size of an object whose lowest row is `foot`: `share` of its way to the horizon.

    Objects of one true height shrink linearly towards the horizon of a flat road.
    """
    tall = max(_SMALLEST, share * (foot - options.horizon * (image[0] - 1)))
    area = tall * tall * patch[1] / patch[0] / (image[0] * image[1])
    if area > options.area_max:
        tall *= math.sqrt(options.area_max / area)
    return _size(patch, tall / patch[0])


def _size(patch: tuple[int, int], scale: float) -> Size:
    return Size(scale, max(1, round(patch[0] * scale)), max(1, round(patch[1] * scale)))


class Ground:
    """The label map of one background, asked again and again for a place."""

    def __init__(self, labels: np.ndarray, forbidden: tuple[int, ...]) -> None:
        self.labels = labels
        self._forbidden = np.isin(labels, forbidden)

    def find(
        self, rng: np.random.Generator, target: int, alpha: np.ndarray, options: GeneratorOptions
    ) -> Place | None:
        """Return a place for a cut-out with `alpha` [h,w] on class `target`, None if none fits."""
        propose = self._by_foot if options.scale_from_paste_y else self._by_corner
        fits = self._foot_fits if options.contact == 'foot' else self._box_fits
        candidates = np.flatnonzero(self.labels == target) if options.scale_from_paste_y else None
        if candidates is not None:
            horizon = options.horizon * (self.labels.shape[0] - 1) + _SMALLEST / 2
            candidates = candidates[candidates >= int(max(0, horizon)) * self.labels.shape[1]]
            if not len(candidates):
                return None
        for _ in range(options.max_tries):
            place = propose(rng, alpha.shape, candidates, options)
            if place is not None and fits(place, alpha, target, options):
                return place
        return None

    def _by_foot(
        self,
        rng: np.random.Generator,
        patch: tuple[int, int],
        candidates: np.ndarray,
        options: GeneratorOptions,
    ) -> Place | None:
        row, column = divmod(int(candidates[rng.integers(len(candidates))]), self.labels.shape[1])
        share = rng.uniform(options.height_min, options.height_max)
        size = perspective_size(self.labels.shape, patch, row, share, options)
        return Place(column - size.width // 2, row - size.height + 1, size)

    def _by_corner(
        self,
        rng: np.random.Generator,
        patch: tuple[int, int],
        candidates: None,
        options: GeneratorOptions,
    ) -> Place | None:
        height, width = self.labels.shape
        size = published_size((height, width), patch, int(rng.integers(height)), options)
        if size.height >= height or size.width >= width:
            return None
        return Place(
            int(rng.integers(width - size.width)), int(rng.integers(height - size.height)), size
        )

    def _inside(self, place: Place) -> bool:
        height, width = self.labels.shape
        return (
            place.x > 0
            and place.y > 0
            and place.x + place.size.width < width - 1
            and place.y + place.size.height < height - 1
        )

    def _box(self, place: Place) -> tuple[slice, slice]:
        return np.s_[place.y : place.y + place.size.height, place.x : place.x + place.size.width]

    def _box_fits(
        self, place: Place, alpha: np.ndarray, target: int, options: GeneratorOptions
    ) -> bool:
        if not self._inside(place):
            return False
        box = self._box(place)
        return bool(
            (self.labels[box] == target).mean() >= options.min_target_fraction
            and not self._forbidden[box].any()
        )

    def _foot_fits(
        self, place: Place, alpha: np.ndarray, target: int, options: GeneratorOptions
    ) -> bool:
        if not self._inside(place):
            return False
        box = self._box(place)
        rows = (np.arange(place.size.height) * alpha.shape[0]) // place.size.height
        columns = (np.arange(place.size.width) * alpha.shape[1]) // place.size.width
        covered = alpha[rows[:, None], columns] > 0.5
        foot = covered[-max(2, place.size.height // 10) :]
        under = self.labels[box][-len(foot) :][foot]
        return bool(
            under.size
            and (under == target).mean() >= options.min_target_fraction
            and not (self._forbidden[box] & covered).any()
        )
