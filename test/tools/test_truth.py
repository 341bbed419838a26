# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from road_anomaly_ros.tools.truth import FrameTruth, Tally, compare

# Obstacle 3 has 8 pixels, obstacle 7 has 4, obstacle 9 has 2.
TRUTH = np.array(
    [
        [3, 3, 3, 3, 0, 7, 7, 0],
        [3, 3, 3, 3, 0, 7, 7, 0],
        [0, 0, 0, 0, 0, 0, 0, 9],
        [0, 0, 0, 0, 0, 0, 0, 9],
    ]
)


def test_shares_covered_and_false_alarms_by_hand():
    instances = np.array(
        [
            [1, 1, 0, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 2, 2, 0, 0],
            [0, 0, 0, 0, 0, 0, 0, 3],
            [4, 4, 4, 0, 0, 0, 5, 3],
        ]
    )
    frame = compare(instances > 0, instances, TRUTH, min_area=3)
    # 1 lies on obstacle 3, 2 half on 7, 3 on 9, which is too small to be due; 4 and 5 on none.
    assert frame == FrameTruth({3: 2 / 8, 7: 1 / 4}, 2)


@pytest.mark.parametrize('on_truth, alarms', [(1, 0), (0, 1)])
def test_a_quarter_on_an_obstacle_is_no_false_alarm(on_truth, alarms):
    instances = np.zeros_like(TRUTH)
    instances[2, 3 : 7 - on_truth] = 1
    instances[1, 3] = on_truth
    assert (instances > 0).sum() == 4
    assert compare(instances > 0, instances, TRUTH, min_area=3).false_alarms == alarms


def test_obstacles_of_exactly_the_minimum_are_not_due():
    nothing = np.zeros_like(TRUTH)
    assert compare(nothing > 0, nothing, TRUTH, min_area=4).covered == {3: 0.0}
    assert compare(nothing > 0, nothing, nothing, min_area=4) == FrameTruth({}, 0)


def test_the_tally_sums_up_and_says_nan_where_nothing_was_due():
    tally = Tally()
    assert np.isnan(tally.recall()) and np.isnan(tally.false_alarms_per_frame)
    for covered, alarms in (({1: 0.3, 2: 0.1}, 1), ({1: 0.6}, 0), ({}, 2), ({2: 0.0}, 0)):
        tally.add(FrameTruth(covered, alarms))
    figures = tally.figures()
    assert figures['recall'] == 0.5 and figures['recall_half'] == 0.25
    assert (figures['appearances'], figures['obstacles'], figures['obstacles_found']) == (4, 2, 1)
    assert figures['false_alarms'] == 3 and figures['false_alarms_per_frame'] == 0.75


def test_maps_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match='three maps of one size'):
        compare(np.zeros((2, 2), bool), np.zeros((2, 2), int), np.zeros((2, 3), int))
