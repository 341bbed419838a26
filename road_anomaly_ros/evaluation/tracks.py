# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Tracks against the truth of videos: identities, switches, what was never there."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from road_anomaly_ros.evaluation.hota import Likeness, hota
from road_anomaly_ros.evaluation.results import add_video
from road_anomaly_ros.evaluation.sequences import open_sequences, split
from road_anomaly_ros.evaluation.tables import markdown
from road_anomaly_ros.tools.truth import FOUND_SHARE, MIN_AREA, TRUE_SHARE, Tally, compare

NAME = 'tracks.json'
MIN_OVERLAP = 0.25  # intersection over union of a track and its obstacle
RULE = (
    f'a confirmed track belongs to a true obstacle above {MIN_AREA} px where their masks '
    f'overlap by an IoU of {MIN_OVERLAP:g}; it is false when in most of its frames less than '
    f'{TRUE_SHARE:.0%} of it lies on any obstacle; obstacles count as found when '
    f'{FOUND_SHARE:.0%} of their pixels are in the mask; clear_frames is how often a single frame '
    'shows an obstacle by that overlap until its track is confirmed, at most'
)
COLUMNS = (
    'drive',
    'IDF1',
    'MOTA',
    'HOTA',
    'switches',
    'tracks',
    'false_tracks',
    'false_obstacles',
    'recall',
    'recall_untracked',
    'frames_to_confirm',
    'clear_frames',
    'track_ms',
)
_SUMMARY = {
    **dict.fromkeys(('switches', 'tracks', 'false_tracks', 'false_obstacles'), np.sum),
    'clear_frames': np.max,
}
_FROM_LIBRARY = {
    'IDF1': 'idf1',
    'MOTA': 'mota',
    'switches': 'num_switches',
    'misses': 'num_misses',
    'false_positives': 'num_false_positives',
}


def library() -> Any:
    """Return motmetrics, or raise ValueError with how to install it."""
    try:
        import motmetrics
    except ImportError as error:
        raise ValueError(
            f"measuring tracks needs motmetrics ({error}); install 'road_anomaly_ros[tracks]'"
        ) from None
    return motmetrics


@dataclass
class Account:
    """The frames of one drive, compared with their truth one after the other."""

    rows: list[tuple[list[int], list[int], np.ndarray]] = field(default_factory=list)
    tracked: Tally = field(default_factory=Tally)  # what is confirmed
    untracked: Tally = field(default_factory=Tally)  # each frame by itself
    milliseconds: list[float] = field(default_factory=list)
    likeness: list[Likeness] = field(default_factory=list)
    _right: Counter[int] = field(default_factory=Counter)  # frames of each track on an obstacle
    _wrong: Counter[int] = field(default_factory=Counter)
    _due: Counter[int] = field(default_factory=Counter)  # frames of each obstacle so far
    _waited: dict[int, int] = field(default_factory=dict)
    _clear: Counter[int] = field(default_factory=Counter)  # frames that showed it until then

    def add(self, tracks: np.ndarray, truth: np.ndarray, alone: np.ndarray) -> None:
        """Take one frame: ids of confirmed tracks int [H, W] and of things [H, W], 0 none.

        `alone` [H, W] numbers the obstacles of the frame by itself.
        """
        shared, ids, names = _shared(tracks, truth)
        area, of_truth = shared.sum(1), shared.sum(0)
        true = area - shared[:, 0] >= TRUE_SHARE * area
        large = (of_truth > MIN_AREA) & (names > 0)
        # Obstacles too small to be asked for may be found without blame.
        asked = (shared[:, ~large & (names > 0)].sum(1) < TRUE_SHARE * area) & (ids > 0)
        for number, right in zip(ids[ids > 0].tolist(), true[ids > 0].tolist(), strict=True):
            (self._right if right else self._wrong)[number] += 1
        alike = _overlap(shared)[asked][:, large].T
        distance = np.where(alike >= MIN_OVERLAP, 1 - alike, math.nan)
        due = names[large].tolist()
        self.rows.append((due, ids[asked].tolist(), distance))
        self.likeness.append(Likeness(due, ids[asked].tolist(), alike))
        found, numbers, _ = _shared(alone, truth)
        clear = _overlap(found)[numbers > 0][:, large] >= MIN_OVERLAP
        self._wait(due, np.isfinite(distance).any(1).tolist(), clear.any(0).tolist())

    def _wait(self, due: Sequence[int], found: Sequence[bool], clear: Sequence[bool]) -> None:
        for name, seen, shown in zip(due, found, clear, strict=True):
            self._due[name] += 1
            if name not in self._waited:
                self._clear[name] += shown
            if seen:
                self._waited.setdefault(name, self._due[name])

    def figures(self) -> dict[str, Any]:
        """Return the figures of the drive; NaN where nothing is defined."""
        metrics = library()
        log = metrics.MOTAccumulator(auto_id=True)
        for due, tracks, distance in self.rows:
            log.update(due, tracks, distance)
        found = metrics.metrics.create().compute(
            log, metrics=list(_FROM_LIBRARY.values()), return_dataframe=False
        )
        every = {*self._right, *self._wrong}
        false = [number for number in every if self._wrong[number] > self._right[number]]
        return {
            **{name: float(found[theirs]) for name, theirs in _FROM_LIBRARY.items()},
            **hota(self.likeness),
            'frames': len(self.rows),
            'obstacles': len(self._due),
            'tracks': len(every),
            'false_tracks': len(false),
            'false_obstacles': self.untracked.false_alarms,
            'false_confirmed': self.tracked.false_alarms,
            'recall': self.tracked.recall(),
            'recall_untracked': self.untracked.recall(),
            'never_confirmed': len(self._due) - len(self._waited),
            'frames_to_confirm': float(np.median(list(self._waited.values()) or [math.nan])),
            'clear_frames': max(self._clear.values(), default=math.nan),
            'track_ms': float(np.median(self.milliseconds or [math.nan])),
        }


