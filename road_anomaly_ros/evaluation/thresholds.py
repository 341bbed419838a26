# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The threshold of a chain: from driving without obstacles, with a promise, or from labels."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from road_anomaly_ros import __version__, files
from road_anomaly_ros.evaluation.datasets import DataSet, open_dataset
from road_anomaly_ros.evaluation.footage import Footage, Journal, watch
from road_anomaly_ros.evaluation.measuring import Method, measure, score_images
from road_anomaly_ros.evaluation.promises import (
    METHODS,
    Bound,
    Choice,
    block_length,
    block_means,
    choose,
)
from road_anomaly_ros.evaluation.running import stamps
from road_anomaly_ros.evaluation.store import Store, digest, file_hashes
from road_anomaly_ros.perception.calibration import (
    Calibration,
    Promise,
    ScoreCalibration,
    chain_options,
)
from road_anomaly_ros.perception.chain import calibration_of
from road_anomaly_ros.perception.model_files import weights_digest
from road_anomaly_ros.perception.pipeline import Pipeline
from road_anomaly_ros.tools.sources import Source

_LEAST_BLOCK_S = 1.0
_MOST_DRIFT_ROWS = 400
_STRIDE = 4  # of the pixels from which a display range is taken


@dataclasses.dataclass(frozen=True)
class Wish:
    """What is to be promised, and how it may be reached."""

    rate: float = 0.1  # false obstacles per `unit` to stay under
    unit: str = 'frame'  # or 'minute'
    confidence: float = 0.95
    best_effort: bool = False  # promise the lowest rate that too short footage supports
    factors: tuple[int, ...] = (1,)  # multiples of objects.min_area to try
    block_seconds: float | None = None  # of independent stretches; None: from the correlation


@dataclasses.dataclass(frozen=True)
class Chosen:
    """Levels of the chain's score, the least area of an obstacle, and what is to be told."""

    levels: ScoreCalibration
    area: int
    remarks: tuple[str, ...] = ()


def from_driving(
    pipeline: Pipeline,
    source: Source,
    wish: Wish,
    journal: Path,
    *,
    every: int = 1,
    limit: int | None = None,
    mark: Sequence[Any] = (),
    advance: Callable[[], object] = lambda: None,
) -> Chosen:
    """Return the lowest threshold that keeps the wish on driving in which nothing lies about.

    `journal` keeps the frames that are done, for the same call after a stop; `mark` tells
    footage of one name apart. ValueError where the footage is too short or no threshold does.
    """
    mode = pipeline.chain.as_dict().get('objects.mode', 'components')
    if mode != 'components':
        raise ValueError(
            f"calibrate counts obstacles of objects.mode 'components', got {mode!r}; "
            'choose that mode'
        )
    if wish.unit == 'minute' and source.kind in ('folder', 'image'):
        raise ValueError(
            f'{source.name}: --per minute needs a clock, and pictures have none; '
            'use a video or a bag, or --per frame'
        )
    least = pipeline.prepared.object_options.min_area
    areas = [least * factor for factor in sorted(set(wish.factors))]
    lowest, weights = pipeline.prepared.levels.low_threshold, pipeline.segmenter.weights
    options = pipeline.chain.as_dict()
    key = digest([__version__, *mark, every, areas, options, lowest, weights_digest(weights)])
    with Journal(journal, key) as done:
        footage = watch(source, pipeline, areas, done, every=every, limit=limit, advance=advance)
    found = _Driving(pipeline, footage, wish).chosen(areas)
    journal.unlink(missing_ok=True)
    return found


