# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Boxes that move steadily: overlap with where they are expected, evidence summed over frames."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from road_anomaly_ros.perception.contract import AnomalyObject, Sight
from road_anomaly_ros.perception.registry import option
from road_anomaly_ros.perception.tracking import _pairing
from road_anomaly_ros.perception.tracking._motion import Motion
from road_anomaly_ros.perception.tracking._options import TrackOptions

SOURCE = 'Kalman 1960, Kuhn 1955; SORT, Bewley et al. 2016'
NEEDS = 'nothing'
Floats = NDArray[np.float64]
Rows = NDArray[np.intp]
_FLOOR = 0.006  # image heights by which the whole picture may shake
_CLEAR = 2.0  # most evidence of one frame: no single one may be enough


@dataclass(frozen=True)
class Options(TrackOptions):
    """Options of `kalman`."""

    max_gap: float = option(
        1.0, 'Silence of a camera after which all its tracks end.', low=0.01, high=60.0, unit='s'
    )
    patience: float = option(
        0.6, 'How long a thing may be unseen before its track ends.', low=0.0, high=60.0, unit='s'
    )
    margin: float = option(
        0.3,
        'By which boxes are widened on every side before their overlap is taken, so that '
        'small things are not lost.',
        low=0.0,
        high=5.0,
        unit='box size',
    )
    min_overlap: float = option(
        0.1,
        'Least intersection over union of a widened box with the one expected; what is faint '
        'comes in pieces of all sizes.',
        low=0.01,
        high=1.0,
    )
    noise: float = option(
        0.1,
        'Standard deviation of a measured centre or size.',
        low=0.001,
        high=10.0,
        unit='box size',
    )
    acceleration: float = option(
        3.0,
        'How much velocities change; higher follows turns, lower bridges lost frames.',
        low=0.0,
        high=1000.0,
        unit='box size/s^1.5',
    )
    max_tracks: int = option(
        200, 'Most things followed at once, those with most evidence.', low=1, high=1000
    )


