# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Tracks in results: faint things that become obstacles, cameras apart, changes, bad stamps."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from road_anomaly_ros.perception import Pipeline, drawing, objects, tracks
from road_anomaly_ros.perception.calibration import ScoreCalibration, chain_options
from road_anomaly_ros.perception.config import PipelineConfig, parameters
from road_anomaly_ros.perception.contract import FrameResult, LabelSet

LABELS = LabelSet(('road', 'sky'), ((128, 64, 128), (70, 130, 180)), (0,))
LEVELS = ScoreCalibration(0.6, 0.2, (0.0, 1.0))
LOUD, SOFT = 0.9, 0.45  # of 20 x 20 pixels: 2 and 1.25 a frame
OPTIONS = {'objects.min_area': 100, 'objects.reference_area': 0}


def chain(**options):
    config = PipelineConfig.from_any({'tracker': 'kalman', **OPTIONS, **options})
    return SimpleNamespace(config=config, levels=LEVELS, object_options=config.options('objects'))


def frame(number, *things, **more):
    """The result at number / 10 s of a score with squares: left, top and value of each."""
    score = torch.zeros(90, 160)
    for left, top, value in things:
        score[top : top + 20, left : left + 20] = value
    mask, instances, found = objects.find(
        score,
        threshold=LEVELS.threshold,
        low_threshold=LEVELS.low_threshold,
        options=objects.ObjectOptions(min_area=100, reference_area=0),
    )
    given = {
        'image': torch.zeros(3, 90, 160, dtype=torch.uint8),
        'score': score,
        'mask': mask,
        'labels': torch.zeros(90, 160, dtype=torch.uint8),
        'instances': instances,
        'objects': found,
        'label_set': LABELS,
        'scorer': 'plain',
        'threshold': LEVELS.threshold,
        'threshold_source': 'option',
        'display_range': LEVELS.display,
        'stamp': number / 10,
        'timings': {'total': 5.0},
    }
    return FrameResult(**{**given, **more})


def consistent(result):
    numbers = result.instances.unique().tolist()
    assert [item.id for item in result.objects] == list(range(1, len(result.objects) + 1))
    assert set(numbers) - {0} == {item.id for item in result.objects}
    assert result.instances.dtype == torch.int32 and result.mask.dtype == torch.bool
    for item in result.objects:
        left, top, *_ = item.box
        assert result.instances[top, left] == item.id and result.mask[top, left]
    return result


def test_without_a_tracker_the_result_is_the_same_one_and_every_obstacle_counts():
    result = frame(0, (10, 50, LOUD))
    assert tracks.Tracks().follow(result, chain(tracker='none')) is result
    (item,) = result.objects
    assert (item.track_id, item.confirmed, item.age_s, item.velocity) == (0, True, 0.0, None)


def test_obstacles_carry_their_tracks_and_stay_in_the_picture():
    follow, settings = tracks.Tracks(), chain()
    for number in range(4):
        result = consistent(
            follow.follow(frame(number, (10 + 2 * number, 50, LOUD), (110, 60, LOUD)), settings)
        )
        assert {item.track_id for item in result.objects} == {1, 2}
        assert all(item.confirmed == (number > 0) for item in result.objects)
        assert torch.equal(result.mask, result.instances > 0)
    moving = next(item for item in result.objects if item.box[0] < 100)
    assert moving.velocity == pytest.approx((20, 0), abs=4)
    assert result.timings['total'] > 5.0 and result.timings['track'] > 0


def test_a_faint_thing_becomes_an_obstacle_once_it_is_confirmed():
    follow, settings = tracks.Tracks(), chain(**{'tracking.kalman.start': 0.5})
    counts = []
    for number in range(12):
        result = consistent(
            follow.follow(frame(number, (10, 50, LOUD), (110, 60, SOFT)), settings)
        )
        counts.append(len(result.objects))
    assert counts[:2] == [1, 1] and counts[-1] == 2 and counts == sorted(counts)
    faint = result.objects[1]
    assert faint.confirmed and faint.score == pytest.approx(SOFT) and faint.age_s > 1.0
    assert result.mask.sum() == 800


def test_with_start_at_the_threshold_a_faint_thing_stays_unseen():
    follow, settings = tracks.Tracks(), chain(**{'tracking.kalman.start': 1.0})
    for number in range(12):
        result = follow.follow(frame(number, (110, 60, SOFT)), settings)
        assert not result.objects and not result.mask.any()


