# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""From a score to obstacles: hysteresis, connected components and what is known of each."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from road_anomaly_ros.perception import arrays, evidence
from road_anomaly_ros.perception.contract import UNLABELLED, AnomalyObject, HostCopies
from road_anomaly_ros.perception.evidence import least_area
from road_anomaly_ros.perception.object_options import (
    COMPONENTS,
    EXCESS,
    LOG_ODDS,
    OFF,
    SEGMENTS,
    STANDS,
    ObjectOptions,
)

Table = NDArray[np.int64]
Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]


def check(options: ObjectOptions, drivable: Sequence[int], threshold: float = 0.5) -> None:
    """Raise ValueError for what cannot work.

    That is `on_drivable` of a label set without drivable classes, and log-odds of a score whose
    threshold is no share.
    """
    if options.min_evidence and options.evidence == LOG_ODDS and not 0 <= threshold <= 1:
        raise ValueError(
            f'objects.evidence={LOG_ODDS!r} expects a score from 0 to 1, got the '
            f'threshold {threshold:g}; choose {EXCESS!r}'
        )
    if options.on_drivable != OFF and not len(drivable):
        raise ValueError(
            f'objects.on_drivable={options.on_drivable!r} expects drivable classes, '
            f"got none; name them in the label set or use 'off'"
        )


def find(
    score: torch.Tensor,
    *,
    threshold: float,
    low_threshold: float = math.nan,
    options: ObjectOptions | None = None,
    labels: torch.Tensor | None = None,
    drivable: Sequence[int] = (),
    proposals: Proposals | None = None,
    host: HostCopies | None = None,
) -> tuple[torch.Tensor, torch.Tensor, tuple[AnomalyObject, ...]]:
    """Return the obstacles of one score map: (mask bool, instances int32, objects), maps [H, W].

    `score` [H, W] float, higher is stranger; `labels` [H, W] uint8 on the same device, 255
    unknown. An obstacle is a connected region of score > low_threshold that holds a pixel >
    threshold (both strict). NaN scores count as anomalous and stay out of the statistics; a region
    of nothing else has the score NaN and comes first. The list is sorted by mean score and area
    (both falling), top and left. `mask` holds every obstacle, `instances` and the list the first
    `max_objects`. For the ground around them see `_add_surroundings`.

    `proposals` are the segments of the modes 'segments' and 'both'. A pixel of several obstacles
    belongs to the strangest segment; what is left of the others must still have `min_area`.
    `host` is asked for copies of the maps, and gets those made here.

    ValueError for no map, no threshold, labels of another size, and those modes without proposals.
    """
    options = options or ObjectOptions()
    check(options, drivable, threshold)
    _check_maps(score, labels, threshold, options)
    host = HostCopies() if host is None else host
    values, classes = _to_host(score, labels, host)
    regions = _candidates(values, threshold, low_threshold, options, proposals)
    mask, instances = np.zeros(values.shape, bool), np.zeros(values.shape, np.int32)
    found: tuple[AnomalyObject, ...] = ()
    if regions is not None:
        _add_surroundings(regions, values.shape, classes, options, drivable)
        mask, instances, found = _drawn(regions, values, options.max_objects)
        there = [arrays.moved(torch.from_numpy(part), score.device) for part in (mask, instances)]
    else:  # as in most frames; made on the device faster than brought there
        kinds = torch.bool, torch.int32
        there = [torch.zeros(values.shape, dtype=kind, device=score.device) for kind in kinds]
    return host.keep(there[0], mask), host.keep(there[1], instances), found


