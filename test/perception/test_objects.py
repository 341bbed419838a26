# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Obstacles from scores: tables checked by hand, and a naive flood fill as the second opinion."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from road_anomaly_ros.perception import objects
from road_anomaly_ros.perception.objects import ObjectOptions, Proposals

EVERY = ObjectOptions(min_area=0)


def find(rows, threshold=0.5, low=math.nan, options=EVERY, **more):
    score = torch.tensor(rows, dtype=torch.float32)
    mask, instances, found = objects.find(
        score, threshold=threshold, low_threshold=low, options=options, **more
    )
    assert mask.dtype == torch.bool and mask.shape == score.shape
    assert instances.dtype == torch.int32 and instances.shape == score.shape
    return mask, instances, found


def test_one_obstacle_and_all_it_says():
    mask, instances, (item,) = find(
        [[0.0, 0.0, 0.0, 0.0], [0.0, 0.6, 0.8, 0.0], [0.0, 0.0, 1.0, 0.0]]
    )
    assert mask.tolist() == [[False] * 4, [False, True, True, False], [False, False, True, False]]
    assert instances.tolist() == [[0] * 4, [0, 1, 1, 0], [0, 0, 1, 0]]
    assert (item.id, item.box, item.area, item.label) == (1, (1, 1, 2, 2), 3, 255)
    assert item.centroid == pytest.approx((5 / 3, 4 / 3))
    assert (item.score, item.score_max) == pytest.approx((0.8, 1.0))
    # 95 % of the way from the first to the last of .6 .8 1.: 0.9 of the step from .8 to 1.
    assert item.score_p95 == pytest.approx(0.98)


def test_the_threshold_itself_is_no_obstacle():
    assert find([[0.5, 0.5]])[2] == ()
    assert find([[0.5, 0.45]], low=0.4)[2] == ()
    assert find([[0.5, 0.50001]])[2][0].area == 1


@pytest.mark.parametrize(
    ('low', 'areas'), [(math.nan, [1]), (0.5, [1]), (0.4, [2]), (0.3, [4]), (0.9, [1])]
)
def test_hysteresis_grows_obstacles_but_never_starts_one(low, areas):
    # .35 on the far right is a region of its own without a pixel above the threshold
    mask, _, found = find([[0.35, 0.35, 0.45, 0.6, 0.0, 0.35]], low=low)
    assert [item.area for item in found] == areas
    assert int(mask.sum()) == sum(areas)


def test_diagonal_neighbours_are_one_obstacle_of_eight_two_of_four():
    rows = [[1.0, 0.0], [0.0, 0.9]]
    assert len(find(rows)[2]) == 1
    four = find(rows, options=ObjectOptions(min_area=0, connectivity=4))[2]
    assert [item.box for item in four] == [(0, 0, 1, 1), (1, 1, 1, 1)]


def test_order_is_score_then_area_then_top_then_left():
    rows = [
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.7, 0.7],
        [0.7, 0.0, 0.7, 0.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.9, 0.0, 0.0],
    ]
    _, instances, found = find(rows)
    assert [item.box[:2] for item in found] == [(4, 2), (5, 0), (0, 1), (2, 1)]
    assert instances[1].tolist() == [3, 0, 4, 0, 0, 0, 0]


def test_beyond_the_longest_list_the_mask_still_shows():
    rows = [[0.9, 0.0, 0.8, 0.0, 0.7]]
    mask, instances, found = find(rows, options=ObjectOptions(min_area=0, max_objects=2))
    assert [item.score for item in found] == pytest.approx([0.9, 0.8])
    assert instances.tolist() == [[1, 0, 2, 0, 0]]
    assert mask.tolist() == [[True, False, True, False, True]]
    assert find(rows, options=ObjectOptions(min_area=0, max_objects=0))[2] == ()


@pytest.mark.parametrize(
    ('least', 'reference', 'areas'),
    [(2, 10, [3, 2]), (3, 10, [3]), (4, 10, []), (3, 20, [3, 2]), (3, 0, [3]), (0, 10, [3, 2, 1])],
)
def test_least_area_follows_the_size_of_the_image(least, reference, areas):
    rows = [[1.0] * 3 + [0.0, 0.9, 0.9, 0.0, 0.8, 0.0, 0.0]]
    options = ObjectOptions(min_area=least, reference_area=reference)
    assert [item.area for item in find(rows, options=options)[2]] == areas