class _Driving:
    """Footage of one chain, cut into blocks, and what they let one promise."""

    def __init__(self, pipeline: Pipeline, footage: Footage, wish: Wish) -> None:
        self._pipeline, self._footage, self._wish = pipeline, footage, wish
        self._length = self._block_length()
        self._blocks = max(1, len(footage) // self._length)

    def _block_length(self) -> int:
        footage, wished = self._footage, self._wish.block_seconds
        clock = not math.isnan(footage.seconds)
        if wished and not clock:
            raise ValueError(
                f'{footage.name}: --block is in seconds, and pictures have no clock; leave it away'
            )
        seconds = wished or _LEAST_BLOCK_S
        least = max(1, math.ceil(round(seconds / footage.seconds, 6))) if clock else 1
        return least if wished else block_length(footage.peaks(0), least)

    def chosen(self, areas: Sequence[int]) -> Chosen:
        """Choose among the areas; ValueError, with what can be promised, for too few frames."""
        wish, footage, levels = self._wish, self._footage, self._pipeline.prepared.levels
        # Each area is a hypothesis of its own: the doubt is shared among them (Bonferroni).
        confidence = 1 - (1 - wish.confidence) / len(areas)
        bound = Bound(wish.unit, confidence, self._length * footage.seconds)
        rate, remarks = self._supported_rate(bound)
        found: list[tuple[int, Choice]] = []
        for index, area in enumerate(areas):
            peaks, count = footage.peaks(index), footage.mean_count(index)
            choice = choose(peaks, levels.low_threshold, self._length, bound, rate, count)
            if choice is not None:
                found.append((area, choice))
                remarks.append(_told(area, choice, count, levels.threshold, bound))
        if not found:
            raise ValueError(
                f'{footage.name}: no threshold keeps {rate:g} per {wish.unit}; allow a higher rate'
            )
        area, choice = next(
            (pair for pair in found if pair[1].threshold <= levels.threshold), found[0]
        )
        promise = self._promise(choice, area, rate)
        chosen = dataclasses.replace(
            _at(levels, choice.threshold), promise=promise, source=str(promise)
        )
        return Chosen(chosen, area, tuple(remarks))

    def _supported_rate(self, bound: Bound) -> tuple[float, list[str]]:
        """Return the rate asked for, or with best effort what so many quiet blocks support."""
        wish, footage, length, blocks = self._wish, self._footage, self._length, self._blocks
        needed = bound.needed(wish.rate)
        if blocks >= needed:
            return wish.rate, []
        lowest = _rounded_up(bound.upper(np.zeros(blocks)))
        if wish.best_effort:
            remark = f'too short for {wish.rate:g} per {wish.unit}, promising {lowest:g}'
            return lowest, [remark]
        frames, seconds = needed * length, needed * length * footage.seconds
        time = '' if math.isnan(seconds) else f' ({_duration(seconds)})'
        sure = f'{100 * wish.confidence:g} %'
        raise ValueError(
            f'{footage.name} is too short: its {len(footage)} frames are {blocks} independent '
            f'blocks of {length}, {wish.rate:g} per {wish.unit} at {sure} takes {needed} blocks, '
            f'{frames} frames{time}; it can promise {lowest:g} at {sure} (--best-effort) or '
            f'{wish.rate:g} at {100 * bound.reached(blocks, wish.rate):.0f} %'
        )

    def _promise(self, choice: Choice, area: int, rate: float) -> Promise:
        wish, footage, pipeline = self._wish, self._footage, self._pipeline
        rows = block_means(footage.statistics, self._length)
        seconds = self._length * footage.seconds
        return Promise(
            rate=rate,
            unit=wish.unit,
            confidence=wish.confidence,
            method=METHODS[wish.unit],
            frames=len(footage),
            blocks=len(rows),
            block_seconds=_LEAST_BLOCK_S if math.isnan(seconds) else _short(seconds),
            measured=_short(choice.measured),
            footage=Path(footage.name).name,
            weights=weights_digest(pipeline.segmenter.weights),
            size=footage.size,
            chain=chain_options({**pipeline.chain.as_dict(), 'objects.min_area': area}),
            drift=_thin(rows),
        )


def _at(levels: ScoreCalibration, threshold: float) -> ScoreCalibration:
    """Return the levels with another threshold, which the low one and the display range follow."""
    return dataclasses.replace(
        levels,
        threshold=threshold,
        low_threshold=min(levels.low_threshold, threshold),
        display=(levels.display[0], max(levels.display[1], threshold)),
    )


def _told(
    area: int, choice: Choice, count: Callable[[float], float], before: float, bound: Bound
) -> str:
    return (
        f'min_area {area}: threshold {choice.threshold:.6g} shows {choice.measured:.3g} per '
        f'{bound.unit}, at most {choice.upper:.3g} with confidence {bound.confidence:.4g}; '
        f'{count(choice.threshold):.3g} obstacles per frame instead of '
        f'{count(before):.3g} at {before:.6g}'
    )


def _rounded_up(rate: float) -> float:
    """Round to two digits, never below: what is shown is what is promised."""
    unit = 10.0 ** (math.floor(math.log10(rate)) - 1)
    return float(f'{math.ceil(rate / unit - 1e-6) * unit:.6g}')


def _duration(seconds: float) -> str:
    return f'{seconds:.0f} s' if seconds < 120 else f'{seconds / 60:.1f} min'


def _thin(rows: np.ndarray) -> list[list[float]]:
    step = -(-len(rows) // _MOST_DRIFT_ROWS)
    return [[_short(value) for value in row] for row in rows[::step].tolist()]


def _short(value: float) -> float:
    return float(f'{value:.6g}')


def from_labels(
    pipeline: Pipeline,
    folder: Path,
    layout: str,
    scores: Path,
    *,
    every: int = 1,
    limit: int | None = None,
) -> Chosen:
    """Return the threshold of the best F1 over all labelled pixels of a data set.

    `scores` is a folder for the scores of the images that are done. ValueError for a data set
    without anomalies.
    """
    data = open_dataset(folder, layout)
    data = dataclasses.replace(data, samples=data.samples[::every][:limit])
    if not sum(found.anomaly for found in data.check()):
        raise ValueError(
            f'{folder}: expected labels with anomalies, found none; without them leave '
            '--labels away'
        )
    chain, options = pipeline.prepared, pipeline.chain.as_dict()
    hashes = file_hashes(pipeline.segmenter.model_dir)
    key = digest([__version__, str(folder), layout, stamps(data), options, hashes])
    with contextlib.closing(Store(scores)) as store:
        score_images(pipeline, data, [Method('calibrate', chain, key)], store)
        _, details = measure(data, store, key)
        display = _display(data, store, key)
    shutil.rmtree(scores, ignore_errors=True)
    levels = dataclasses.replace(
        _at(chain.levels, float(details['threshold'])),
        promise=None,
        display=display,
        source=f'best F1, {len(data)} images of {folder.name}',
    )
    remark = f'best F1 {details["best_f1"]:.2f} % on {len(data)} images'
    return Chosen(levels, chain.object_options.min_area, (remark,))


def _display(data: DataSet, store: Store, key: str) -> tuple[float, float]:
    """Return the median score of known pixels and the 99.5th percentile of all."""
    inlier, every = [], []
    for index in range(len(data)):
        score = store.read(key, index, 'score')[::_STRIDE, ::_STRIDE]
        truth = data.anomaly(index)[::_STRIDE, ::_STRIDE]
        inlier.append(score[truth == 0])
        every.append(score[truth <= 1])
    quiet = float(np.median(np.concatenate(inlier)))
    loud = float(np.quantile(np.concatenate(every), 0.995))
    return quiet, max(loud, quiet + 1e-6)


def write(path: Path, pipeline: Pipeline, chosen: Chosen) -> None:
    """Write a calibration: the chain as default, its levels, and those known of other scorers."""
    chain = pipeline.chain
    options = chain_options(chain.as_dict())
    default = {
        'scorer': chain.scorer,
        'refinements': list(chain.refinements),
        **{name: value for name, value in options.items() if '.' in name},
        'objects.min_area': chosen.area,
    }
    scorers = {
        name: dataclasses.replace(known, promise=None)
        for name, known in calibration_of(pipeline.config, pipeline.segmenter).scorers.items()
    }
    files.write(path, Calibration(default, {**scorers, chain.scorer: chosen.levels}).dump())
