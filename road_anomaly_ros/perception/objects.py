# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""From a score to obstacles: hysteresis, connected components and what is known of each of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from road_anomaly_ros.perception.contract import UNLABELLED, AnomalyObject
from road_anomaly_ros.perception.registry import option

OFF, TOUCHES, STANDS = 'off', 'touches', 'stands'
Table = NDArray[np.int64]


@dataclass(frozen=True)
class ObjectOptions:
    """How a score becomes obstacles."""

    threshold: float = option(
        math.nan, "Obstacles lie strictly above this score; nan takes the model's calibration.")
    low_threshold: float = option(
        math.nan, 'An obstacle grows to all connected pixels above this score; at or above the '
        "threshold nothing grows; nan takes the model's calibration.")
    min_area: int = option(
        500, 'Smaller obstacles are dropped; counted in an image of reference_area and scaled '
        'with the area of the image.', low=0, high=10_000_000, unit='pixel')
    reference_area: int = option(
        1024 * 2048, 'Image area to which min_area refers; 0 takes min_area as it is.',
        low=0, high=100_000_000, unit='pixel')
    max_objects: int = option(
        100, 'Longest list of obstacles; the mask still shows those beyond it.', low=0, high=10_000)
    connectivity: int = option(8, 'Neighbours that join pixels to one obstacle.', choices=(4, 8))
    opening: int = option(
        0, 'Side of the square of a morphological opening, which removes specks; 0 is none.',
        low=0, high=99, unit='pixel')
    closing: int = option(
        0, 'Side of the square of a morphological closing, which fills cracks; 0 is none.',
        low=0, high=99, unit='pixel')
    on_drivable: str = option(
        OFF, "Keep all obstacles ('off'), those with drivable ground somewhere around them "
        "('touches') or right beneath them ('stands').", choices=(OFF, TOUCHES, STANDS))
    contact: float = option(
        0.1, 'Share of the known ground around or beneath an obstacle that must be drivable.',
        low=0.0, high=1.0)
    ring: float = option(
        0.01, 'Width of the surroundings of an obstacle, at least two pixels.',
        low=0.0, high=0.25, unit='image height')


def check(options: ObjectOptions, drivable: Sequence[int]) -> None:
    """Raise ValueError where `on_drivable` is asked of a label set without drivable classes."""
    if options.on_drivable != OFF and not len(drivable):
        raise ValueError(f'objects.on_drivable={options.on_drivable!r} expects drivable classes, '
                         f"got none; name them in the label set or use 'off'")


def find(score: torch.Tensor, *, threshold: float, low_threshold: float = math.nan,
         options: ObjectOptions | None = None, labels: torch.Tensor | None = None,
         drivable: Sequence[int] = ()) -> tuple[torch.Tensor, torch.Tensor, tuple[AnomalyObject, ...]]:
    """Return the obstacles of one score map: (mask bool, instances int32, objects), maps [H, W].

    `score` [H, W] float, higher is stranger; `labels` [H, W] uint8 on the same device, 255 unknown.
    An obstacle is a connected region of score > low_threshold that holds a pixel > threshold (both
    strict); NaN scores count as anomalous, stay out of the statistics, and a region of nothing
    else has the score NaN and comes first. The list is sorted by mean score, area (both falling),
    top, left. `mask` holds every obstacle, `instances` and the list the first `max_objects`.

    The ground under an obstacle is hidden, so `on_drivable` looks at the labels next to it: a ring
    around it ('touches') or the band below its lowest pixels ('stands'). Where no label is known
    there (the rim of the image, unlabelled ground) the obstacle is kept.

    Raises ValueError for a score that is no map, a threshold that is NaN, or labels of another size.
    """
    options = options or ObjectOptions()
    check(options, drivable)
    _check_maps(score, labels, threshold, options)
    values, classes = _to_host(score, labels)
    regions = _regions(values, threshold, low_threshold, options)
    if regions is None:
        empty = torch.zeros_like(score, dtype=torch.int32)
        return empty.bool(), empty, ()
    regions = _describe(regions, values, classes, options, drivable)
    order = _order(regions)
    listed = order[:options.max_objects]
    ids = np.zeros(len(regions.area), np.int32)             # beyond the list: -1, dropped: 0
    ids[order] = -1
    ids[listed] = np.arange(1, len(listed) + 1)
    marked = np.zeros(values.shape, np.int32)
    marked.ravel()[regions.pixels] = ids[regions.owner]
    shown = torch.from_numpy(marked).to(score.device)
    return shown != 0, shown.clamp_min(0), tuple(
        regions.to_object(index, number) for number, index in enumerate(listed.tolist(), start=1))


