# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Choose the threshold: from ordinary driving with a promise, or from labelled images.

INPUT is driving in which nothing lies on the road: every obstacle found there is false. The
threshold is the lowest at which they stay under --rate with --confidence, on roads like these and
for this camera, model and chain. Per frame: the share of frames that show anything false. Per
minute: the stretches of one block that show anything false. Frames that follow each other are
alike, so blocks of several correlation times, 1 s at least, count as trials.

A promise takes n blocks that show nothing false with (1 - p)^n <= 1 - C, and more where some do;
p is R, or per minute R times the minutes of a block. With 95 % these are 29 blocks for 0.1 per
frame, 59 for 0.05 and 299 for 0.01; for 2 per minute 89 blocks of 1 s. Footage that is too short
is refused, with what it can promise. Drift of the scores is watched from 10 blocks on.

With --labels it is the threshold of the best F1. The file is for the option `calibration`; a run
that was stopped is continued by the same command.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from road_anomaly_ros import __version__
from road_anomaly_ros.tools.chain import add_chain_arguments, chain_config, positive
from road_anomaly_ros.tools.pictures import some

if TYPE_CHECKING:
    import numpy as np

    from road_anomaly_ros.evaluation.footage import Footage
    from road_anomaly_ros.evaluation.promises import Bound, Choice
    from road_anomaly_ros.perception.calibration import Promise, ScoreCalibration
    from road_anomaly_ros.perception.pipeline import Pipeline

EXAMPLES = """
examples:
  road-anomaly calibrate commute.mp4 -o mine.yaml --rate 0.1 --per frame
  road-anomaly calibrate commute.mcap -o mine.yaml --rate 2 --per minute --confidence 0.9
  road-anomaly calibrate commute.mp4 -o mine.yaml --areas 1 2 4     # larger obstacles, if needed
  road-anomaly calibrate short.mp4 -o mine.yaml --best-effort       # the best it can promise
  road-anomaly calibrate synth/ -o mine.yaml --labels synthetic     # best F1 instead
  anomaly_node --ros-args -p calibration:=mine.yaml
  road-anomaly run other.mp4 -o results --set calibration=mine.yaml
"""
_LEAST_BLOCK_S = 1.0
_MOST_DRIFT_ROWS = 400


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        'input',
        metavar='INPUT',
        help='driving without obstacles: video, folder '
        'of images, rosbag2; with --labels the folder of a data set',
    )
    parser.add_argument(
        '-o', '--out', metavar='FILE', type=Path, required=True, help='calibration file to write'
    )
    _add_promise_arguments(parser)
    parser.add_argument(
        '--every', type=positive, default=1, metavar='N', help='take every N-th frame only'
    )
    parser.add_argument('--max-frames', metavar='N', type=positive, help='take N frames at most')
    parser.add_argument('--topic', help='image topic of a bag that has several')
    parser.add_argument(
        '--labels',
        metavar='LAYOUT',
        help="INPUT is a labelled data set of this layout (see 'road-anomaly evaluate --help')",
    )
    add_chain_arguments(parser)


def _add_promise_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--rate',
        type=_above_zero,
        default=0.1,
        metavar='R',
        help='false obstacles to stay under (default 0.1)',
    )
    parser.add_argument(
        '--per',
        choices=('frame', 'minute'),
        default='frame',
        help='what the rate counts (default frame)',
    )
    parser.add_argument(
        '--confidence',
        type=_share,
        default=0.95,
        metavar='C',
        help='that the promise holds (default 0.95)',
    )
    parser.add_argument(
        '--best-effort',
        action='store_true',
        help='where the footage is too short, promise the lowest rate that it supports',
    )
    parser.add_argument(
        '--areas',
        type=positive,
        nargs='+',
        default=[1],
        metavar='N',
        help='multiples of objects.min_area to try: the least whose threshold '
        "is no higher than the model's own, else the least (default 1)",
    )
    parser.add_argument(
        '--block',
        type=_above_zero,
        metavar='SECONDS',
        help='length of independent stretches (default: from the correlation)',
    )


def _above_zero(text: str) -> float:
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f'expected a number above 0, got {text!r}')
    return value


