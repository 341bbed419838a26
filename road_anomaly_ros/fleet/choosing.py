# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Which events of an index are wanted: filters, and near-duplicates folded into one."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from road_anomaly_ros.fleet.index import strongest
from road_anomaly_ros.tools.chain import positive

_ALIKE_BITS = 8  # of 64 in which the looks of one thing may differ
_ALIKE_S = 5.0  # seconds within which things at one place of a file are one
_ALIKE_OVERLAP = 0.3  # of their boxes


@dataclass
class Shown:
    """An event with those that look or lie the same."""

    row: dict[str, Any]
    others: list[dict[str, Any]] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser, most: str) -> None:
    """Declare the index, how many events count, `most` being the words for that, and filters."""
    parser.add_argument('index', metavar='INDEX', type=Path, help='folder made by mine')
    parser.add_argument(
        '--top', metavar='N', type=positive, default=100, help=f'{most}, default 100'
    )
    group = parser.add_argument_group('which events')
    group.add_argument('--file', metavar='TEXT', help='only of files whose name holds this text')
    group.add_argument('--since', metavar='S', type=float, help='not before this second of a file')
    group.add_argument('--until', metavar='S', type=float, help='not after this second of a file')
    group.add_argument(
        '--min-size', metavar='SHARE', type=float, help='least share of the picture, such as 0.001'
    )
    group.add_argument('--max-size', metavar='SHARE', type=float, help='most share of the picture')
    group.add_argument(
        '--within',
        metavar='X0,Y0,X1,Y1',
        type=_corners,
        help='centre of the box inside these shares of width and height, such as 0.3,0.4,0.7,1',
    )
    group.add_argument('--around', metavar='CLASS', help='known class around it, such as road')


def _corners(text: str) -> tuple[float, ...]:
    try:
        corners = tuple(float(part) for part in text.split(','))
    except ValueError:
        corners = ()
    left, top, right, bottom = corners if len(corners) == 4 else (1.0, 1.0, 0.0, 0.0)
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise argparse.ArgumentTypeError(
            f'expected X0,Y0,X1,Y1 such as 0.3,0.4,0.7,1, each from 0 to 1, got {text!r}'
        )
    return corners


def choose(table: pa.Table, arguments: argparse.Namespace) -> pa.Table:
    """Return the events that the filters let through, the surest first."""
    wanted = [
        (arguments.since, lambda value: pc.greater_equal(table['time'], value)),
        (arguments.until, lambda value: pc.less_equal(table['time'], value)),
        (arguments.min_size, lambda value: pc.greater_equal(table['size'], value)),
        (arguments.max_size, lambda value: pc.less_equal(table['size'], value)),
        (arguments.file, lambda value: pc.match_substring(table['file'], value)),
        (arguments.around, lambda value: pc.equal(table['surroundings'], value)),
        (arguments.within, lambda value: _within(table, value)),
    ]
    keep = pa.array([True] * table.num_rows)
    for value, test in wanted:
        if value is not None:
            keep = pc.and_(keep, test(value))
    return strongest(table.filter(keep))


def _within(table: pa.Table, corners: tuple[float, ...]) -> Any:
    left, top, right, bottom = corners
    x, y = (
        (table[start].to_numpy() + table[length].to_numpy() / 2) / table[whole].to_numpy()
        for start, length, whole in (('x', 'w', 'width'), ('y', 'h', 'height'))
    )
    return pa.array((x >= left) & (x <= right) & (y >= top) & (y <= bottom))


def fold(table: pa.Table, most: int) -> list[Shown]:
    """Return the first `most` events, each with those after it that are nearly the same.

    The same: pictures that differ in few bits, or boxes that overlap within seconds of one file.
    """
    shown: list[Shown] = []
    for batch in table.to_batches(max_chunksize=1024):
        for row in batch.to_pylist():
            same = next((item for item in shown if _alike(item.row, row)), None)
            if same is not None:
                same.others.append(row)
            elif len(shown) < most:
                shown.append(Shown(row))
    return shown


def _alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    if bin(one['hash'] ^ other['hash']).count('1') <= _ALIKE_BITS:
        return True
    near = one['file'] == other['file'] and abs(one['time'] - other['time']) <= _ALIKE_S
    return near and _overlap(one, other) >= _ALIKE_OVERLAP


def _overlap(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Return the intersection over union of two boxes, 0 ... 1."""
    sides = [
        min(one[start] + one[length], other[start] + other[length]) - max(one[start], other[start])
        for start, length in (('x', 'w'), ('y', 'h'))
    ]
    inside = max(0, sides[0]) * max(0, sides[1])
    return inside / max(1, one['w'] * one['h'] + other['w'] * other['h'] - inside)