@dataclass
class _Regions:
    """n candidate regions: their pixels with owners 0 .. n-1, and one row of each attribute."""

    pixels: Table                                   # [m] flat positions
    owner: Table                                    # [m]
    box: Table                                      # [n, 4] x, y, width, height
    area: Table                                     # [n]
    centroid: NDArray[np.float64]                   # [n, 2] x, y
    mean: NDArray[np.float64] = None                # type: ignore[assignment]
    peak: NDArray[np.float64] = None                # type: ignore[assignment]
    p95: NDArray[np.float64] = None                 # type: ignore[assignment]
    label: Table = None                             # type: ignore[assignment]
    kept: NDArray[np.bool_] = None                  # type: ignore[assignment]

    def to_object(self, index: int, number: int) -> AnomalyObject:
        """Return one row as the public noun."""
        x, y, width, height = self.box[index].tolist()
        return AnomalyObject(
            id=number, box=(x, y, width, height), area=int(self.area[index]),
            centroid=(float(self.centroid[index, 0]), float(self.centroid[index, 1])),
            score=float(self.mean[index]), score_max=float(self.peak[index]),
            score_p95=float(self.p95[index]), label=int(self.label[index]))


def _check_maps(score: torch.Tensor, labels: torch.Tensor | None, threshold: float,
                options: ObjectOptions) -> None:
    if score.ndim != 2 or min(score.shape) < 1:
        raise ValueError(f'expected a score [H,W], got {tuple(score.shape)}')
    if math.isnan(threshold):
        raise ValueError('expected a threshold, got nan; set objects.threshold or calibrate the model')
    if labels is None and options.on_drivable != OFF:
        raise ValueError(f'objects.on_drivable={options.on_drivable!r} expects labels, got none')
    if labels is not None and labels.shape != score.shape:
        raise ValueError(f'expected labels {tuple(score.shape)} like the score, got {tuple(labels.shape)}')


def _to_host(score: torch.Tensor, labels: torch.Tensor | None,
             ) -> tuple[NDArray[np.float32], NDArray[np.uint8] | None]:
    score = score.detach().float().contiguous()
    if labels is None:
        return score.cpu().numpy(), None
    labels = labels.detach().to(torch.uint8).contiguous()
    if score.device.type == 'cpu':
        return score.numpy(), labels.numpy()
    both = torch.cat((score.view(torch.uint8).flatten(), labels.flatten())).cpu().numpy()
    cut = 4 * score.numel()
    shape = tuple(score.shape)
    return both[:cut].view(np.float32).reshape(shape), both[cut:].reshape(shape)


def _regions(values: NDArray[np.float32], threshold: float, low_threshold: float,
             options: ObjectOptions) -> _Regions | None:
    low = threshold if math.isnan(low_threshold) else min(low_threshold, threshold)
    # The negated test lets NaN through: what cannot be judged counts as anomalous.
    strong = np.flatnonzero(~(values <= threshold))
    if not len(strong):
        return None
    weak = _smooth((~(values <= low)).view(np.uint8), options)
    count, marks, stats, centroids = cv2.connectedComponentsWithStats(
        weak, connectivity=options.connectivity, ltype=cv2.CV_32S)
    flat = marks.ravel()
    chosen = np.zeros(count, bool)
    chosen[flat[strong]] = True
    chosen[0] = False
    chosen &= stats[:, cv2.CC_STAT_AREA] >= _least_area(values, options)
    if not chosen.any():
        return None
    numbers = np.cumsum(chosen) - 1
    pixels = np.flatnonzero(weak.view(bool))
    owner = flat[pixels]
    inside = chosen[owner]
    return _Regions(pixels=pixels[inside], owner=numbers[owner[inside]],
                    box=stats[chosen, :4].astype(np.int64),
                    area=stats[chosen, cv2.CC_STAT_AREA].astype(np.int64), centroid=centroids[chosen])


def _smooth(binary: NDArray[np.uint8], options: ObjectOptions) -> NDArray[np.uint8]:
    for side, operation in ((options.opening, cv2.MORPH_OPEN), (options.closing, cv2.MORPH_CLOSE)):
        if side > 1:
            binary = np.asarray(cv2.morphologyEx(binary, operation, np.ones((side, side), np.uint8)),
                                np.uint8)
    return binary