@pytest.mark.parametrize(
    ('far', 'feet'),
    [
        # At a foot of 1, 3, 5 and 10 of 10 rows the distance below the horizon at 0.2 is 0, 1/8,
        # 3/8 and 1 of the largest; six pixels are asked for at the lowest row, each thing has two.
        (1.0, []),
        (0.0, [1, 3, 5]),
        (0.3, [1, 3]),
        (0.325, [1]),
        (0.34, []),
    ],
)
def test_least_area_falls_towards_the_horizon(far, feet):
    rows = np.zeros((10, 12))
    for foot, left in ((1, 0), (3, 3), (5, 6), (10, 9)):
        rows[foot - 1, left : left + 2] = 1.0
    options = ObjectOptions(min_area=6, reference_area=0, far_area=far, horizon=0.2)
    found = find(rows, options=options)[2]
    assert [item.box[1] + item.box[3] for item in found] == feet


@pytest.mark.parametrize(
    ('least', 'found'),
    [(0.0, [2, 8, 4]), (0.25, [2, 8, 4]), (0.3, [2, 8]), (0.5, [2, 8]), (0.6, [8]), (1.2, [])],
)
def test_evidence_counts_instead_of_area(least, found):
    # Above 0.5: 2 pixels give 0.25 each, 8 give 0.125, 4 give 0.0625; what only grew gives none.
    rows = [[0.75] * 2 + [0.0] + [0.625] * 8 + [0.0] + [0.5625] * 4 + [0.5] * 6]
    options = ObjectOptions(min_area=0, min_evidence=least, reference_area=0)
    areas = [item.area for item in find(rows, low=0.4, options=options)[2]]
    assert sorted(areas) == sorted(area + 6 * (area == 4) for area in found)


def test_evidence_in_log_odds():
    # 0.9 has odds of 9, 0.5 of 1, 0.99 of 99: ln 9 is 2.197, ln 99 4.595.
    rows = [[0.9, 0.9, 0.0, 0.99, 0.0, 0.6, 0.6, 0.6, 0.6, 0.6]]
    for least, areas in ((2.02, [1, 2, 5]), (2.03, [1, 2]), (4.39, [1, 2]), (4.4, [1]), (4.6, [])):
        options = ObjectOptions(
            min_area=0, min_evidence=least, evidence='log_odds', reference_area=0
        )
        assert sorted(item.area for item in find(rows, options=options)[2]) == areas, least
    # What is sure has a bound: 1 - 1e-6 has log-odds of 13.8.
    for least, count in ((13.8, 1), (13.9, 0)):
        options = ObjectOptions(
            min_area=0, min_evidence=least, evidence='log_odds', reference_area=0
        )
        assert len(find([[1.0, 0.0]], options=options)[2]) == count


def test_evidence_is_scaled_by_the_image_and_by_the_row():
    rows = np.zeros((4, 5))
    rows[1, 0] = rows[3, 4] = 1.0  # evidence 0.5 each, feet at 0.5 and 1
    for least, far, tops in ((1.0, 1.0, [1, 3]), (1.01, 1.0, []), (1.01, 0.5, [1])):
        options = ObjectOptions(
            min_area=0, min_evidence=least, reference_area=40, far_area=far, horizon=0.5
        )
        assert [item.box[1] for item in find(rows, options=options)[2]] == tops


def test_what_cannot_be_judged_never_lacks_evidence():
    rows = [[math.nan, 0.0, 0.6, 0.0, math.inf, 0.0, -math.inf]]
    for kind in ('excess', 'log_odds'):
        options = ObjectOptions(min_area=0, min_evidence=13.0, reference_area=0, evidence=kind)
        assert [item.box[0] for item in find(rows, options=options)[2]] == [0, 4]


def test_what_lacks_evidence_leaves_the_mask_and_hides_no_ground():
    score = place(4, 3)
    score[8, 3] = 0.55
    labels = torch.from_numpy(SCENE)
    options = ObjectOptions(min_area=0, min_evidence=1.0, reference_area=0, on_drivable='touches')
    mask, instances, (item,) = find(score, options=options, labels=labels, drivable=(ROAD,))
    assert item.area == int(mask.sum()) == int((instances == 1).sum()) == 4


def test_log_odds_of_what_is_no_share_are_refused():
    options = ObjectOptions(min_evidence=1.0, evidence='log_odds')
    with pytest.raises(ValueError, match=r"got the threshold -0\.7; choose 'excess'"):
        find([[0.0]], threshold=-0.7, options=options)
    unused = ObjectOptions(min_area=0, evidence='log_odds')
    assert len(find([[0.0]], threshold=-0.7, options=unused)[2]) == 1


