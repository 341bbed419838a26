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
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from road_anomaly_ros.tools.chain import (
    above_zero,
    add_chain_arguments,
    add_out,
    chain_config,
    positive,
    refuse_unused,
    share,
)

if TYPE_CHECKING:
    from road_anomaly_ros.evaluation.thresholds import Chosen
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
_OF_DRIVING = ('rate', 'per', 'confidence', 'best_effort', 'areas', 'block', 'topic')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add(
        'input',
        metavar='INPUT',
        help='driving without obstacles: video, folder '
        'of images, rosbag2; with --labels the folder of a data set',
    )
    add_out(parser, 'calibration file to write', 'FILE')
    _add_promise_arguments(parser)
    add(
        '--areas',
        type=positive,
        nargs='+',
        default=[1],
        metavar='N',
        help='multiples of objects.min_area to try: the least whose threshold '
        "is no higher than the model's own, else the least (default 1)",
    )
    add(
        '--block',
        type=above_zero,
        metavar='SECONDS',
        help='length of independent stretches (default: from the correlation)',
    )
    add('--every', type=positive, default=1, metavar='N', help='take every N-th frame only')
    add('--max-frames', metavar='N', type=positive, help='take N frames at most')
    add('--topic', help='image topic of a bag that has several')
    add(
        '--labels',
        metavar='LAYOUT',
        help="INPUT is a labelled data set of this layout (see 'road-anomaly evaluate --help')",
    )
    add_chain_arguments(parser)


def _add_promise_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        '--rate',
        type=above_zero,
        default=0.1,
        metavar='R',
        help='false obstacles to stay under (default 0.1)',
    )
    add(
        '--per',
        choices=('frame', 'minute'),
        default='frame',
        help='what the rate counts (default frame)',
    )
    add(
        '--confidence',
        type=share,
        default=0.95,
        metavar='C',
        help='that the promise holds (default 0.95)',
    )
    add(
        '--best-effort',
        action='store_true',
        help='where the footage is too short, promise the lowest rate that it supports',
    )


def main(arguments: argparse.Namespace) -> int:
    """Run the command; returns 0, or 130 when Ctrl-C ended it early."""
    from road_anomaly_ros.evaluation import thresholds
    from road_anomaly_ros.perception.calibration import is_calibration
    from road_anomaly_ros.perception.drift import blindness
    from road_anomaly_ros.perception.pipeline import Pipeline

    config, out = chain_config(arguments), arguments.out
    if out.is_dir():
        raise ValueError(f'{out}: expected a file to write, this is a folder')
    if out.exists() and not is_calibration(out):
        raise ValueError(f'{out} is no calibration and would be replaced; choose another name')
    if not math.isnan(config.options('objects').threshold):
        raise ValueError('objects.threshold is what calibrate chooses; leave it away')
    if arguments.labels:
        refuse_unused(arguments, add_arguments, _OF_DRIVING, 'with --labels')
    pipeline = Pipeline(config)
    if pipeline.needs_anomaly:
        raise ValueError("the segmenter 'external' has no network to calibrate; choose another")
    try:
        chosen = (_from_labels if arguments.labels else _from_driving)(arguments, pipeline)
    except KeyboardInterrupt:
        print('interrupted: what is done is kept, the same command continues', file=sys.stderr)
        return 130
    thresholds.write(out, pipeline, chosen)
    print(*chosen.remarks, sep='\n')
    levels = chosen.levels
    blind = blindness(levels.promise.drift) if levels.promise is not None else ''
    if blind:
        print(f'drift of the scores will not be noticed: {blind}')
    print(
        f'{out}: threshold {levels.threshold:.6g} for {pipeline.chain.scorer} '
        f'({levels.source}); use it with --set calibration={out}'
    )
    return 0


def _from_driving(arguments: argparse.Namespace, pipeline: Pipeline) -> Chosen:
    from road_anomaly_ros.evaluation.thresholds import Wish, from_driving
    from road_anomaly_ros.tools.run import progress_bar
    from road_anomaly_ros.tools.sources import open_source

    path, out = Path(arguments.input), arguments.out
    stamp = (path.stat().st_size, path.stat().st_mtime_ns) if path.exists() else None
    wish = Wish(
        arguments.rate,
        arguments.per,
        arguments.confidence,
        arguments.best_effort,
        tuple(arguments.areas),
        arguments.block,
    )
    with (
        open_source(arguments.input, arguments.topic) as source,
        progress_bar(source, arguments.max_frames) as advance,
    ):
        try:
            return from_driving(
                pipeline,
                source,
                wish,
                out.with_name(f'.{out.name}.frames'),
                every=arguments.every,
                limit=arguments.max_frames,
                mark=(arguments.input, stamp, arguments.topic),
                advance=advance,
            )
        finally:
            for line in (*(f'left out: {line}' for line in source.omissions()), source.problem):
                if line:
                    print(f'warning: {line}', file=sys.stderr)


def _from_labels(arguments: argparse.Namespace, pipeline: Pipeline) -> Chosen:
    from road_anomaly_ros.evaluation.thresholds import from_labels

    out = arguments.out
    return from_labels(
        pipeline,
        Path(arguments.input),
        arguments.labels,
        out.with_name(f'.{out.name}.scores'),
        every=arguments.every,
        limit=arguments.max_frames,
    )