def _share(text: str) -> float:
    value = _number(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f'expected a number between 0 and 1, got {text!r}')
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def main(arguments: argparse.Namespace) -> int:
    """Run the command; returns 0, or 130 when Ctrl-C ended it early."""
    from road_anomaly_ros.perception.drift import blindness
    from road_anomaly_ros.perception.pipeline import Pipeline

    config = chain_config(arguments)
    if arguments.out.is_dir():
        raise ValueError(f'{arguments.out}: expected a file to write, this is a folder')
    if not math.isnan(config.options('objects').threshold):
        raise ValueError('objects.threshold is what calibrate chooses; leave it away')
    pipeline = Pipeline(config)
    if pipeline.needs_anomaly:
        raise ValueError("the segmenter 'external' has no network to calibrate; choose another")
    try:
        measure = _from_labels if arguments.labels else _from_driving
        levels, area = measure(arguments, pipeline)
    except KeyboardInterrupt:
        print('interrupted: what is done is kept, the same command continues', file=sys.stderr)
        return 130
    _write(arguments.out, pipeline, levels, area)
    blind = blindness(levels.promise.drift) if levels.promise is not None else ''
    if blind:
        print(f'drift of the scores will not be noticed: {blind}')
    print(
        f'{arguments.out}: threshold {levels.threshold:.6g} for {pipeline.chain.scorer} '
        f'({levels.source}); use it with --set calibration={arguments.out}'
    )
    return 0


def _from_driving(
    arguments: argparse.Namespace, pipeline: Pipeline
) -> tuple[ScoreCalibration, int]:
    """Return the levels that keep the promise, and the least area of an obstacle."""
    from road_anomaly_ros.tools.sources import open_source

    mode = pipeline.chain.as_dict().get('objects.mode', 'components')
    if mode != 'components':
        raise ValueError(
            "calibrate counts obstacles of objects.mode 'components', got "
            f'{mode!r}; choose that mode'
        )
    areas = [
        pipeline.prepared.object_options.min_area * factor
        for factor in sorted(set(arguments.areas))
    ]
    with open_source(arguments.input, arguments.topic) as source:
        if arguments.per == 'minute' and source.kind in ('folder', 'image'):
            raise ValueError(
                f'{source.name}: --per minute needs a clock, and pictures have none; '
                'use a video or a bag, or --per frame'
            )
        journal, footage = _watch(arguments, pipeline, areas, source)
        for reason, count in source.refused.items():
            print(
                f'warning: {count} left out ({reason}): {some(source.left_out[reason])}',
                file=sys.stderr,
            )
        if source.problem:
            print(f'warning: {source.problem}', file=sys.stderr)
    levels, area = _promised(arguments, pipeline, areas, footage)
    journal.unlink(missing_ok=True)
    return levels, area


def _watch(
    arguments: argparse.Namespace, pipeline: Pipeline, areas: list[int], source: Any
) -> tuple[Path, Footage]:
    from road_anomaly_ros.evaluation.footage import Journal, watch
    from road_anomaly_ros.evaluation.store import digest
    from road_anomaly_ros.tools.run import progress_bar

    path = Path(arguments.input)
    stamp = (path.stat().st_size, path.stat().st_mtime_ns) if path.exists() else None
    key = digest(
        [
            __version__,
            arguments.input,
            stamp,
            arguments.topic,
            arguments.every,
            areas,
            pipeline.chain.as_dict(),
            pipeline.prepared.levels.low_threshold,
            pipeline.weights_digest(),
        ]
    )
    journal_path = arguments.out.with_name(f'.{arguments.out.name}.frames')
    with (
        progress_bar(source, arguments.max_frames) as advance,
        Journal(journal_path, key) as journal,
    ):
        footage = watch(
            source,
            pipeline,
            areas,
            journal,
            every=arguments.every,
            limit=arguments.max_frames,
            advance=advance,
        )
    return journal_path, footage


