# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Names of classes: the label sets of the field, and what a class of one is in another."""

import pytest

from road_anomaly_ros.perception.labels import CAMVID, CITYSCAPES, IDD_LITE, counted_as, label_set

# Each train id with its class among CamVid's 11 and among the 7 groups of IDD-Lite.
GROUPS = {
    'road': ('road', 'drivable'),
    'sidewalk': ('pavement', 'non-drivable'),
    'building': ('building', 'far objects'),
    'wall': ('building', 'roadside objects'),
    'fence': ('fence', 'roadside objects'),
    'pole': ('pole', 'roadside objects'),
    'traffic light': ('sign symbol', 'roadside objects'),
    'traffic sign': ('sign symbol', 'roadside objects'),
    'vegetation': ('tree', 'far objects'),
    'terrain': ('tree', 'non-drivable'),
    'sky': ('sky', 'sky'),
    'person': ('pedestrian', 'living things'),
    'rider': ('bicyclist', 'living things'),
    'car': ('car', 'vehicles'),
    'truck': ('car', 'vehicles'),
    'bus': ('car', 'vehicles'),
    'train': ('car', 'vehicles'),
    'motorcycle': ('bicyclist', 'vehicles'),
    'bicycle': ('bicyclist', 'vehicles'),
}


def test_the_train_ids_are_in_the_published_order():
    assert tuple(GROUPS) == CITYSCAPES


@pytest.mark.parametrize(('wanted', 'column'), [(CAMVID, 0), (IDD_LITE, 1)])
def test_train_ids_count_as_coarser_classes(wanted, column):
    found = counted_as(CITYSCAPES, wanted)
    assert [wanted[place] for place in found] == [row[column] for row in GROUPS.values()]


def test_camvid_counts_as_the_groups_of_idd_lite():
    found = [IDD_LITE[place] for place in counted_as(CAMVID, IDD_LITE)]
    assert dict(zip(CAMVID, found, strict=True)) == {
        'sky': 'sky',
        'building': 'far objects',
        'pole': 'roadside objects',
        'road': 'drivable',
        'pavement': 'non-drivable',
        'tree': 'far objects',
        'sign symbol': 'roadside objects',
        'fence': 'roadside objects',
        'car': 'vehicles',
        'pedestrian': 'living things',
        'bicyclist': 'living things',
    }


@pytest.mark.parametrize(
    ('names', 'wanted', 'expected'),
    [
        (('Sky', 'TREE', 'side_walk'), ('sky', 'vegetation'), (0, 1, None)),
        (('far objects', 'gorilla', 'car'), ('building', 'car', 'pedestrian'), (None, None, 1)),
        (('truck', 'bicycle'), ('car', 'truck', 'bicycle', 'rider'), (1, 2)),
        (('lane marking', 'rider'), ('street', 'people'), (0, 1)),
        ((), ('road',), ()),
        (('road',), (), (None,)),
        (('road',), ('road', 'street'), (0,)),
    ],
)
def test_the_nearest_class_is_taken_or_none(names, wanted, expected):
    assert counted_as(names, wanted) == expected


@pytest.mark.parametrize(
    ('names', 'drivable'),
    [
        (CITYSCAPES, (0,)),
        (CAMVID, (3,)),
        (IDD_LITE, (0,)),
        (('sidewalk', 'lane marking', 'road', 'parking'), (1, 2, 3)),
        (('gorilla',), ()),
    ],
)
def test_drivable_classes_come_from_the_names(names, drivable):
    assert label_set(names).drivable == drivable


def test_colours_are_those_of_cityscapes_whatever_the_spelling():
    """Published colours of road, sky, person and bicycle; CamVid's names get the same ones."""
    colors = dict(zip(CITYSCAPES, label_set(CITYSCAPES).colors, strict=True))
    assert [colors[name] for name in ('road', 'sky', 'person', 'bicycle')] == [
        (128, 64, 128),
        (70, 130, 180),
        (220, 20, 60),
        (119, 11, 32),
    ]
    other = dict(zip(CAMVID, label_set(CAMVID).colors, strict=True))
    assert other['pavement'] == colors['sidewalk'] and other['tree'] == colors['vegetation']
    assert other['pedestrian'] == colors['person'] and other['bicyclist'] == colors['rider']