def test_nan_counts_as_anomalous_and_stays_out_of_the_statistics():
    nan = math.nan
    mask, _, (lost, item) = find([[nan, 0.0, 0.9, nan, 0.7, 0.0]])
    assert mask.tolist() == [[True, False, True, True, True, False]]
    assert math.isnan(lost.score) and math.isnan(lost.score_max) and math.isnan(lost.score_p95)
    assert item.area == 3 and item.score == pytest.approx(0.8)
    assert item.score_max == pytest.approx(0.9)


def test_infinite_scores_are_scores():
    _, _, found = find([[math.inf, 0.0, 0.9, 0.0, -math.inf]])
    assert [item.score for item in found] == [math.inf, pytest.approx(0.9)]
    assert found[0].score_p95 == math.inf


def test_opening_removes_specks_and_closing_fills_cracks():
    rows = np.zeros((9, 14))
    rows[2:7, 2:5] = rows[2:7, 6:9] = rows[4, 11] = 1.0
    assert len(find(rows)[2]) == 3
    assert len(find(rows, options=ObjectOptions(min_area=0, opening=3))[2]) == 2
    assert len(find(rows, options=ObjectOptions(min_area=0, closing=3))[2]) == 1
    (only,) = find(rows, options=ObjectOptions(min_area=0, opening=3, closing=3))[2]
    assert only.box == (2, 2, 7, 5)


ROAD, WALL = 1, 0
SCENE = np.array([[WALL] * 9] * 6 + [[ROAD] * 9] * 6, np.uint8)


def place(top, left, height=2, width=2):
    score = np.zeros(SCENE.shape)
    score[top : top + height, left : left + width] = 0.9
    return score


@pytest.mark.parametrize(
    ('where', 'touches', 'stands'),
    [
        ((1, 3), False, False),  # on the wall
        ((4, 3), True, True),  # on the wall, down to the road
        ((8, 3), True, True),  # on the road
        ((3, 3), True, True),  # one row above the road, within the ring
        ((10, 3), True, True),  # on the road, cut by the image: nothing is known beneath
    ],
)
def test_what_lies_on_or_touches_the_road(where, touches, stands):
    labels = torch.from_numpy(SCENE)
    for mode, kept in (('off', True), ('touches', touches), ('stands', stands)):
        options = ObjectOptions(min_area=0, on_drivable=mode)
        found = find(place(*where), options=options, labels=labels, drivable=(ROAD,))[2]
        assert (len(found) == 1) == kept, mode


def test_a_sign_over_the_road_touches_it_but_does_not_stand_on_it():
    scene = SCENE.copy()
    scene[3:5] = ROAD
    scene[5:] = WALL
    options = ObjectOptions(min_area=0, on_drivable='touches', contact=0.2)
    score = place(5, 3)
    assert find(score, options=options, labels=torch.from_numpy(scene), drivable=(ROAD,))[2]
    stands = ObjectOptions(min_area=0, on_drivable='stands')
    assert not find(score, options=stands, labels=torch.from_numpy(scene), drivable=(ROAD,))[2]


def test_where_no_label_is_known_the_obstacle_is_kept():
    labels = torch.full(SCENE.shape, 255, dtype=torch.uint8)
    for mode in ('touches', 'stands'):
        options = ObjectOptions(min_area=0, on_drivable=mode)
        (item,) = find(place(4, 3), options=options, labels=labels, drivable=(ROAD,))[2]
        assert item.label == 255


def test_the_label_is_the_commonest_class_around():
    labels = torch.from_numpy(SCENE)
    assert find(place(1, 3), labels=labels)[2][0].label == WALL
    assert find(place(9, 3), labels=labels)[2][0].label == ROAD
    own = SCENE.copy()
    own[9:11, 3:5] = 7  # the obstacle's own label says nothing about the ring
    assert find(place(9, 3), labels=torch.from_numpy(own))[2][0].label == ROAD


