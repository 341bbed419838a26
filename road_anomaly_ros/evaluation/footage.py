# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One pass of the chain over ordinary driving: per frame, when the live code shows an obstacle.

Every obstacle in such footage is false. What is kept of a frame is a few numbers, on disk at once,
so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from road_anomaly_ros.files import lock
from road_anomaly_ros.perception import evidence, objects
from road_anomaly_ros.perception.drift import statistic
from road_anomaly_ros.perception.pipeline import Pipeline
from road_anomaly_ros.tools import workbench
from road_anomaly_ros.tools.flow import ReadAhead
from road_anomaly_ros.tools.sources import Frame, Source
from road_anomaly_ros.tools.workbench import Scored

_ROUNDING = 1e-6  # of sums of evidence


@dataclasses.dataclass(frozen=True)
class Footage:
    """What n frames of driving without obstacles gave."""

    name: str
    size: tuple[int, int]  # (H, W)
    seconds: float  # between two frames; NaN where there is no clock
    steps: tuple[tuple[np.ndarray, ...], ...]  # [areas][n] of `false_steps`
    statistics: np.ndarray  # [n, levels] of `drift.statistic`

    def __len__(self) -> int:
        return len(self.statistics)

    def peaks(self, area: int) -> np.ndarray:
        """Return per frame the threshold from which on nothing false is shown, -inf for none."""
        return np.array([steps[0] if len(steps) else -math.inf for steps in self.steps[area]])

    def mean_count(self, area: int) -> Callable[[float], float]:
        """Return the function from a threshold to the false obstacles per frame."""
        every = np.sort(np.concatenate([*self.steps[area], np.empty(0)]))
        return lambda threshold: (
            (len(every) - int(np.searchsorted(every, threshold, 'right'))) / len(self)
        )


def false_steps(
    scored: Scored, options: objects.ObjectOptions, lowest: float, drivable: Sequence[int]
) -> np.ndarray:
    """Return descending thresholds below which 1, 2, .. obstacles of a frame are shown.

    The count comes from `objects.find` itself, asked right below the end of every region that it
    grows from `lowest` (the low threshold): between two ends nothing changes. It only rises as
    the threshold falls, or is taken to: where one obstacle's ground is hidden by another, the
    larger count holds.
    """

    def found(threshold: float, chosen: objects.ObjectOptions) -> Any:
        return objects.find(
            scored.score,
            threshold=threshold,
            low_threshold=lowest,
            options=chosen,
            labels=scored.labels,
            drivable=drivable,
        )

    everything = dataclasses.replace(options, on_drivable=objects.OFF)
    _, instances, regions = found(lowest, everything)
    ends = {_end(scored.score, instances, region, options) for region in regions}
    steps: list[float] = []
    for end, below in sorted(ends, reverse=True):
        shown = found(max(below, lowest), options)[2]
        steps += [end] * (len(shown) - len(steps))
    return np.array(steps)


def _end(
    score: torch.Tensor, instances: torch.Tensor, region: Any, options: objects.ObjectOptions
) -> tuple[float, float]:
    """Return the threshold from which on a region is not shown, and one right below.

    That is its peak, or where its evidence is too little, rounded upwards.
    """
    peak = float(region.score_max)
    below = float(np.nextafter(np.float32(peak), np.float32(-np.inf)))
    if not options.min_evidence:
        return peak, below
    x, y, width, height = region.box
    inside = (slice(y, y + height), slice(x, x + width))
    scores = score[inside][instances[inside] == region.id].cpu().numpy()
    least = evidence.least_evidence_at((y + height) / len(score), score.numel(), options)
    limit = evidence.highest_threshold(scores, float(least), options)
    margin = _ROUNDING * (1.0 + abs(limit))
    return min(peak, limit + margin), min(below, limit - margin)


