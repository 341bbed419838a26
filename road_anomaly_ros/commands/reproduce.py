# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Measure a table of one of the three papers, and print ours beside the printed cells.

TABLE is such as query-2 (the query-level paper), heads-4 (anomaly heads over EoMT) or
objectomaly-3; --list shows all, with the weights and data that each needs. Data sets lie below
ROOT under their publishers' names. OUT gets reproduce.md and what evaluate writes; a run that was
stopped is continued by the same command.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from road_anomaly_ros.tools.chain import positive

EXAMPLES = """
examples:
  road-anomaly reproduce --list
  road-anomaly reproduce query-2 --data data --models models -o out
  road-anomaly reproduce query-2 --data data --model builtin --set segments=watershed -o out
  road-anomaly reproduce heads-3 --data data --models models --max-frames 10 -o out
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('table', metavar='TABLE', nargs='?', help='which one, such as query-2')
    parser.add_argument('--list', action='store_true', help='show all tables and figures')
    parser.add_argument('--data', metavar='ROOT', type=Path, default=Path('data'))
    parser.add_argument('--models', metavar='ROOT', type=Path, default=Path('models'))
    parser.add_argument('-o', '--out', metavar='OUT', type=Path, help='folder for the results')
    parser.add_argument('--model', help="another model than the table's: a directory or 'builtin'")
    parser.add_argument('--segmenter', help='the kind of that model, default mask2former')
    parser.add_argument(
        '--dataset',
        metavar='NAME=LAYOUT:DIR',
        action='append',
        default=[],
        help="a data set of another layout or place; NAME as in the table's column data",
    )
    parser.add_argument('--max-frames', metavar='N', type=positive, help='first N images of each')
    parser.add_argument('--jobs', metavar='N', type=positive, default=1, help='processes')
    parser.add_argument(
        '--set',
        metavar='NAME=VALUE',
        action='append',
        default=[],
        help='an option for all rows, such as segments=watershed where SAM is not at hand',
    )


def main(arguments: argparse.Namespace) -> int:
    """Run the command; returns 0, or 130 when Ctrl-C ended it early."""
    from road_anomaly_ros import files
    from road_anomaly_ros.evaluation import reproduce, running
    from road_anomaly_ros.perception.config import parse_assignments

    if arguments.list:
        print(reproduce.listing(), end='')
        return 0
    if arguments.table is None or arguments.out is None:
        raise ValueError('expected TABLE and -o OUT, or --list; see road-anomaly reproduce --help')
    place = reproduce.Place(
        data=arguments.data,
        models=arguments.models,
        out=arguments.out,
        model=arguments.model,
        segmenter=arguments.segmenter or ('mask2former' if arguments.model else None),
        datasets=tuple(arguments.dataset),
        options=parse_assignments(arguments.set),
        max_frames=arguments.max_frames,
        jobs=arguments.jobs,
    )
    try:
        lines, left = reproduce.reproduce(arguments.table, place)
    except KeyboardInterrupt:
        return running.interrupted(arguments.out)
    text = reproduce.markdown(lines)
    files.write(arguments.out / 'reproduce.md', text)
    print(text, end='')
    for line in left:
        print(f'left out: {line}', file=sys.stderr)
    return 0