@pytest.mark.parametrize(
    ('call', 'words'),
    [
        (lambda: objects.find(torch.zeros(3), threshold=0.5), 'score'),
        (lambda: objects.find(torch.zeros(0, 3), threshold=0.5), 'score'),
        (lambda: objects.find(torch.zeros(2, 3), threshold=math.nan), 'threshold'),
        (
            lambda: objects.find(torch.zeros(2, 3), threshold=0.5, labels=torch.zeros(3, 2)),
            'labels',
        ),
        (
            lambda: objects.find(
                torch.zeros(2, 3),
                threshold=0.5,
                labels=torch.zeros(2, 3),
                options=ObjectOptions(on_drivable='stands'),
            ),
            'drivable',
        ),
        (
            lambda: objects.find(
                torch.zeros(2, 3),
                threshold=0.5,
                drivable=(1,),
                options=ObjectOptions(on_drivable='stands'),
            ),
            'labels',
        ),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(call, words):
    with pytest.raises(ValueError, match=words) as error:
        call()
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('size', [(1, 1), (1, 9), (9, 1), (2160, 3840)])
def test_any_size_of_image(size):
    labels = torch.zeros(size, dtype=torch.uint8)
    mask, instances, found = objects.find(
        torch.ones(size), threshold=0.5, options=EVERY, labels=labels
    )
    assert [item.box for item in found] == [(0, 0, size[1], size[0])]
    assert bool(mask.all()) and bool((instances == 1).all())
    nothing = objects.find(torch.zeros(size), threshold=0.5)
    assert nothing[2] == () and not nothing[0].any() and not nothing[1].any()


def test_half_precision_and_views_are_accepted():
    score = torch.zeros(6, 4, dtype=torch.float16)
    score[1, 2] = 1.0
    (item,) = objects.find(score.T, threshold=0.5, options=EVERY)[2]
    assert item.box == (1, 2, 1, 1)


def flood(score, threshold, low):
    """The definition, pixel by pixel."""
    weak = ~(score <= min(low, threshold))
    seen, regions = np.zeros(score.shape, bool), []
    for start in zip(*np.nonzero(weak), strict=True):
        if seen[start]:
            continue
        stack, region = [start], []
        seen[start] = True
        while stack:
            y, x = stack.pop()
            region.append((y, x))
            for v in range(max(0, y - 1), min(score.shape[0], y + 2)):
                for u in range(max(0, x - 1), min(score.shape[1], x + 2)):
                    if weak[v, u] and not seen[v, u]:
                        seen[v, u] = True
                        stack.append((v, u))
        regions.append(sorted(region))
    return [r for r in regions if any(not score[p] <= threshold for p in r)]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 14),
    st.integers(1, 14),
    st.sampled_from([0.3, 0.5, 0.8]),
    st.sampled_from([0.1, 0.4, 0.9]),
)
def test_as_a_flood_fill_finds_them(seed, height, width, threshold, low):
    rng = np.random.default_rng(seed)
    score = rng.random((height, width), dtype=np.float32)
    score[rng.random(score.shape) < 0.05] = np.nan
    score[rng.random(score.shape) < 0.4] = 0.0
    mask, instances, found = objects.find(
        torch.from_numpy(score),
        threshold=threshold,
        low_threshold=low,
        options=ObjectOptions(min_area=0, max_objects=10_000),
    )
    expected = flood(score, threshold, low)
    assert len(found) == len(expected)
    assert bool(((instances > 0) == mask).all())
    by_pixel = {tuple(region): np.array([score[p] for p in region]) for region in expected}
    for item in found:
        ys, xs = np.nonzero(instances.numpy() == item.id)
        values = by_pixel[tuple(zip(ys.tolist(), xs.tolist(), strict=True))]
        assert item.box == (xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1)
        assert item.area == len(xs)
        assert item.centroid == pytest.approx((xs.mean(), ys.mean()))
        known = values[~np.isnan(values)]
        if len(known):
            assert item.score == pytest.approx(known.astype(float).mean())
            assert item.score_max == known.max()
            assert item.score_p95 == pytest.approx(np.percentile(known.astype(float), 95))
        else:
            assert math.isnan(item.score)


def test_noise_needs_no_table_of_all_pairs():
    """A hundred thousand obstacles times 255 classes, or times segments, is half a gigabyte."""
    rng = np.random.default_rng(0)
    score = torch.from_numpy(rng.random((1080, 1920), np.float32))
    labels = torch.from_numpy(rng.integers(0, 19, (1080, 1920), np.uint8))
    rows = np.repeat(np.arange(200), 40)
    segments = Proposals(rows, rng.choice(1080 * 1920, len(rows), replace=False), 200)
    for mode, proposals in (('components', None), ('both', segments)):
        options = ObjectOptions(min_area=0, mode=mode, on_drivable='touches')
        tracemalloc.start()
        mask, _, found = objects.find(
            score,
            threshold=0.95,
            options=options,
            labels=labels,
            drivable=(0,),
            proposals=proposals,
        )
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(found) == 100 and int(mask.sum()) > 10_000
        assert peak < 200 << 20, f'{mode}: {peak >> 20} MiB'


def test_around_an_obstacle_the_lowest_of_equally_common_classes_counts():
    score, labels = torch.zeros(5, 5), torch.full((5, 5), 255, dtype=torch.uint8)
    score[2, 2] = 1.0
    labels[0, :5] = torch.tensor([9, 9, 4, 4, 2])
    _, _, (found,) = objects.find(score, threshold=0.5, labels=labels, options=EVERY)
    assert found.label == 4