def test_a_confirmed_thing_that_fades_does_not_flicker():
    follow, settings = tracks.Tracks(), chain()
    for number in range(8):
        value = LOUD if number < 3 or number % 2 else SOFT
        result = consistent(follow.follow(frame(number, (10, 50, value)), settings))
        assert [item.track_id for item in result.objects] == [1]


def test_only_confirmed_ones_on_request():
    follow, settings = tracks.Tracks(), chain(**{'tracking.kalman.listed': 'confirmed'})
    assert not follow.follow(frame(0, (10, 50, LOUD)), settings).mask.any()
    result = consistent(follow.follow(frame(1, (10, 50, LOUD), (110, 60, LOUD)), settings))
    assert len(result.objects) == 1 and result.mask.sum() == 400
    # Of the flash nothing is left; beyond the list of obstacles there is nothing either.
    assert torch.equal(result.mask, result.instances > 0)


def test_obstacles_beyond_the_list_stay_in_the_mask():
    follow = tracks.Tracks()
    whole = frame(0, (10, 50, LOUD), (110, 60, LOUD))
    short = dataclasses.replace(
        whole, objects=whole.objects[:1], instances=whole.instances * (whole.instances < 2)
    )
    result = follow.follow(short, chain())
    assert torch.equal(result.mask, whole.mask) and len(result.objects) == 1


def test_cameras_have_tracks_of_their_own():
    follow, settings = tracks.Tracks(), chain()
    for number in range(3):
        for camera, left in (('front', 10), ('rear', 12)):
            (item,) = follow.follow(frame(number, (left, 50, LOUD)), settings, camera).objects
            assert (item.track_id, item.confirmed) == (1, number > 0)


def test_another_chain_starts_anew_and_drawing_does_not():
    follow, settings = tracks.Tracks(), chain()
    for number in range(3):
        follow.follow(frame(number, (10, 50, LOUD)), settings)
    drawn = chain(**{'drawing.boxes': False})
    (item,) = follow.follow(frame(3, (10, 50, LOUD)), drawn).objects
    assert item.track_id == 1 and item.confirmed
    other = chain(**{'objects.closing': 3})
    (item,) = follow.follow(frame(4, (10, 50, LOUD)), other).objects
    assert item.track_id == 2 and not item.confirmed


@pytest.mark.parametrize('stamp', [None, math.nan, math.inf])
def test_without_a_stamp_nothing_is_followed_and_a_note_says_so(stamp):
    follow, settings = tracks.Tracks(), chain()
    result = follow.follow(frame(0, (10, 50, LOUD), stamp=stamp), settings)
    (note,) = result.notes
    assert note.startswith('tracking skipped: expected a stamp in seconds') and '\n' not in note
    (item,) = result.objects
    assert (item.track_id, item.confirmed) == (0, True)
    follow.follow(frame(1, (10, 50, LOUD)), settings)
    assert follow.follow(frame(2, (10, 50, LOUD)), settings).objects[0].confirmed


def test_stamps_that_repeat_or_run_backwards_are_told():
    follow, settings = tracks.Tracks(), chain()
    notes = [
        follow.follow(frame(number, (10, 50, LOUD)), settings).notes for number in (1, 2, 2, 1, 3)
    ]
    assert notes == [
        (),
        (),
        ('tracking: the stamp 0.2 repeats, nothing is counted twice',),
        ('tracking: the stamp 0.1 is earlier than 0.2, tracks start anew',),
        (),
    ]
    # Another camera has a clock of its own.
    assert not follow.follow(frame(0, (10, 50, LOUD)), settings, 'rear').notes


def test_a_tracker_that_fails_costs_no_frame_and_no_id_comes_again(monkeypatch):
    follow, settings = tracks.Tracks(), chain()
    for number in range(2):
        follow.follow(frame(number, (10, 50, LOUD)), settings)
    third = frame(2, (10, 50, LOUD))
    with monkeypatch.context() as broken:
        broken.setattr(objects, 'find', None)
        result = follow.follow(third, settings)
    assert result.notes[0].startswith('tracking skipped: ') and len(result.objects) == 1
    assert follow.follow(frame(3, (10, 50, LOUD)), settings).objects[0].track_id == 2


