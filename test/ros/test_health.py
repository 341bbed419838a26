# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Diagnostics that alarm when they must and stay quiet when they must not."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace

import pytest

pytest.importorskip('diagnostic_msgs.msg', reason='no ROS messages installed')

import torch

from road_anomaly_ros.perception.calibration import Promise, ScoreCalibration
from road_anomaly_ros.perception.drift import LEVELS
from road_anomaly_ros.ros import health
from road_anomaly_ros.ros.health import ERROR, OK, WARN, CameraStats, StageTimes, Throttle, Window


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves when told: `clock[0] += seconds`."""
    now = [1000.0]
    monkeypatch.setattr(health.time, 'monotonic', lambda: now[0])
    return now


def test_percentiles_rate_and_age(clock):
    window = Window()
    assert all(math.isnan(value) for value in window.percentiles())
    assert window.age() == math.inf and window.rate() == 0
    for value in range(101):
        window.add(value)
    assert window.percentiles() == (50, 99, 100)
    clock[0] += 2
    assert window.age() == 2
    assert window.rate() == 101 / health.RECENT_S
    clock[0] += health.RECENT_S
    assert window.rate() == 0


def test_a_window_forgets_the_oldest(clock):
    window = Window()
    for value in [1000.0] * 50 + [1.0] * 300:
        window.add(value)
    assert window.percentiles() == (1, 1, 1)


@pytest.mark.parametrize('hertz', [10, 30, 60, 120, 1000])
def test_the_rate_of_fast_cameras_is_told(clock, hertz):
    window = Window()
    for _ in range(10 * hertz):
        clock[0] += 1 / hertz
        window.add(0.0)
    assert window.rate() == pytest.approx(hertz, rel=0.05)
    clock[0] += 1.0
    assert window.rate() < hertz


def test_throttle_lets_each_kind_through_once_per_period(clock):
    throttle = Throttle(5.0)
    assert [throttle.ready('a'), throttle.ready('a'), throttle.ready('b')] == [True, False, True]
    clock[0] += 5.0
    assert throttle.ready('a')


def working(clock):
    stats = CameraStats(received=10, processed=9, dropped=1, size=(48, 64), info_size=(48, 64))
    stats.arrivals.add(0)
    stats.latency.add(20)
    return stats


def level(stats, **changes):
    return health.camera_status(stats, **{'active': True, 'silent': '', 'waiting': 0.0, **changes})


def test_a_working_camera_is_ok(clock):
    assert level(working(clock)) == (OK, 'processing')
    assert level(CameraStats()) == (OK, 'waiting for the first image')


def test_an_inactive_camera_is_ok_even_when_silent(clock):
    assert level(working(clock), active=False, silent='no image for 9 s')[0] == OK


@pytest.mark.parametrize(
    ('changes', 'expected', 'says'),
    [
        ({'silent': 'no image for 4 s: nobody publishes /image'}, ERROR, 'nobody publishes'),
        ({'waiting': 9.0}, ERROR, 'no result for 9 s'),
    ],
)
def test_silence_and_overload_are_errors(clock, changes, expected, says):
    found, message = level(working(clock), **changes)
    assert found == expected and says in message


def test_a_complaint_is_shown_while_it_is_recent(clock):
    stats = working(clock)
    stats.complain('refused size', 'message refused (size): expected 12 bytes, got 3')
    assert level(stats) == (WARN, 'message refused (size): expected 12 bytes, got 3')
    clock[0] += health.RECENT_S + 0.1
    assert level(stats)[0] == OK


def test_calibration_of_another_camera_is_pointed_out(clock):
    stats = working(clock)
    stats.info_size = (480, 640)
    found, message = level(stats)
    assert found == WARN and '640x480' in message and '64x48' in message


def test_calibration_of_another_camera_hides_no_fault(clock):
    stats = working(clock)
    stats.info_size = (480, 640)
    assert level(stats, waiting=9.0)[0] == ERROR
    stats.complain(health.FAILED, 'frame failed: singular matrix')
    found, message = level(stats)
    assert found == ERROR and 'singular matrix' in message and '640x480' in message


def test_refusals_are_counted_by_reason(clock):
    stats = working(clock)
    stats.refused.update(['size', 'size', 'encoding'])
    found = health.camera_values(stats)
    assert (found['refused'], found['refused_size'], found['refused_encoding']) == ('3', '2', '1')
    assert found['received'] == '10' and found['latency_p50_ms'] == '20.0'


def test_stages_show_percentiles_and_what_was_skipped(clock):
    stages = StageTimes()
    stages.add({'segment': 10.0}, ())
    stages.add({'segment': 20.0}, ('refinement oasc skipped: at address 0x7f12',))
    stages.add({'segment': 30.0}, ('refinement oasc skipped: no masks',))
    found = stages.values()
    assert found['segment_p50_ms'] == '20.00'
    assert found['refinement oasc skipped'] == '2'
    assert stages.notes() == ['refinement oasc skipped: no masks']
    clock[0] += health.RECENT_S + 0.1
    assert stages.notes() == []


def test_memory_is_told():
    assert int(health.memory_values(torch.device('cpu'))['resident_mib']) > 10
    assert health.memory_values(None).keys() == {'resident_mib'}


def calibrated_chain(**changes):
    """A chain whose promise was made on 20 blocks of 1 s with scores around 0.5, 8x8 images."""
    rng = random.Random(0)
    rows = [[0.5 + rng.gauss(0, 0.01) for _ in LEVELS] for _ in range(20)]
    promise = Promise(
        rate=0.1,
        unit='frame',
        confidence=0.95,
        method='by hand',
        frames=500,
        blocks=20,
        block_seconds=1.0,
        measured=0.0,
        footage='commute.mp4',
        weights='',
        size=(8, 8),
        drift=rows,
    )
    levels = ScoreCalibration(0.9, 0.5, (0.0, 1.0), promise=promise)
    return SimpleNamespace(
        **{
            'levels': levels,
            'calibration': 'mine.yaml',
            'doubt': '',
            'threshold_source': 'promise',
            **changes,
        }
    )


def drive(calibrated, level, seconds, size=(8, 8), begin=0):
    rng = random.Random(begin + 1)
    for second in range(begin, begin + seconds):
        score = torch.full(size, level + rng.gauss(0, 0.01))
        calibrated.add('front', SimpleNamespace(size=size, score=score), float(second))


def test_drift_from_the_calibration_is_warned_of_and_its_absence_is_not():
    calibrated = health.Calibrated()
    calibrated.follow(calibrated_chain())
    drive(calibrated, 0.5, 200)
    assert calibrated.warnings() == []
    drive(calibrated, 0.7, 20, begin=200)
    assert (
        'scores of front drift from what was calibrated on commute.mp4'
        in (calibrated.warnings()[0])
    )
    drive(calibrated, 0.5, 40, begin=220)
    assert calibrated.warnings() == []


def test_diagnostics_show_the_promise_and_why_it_does_not_hold():
    calibrated = health.Calibrated()
    assert calibrated.values() == {} and calibrated.warnings() == []
    calibrated.follow(calibrated_chain())
    found = calibrated.values()
    assert found['calibration'] == 'mine.yaml' and found['threshold'] == '0.9 (promise)'
    assert found['promise'].startswith('false obstacles under 0.1 per frame at 95 % confidence')
    drive(calibrated, 0.5, 1, size=(16, 8))
    assert calibrated.warnings() == ['images of front are 8x16, calibrated on 8x8']
    calibrated.follow(calibrated_chain(doubt='objects.opening is 3'))
    assert calibrated.values()['promise'] == 'none'
    assert 'objects.opening is 3' in calibrated.warnings()[0]
