# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The newest frame of every camera: replaced, never queued; served in turn."""

from __future__ import annotations

import threading
import time
from collections import Counter

from road_anomaly_ros.ros.worker import Frame, NewestFrames, Worker


def frame(camera, number=0):
    return Frame(camera, number, time.monotonic())


def test_a_newer_frame_replaces_the_one_nobody_took():
    frames = NewestFrames()
    assert frames.put(frame('a', 1))
    assert not frames.put(frame('a', 2))
    assert [found.message for found in frames.take(8)] == [2]


def test_the_camera_served_longest_ago_comes_first():
    frames = NewestFrames()
    served = Counter()
    for _ in range(30):
        for camera in ('front', 'left', 'right'):
            frames.put(frame(camera))
        served.update(found.camera for found in frames.take(2))
    assert served == {'front': 20, 'left': 20, 'right': 20}


def test_one_camera_alone_does_not_wait_for_the_others():
    frames = NewestFrames()
    for camera in ('front', 'left'):
        frames.put(frame(camera))
    assert len(frames.take(8)) == 2
    frames.put(frame('left'))  # front has died
    assert [found.camera for found in frames.take(8)] == ['left']


def test_close_sends_the_waiting_home_and_hands_back_what_is_left():
    frames = NewestFrames()
    answers = []
    thread = threading.Thread(target=lambda: answers.append(frames.take(1)))
    thread.start()
    assert frames.close() == []
    thread.join(10)
    assert answers == [[]]
    assert not frames.put(frame('a'))
    assert frames.take(1) == []


def test_stop_waits_for_the_frame_in_flight():
    begun, go_on, done = threading.Event(), threading.Event(), []

    def process(frames):
        begun.set()
        go_on.wait(10)
        done.extend(found.message for found in frames)

    worker = Worker(process, lambda: 8)
    worker.start()
    worker.frames.put(frame('a', 1))
    assert begun.wait(10)
    worker.frames.put(frame('a', 2))
    threading.Timer(0.05, go_on.set).start()
    left = worker.stop()
    assert done == [1] and [found.message for found in left] == [2]


def test_every_frame_is_processed_or_counted_as_lost():
    seen = []
    worker = Worker(lambda frames: seen.extend(frames), lambda: 2)
    worker.start()
    lost = Counter()

    def camera(name):
        for number in range(2000):
            lost[name] += not worker.frames.put(frame(name, number))

    threads = [threading.Thread(target=camera, args=(name,)) for name in 'abc']
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    left = worker.stop()
    assert len(seen) + len(left) + lost.total() == 6000
    for name in 'abc':
        numbers = [found.message for found in seen if found.camera == name]
        assert numbers == sorted(set(numbers))