def _shared(tracks: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the pixels [n, m] that ids [n] and names [m] have in common, 0 among both."""
    if tracks.shape != truth.shape:
        raise ValueError(f'expected two maps of one size, got {tracks.shape} and {truth.shape}')
    ids, rows = np.unique(np.append(tracks.ravel(), 0), return_inverse=True)
    names, columns = np.unique(np.append(truth.ravel().astype(np.int64), 0), return_inverse=True)
    pairs = (rows * len(names) + columns)[:-1]
    return (
        np.bincount(pairs, minlength=len(ids) * len(names)).reshape(len(ids), len(names)),
        ids,
        names,
    )


def _overlap(shared: np.ndarray) -> np.ndarray:
    """Return the intersection over union of pixels in common [n, m], the 0 of both included."""
    union = shared.sum(1)[:, None] + shared.sum(0) - shared
    return np.divide(shared, union, out=np.zeros(shared.shape), where=union > 0)


def track_map(result: Any) -> np.ndarray:
    """Return the id of the confirmed track at each pixel of a result, int64 [H, W], 0 for none."""
    table = np.zeros(max((item.id for item in result.objects), default=0) + 1, np.int64)
    for item in result.objects:
        table[item.id] = item.track_id if item.confirmed else 0
    instances = result.array('instances')
    return table[np.where(instances < len(table), instances, 0)]


def _judged(ids: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """Return ids [H, W] on what counts: not where it is ignored, nor of what mostly lies there."""
    area = np.bincount(ids.ravel())
    aside = np.bincount(ids[ignored], minlength=len(area))
    return np.where(ignored | (2 * aside > area)[ids], 0, ids)


def measure(source: Any, pipeline: Any, chain: Any) -> dict[str, Any]:
    """Return the figures of one source whose frames bring their truth.

    `pipeline` is one without a tracker, `chain` is the same one with it. ValueError without truth.
    """
    from road_anomaly_ros.perception.tracks import Tracks

    account, tracks = Account(), Tracks()
    for frame in source:
        truth, ignored = split(frame.truth, source.name)
        result = pipeline(frame.image, frame.stamp)
        begin = time.perf_counter()
        followed = tracks.follow(result, chain)
        account.milliseconds.append((time.perf_counter() - begin) * 1e3)
        ids = _judged(track_map(followed), ignored)
        instances = _judged(result.array('instances'), ignored)
        account.add(ids, truth, instances)
        account.tracked.add(compare(ids > 0, ids, truth))
        account.untracked.add(compare(result.array('mask') & ~ignored, instances, truth))
    return account.figures()


def run(drives: Iterable[str], config: Any, out: Path | None, fps: float) -> int:
    """Measure every video, print the table, add to OUT/tracks.json; returns 0."""
    from road_anomaly_ros.perception.pipeline import Pipeline

    library()  # before the work, not after it
    sources = [source for drive in drives for source in open_sequences(drive, fps, named=True)]
    pipeline = Pipeline(config.replace({'tracker': 'none'}))
    chosen = 'kalman' if config.tracker == 'none' else config.tracker
    chain = pipeline.prepare(config.replace({'tracker': chosen}))
    about = {
        'rule': RULE,
        'tracker': chosen,
        'options': chain.config.as_dict(),
        'columns': COLUMNS,
    }
    rows = []
    for source in sources:
        with source:
            rows.append({'drive': source.name, **measure(source, pipeline, chain)})
        if out is not None:
            add_video(out / NAME, about, rows[-1])
    print(table(rows), end='')
    print(RULE)
    return 0


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the figures of several drives in Markdown, the mean, the sum or the largest last."""
    total: dict[str, Any] = {'drive': f'all {len(rows)}'}
    for name in COLUMNS[1:]:
        values = [row[name] for row in rows]
        total[name] = _SUMMARY.get(name, np.mean)(values)
    return markdown(COLUMNS, [*rows, total])
