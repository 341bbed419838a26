# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Results of several cameras to their trackers, and what is known of tracks back into them."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from road_anomaly_ros.perception import evidence, objects
from road_anomaly_ros.perception.chain import Chain
from road_anomaly_ros.perception.contract import AnomalyObject, FrameResult, Sight, Tracker
from road_anomaly_ros.perception.object_options import COMPONENTS
from road_anomaly_ros.perception.tracking import TRACKERS
from road_anomaly_ros.perception.tracking._options import CONFIRMED, TrackOptions
from road_anomaly_ros.remarks import one_line

_SURE = 2.0  # log-odds at the end of a score's display; their negative at `low`
# The log-odds of an area are its doublings of the least one, within these: of what large regions
# find at any score above the low threshold, nearly all is there.
_SMALL, _LARGE = 1.0, 2.0


class Tracks:
    """One tracker per camera, made when its first result comes; for one thread.

    Another chain starts all anew, unless it differs by its drawing only. Ids go on.
    """

    def __init__(self) -> None:
        self._trackers: dict[str, Tracker] = {}
        self._next: dict[str, int] = {}
        self._stamps: dict[str, float] = {}
        self._make: Callable[..., Tracker | None] = TRACKERS['none'].make
        self._options: Any = None
        self._chain: Chain | None = None
        self._settings: dict[str, Any] = {}

    def follow(self, result: FrameResult, chain: Chain, camera: str = '') -> FrameResult:
        """Return a result whose objects carry their tracks; the same one without a tracker.

        What is fainter than an obstacle joins objects, mask and instances once its track is
        confirmed. A tracker that fails costs no frame: a note says why.
        """
        if self._chain is not chain:
            self._take_over(chain)
        tracker = self._tracker(camera)
        if tracker is None:
            return result
        begin = time.perf_counter()
        try:
            if result.stamp is None or not math.isfinite(result.stamp):
                raise ValueError(
                    f'expected a stamp in seconds, got {result.stamp}; '
                    f'hand one in with every image'
                )
            result = self._timely(result, camera, result.stamp)
            followed = _followed(result, chain, tracker, self._options)
            self._next[camera] = tracker.next_id
        except Exception as error:
            self._trackers.pop(camera, None)
            followed = _noted(result, f'tracking skipped: {one_line(error)}')
        spent = (time.perf_counter() - begin) * 1e3
        return dataclasses.replace(
            followed,
            timings={
                **result.timings,
                'track': spent,
                'total': result.timings.get('total', 0.0) + spent,
            },
        )

    def _take_over(self, chain: Chain) -> None:
        settings = {
            name: value
            for name, value in chain.config.as_dict().items()
            if not name.startswith(('drawing.', 'cuda_graphs'))
        }
        if settings != self._settings:
            self._trackers.clear()
        name = chain.config.tracker
        self._make = TRACKERS[name].make
        self._options = chain.config.options('tracker', name)
        self._chain, self._settings = chain, settings

    def _timely(self, result: FrameResult, camera: str, stamp: float) -> FrameResult:
        """Return the result with a note where its stamp is no later than the one before."""
        last = self._stamps.get(camera, -math.inf)
        self._stamps[camera] = stamp
        if stamp > last:
            return result
        what = (
            'repeats, nothing is counted twice'
            if stamp == last
            else (f'is earlier than {last:g}, tracks start anew')
        )
        return _noted(result, f'tracking: the stamp {stamp:g} {what}')

    def _tracker(self, camera: str) -> Tracker | None:
        if camera not in self._trackers:
            tracker = self._make(options=self._options)
            if tracker is None:
                return None
            tracker.next_id = self._next.get(camera, 1)
            self._trackers[camera] = tracker
        return self._trackers[camera]