def _least_area(values: NDArray[np.float32], options: ObjectOptions) -> float:
    scale = values.size / options.reference_area if options.reference_area else 1.0
    return options.min_area * scale


def _describe(regions: _Regions, values: NDArray[np.float32], classes: NDArray[np.uint8] | None,
              options: ObjectOptions, drivable: Sequence[int]) -> _Regions:
    _add_statistics(regions, values.ravel()[regions.pixels])
    _add_surroundings(regions, values.shape, classes, options, drivable)
    return regions


def _add_statistics(regions: _Regions, scores: NDArray[np.float32]) -> None:
    count = len(regions.area)
    known = ~np.isnan(scores)
    owner, scores = (regions.owner, scores) if known.all() else (regions.owner[known], scores[known])
    sizes = np.bincount(owner, minlength=count)
    with np.errstate(invalid='ignore', divide='ignore'):
        regions.mean = np.bincount(owner, scores, minlength=count) / sizes
    ordered = _sorted_by_owner(owner, scores)
    ends = np.cumsum(sizes)
    some = sizes > 0
    regions.peak, regions.p95 = np.full(count, np.nan), np.full(count, np.nan)
    regions.peak[some] = ordered[ends[some] - 1]
    regions.p95[some] = _quantile(ordered, (ends - sizes)[some], sizes[some], 0.95)


def _sorted_by_owner(owner: Table, scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the scores sorted within each owner, owners one after the other, by one integer sort."""
    bits = scores.view(np.uint32)
    rising = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))     # float order as integer order
    keys = np.sort(owner.astype(np.uint64) << np.uint64(32) | rising)
    low = keys.astype(np.uint32)
    return np.where(low >> 31, low & np.uint32((1 << 31) - 1), ~low).view(np.float32)


def _quantile(ordered: NDArray[np.float32], start: Table, size: Table, share: float) -> NDArray[np.float64]:
    place = share * (size - 1)
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, size - 1)
    low, high = ordered[start + below].astype(np.float64), ordered[start + above].astype(np.float64)
    with np.errstate(invalid='ignore'):
        return np.where(low == high, low, low + (place - below) * (high - low))


def _add_surroundings(regions: _Regions, shape: tuple[int, ...], classes: NDArray[np.uint8] | None,
                      options: ObjectOptions, drivable: Sequence[int]) -> None:
    count = len(regions.area)
    regions.label = np.full(count, UNLABELLED, np.int64)
    regions.kept = np.ones(count, bool)
    if classes is None:
        return
    width = max(2, round(options.ring * shape[0]))
    ring = _classes_around(regions, classes, np.ones((2 * width + 1, 2 * width + 1), np.uint8))
    known = ring.sum(axis=1) > 0
    regions.label[known] = ring[known].argmax(axis=1)
    if options.on_drivable == OFF:
        return
    if options.on_drivable == STANDS:
        ring = _classes_around(regions, classes, np.ones((width + 1, 1), np.uint8), anchor=(0, width))
    total = ring.sum(axis=1)
    ground = ring[:, list(drivable)].sum(axis=1)
    regions.kept = (total == 0) | ((ground > 0) & (ground >= options.contact * total))


def _classes_around(regions: _Regions, classes: NDArray[np.uint8], kernel: NDArray[np.uint8],
                    anchor: tuple[int, int] = (-1, -1)) -> Table:
    """Count the known classes on what a dilation adds to each region, [n, 255]; the first region wins ties."""
    count = len(regions.area)
    marks = np.zeros(classes.shape, np.uint16 if count < 65536 else np.float32)
    marks.ravel()[regions.pixels] = count - regions.owner
    grown = cv2.dilate(marks, kernel, anchor=anchor)
    around = np.flatnonzero((grown != marks) & (marks == 0) & (classes != UNLABELLED))
    owner = count - grown.ravel()[around].astype(np.int64)
    found = np.bincount(owner * UNLABELLED + classes.ravel()[around], minlength=count * UNLABELLED)
    return found.reshape(count, UNLABELLED)


def _order(regions: _Regions) -> Table:
    strangeness = np.where(np.isnan(regions.mean), np.inf, regions.mean)
    order = np.lexsort((regions.box[:, 0], regions.box[:, 1], -regions.area, -strangeness))
    return order[regions.kept[order]]
