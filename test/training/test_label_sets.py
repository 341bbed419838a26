# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Labels of every layout in Cityscapes classes, against tables written by hand."""

from __future__ import annotations

import numpy as np
import pytest

from road_anomaly_ros.training import label_sets

VEHICLES = {13, 14, 15, 16}
NINETEEN = [{index} for index in range(19)]
# The classes that every label id allows, in the order of the ids.
CAMVID = [{10}, {2, 3}, {5}, {0}, {1}, {8, 9}, {6, 7}, {3, 4}, VEHICLES, {11}, {12, 18}]
IDD_LITE = [{0}, {1, 9}, {11, 12}, {*VEHICLES, 17, 18}, {3, 4, 5, 6, 7}, {2, 3, 8}, {10}]
CITYSCAPES = {
    7: 0,
    8: 1,
    11: 2,
    12: 3,
    13: 4,
    17: 5,
    19: 6,
    20: 7,
    21: 8,
    22: 9,
    23: 10,
    24: 11,
    25: 12,
    26: 13,
    27: 14,
    28: 15,
    31: 16,
    32: 17,
    33: 18,
}
IDD = [
    {0},
    {0},
    {1},
    {1, 9},
    {11, 12},
    {12},
    {17},
    {18},
    {*VEHICLES, 17, 18},
    {13},
    {14},
    {15},
    {*VEHICLES, 17, 18},
    {1},
    {3},
    {4},
    {3, 4},
    set(),
    {7},
    {6},
    {5},
    set(),
    {2},
    {2, 3},
    {8},
    set(),
]
VISTAS = {
    2: 1,
    3: 4,
    6: 3,
    7: 0,
    8: 0,
    9: 1,
    10: 0,
    11: 1,
    13: 0,
    14: 0,
    15: 1,
    17: 2,
    19: 11,
    20: 12,
    21: 12,
    22: 12,
    23: 0,
    24: 0,
    25: 8,
    26: 9,
    27: 10,
    29: 9,
    30: 8,
    41: 0,
    44: 5,
    45: 5,
    46: 5,
    47: 5,
    48: 6,
    49: 7,
    50: 7,
    52: 18,
    54: 15,
    55: 13,
    57: 17,
    58: 16,
    61: 14,
}
SEVERAL = {4: {3, 4}, 5: {3, 4}, 16: {2, 3}, 18: {2, 3}, 56: VEHICLES, 60: VEHICLES}
TABLES = {
    'trainids': dict(enumerate(NINETEEN)),
    'bdd100k': dict(enumerate(NINETEEN)),
    'camvid': dict(enumerate(CAMVID)),
    'idd_lite': dict(enumerate(IDD_LITE)),
    'cityscapes': {index: {kind} for index, kind in CITYSCAPES.items()},
    'idd': dict(enumerate(IDD)),
    'unlabelled': {},
    'vistas': {index: {kind} for index, kind in VISTAS.items()} | SEVERAL,
}
EVERY = np.arange(256, dtype=np.uint8)


def allowed(codes: np.ndarray) -> list[set[int]]:
    return [set(np.flatnonzero(row).tolist()) for row in label_sets.allowed()[codes]]


@pytest.mark.parametrize('layout', sorted(TABLES))
def test_every_id_allows_what_the_table_says(layout):
    found = allowed(label_sets.codes_of(layout, EVERY))
    assert found == [TABLES[layout].get(index, set()) for index in range(256)]


def test_no_layout_is_forgotten():
    assert set(TABLES) == set(label_sets.TABLES)


@pytest.mark.parametrize('layout', sorted(TABLES))
def test_a_teacher_chooses_only_what_the_label_allows(layout):
    labels, teacher = (plane.ravel() for plane in np.meshgrid(EVERY, EVERY))
    codes = label_sets.codes_of(layout, labels, teacher)
    alone = label_sets.codes_of(layout, labels)
    may = label_sets.allowed()[alone, np.minimum(teacher, 18)] | (alone == label_sets.IGNORE)
    chosen = may & (teacher < 19)
    assert (codes[chosen] == teacher[chosen]).all()
    assert (codes[~chosen] == alone[~chosen]).all()
    assert chosen.any() and not chosen.all()


@pytest.mark.parametrize(
    ('label', 'teacher', 'expected'),
    [
        (1, 3, {3}),
        (1, 0, {2, 3}),
        (1, 255, {2, 3}),
        (1, 19, {2, 3}),  # building of CamVid
        (3, 1, {0}),
        (3, 0, {0}),  # road
        (255, 13, {13}),
        (255, 255, set()),
        (200, 5, {5}),  # no label
    ],
)
def test_a_teacher_by_hand(label, teacher, expected):
    found = label_sets.codes_of('camvid', np.uint8([[label]]), np.uint8([[teacher]]))
    assert found.dtype == np.uint8 and found.shape == (1, 1)
    assert allowed(found[0]) == [expected]


def test_labels_that_hold_strange_things_vouch_for_nothing():
    vouched = label_sets.vouched()
    names = {code: name for name, code in label_sets.CODES.items()}
    assert {names.get(code, 'unused') for code in np.flatnonzero(~vouched)} == {
        'living',
        'traffic',
        'ignore',
        'unused',
    }
    assert vouched[:19].all()
    assert not vouched[label_sets.codes_of('idd_lite', np.uint8([2, 3, 255]))].any()
    assert vouched[label_sets.codes_of('idd_lite', np.uint8([2]), np.uint8([11]))].all()
