# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Measure methods on labelled data sets: pixels, obstacles and classes.

A method is a score and its refinements, such as s2+variance_aware; 'auto' is the chain measured
best for the model. All methods of a run share one pass of the network. OUT gets results.json,
table.md and table.csv, metrics in percent; other data sets and methods already there are kept.
With several data sets the table ends with the means over those that have anomalies.
OUT/details holds curves, frames and times for `road-anomaly report`.
A run that was stopped is continued by the same command. Until a method is measured its scores
wait in OUT/scores, 4 bytes per pixel. Figures are exact; memory holds one image and the scores
of all anomalies.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from road_anomaly_ros.commands.data import add_data_arguments, job_of
from road_anomaly_ros.tools.chain import (
    above_zero,
    add_chain_arguments,
    chain_config,
    refuse_unused,
)

if TYPE_CHECKING:
    from road_anomaly_ros.evaluation.running import Job

EXAMPLES = """
examples:
  road-anomaly evaluate synth/ --layout synthetic -o results
  road-anomaly evaluate RoadAnomaly21/ --layout road_anomaly21 \\
      --methods rba eam s2+variance_aware -o results
  road-anomaly evaluate cityscapes/ --layout cityscapes --model models/mine -o results
  road-anomaly evaluate --dataset RoadObsticle21/ --dataset fs_static/ \\
      --dataset mine=folder:drive/ -o results
  road-anomaly evaluate roots.yaml --methods auto s2+variance_aware -o results
  road-anomaly evaluate --compare results_before results_after
  road-anomaly evaluate 'rendered:1?frames=150&width=480&height=360' --tracks -o results
  road-anomaly evaluate --dataset rendered:1 --dataset DAVIS/ --video --latency 120 -o results

roots.yaml names data sets, NAME: DIR, NAME: LAYOUT:DIR or NAME: {layout: LAYOUT, folder: DIR} in
every line. Names and folders such as RoadObsticle21, FS_LostFound_full and fs_static tell their
layout.

layouts: folder, synthetic, road_anomaly, road_anomaly21, road_obstacle21,
fishyscapes_lost_and_found, fishyscapes_static, lost_and_found; for mIoU cityscapes, trainids
(images/ and labels/ with the 19 train ids), camvid (11 classes) and idd_lite (7 groups). Classes
are compared by name; finer ones of the model count as the coarser ones of the data set.
"""
_OF_SETS = (
    'methods',
    'layout',
    'name',
    'max_frames',
    'skip_clean',
    'min_pred_size',
    'min_gt_size',
    'seed',
    'jobs',
    'keep_scores',
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument
    add_data_arguments(parser, optional=True)
    add(
        '--dataset',
        metavar='[NAME=][LAYOUT:]DIR',
        action='append',
        default=[],
        dest='datasets',
        help='a data set; may be given several times, instead '
        'of DATASET_DIR or a YAML file of data sets in its place',
    )
    add(
        '--methods',
        metavar='METHOD',
        nargs='+',
        default=['auto'],
        help='scores with refinements, such as rba eam s2+variance_aware',
    )
    add(
        '--compare',
        metavar=('A', 'B'),
        nargs=2,
        type=Path,
        help='show the differences of two results instead of measuring',
    )
    add(
        '--tracks',
        action='store_true',
        help='measure tracks on videos instead: DATASET_DIR and --dataset are then names such as '
        "'rendered:1?frames=150', or folders of frames and instance masks as in MOTS and DAVIS",
    )
    parser.add_argument(
        '--video',
        action='store_true',
        help='measure videos as --tracks names them, or with masks of 0, 1 and 255 in '
        'labels_masks/: results against the truth of the moment they arrive, and how maps flicker',
    )
    parser.add_argument(
        '--latency',
        metavar='MS',
        type=above_zero,
        help='milliseconds until a result arrives (with --video; default: as measured here)',
    )
    parser.add_argument(
        '--fps',
        metavar='RATE',
        type=above_zero,
        default=10.0,
        help='frames per second of folders (with --tracks and --video; default %(default)s)',
    )
    add_chain_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    """Run the command; returns 0, or 130 when Ctrl-C ended it early."""
    from road_anomaly_ros.evaluation import results, running

    if arguments.compare:
        before, after = map(results.read, arguments.compare)
        print(results.compare(before['results'], after['results']), end='')
        for name in results.other_data(before, after):
            print(f'warning: {name} is not the same data in both', file=sys.stderr)
        return 0
    if arguments.tracks or arguments.video:
        refuse_unused(arguments, add_arguments, _OF_SETS, 'with --tracks and --video')
        return _videos(arguments)
    refuse_unused(arguments, add_arguments, ('fps', 'latency'), 'without --tracks or --video')
    if arguments.methods != ['auto']:
        refuse_unused(arguments, add_arguments, ('scorer',), 'on the chains that --methods names')
    if arguments.out is None or not (arguments.dataset or arguments.datasets):
        raise ValueError(
            "expected DATASET_DIR and -o OUT, or --compare A B; see 'road-anomaly evaluate --help'"
        )
    jobs = _jobs(arguments)
    configs = running.method_configs(arguments.methods, chain_config(arguments))
    try:
        running.evaluate_all(jobs, configs)
    except KeyboardInterrupt:
        return running.interrupted(arguments.out)
    print(results.markdown(results.read(arguments.out)['results']), end='')
    print(f'results in {arguments.out}: {results.NAME}, table.md, table.csv')
    return 0


def _videos(arguments: argparse.Namespace) -> int:
    from road_anomaly_ros.evaluation import streaming, tracks

    names = [str(arguments.dataset)] if arguments.dataset is not None else []
    names += arguments.datasets
    config, out, fps = chain_config(arguments), arguments.out, arguments.fps
    if not names or (arguments.tracks and arguments.video):
        raise ValueError(
            "expected a drive such as 'rendered:1?frames=150' or a folder of frames and masks, "
            'and one of --tracks and --video'
        )
    if arguments.tracks:
        refuse_unused(arguments, add_arguments, ('latency',), 'with --tracks')
        return tracks.run(names, config, out, fps)
    latency = None if arguments.latency is None else arguments.latency * 1e-3
    return streaming.run(names, config, out, latency, fps)


def _jobs(arguments: argparse.Namespace) -> list[Job]:
    """Return what is measured, one job per data set; ValueError for words that contradict."""
    from road_anomaly_ros.evaluation import roots

    one = arguments.dataset
    listed = one is not None and one.suffix.lower() in roots.SUFFIXES and not one.is_dir()
    if not listed and not arguments.datasets:
        return [job_of(arguments)]
    if one is not None and not listed:
        raise ValueError(
            f'expected DATASET_DIR or --dataset, got both; add --dataset LAYOUT:{one}'
        )
    if arguments.name:
        raise ValueError('--name is for one data set; name several with --dataset NAME=LAYOUT:DIR')
    found = roots.read(one) if listed else []
    found = roots.distinct([*found, *map(roots.parse, arguments.datasets)])
    return [
        dataclasses.replace(
            job_of(arguments), dataset=root.folder, layout=root.layout, name=root.name
        )
        for root in found
    ]