class Journal:
    """The frames done, one JSON line each, below a line that names the run they belong to.

    ValueError while another run writes to it.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self._key = path, key
        self.done = self._read()
        self._file: IO[str] | None = None

    def _read(self) -> list[dict[str, Any]]:
        try:
            lines = self.path.read_text(encoding='utf-8').splitlines(keepends=True)
        except (OSError, UnicodeDecodeError):
            return []
        try:  # the last line may have been cut off
            whole = [json.loads(line) for line in lines if line.endswith('\n')]
        except ValueError:
            return []
        return whole[1:] if whole and whole[0] == self._key else []

    def __enter__(self) -> Journal:
        lines = [json.dumps(line) + '\n' for line in (self._key, *self.done)]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open('a', encoding='utf-8')
        self._lock = lock(self.path)
        self._file.truncate(0)
        self._file.writelines(lines)
        return self

    def add(self, record: dict[str, Any]) -> None:
        """Keep one frame."""
        self.done.append(record)
        if self._file is not None:
            self._file.write(json.dumps(record) + '\n')
            self._file.flush()

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
            os.close(self._lock)


def watch(
    source: Source,
    pipeline: Pipeline,
    areas: Sequence[int],
    journal: Journal,
    *,
    every: int = 1,
    limit: int | None = None,
    advance: Callable[[], object] = lambda: None,
) -> Footage:
    """Take every `every`-th frame (at most `limit`) through the chain in force, once.

    `areas` are the values of objects.min_area to be tried. Frames in the journal are not computed
    again. ValueError for footage without a frame, frames of several sizes, and for scores that
    are not finite.
    """
    options = [
        dataclasses.replace(pipeline.prepared.object_options, min_area=area) for area in areas
    ]
    earlier, stamps, size = len(journal.done), [], (0, 0)
    reader = ReadAhead(_thinned(source, every, limit))
    try:
        for index, (frame, _) in enumerate(reader):
            size = _checked_size(frame, size)
            stamps.append(frame.stamp)
            if index >= earlier:
                journal.add(_record(frame, pipeline, options))
            advance()
    finally:
        reader.close()
    if not stamps:
        raise ValueError(
            f'{source.name}: no frame could be read ({source.problem or "it is empty"})'
        )
    clock = source.kind not in ('folder', 'image') and len(stamps) > 1
    seconds = (stamps[-1] - stamps[0]) / (len(stamps) - 1) if clock else math.nan
    return _footage(source.name, size, seconds, len(areas), journal.done[: len(stamps)])


def _footage(
    name: str, size: tuple[int, int], seconds: float, areas: int, records: Sequence[dict[str, Any]]
) -> Footage:
    steps = tuple(
        tuple(np.array(record['steps'][area]) for record in records) for area in range(areas)
    )
    statistics = np.array([record['statistic'] for record in records])
    return Footage(name, size, seconds, steps, statistics)


def _thinned(source: Source, every: int, limit: int | None) -> Iterator[Frame]:
    for index, frame in enumerate(source):
        if limit is not None and index >= limit * every:
            break
        if index % every == 0:
            yield frame


def _checked_size(frame: Frame, size: tuple[int, int]) -> tuple[int, int]:
    height, width = frame.image.shape[:2]
    if size not in ((0, 0), (height, width)):
        raise ValueError(
            f'{frame.name}: expected the size of the frames before, '
            f'{size[1]}x{size[0]}, got {width}x{height}; calibrate one camera at a '
            'time'
        )
    return height, width


def _record(
    frame: Frame, pipeline: Pipeline, options: Sequence[objects.ObjectOptions]
) -> dict[str, Any]:
    chain = pipeline.prepared
    scored = workbench.scores(pipeline, frame.image, [chain])[0]
    if scored.notes:
        raise ValueError(f'frame {frame.name}: {scored.notes[0]}')
    if not torch.isfinite(scored.score).all():
        raise ValueError(
            f'frame {frame.name}: the score holds NaN or infinity; set sanitize_inputs=true'
        )
    steps = [
        false_steps(scored, chosen, chain.levels.low_threshold, pipeline.labels.drivable)
        for chosen in options
    ]
    return {
        'steps': [found.tolist() for found in steps],
        'statistic': statistic(scored.score).tolist(),
    }
