# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Filters and near-duplicates of events, on rows made by hand."""

from __future__ import annotations

import argparse

import numpy as np
import pytest

pa = pytest.importorskip('pyarrow', reason='needs the extra mine')

from road_anomaly_ros.fleet.choosing import choose, fold  # noqa: E402
from road_anomaly_ros.fleet.index import SCHEMA, strongest  # noqa: E402


def event(number, **values):
    zero = {
        name: '' if pa.types.is_string(kind) else 0
        for name, kind in zip(SCHEMA.names, SCHEMA.types, strict=True)
    }
    box = {'x': 10, 'y': 10, 'w': 10, 'h': 10, 'width': 100, 'height': 100}
    # 32 bits apart from each other number's.
    look = int.from_bytes(np.random.default_rng(number).bytes(8), 'big')
    return {**zero, **box, 'event': number, 'file': 'a.mp4', 'hash': look, **values}


def table(*rows):
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


def filters(**values):
    names = ('file', 'since', 'until', 'min_size', 'max_size', 'within', 'around')
    return argparse.Namespace(**{**dict.fromkeys(names), **values})


@pytest.mark.parametrize(
    ('values', 'expected'),
    [
        ({}, [2, 1, 3]),
        ({'since': 5.0}, [2, 3]),
        ({'until': 5.0}, [1]),
        ({'min_size': 0.2}, [3]),
        ({'max_size': 0.1}, [2, 1]),
        ({'file': 'b'}, [3]),
        ({'around': 'road'}, [1]),
        ({'within': (0.5, 0.0, 1.0, 1.0)}, [2]),
    ],
)
def test_filters(values, expected):
    rows = table(
        event(1, evidence=2.0, time=1.0, size=0.01, surroundings='road'),
        event(2, evidence=3.0, time=6.0, size=0.02, x=60),
        event(3, evidence=1.0, time=9.0, size=0.3, file='b.mp4'),
    )
    chosen = choose(rows, filters(**values))
    assert chosen['event'].to_pylist() == expected


def test_near_duplicates_are_folded_into_the_surest():
    rows = strongest(
        table(
            event(1, evidence=5.0, time=1.0),
            event(2, evidence=4.0, time=3.0, x=12),  # overlaps 1 by 2/3, two seconds later
            event(3, evidence=3.0, time=30.0),  # at the same place half a minute later
            event(4, evidence=2.0, time=60.0, file='b.mp4', hash=event(1)['hash'] ^ 0b1011),
        )
    )
    shown = fold(rows, 10)
    found = [(item.row['event'], [other['event'] for other in item.others]) for item in shown]
    assert found == [(1, [2, 4]), (3, [])]
    assert [len(fold(rows, 1)), fold(rows, 1)[0].row['event']] == [1, 1]
