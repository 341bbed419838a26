# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Diagnostics that alarm when they must and stay quiet when they must not."""

from __future__ import annotations

import math

import pytest

pytest.importorskip('diagnostic_msgs.msg', reason='no ROS messages installed')

import torch

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


@pytest.mark.parametrize(('changes', 'expected', 'says'), [
    ({'silent': 'no image for 4 s: nobody publishes /image'}, ERROR, 'nobody publishes'),
    ({'waiting': 9.0}, ERROR, 'no result for 9 s'),
])
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
