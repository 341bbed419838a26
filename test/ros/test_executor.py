# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Callbacks are handed to the threads once, and what they raise is heard."""

import threading
import time

import pytest

pytest.importorskip('rclpy')

import rclpy
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import MultiThreadedExecutor
from std_msgs.msg import Int32

from road_anomaly_ros.ros import transport
from road_anomaly_ros.ros.executor import MENDED, ThreadedExecutor, make_executor

DEADLINE_S = 20.0


class SlowPool:
    """Threads that begin late, as they do while others hold Python's lock."""

    def __init__(self):
        self.submitted = 0

    def submit(self, work, *arguments):
        self.submitted += 1
        threading.Timer(0.03, work, arguments).start()

    def shutdown(self, *, wait):
        pass


@pytest.fixture
def node():
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('executor_test', context=context)
    yield node
    node.destroy_node()
    rclpy.try_shutdown(context=context)


def spin_until(executor, ready):
    end = time.monotonic() + DEADLINE_S
    while not ready():
        assert time.monotonic() < end, 'nothing came in time'
        executor.spin_once(timeout_sec=0.5)


def test_a_callback_that_begins_late_is_handed_out_once(node):
    failures, calls = [], []
    executor = ThreadedExecutor(2, failures.append, context=node.context)
    executor._pool.shutdown(wait=True)
    executor._pool = pool = SlowPool()
    executor.add_node(node)
    timer = node.create_timer(0.01, lambda: calls.append(timer.cancel()))
    spin_until(executor, lambda: calls)
    executor.spin_once(timeout_sec=0.1)
    assert len(calls) == 1 and not failures
    assert pool.submitted == 1
    executor.shutdown()


def test_a_failing_callback_is_told_and_does_not_stop_others(node):
    failures, heard = [], []
    executor = ThreadedExecutor(2, failures.append, context=node.context)
    executor.add_node(node)

    def listen(message):
        heard.append(message.data)
        if message.data == 1:
            raise ValueError('one')

    node.create_subscription(Int32, 'number', listen, 10)
    publisher = node.create_publisher(Int32, 'number', 10)
    for number in (1, 2):
        publisher.publish(Int32(data=number))
    spin_until(executor, lambda: len(heard) == 2 and failures)
    assert heard == [1, 2] and [str(error) for error in failures] == ['one']
    executor.shutdown()


def test_callbacks_of_a_reentrant_group_overlap(node):
    both = threading.Barrier(2, timeout=DEADLINE_S)
    met = []
    executor = ThreadedExecutor(2, met.append, context=node.context)
    executor.add_node(node)
    group = ReentrantCallbackGroup()
    timers = [
        node.create_timer(0.01, lambda: (both.wait(), met.append('met')), group) for _ in range(2)
    ]
    spin_until(executor, lambda: len(met) >= 2)
    for timer in timers:
        timer.cancel()
    both.abort()
    executor.shutdown()
    assert met[:2] == ['met', 'met']


@pytest.mark.parametrize(
    ('version', 'own'),
    [('3.3.16', True), ('9.1.2', True), ('10.0.2', True), ('10.0.4', False), ('11.0.1', False)],
)
def test_where_rclpy_is_mended_its_own_executor_is_taken(node, monkeypatch, version, own):
    monkeypatch.setattr(transport, 'version', lambda _: version)
    executor = make_executor(2, print, context=node.context)
    assert isinstance(executor, ThreadedExecutor if own else MultiThreadedExecutor)
    executor.shutdown()


def test_rclpys_own_executor_is_as_its_version_tells(node):
    """Where this fails, a release of rclpy is mended: ours is not needed there any more."""
    executor = MultiThreadedExecutor(2, context=node.context)
    executor._executor.shutdown(wait=True)
    executor._executor = pool = SlowPool()
    executor.add_node(node)
    calls = []
    timer = node.create_timer(0.01, lambda: calls.append(timer.cancel()))
    spin_until(executor, lambda: calls)
    assert (pool.submitted > 1) == (transport.release() < MENDED)
    executor.shutdown()