def _promised(
    arguments: argparse.Namespace, pipeline: Pipeline, areas: list[int], footage: Footage
) -> tuple[ScoreCalibration, int]:
    """Choose among the areas; ValueError, with what can be promised, for too little footage."""
    from road_anomaly_ros.evaluation.promises import Bound, choose

    levels = pipeline.prepared.levels
    length = _block_length(arguments, footage)
    # Each area is a hypothesis of its own: the doubt is shared among them (Bonferroni).
    confidence = 1 - (1 - arguments.confidence) / len(areas)
    bound = Bound(arguments.per, confidence, length * footage.seconds)
    blocks = max(1, len(footage) // length)
    rate = _supported_rate(arguments, footage, bound, length, blocks)
    found: list[tuple[int, Choice]] = []
    for index, area in enumerate(areas):
        choice = choose(
            footage.peaks(index),
            levels.low_threshold,
            length,
            bound,
            rate,
            footage.mean_count(index),
        )
        if choice is not None:
            found.append((area, choice))
            _say(area, choice, footage.mean_count(index), levels.threshold, bound)
    if not found:
        raise ValueError(
            f'{footage.name}: no threshold keeps {rate:g} per {arguments.per}; allow a higher rate'
        )
    area, choice = next(
        (pair for pair in found if pair[1].threshold <= levels.threshold), found[0]
    )
    promise = _promise(arguments, pipeline, footage, choice, area, length, rate)
    return dataclasses.replace(
        levels,
        threshold=choice.threshold,
        promise=promise,
        source=str(promise),
        display=_display(levels.display, choice.threshold),
    ), area


def _block_length(arguments: argparse.Namespace, footage: Footage) -> int:
    from road_anomaly_ros.evaluation.promises import block_length

    clock = not math.isnan(footage.seconds)
    if arguments.block and not clock:
        raise ValueError(
            f'{footage.name}: --block is in seconds, and pictures have no clock; leave it away'
        )
    seconds = arguments.block or _LEAST_BLOCK_S
    least = max(1, math.ceil(round(seconds / footage.seconds, 6))) if clock else 1
    return least if arguments.block else block_length(footage.peaks(0), least)


def _supported_rate(
    arguments: argparse.Namespace, footage: Footage, bound: Bound, length: int, blocks: int
) -> float:
    """Return the rate asked for, or with --best-effort what so many quiet blocks support."""
    import numpy as np

    needed = bound.needed(arguments.rate)
    if blocks >= needed:
        return float(arguments.rate)
    lowest = _rounded_up(bound.upper(np.zeros(blocks)))
    if arguments.best_effort:
        print(f'too short for {arguments.rate:g} per {arguments.per}, promising {lowest:g}')
        return lowest
    frames, seconds = needed * length, needed * length * footage.seconds
    time = '' if math.isnan(seconds) else f' ({_duration(seconds)})'
    raise ValueError(
        f'{footage.name} is too short: its {len(footage)} frames are {blocks} independent '
        f'blocks of {length}, {arguments.rate:g} per {arguments.per} at '
        f'{100 * arguments.confidence:g} % takes {needed} blocks, {frames} frames{time}; it can '
        f'promise {lowest:g} at {100 * arguments.confidence:g} % (--best-effort) or '
        f'{arguments.rate:g} at {100 * bound.reached(blocks, arguments.rate):.0f} %'
    )


def _rounded_up(rate: float) -> float:
    """Round to two digits, never below: what is shown is what is promised."""
    unit = 10.0 ** (math.floor(math.log10(rate)) - 1)
    return float(f'{math.ceil(rate / unit - 1e-6) * unit:.6g}')


def _duration(seconds: float) -> str:
    return f'{seconds:.0f} s' if seconds < 120 else f'{seconds / 60:.1f} min'


def _say(area: int, choice: Choice, mean_count: Any, before: float, bound: Bound) -> None:
    print(
        f'min_area {area}: threshold {choice.threshold:.6g} shows {choice.measured:.3g} per '
        f'{bound.unit}, at most {choice.upper:.3g} with confidence {bound.confidence:.4g}; '
        f'{mean_count(choice.threshold):.3g} obstacles per frame instead of '
        f'{mean_count(before):.3g} at {before:.6g}'
    )


def _promise(
    arguments: argparse.Namespace,
    pipeline: Pipeline,
    footage: Footage,
    choice: Choice,
    area: int,
    length: int,
    rate: float,
) -> Promise:
    from road_anomaly_ros.evaluation.promises import METHODS, block_means
    from road_anomaly_ros.perception.calibration import Promise, chain_options

    rows = block_means(footage.statistics, length)
    chain = chain_options({**pipeline.chain.as_dict(), 'objects.min_area': area})
    seconds = length * footage.seconds
    return Promise(
        rate=rate,
        unit=arguments.per,
        confidence=arguments.confidence,
        method=METHODS[arguments.per],
        frames=len(footage),
        blocks=len(rows),
        block_seconds=_short(seconds) if seconds == seconds else _LEAST_BLOCK_S,
        measured=_short(choice.measured),
        footage=Path(footage.name).name,
        weights=pipeline.weights_digest(),
        size=footage.size,
        chain=chain,
        drift=_thin(rows),
    )


def _thin(rows: np.ndarray) -> list[list[float]]:
    step = -(-len(rows) // _MOST_DRIFT_ROWS)
    return [[_short(value) for value in row] for row in rows[::step].tolist()]


def _short(value: float) -> float:
    return float(f'{value:.6g}')


def _display(display: tuple[float, float], threshold: float) -> tuple[float, float]:
    """Keep the range; stretch it where the threshold would lie outside."""
    return display[0], max(display[1], threshold)


def _from_labels(
    arguments: argparse.Namespace, pipeline: Pipeline
) -> tuple[ScoreCalibration, int]:
    """Return the levels of the best F1 over all labelled pixels."""
    from road_anomaly_ros.evaluation.datasets import open_dataset
    from road_anomaly_ros.evaluation.measuring import Method, measure, score_images
    from road_anomaly_ros.evaluation.store import Store, digest, file_hashes

    data = open_dataset(Path(arguments.input), arguments.labels)
    data = dataclasses.replace(
        data, samples=data.samples[:: arguments.every][: arguments.max_frames]
    )
    known = sum(found.anomaly for found in data.check())
    if not known:
        raise ValueError(
            f'{arguments.input}: expected labels with anomalies, found none; without '
            'them leave --labels away'
        )
    chain, options = pipeline.prepared, pipeline.chain.as_dict()
    key = digest(
        [
            __version__,
            arguments.input,
            arguments.labels,
            arguments.every,
            options,
            file_hashes(pipeline.model_dir),
        ]
    )
    folder = arguments.out.with_name(f'.{arguments.out.name}.scores')
    with contextlib.closing(Store(folder)) as store:
        score_images(pipeline, data, [Method('calibrate', chain, key)], store)
        _, details = measure(data, store, key)
        display = _label_display(data, store, key)
    shutil.rmtree(folder, ignore_errors=True)
    threshold = float(details['threshold'])
    print(f'best F1 {details["best_f1"]:.2f} % on {len(data)} images')
    return dataclasses.replace(
        chain.levels,
        threshold=threshold,
        promise=None,
        low_threshold=min(chain.levels.low_threshold, threshold),
        display=display,
        source=f'best F1, {len(data)} images of {Path(arguments.input).name}',
    ), chain.object_options.min_area


def _label_display(data: Any, store: Any, key: str, stride: int = 4) -> tuple[float, float]:
    """Return the median score of known pixels and the 99.5th percentile of all."""
    import numpy as np

    inlier, every = [], []
    for index in range(len(data)):
        score = store.read(key, index, 'score')[::stride, ::stride]
        truth = data.anomaly(index)[::stride, ::stride]
        inlier.append(score[truth == 0])
        every.append(score[truth <= 1])
    quiet = float(np.median(np.concatenate(inlier)))
    loud = float(np.quantile(np.concatenate(every), 0.995))
    return quiet, max(loud, quiet + 1e-6)


def _write(path: Path, pipeline: Pipeline, levels: ScoreCalibration, area: int) -> None:
    """Write the file: the chain as default, its levels, and those known of other scorers."""
    from road_anomaly_ros import files
    from road_anomaly_ros.perception.calibration import Calibration, chain_options

    chain = pipeline.chain
    options = chain_options(chain.as_dict())
    default = {
        'scorer': chain.scorer,
        'refinements': list(chain.refinements),
        **{name: value for name, value in options.items() if '.' in name},
        'objects.min_area': area,
    }
    scorers = {
        name: dataclasses.replace(known, promise=None)
        for name, known in pipeline.calibration.scorers.items()
    }
    text = Calibration(default, {**scorers, chain.scorer: levels}).dump()
    files.write(path, text)