@dataclass(frozen=True)
class Proposals:
    """Segments 0 .. count-1, strangest first, which may overlap, as a list of their pixels."""

    rows: Table  # [m] number of the segment
    places: Table  # [m] flat place of the pixel
    count: int

    @classmethod
    def none(cls) -> Proposals:
        """Return no segment at all."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int64), 0)


class _Regions:
    """n candidate regions: their pixels with owners 0 .. n-1, and one row of each attribute."""

    def __init__(self, pixels: Table, owner: Table, area: Table, width: int) -> None:
        self.pixels, self.owner, self.area = pixels, owner, area  # [m] flat places, [m], [n]
        self.box, self.centroid = _extent(pixels, owner, area, width)
        self.mean = np.empty(0)  # [n]
        self.label = np.empty(0, np.int64)  # [n]
        self.kept = np.ones(len(area), bool)  # [n]

    def to_object(self, index: int, number: int, scores: Floats32) -> AnomalyObject:
        """Return one row, whose pixels have these scores, as the public noun."""
        x, y, width, height = self.box[index].tolist()
        scores = scores[~np.isnan(scores)]
        peak = float(scores.max()) if len(scores) else math.nan
        return AnomalyObject(
            id=number,
            box=(x, y, width, height),
            area=int(self.area[index]),
            centroid=(float(self.centroid[index, 0]), float(self.centroid[index, 1])),
            score=float(self.mean[index]),
            score_max=peak,
            score_p95=_quantile(scores, 0.95),
            label=int(self.label[index]),
        )


def _candidates(
    values: Floats32,
    threshold: float,
    low_threshold: float,
    options: ObjectOptions,
    proposals: Proposals | None,
) -> _Regions | None:
    """Return what is strange and large enough for its place, wherever it stands; None for none."""
    regions = None
    if options.mode != SEGMENTS:
        regions = _regions(values, threshold, low_threshold, options)
    if options.mode != COMPONENTS:
        if proposals is None:
            raise ValueError(
                f'objects.mode={options.mode!r} expects segments, got none; '
                f'choose a segment source or {COMPONENTS!r}'
            )
        if len(proposals.places):
            regions = _with_proposals(regions, proposals, values, options)
    return regions and _with_enough(regions, values, threshold, options)


def _drawn(
    regions: _Regions, values: Floats32, most: int
) -> tuple[NDArray[np.bool_], NDArray[np.int32], tuple[AnomalyObject, ...]]:
    """Return mask and instances [H, W] of the kept regions, and the list of the first `most`."""
    scores = values.ravel()[regions.pixels]
    regions.mean = _means(regions, scores)
    listed = _order(regions)[:most]
    ids = np.zeros(len(regions.area), np.int32)
    ids[listed] = np.arange(1, len(listed) + 1)
    numbers = ids[regions.owner]
    mask, instances = np.zeros(values.shape, bool), np.zeros(values.shape, np.int32)
    mask.ravel()[regions.pixels] = regions.kept[regions.owner]
    instances.ravel()[regions.pixels] = numbers
    members = _members(numbers, scores, len(listed))
    found = tuple(
        regions.to_object(index, number, members[number - 1])
        for number, index in enumerate(listed.tolist(), start=1)
    )
    return mask, instances, found


def _extent(pixels: Table, owner: Table, area: Table, width: int) -> tuple[Table, Floats]:
    """Return boxes [n, 4] (x, y, width, height) and centroids [n, 2] from runs of pixels."""
    count = len(area)
    breaks = (np.diff(pixels) != 1) | (pixels[1:] % width == 0) | (np.diff(owner) != 0)
    begin = np.concatenate(([0], np.flatnonzero(breaks) + 1))
    length = np.diff(np.append(begin, len(pixels)))
    owner = owner[begin]
    rows, left = np.divmod(pixels[begin], width)
    right = left + length - 1
    low, high = np.full((2, count), np.iinfo(np.int64).max), np.full((2, count), -1)
    for axis, (first, last) in enumerate(((left, right), (rows, rows))):
        np.minimum.at(low[axis], owner, first)
        np.maximum.at(high[axis], owner, last)
    moments = [
        np.bincount(owner, 0.5 * length * (first + last), minlength=count)
        for first, last in ((left, right), (rows, rows))
    ]
    return np.concatenate((low, high - low + 1)).T, (np.stack(moments) / area).T


def _check_maps(
    score: torch.Tensor, labels: torch.Tensor | None, threshold: float, options: ObjectOptions
) -> None:
    if score.ndim != 2 or min(score.shape) < 1:
        raise ValueError(f'expected a score [H,W], got {tuple(score.shape)}')
    if math.isnan(threshold):
        raise ValueError(
            'expected a threshold, got nan; set objects.threshold or calibrate the model'
        )
    if labels is None and options.on_drivable != OFF:
        raise ValueError(f'objects.on_drivable={options.on_drivable!r} expects labels, got none')
    if labels is not None and labels.shape != score.shape:
        raise ValueError(
            f'expected labels {tuple(score.shape)} like the score, got {tuple(labels.shape)}'
        )


def _to_host(
    score: torch.Tensor, labels: torch.Tensor | None, host: HostCopies
) -> tuple[Floats32, NDArray[np.uint8] | None]:
    score = score.float().contiguous()
    if labels is None:
        return host(score), None
    labels = labels.to(torch.uint8).contiguous()
    if not host.holds(score) and not host.holds(labels):  # wait for the device once, not twice
        parts = score.detach().view(torch.uint8).flatten(), labels.flatten()
        both, cut, shape = torch.cat(parts).cpu().numpy(), 4 * score.numel(), tuple(score.shape)
        host.keep(score, both[:cut].view(np.float32).reshape(shape))
        host.keep(labels, both[cut:].reshape(shape))
    return host(score), host(labels)


def _regions(
    values: Floats32, threshold: float, low_threshold: float, options: ObjectOptions
) -> _Regions | None:
    low = threshold if math.isnan(low_threshold) else min(low_threshold, threshold)
    # The negated test lets NaN through: what cannot be judged counts as anomalous.
    strong = np.flatnonzero(~(values <= threshold))
    if not len(strong):
        return None
    weak = _smooth((~(values <= low)).view(np.uint8), options)
    count, marks = cv2.connectedComponents(
        weak, connectivity=options.connectivity, ltype=cv2.CV_32S
    )
    flat = marks.ravel()
    chosen = np.zeros(count, bool)
    chosen[flat[strong]] = True
    chosen[0] = False
    pixels = np.flatnonzero(weak.view(bool))
    owner = flat[pixels]
    area = np.bincount(owner, minlength=count)
    chosen &= area >= least_area(values.size, options)
    return _chosen(pixels, owner, area, chosen, values.shape[1])


def _chosen(
    pixels: Table, owner: NDArray[Any], area: Table, chosen: NDArray[np.bool_], width: int
) -> _Regions | None:
    """Return the regions that are `chosen` [n], numbered anew; None for none."""
    if not chosen.any():
        return None
    inside = chosen[owner]
    if not inside.all():
        pixels, owner = pixels[inside], owner[inside]
    return _Regions(pixels, (np.cumsum(chosen) - 1)[owner], area[chosen], width)


def _with_proposals(
    found: _Regions | None, proposals: Proposals, values: Floats32, options: ObjectOptions
) -> _Regions | None:
    """Return segments and the components that are not replaced by one, none sharing a pixel."""
    rows, places, count = proposals.rows, proposals.places, proposals.count
    owners = np.full(values.size, -1, np.int64)
    if found is not None:
        owners[found.pixels] = found.owner
        hit = owners[places]
        # Counted where they meet only: noise makes a table of all pairs of a gigabyte.
        pairs, shared = np.unique((rows * len(found.area) + hit)[hit >= 0], return_counts=True)
        component = pairs % len(found.area)
        replaced = np.zeros(len(found.area), bool)
        replaced[component[2 * shared > found.area[component]]] = True
        owners[found.pixels] = np.where(replaced[found.owner], -1, found.owner + count)
    # The last of equal places wins, so the strangest is written last.
    owners[places[::-1]] = rows[::-1]
    pixels = np.flatnonzero(owners >= 0)
    owner = owners[pixels]
    area = np.bincount(owner)
    chosen = area >= max(1, least_area(values.size, options))
    return _chosen(pixels, owner, area, chosen, values.shape[1])


def _smooth(binary: NDArray[np.uint8], options: ObjectOptions) -> NDArray[np.uint8]:
    for side, step in ((options.opening, cv2.MORPH_OPEN), (options.closing, cv2.MORPH_CLOSE)):
        if side > 1:
            square = np.ones((side, side), np.uint8)
            binary = np.asarray(cv2.morphologyEx(binary, step, square), np.uint8)
    return binary


def _with_enough(
    regions: _Regions, values: Floats32, threshold: float, options: ObjectOptions
) -> _Regions | None:
    """Return the regions that are large and strange enough for the row they stand in."""
    if options.far_area == 1.0 and not options.min_evidence:
        return regions
    height, width = values.shape
    foot = (regions.box[:, 1] + regions.box[:, 3]) / height
    enough = regions.area >= evidence.least_area_at(foot, values.size, options)
    if options.min_evidence:
        excess = evidence.above(values.ravel()[regions.pixels], threshold, options)
        found = np.bincount(regions.owner, excess, len(regions.area))
        enough &= found >= evidence.least_evidence_at(foot, values.size, options)
    if enough.all():
        return regions
    return _chosen(regions.pixels, regions.owner, regions.area, enough, width)


def _means(regions: _Regions, scores: Floats32) -> Floats:
    count, owner, known = len(regions.area), regions.owner, ~np.isnan(scores)
    if not known.all():
        owner, scores = owner[known], scores[known]
    sums, sizes = np.bincount(owner, scores, count), np.bincount(owner, minlength=count)
    return np.divide(sums, sizes, out=np.full(count, math.nan), where=sizes > 0)


def _members(numbers: NDArray[np.int32], scores: Floats32, count: int) -> list[Floats32]:
    """Return the scores of the pixels numbered 1, 2 .. count; sorting small integers is linear."""
    kind = np.uint16 if count < 65536 else np.int32
    grouped = scores[np.argsort(numbers.astype(kind), kind='stable')]
    ends = np.cumsum(np.bincount(numbers, minlength=count + 1))
    return np.split(grouped[ends[0] :], ends[1:-1] - ends[0]) if count else []


def _quantile(values: Floats32, share: float) -> float:
    """Return the quantile, linear between neighbours; NaN of nothing."""
    if not len(values):
        return math.nan
    place = share * (len(values) - 1)
    below = int(place)
    pair = (below, min(below + 1, len(values) - 1))
    low, high = np.partition(values, pair)[list(pair)].tolist()
    return low if low == high else low + (place - below) * (high - low)


def _add_surroundings(
    regions: _Regions,
    shape: tuple[int, ...],
    classes: NDArray[np.uint8] | None,
    options: ObjectOptions,
    drivable: Sequence[int],
) -> None:
    """Fill in the class next to each region, and whether `on_drivable` keeps it.

    The ground under an obstacle is hidden, so the labels next to it are asked: a ring around it
    ('touches') or the band below its lowest pixels ('stands'). Where no label is known there (the
    rim of the image, unlabelled ground) the obstacle is kept.
    """
    count = len(regions.area)
    regions.label = np.full(count, UNLABELLED, np.int64)
    regions.kept = np.ones(count, bool)
    if classes is None:
        return
    width = max(2, round(options.ring * shape[0]))
    ring = _classes_around(regions, classes, np.ones((2 * width + 1, 2 * width + 1), np.uint8))
    # The most frequent class, of equal ones the lowest.
    order = np.lexsort((ring.label, -ring.count, ring.owner))
    owners, first = np.unique(ring.owner[order], return_index=True)
    regions.label[owners] = ring.label[order][first]
    if options.on_drivable == OFF:
        return
    if options.on_drivable == STANDS:
        column = np.ones((width + 1, 1), np.uint8)
        ring = _classes_around(regions, classes, column, anchor=(0, width))
    total = np.bincount(ring.owner, ring.count, count)
    on_ground = np.isin(ring.label, list(drivable))
    ground = np.bincount(ring.owner[on_ground], ring.count[on_ground], count)
    regions.kept = (total == 0) | ((ground > 0) & (ground >= options.contact * total))


@dataclass(frozen=True)
class _Around:
    """How often a class lies around a region, for the pairs that occur, [m] each."""

    owner: Table
    label: Table
    count: Table


def _classes_around(
    regions: _Regions,
    classes: NDArray[np.uint8],
    kernel: NDArray[np.uint8],
    anchor: tuple[int, int] = (-1, -1),
) -> _Around:
    """Count the known classes on what a dilation adds to each region.

    Where it adds the same pixel to two of them, the first takes it.
    """
    count = len(regions.area)
    marks = np.zeros(classes.shape, np.uint16 if count < 65536 else np.float32)
    marks.ravel()[regions.pixels] = count - regions.owner
    grown = cv2.dilate(marks, kernel, anchor=anchor)
    around = np.flatnonzero((grown != marks) & (marks == 0) & (classes != UNLABELLED))
    owner = count - grown.ravel()[around].astype(np.int64)
    pairs = owner * UNLABELLED + classes.ravel()[around]
    found, times = np.unique(pairs, return_counts=True)
    return _Around(found // UNLABELLED, found % UNLABELLED, times)


def _order(regions: _Regions) -> Table:
    strangeness = np.where(np.isnan(regions.mean), np.inf, regions.mean)
    order = np.lexsort((regions.box[:, 0], regions.box[:, 1], -regions.area, -strangeness))
    return order[regions.kept[order]]


def named(
    things: Sequence[AnomalyObject],
    instances: torch.Tensor,
    names: Sequence[tuple[str, torch.Tensor]],
) -> tuple[AnomalyObject, ...]:
    """Return obstacles with the name of the mask [H, W] bool that covers most of each.

    `instances` [H, W] holds their ids; without `names` nothing is computed.
    """
    best: dict[int, tuple[int, str]] = {}
    for name, mask in names if things else ():
        counts = torch.bincount(instances[mask].long(), minlength=len(things) + 1).tolist()
        for number, count in enumerate(counts[1:], start=1):
            if count > best.get(number, (0, ''))[0]:
                best[number] = count, name
    return tuple(
        dataclasses.replace(item, name=best[item.id][1]) if item.id in best else item
        for item in things
    )
