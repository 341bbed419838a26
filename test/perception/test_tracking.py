# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Tracks on tables of boxes that can be checked by hand; one row a frame, ten frames a second."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from road_anomaly_ros.perception.contract import AnomalyObject, Sight
from road_anomaly_ros.perception.tracking import TRACKERS, _pairing, kalman
from road_anomaly_ros.perception.tracking._motion import Motion

SIZE = (360, 480)
PERIOD = 0.1
CLEAR, FAIR, FAINT = 3.0, 1.0, 0.31  # log-odds, of which at most 2 count a frame


def thing(x, y, width=20, height=20, number=1):
    return AnomalyObject(
        id=number,
        box=(x, y, width, height),
        centroid=(x + width / 2, y + height / 2),
        area=width * height,
        score=0.9,
        score_max=1.0,
        score_p95=1.0,
        label=0,
    )


def sight(frame, *things, evidence=CLEAR, size=SIZE, stamp=None):
    found = tuple(
        dataclasses.replace(item, id=number) for number, item in enumerate(things, start=1)
    )
    return Sight(found, (evidence,) * len(found), PERIOD * frame if stamp is None else stamp, size)


def tracker(**options):
    return kalman.load(options=kalman.Options(**options))


def ids(objects):
    return [item.track_id for item in objects]


def test_the_room_lists_its_methods_and_none_is_nothing():
    assert TRACKERS.names() == ['kalman', 'none']
    assert TRACKERS['none'].make(options=TRACKERS['none'].options()) is None
    assert all(all(TRACKERS.about(name)) for name in TRACKERS.names())


def test_a_thing_that_comes_nearer_keeps_its_id_and_ages():
    follow = tracker()
    for frame in range(12):
        side = 10 + 2 * frame
        (found,) = follow.update(sight(frame, thing(200 + 5 * frame, 150 + 6 * frame, side, side)))
        assert found.track_id == 1 and found.age_s == pytest.approx(PERIOD * frame)
        assert found.confirmed == (frame >= 1) and (found.velocity is None) == (frame == 0)
    # The centre moves by 5 + 1 and 6 + 1 pixels a frame.
    assert found.velocity == pytest.approx((60, 70), abs=6)


def test_crossing_things_keep_their_ids():
    follow, pairs = tracker(), set()
    for frame in range(21):
        left, right = thing(100 + 10 * frame, 150), thing(300 - 10 * frame, 156)
        # The list is in order of score, so that the places change.
        order = (left, right) if frame % 2 else (right, left)
        found = {item.box: item.track_id for item in follow.update(sight(frame, *order))}
        pairs.add((found[left.box], found[right.box]))
    assert len(pairs) == 1 and set(*pairs) == {1, 2}


def test_lost_frames_are_bridged_on_the_way():
    follow = tracker()
    seen = [frame for frame in range(20) if frame not in (9, 10, 11)]
    for frame in seen:
        found = follow.update(sight(frame, thing(20 + 20 * frame, 150)))
        assert ids(found) == [1] and found[0].confirmed == (frame >= 1)
    missing = follow.update(sight(20))
    assert missing == ()


def test_empty_frames_take_evidence_away_until_the_track_ends():
    follow = tracker(confirm=3.0, miss=1.0, patience=60.0)
    for frame in range(2):
        follow.update(sight(frame, thing(100, 100)))  # 2 + 2
    for frame in range(2, 5):
        follow.update(sight(frame))  # 3, 2, 1
    assert ids(follow.update(sight(5, thing(100, 100)))) == [1]  # 3
    for frame in range(6, 9):
        follow.update(sight(frame))  # 2, 1, 0: the end
    assert ids(follow.update(sight(9, thing(100, 100)))) == [2]


@pytest.mark.parametrize(('unseen', 'same'), [(4, True), (6, False)])
def test_patience_ends_a_track_by_time(unseen, same):
    follow = tracker(patience=0.55, miss=0.0)
    follow.update(sight(0, thing(100, 100)))
    for frame in range(1, unseen + 1):
        follow.update(sight(frame))
    assert ids(follow.update(sight(unseen + 1, thing(100, 100)))) == [1 if same else 2]


def test_a_single_loud_frame_is_not_confirmed():
    follow = tracker()
    for frame in range(30):
        found = follow.update(sight(frame, *[thing(60, 200)] * (frame % 5 == 0), evidence=1e9))
        assert not any(item.confirmed for item in found)