class Kalman:
    """The tracks of one camera, n of them; ids go on where it starts anew."""

    def __init__(self, options: Options) -> None:
        self.left_out = 0
        self._options = options
        self.next_id = 1
        self._last: Sight | None = None
        self._forget()

    def _forget(self) -> None:
        self._motion = Motion(self._options.noise, self._options.acceleration)
        self._ids, self._hits = np.empty(0, np.int64), np.empty(0, np.int64)  # [n]
        self._born, self._seen, self._evidence = np.empty(0), np.empty(0), np.empty(0)
        self._confirmed = np.empty(0, bool)

    def update(self, sight: Sight) -> tuple[AnomalyObject, ...]:
        """Return the objects with id, age and velocity of their tracks; id 0 is without one.

        A stamp that repeats is the same moment: nothing is counted twice. Earlier stamps, a gap
        and another image size start anew.
        """
        seconds = self._seconds_since(sight)
        floor = _FLOOR * sight.size[0]
        chosen = self._choose(sight)
        boxes = _boxes([sight.objects[index] for index in chosen])
        gains = _gains(np.array(sight.evidence)[chosen])
        self._motion.predict(seconds)
        rows, columns = self._match(boxes, floor)
        if seconds > 0:
            self._see(rows, columns, boxes, gains, floor, sight.stamp)
        fresh = np.setdiff1d(np.arange(len(chosen)), columns)
        ids = np.zeros(len(chosen), np.int64)
        ids[columns] = self._ids[rows]
        ids[fresh] = self._begin(boxes[fresh], gains[fresh], floor, sight.stamp)
        self._drop(sight.stamp)
        return self._told(sight, dict(zip(chosen.tolist(), ids.tolist(), strict=True)))

    def _seconds_since(self, sight: Sight) -> float:
        last, self._last = self._last, sight
        seconds = math.nan if last is None else sight.stamp - last.stamp
        if last is None or sight.size != last.size or not 0 <= seconds <= self._options.max_gap:
            self._forget()
            return 0.0
        return seconds

    def _choose(self, sight: Sight) -> Rows:
        """Return the places [m] of the objects that are followed, in order."""
        most, evidence = self._options.max_tracks, np.array(sight.evidence)
        self.left_out = max(0, len(evidence) - most)
        return np.sort(np.argsort(-evidence, kind='stable')[:most])

    def _match(self, boxes: Floats, floor: float) -> tuple[Rows, Rows]:
        """Return the tracks and the boxes [m, 4] that belong together."""
        share = self._options.margin
        expected = _pairing.widened(self._motion.boxes(), share, floor)
        likeness = _pairing.overlaps(expected, _pairing.widened(boxes, share, floor))
        return _pairing.pairs(likeness, self._options.min_overlap)

    def _see(
        self, rows: Rows, columns: Rows, boxes: Floats, gains: Floats, floor: float, stamp: float
    ) -> None:
        missed = np.setdiff1d(np.arange(len(self._ids)), rows)
        self._motion.correct(rows, boxes[columns], floor)
        self._evidence[rows] += gains[columns]
        self._evidence[missed] -= self._options.miss
        # Nothing is so sure that it takes long to be given up.
        np.minimum(self._evidence, 2 * max(self._options.confirm, _CLEAR), out=self._evidence)
        self._hits[rows] += 1
        self._seen[rows] = stamp

    def _begin(self, boxes: Floats, gains: Floats, floor: float, stamp: float) -> Rows:
        count = len(boxes)
        ids = np.arange(self.next_id, self.next_id + count)
        self.next_id += count
        self._motion.begin(boxes, floor)
        self._ids = np.concatenate((self._ids, ids))
        self._hits = np.concatenate((self._hits, np.ones(count, np.int64)))
        self._born = np.concatenate((self._born, np.full(count, stamp)))
        self._seen = np.concatenate((self._seen, np.full(count, stamp)))
        self._evidence = np.concatenate((self._evidence, gains))
        self._confirmed = np.concatenate((self._confirmed, np.zeros(count, bool)))
        return ids

    def _drop(self, stamp: float) -> None:
        """Confirm what has enough evidence, and end the tracks that have none or are too many."""
        self._confirmed |= self._evidence >= self._options.confirm
        alive = (self._evidence > 0) & (stamp - self._seen <= self._options.patience)
        kept = np.flatnonzero(alive)
        if len(kept) > self._options.max_tracks:
            order = np.lexsort((-self._evidence[kept], ~self._confirmed[kept]))
            kept = np.sort(kept[order[: self._options.max_tracks]])
        self._motion.keep(kept)
        for name in ('_ids', '_hits', '_born', '_seen', '_evidence', '_confirmed'):
            setattr(self, name, getattr(self, name)[kept])

    def _told(self, sight: Sight, ids: dict[int, int]) -> tuple[AnomalyObject, ...]:
        rows = {number: row for row, number in enumerate(self._ids.tolist())}
        found = []
        for index, item in enumerate(sight.objects):
            row = rows.get(ids.get(index, 0))
            if row is None:
                found.append(dataclasses.replace(item, confirmed=False))
                continue
            x, y = self._motion.rate[row, :2].tolist()
            found.append(
                dataclasses.replace(
                    item,
                    track_id=int(self._ids[row]),
                    confirmed=bool(self._confirmed[row]),
                    age_s=float(sight.stamp - self._born[row]),
                    velocity=(x, y) if self._hits[row] > 1 else None,
                )
            )
        return tuple(found)


def _boxes(objects: list[AnomalyObject]) -> Floats:
    boxes = np.array([item.box for item in objects], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def _gains(evidence: Floats) -> Floats:
    """Return what one frame adds to a track; what is sure may still be a flash."""
    return np.clip(evidence, -_CLEAR, _CLEAR)


def load(*, options: Options) -> Kalman:
    """Return a tracker for one camera."""
    return Kalman(options)