def _followed(
    result: FrameResult, chain: Chain, tracker: Tracker, options: TrackOptions
) -> FrameResult:
    faint, numbers = _faint(result, chain, options)
    seen = (*result.objects, *faint)
    odds = log_odds(seen, chain, result.size)
    found = tracker.update(Sight(seen, odds, float(result.stamp or 0.0), result.size))
    if tracker.left_out:
        result = _noted(
            result,
            f'{tracker.left_out} of {len(seen)} obstacles are not tracked: more than max_tracks',
        )
    strong, only = len(result.objects), options.listed == CONFIRMED
    return _with_objects(
        result,
        [item for item in found[:strong] if item.confirmed or not only],
        [item for item in found[strong:] if item.confirmed],
        numbers,
        only=only,
    )


def _faint(
    result: FrameResult, chain: Chain, options: TrackOptions
) -> tuple[tuple[AnomalyObject, ...], torch.Tensor]:
    """Return what lies between the level at which tracks may start and the threshold.

    Its numbers in the map [H, W] that comes with it begin with 1.
    """
    low, threshold = chain.levels.low_threshold, result.threshold
    level = low + options.start * (threshold - low)
    if not level < threshold:
        return (), result.instances
    # Where an obstacle is, nothing else may be found again.
    score = result.score.masked_fill(result.mask, low)
    _, numbers, found = objects.find(
        score,
        threshold=level,
        low_threshold=low,
        labels=result.labels,
        options=dataclasses.replace(chain.object_options, mode=COMPONENTS),
        drivable=result.label_set.drivable,
        host=result.host,
    )
    return found, numbers


def _with_objects(
    result: FrameResult,
    kept: Sequence[AnomalyObject],
    faint: Sequence[AnomalyObject],
    numbers: torch.Tensor,
    *,
    only: bool,
) -> FrameResult:
    """Return a result with what is kept of its objects and the faint ones, numbered anew.

    `numbers` [H, W] holds those of the faint ones; with `only` the mask shows nothing but what is
    listed.
    """
    listed = tuple(
        item if item.id == number else dataclasses.replace(item, id=number)
        for number, item in enumerate((*kept, *faint), start=1)
    )
    if not (only or faint):
        return dataclasses.replace(result, objects=listed)
    instances, mask = (
        torch.zeros_like(part) if only else part.clone()
        for part in (result.instances, result.mask)
    )
    # Whole maps would cost more than all else here, so that only boxes are looked at.
    drawn = [(result.instances, item) for item in kept] if only else []
    drawn += [(numbers, item) for item in faint]
    for number, (source, item) in enumerate(drawn, start=len(listed) - len(drawn) + 1):
        x, y, width, height = item.box
        inside = slice(y, y + height), slice(x, x + width)
        own = source[inside] == item.id
        instances[inside].masked_fill_(own, number)
        mask[inside].logical_or_(own)
    return dataclasses.replace(result, instances=instances, mask=mask, objects=listed)


def log_odds(
    items: Sequence[AnomalyObject], chain: Chain, size: tuple[int, int]
) -> tuple[float, ...]:
    """Return the evidence of each region: how far score and area lie above what is asked.

    The score counts on the scale of its calibration, 0 at the threshold, and so is comparable for
    all scorers. What cannot be judged counts as strange.
    """
    levels, options = chain.levels, chain.object_options
    excess = np.array([item.score_p95 for item in items]) - levels.threshold
    above, below = levels.display[1] - levels.threshold, levels.threshold - levels.low_threshold
    span = np.where(excess > 0, above, below)
    with np.errstate(divide='ignore', invalid='ignore'):
        share = np.where(span > 0, excess / span, np.copysign(1.0, excess))
    score = _SURE * np.where(np.isnan(excess), 1.0, np.clip(share, -1.0, 1.0))
    foot = np.array([item.box[1] + item.box[3] for item in items]) / size[0]
    least = evidence.least_area_at(foot, size[0] * size[1], options)
    with np.errstate(divide='ignore'):
        doublings = np.log2([item.area for item in items]) - np.log2(least)
    area = np.where(least > 0, np.clip(doublings, -_SMALL, _LARGE), 1.0)
    return tuple((score + area).tolist())


def _noted(result: FrameResult, note: str) -> FrameResult:
    return dataclasses.replace(result, notes=(*result.notes, note))