def test_a_faint_but_steady_thing_is_confirmed_by_and_by():
    follow = tracker()
    for frame in range(12):
        (found,) = follow.update(sight(frame, thing(100 + frame, 100), evidence=FAINT))
        assert found.track_id == 1
        assert found.confirmed == (frame >= 8)  # nine times 0.31


def test_what_speaks_against_a_thing_never_makes_a_track():
    follow = tracker()
    for frame in range(5):
        (found,) = follow.update(sight(frame, thing(100, 100), evidence=-9.0))
        assert (found.track_id, found.confirmed, found.velocity) == (0, False, None)


def test_a_stamp_that_repeats_counts_nothing_twice():
    follow = tracker()
    for _ in range(5):
        (found,) = follow.update(sight(0, thing(100, 100)))
        assert (found.track_id, found.confirmed, found.age_s) == (1, False, 0.0)
    again = follow.update(sight(0))
    assert again == ()
    (found,) = follow.update(sight(1, thing(100, 100)))
    assert found.track_id == 1 and found.confirmed


@pytest.mark.parametrize(
    'change',
    [{'stamp': 0.2}, {'stamp': 9.0}, {'size': (720, 960)}],
    ids=['backwards', 'gap', 'size'],
)
def test_a_break_starts_anew_and_gives_no_id_again(change):
    follow = tracker()
    for frame in range(5, 9):
        before = follow.update(sight(frame, thing(100, 100)))
    assert ids(before) == [1] and before[0].confirmed
    (found,) = follow.update(sight(9, thing(100, 100), **change))
    assert (found.track_id, found.confirmed, found.age_s) == (2, False, 0.0)


def test_things_at_the_border_and_of_one_pixel_are_followed():
    follow = tracker()
    table = (thing(0, 0, 1, 1), thing(460, 340), thing(0, 355, 480, 5))
    for frame in range(3):
        found = follow.update(sight(frame, *table))
        assert ids(found) == [1, 2, 3]
    assert all(item.confirmed for item in found)


def test_ten_thousand_specks_cost_no_more_than_the_most_that_are_followed():
    follow = tracker(max_tracks=50)
    specks = [thing(2 * (index % 240), 2 * (index // 240), 1, 1) for index in range(9_999)]
    for frame in range(3):
        crowd = sight(frame, *specks, thing(200, 200, 60, 60), evidence=FAIR)
        crowd = dataclasses.replace(crowd, evidence=(*crowd.evidence[:-1], CLEAR))
        found = follow.update(crowd)
        followed = [item for item in found if item.track_id]
        assert len(found) == 10_000 and follow.left_out == 9_950
        assert len(followed) == 50 and found[-1] in followed
        assert not any(item.confirmed for item in found if not item.track_id)
    assert found[-1].confirmed and found[-1].track_id == 50


def test_steady_motion_is_foretold():
    motion = Motion(noise=0.05, acceleration=1.0)
    box = np.array([[100.0, 50.0, 120.0, 90.0]])
    motion.begin(box, 0.0)
    for frame in range(1, 30):
        motion.predict(PERIOD)
        motion.correct(np.array([0]), box + 3.0 * frame, 0.0)
    motion.predict(PERIOD)
    assert motion.boxes() == pytest.approx(box + 90.0, abs=0.5)
    assert motion.rate[0] == pytest.approx([30.0, 30.0, 0.0, 0.0], abs=1.0)


def test_overlap_by_hand():
    boxes = np.array([[0.0, 0.0, 10.0, 10.0]])
    others = np.array([[0.0, 0.0, 10.0, 10.0], [5.0, 0.0, 15.0, 10.0], [10.0, 0.0, 20.0, 10.0]])
    assert _pairing.overlaps(boxes, others)[0] == pytest.approx([1.0, 1 / 3, 0.0])
    wide = _pairing.widened(others[2:], 0.5, 2.0)
    assert wide.tolist() == [[3.0, -7.0, 27.0, 17.0]]
    assert _pairing.overlaps(boxes, np.empty((0, 4))).shape == (1, 0)


def test_pairs_are_best_in_sum_and_none_is_forced():
    likeness = np.array([[0.9, 0.8], [0.8, 0.1]])
    rows, columns = _pairing.pairs(likeness, 0.2)
    assert list(zip(rows, columns, strict=True)) == [(0, 1), (1, 0)]
    rows, columns = _pairing.pairs(np.array([[0.1, 0.0]]), 0.2)
    assert not len(rows) and not len(columns)
