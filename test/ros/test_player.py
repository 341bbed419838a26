# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The time line of a replay: places by hand, order, pauses and steps."""

from __future__ import annotations

import threading
import time

import pytest

pytest.importorskip('rclpy', reason='needs the extra ros')

from road_anomaly_ros.ros.player import FALLBACK_GAP_NS, Cue, Line, Player

DEADLINE_S = 10.0
MS = 1_000_000


def test_recorded_times_begin_at_zero_and_go_on_after_a_turn():
    line = Line()
    assert [line.at(stamp) for stamp in (1000, 1100, 1200)] == [0, 100, 200]
    line.turn()
    assert [line.at(stamp) for stamp in (1000, 1100)] == [300, 400]
    assert line.pictures == 5


def test_a_single_picture_that_loops_comes_at_the_fallback_rate():
    line = Line()
    assert line.at(7) == 0
    line.turn()
    assert line.at(7) == FALLBACK_GAP_NS


def test_a_fixed_rate_is_counted_and_does_not_drift():
    line = Line(fps=30.0)
    places = [line.at(0) for _ in range(30_001)]
    assert places[1] == 33_333_333
    assert places[3] == 100_000_000
    assert places[30_000] == 1000 * 10**9


def test_at_a_fixed_rate_other_messages_go_with_the_picture_before():
    line = Line(fps=10.0)
    kinds = [False, True, False, True, True, False]
    assert [line.at(0, picture=kind) for kind in kinds] == [0, 0, 0, 100 * MS, 200 * MS, 200 * MS]


def test_time_that_runs_backwards_is_held():
    line = Line()
    assert [line.at(stamp) for stamp in (1000, 1300, 1100, 1400)] == [0, 300, 300, 400]


class Sent:
    """Cues that note when they were sent."""

    def __init__(self, times, **options):
        self.moments = []
        self.done = threading.Event()
        cues = (
            Cue(at, 5000 + at, lambda at=at: self.moments.append((at, time.monotonic_ns())))
            for at in times
        )
        self.player = Player(cues, ended=self.done.set, **options)
        self.player.start()

    @property
    def places(self):
        return [place for place, _ in self.moments]


def test_cues_go_out_in_order_and_never_early():
    sent = Sent([0, 20 * MS, 40 * MS, 60 * MS])
    assert sent.done.wait(DEADLINE_S)
    assert sent.places == [0, 20 * MS, 40 * MS, 60 * MS]
    begin = sent.moments[0][1]
    assert all(moment - begin >= place - MS for place, moment in sent.moments)
    assert sent.player.pictures == 4
    assert sent.player.finished


def test_a_factor_shortens_the_line():
    sent = Sent([0, 40 * 10**9], rate=1000.0)
    assert sent.done.wait(DEADLINE_S)
    begin, end = (moment for _, moment in sent.moments)
    assert end - begin >= 39 * MS


def test_while_paused_only_steps_send_and_the_line_goes_on_from_there():
    sent = Sent([0, 10**12, 2 * 10**12, 2 * 10**12 + MS], paused=True)
    assert sent.player.step(DEADLINE_S)
    assert sent.player.step(DEADLINE_S)
    assert sent.places == [0, 10**12]
    assert sent.player.clock() == 5000 + 10**12
    assert sent.player.step(DEADLINE_S)
    assert not sent.done.is_set()
    assert sent.player.resume()
    assert sent.done.wait(DEADLINE_S), 'the last cue is due 1 ms after the one before'
    assert not sent.player.resume()


def test_a_step_at_the_end_tells_that_nothing_came():
    sent = Sent([0], paused=True)
    assert sent.player.step(DEADLINE_S)
    assert not sent.player.step(DEADLINE_S)
    assert sent.player.finished


def test_a_step_needs_a_pause():
    sent = Sent([0, 10**12])
    with pytest.raises(ValueError, match='pause first'):
        sent.player.step(1.0)
    assert sent.player.pause()
    assert not sent.player.pause()
    sent.player.stop()
    assert sent.places in ([], [0])


def test_stop_ends_a_long_wait_and_sends_nothing_more():
    sent = Sent([0, 10**12])
    sent.player.stop()
    assert 10**12 not in sent.places


def test_a_source_that_breaks_ends_the_player_with_its_error():
    def cues():
        yield Cue(0, 0, lambda: None)
        raise ValueError('the disk is gone')

    done = threading.Event()
    player = Player(cues(), ended=done.set)
    player.start()
    assert done.wait(DEADLINE_S)
    assert str(player.error) == 'the disk is gone'
    assert player.pictures == 1


@pytest.mark.parametrize(('live', 'least'), [(True, 90 * MS), (False, 0)])
def test_after_a_delay_a_live_player_does_not_hurry(live, least):
    moments = []

    def slow():
        time.sleep(0.2)

    sends = [slow, *[lambda: moments.append(time.monotonic_ns())] * 4]
    done = threading.Event()
    player = Player(
        [Cue(index * 30 * MS, 0, send) for index, send in enumerate(sends)],
        live=live,
        ended=done.set,
    )
    player.start()
    assert done.wait(DEADLINE_S)
    assert moments[-1] - moments[0] >= least
    assert player.late_ns >= 100 * MS