def test_obstacles_that_are_not_followed_are_counted():
    settings = chain(**{'tracking.kalman.max_tracks': 1})
    result = tracks.Tracks().follow(frame(0, (10, 50, LOUD), (110, 60, LOUD)), settings)
    assert sorted(item.track_id for item in result.objects) == [0, 1]
    assert result.notes == ('1 of 2 obstacles are not tracked: more than max_tracks',)


@pytest.mark.parametrize(
    ('score', 'area', 'expected'),
    [
        (0.6, 100, 0.0),
        (0.8, 100, 1.0),
        (1.0, 100, 2.0),
        (9.0, 100, 2.0),
        (0.4, 100, -1.0),
        (0.2, 100, -2.0),
        (0.1, 100, -2.0),
        (0.6, 200, 1.0),
        (0.6, 50, -1.0),
        (0.6, 10**6, 2.0),
        (math.nan, 100, 2.0),
    ],
)
def test_evidence_by_hand(score, area, expected):
    item = dataclasses.replace(frame(0, (10, 50, LOUD)).objects[0], score_p95=score, area=area)
    other = dataclasses.replace(item, score_p95=0.8, area=100)
    found = tracks.log_odds([other, item], chain(), (90, 160))
    assert found == pytest.approx((1.0, expected))


@pytest.mark.parametrize(('score', 'expected'), [(0.7, 2.0), (0.5, -2.0)])
def test_evidence_where_nothing_was_measured_between_the_levels(score, expected):
    item = dataclasses.replace(frame(0, (10, 50, LOUD)).objects[0], score_p95=score, area=100)
    flat = SimpleNamespace(
        levels=ScoreCalibration(0.6, 0.6, (0.0, 0.6)), object_options=chain().object_options
    )
    assert tracks.log_odds([item], flat, (90, 160)) == pytest.approx((expected,))


def test_every_option_is_live_and_the_choice_is_a_name():
    mine = [item for item in parameters() if item.name.startswith('tracking.')]
    assert len(mine) > 8 and all(item.live for item in mine)
    with pytest.raises(ValueError, match=r"unknown tracker 'sort'; choose one of \['kalman', 'no"):
        PipelineConfig.from_any({'tracker': 'sort'})


def test_a_promise_made_before_there_were_trackers_holds_without_one():
    config = PipelineConfig()
    assert 'tracker' not in chain_options(config.as_dict())
    assert chain_options(config.replace({'tracker': 'kalman'}).as_dict())['tracker'] == 'kalman'


def test_the_overlay_shows_the_track_and_the_doubt():
    result = frame(0, (10, 50, LOUD))
    (item,) = result.objects
    named = [
        drawing._name(dataclasses.replace(item, **more))
        for more in ({}, {'track_id': 7}, {'track_id': 7, 'confirmed': False})
    ]
    assert named == ['#1', '#7', '#7?']
    pictures = [
        drawing.overlay(
            dataclasses.replace(
                result, objects=(dataclasses.replace(item, track_id=7, confirmed=sure),)
            )
        )
        for sure in (True, False)
    ]
    assert (pictures[0] != pictures[1]).any()


def street(left):
    image = np.full((96, 128, 3), 110, np.uint8)
    image[:40] = (90, 140, 190)
    image[60:80, left : left + 20] = (200, 30, 30)
    return image


def test_the_pipeline_follows_each_camera_and_takes_a_tracker_live():
    pipeline = Pipeline.from_config(
        {
            'segmenter': 'synthetic',
            'refinements': 'none',
            'scorer': 'plain',
            'objects.min_area': 300,
            'objects.reference_area': 0,
        }
    )
    assert 'track' not in pipeline(street(50), 0.0).timings
    pipeline.reconfigure(pipeline.config.replace({'tracker': 'kalman'}))
    for number in range(3):
        results = pipeline.batch(
            [street(50 + number), street(20)], [number / 10] * 2, [None, None], ['front', 'rear']
        )
        for result in results:
            first = result.objects[0]
            assert first.track_id == 1 and first.confirmed == (number > 0)
    assert pipeline(street(52), 0.3, camera='front').objects[0].confirmed
    assert not pipeline(street(52), 0.3, camera='left').objects[0].confirmed
    assert pipeline(street(52)).notes[0].startswith('tracking skipped')
