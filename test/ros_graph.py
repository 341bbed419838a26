# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A ROS graph for one test: real nodes over DDS, spun in the background, deadlines for all."""

from __future__ import annotations

import gc
import itertools
import os
import threading
import time
import weakref

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.exceptions import InvalidHandle
from rclpy.parameter import Parameter
from std_msgs.msg import Header

from road_anomaly_ros.ros import images
from road_anomaly_ros.ros.executor import make_executor

DEADLINE_S = 60.0
_MOST = 8  # participants of this process; of one machine Fast DDS finds the first 32 only
_numbers = itertools.count()
_contexts = weakref.WeakSet()


def wait_for(condition, what, seconds=DEADLINE_S):
    """Return the first true value of `condition()`; fails with `what` after a deadline."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.002)
    raise AssertionError(f'waited {seconds:g} s in vain: {what}')


class Graph:
    """Nodes in a namespace of their own; everything made here is taken down at the end."""

    def __init__(self):
        self.namespace = f'/test_{os.getpid()}_{next(_numbers)}'
        self.context = rclpy.Context()
        _contexts.add(self.context)
        rclpy.init(context=self.context, domain_id=int(os.environ['ROS_DOMAIN_ID']))
        self.errors = []
        self.executor = make_executor(4, self._failed, context=self.context)
        self._nodes = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self.client = self.add(
            rclpy.create_node('client', context=self.context, namespace=self.namespace)
        )
        self._thread.start()

    def _spin(self):
        while not self._ending.is_set():
            try:
                self.executor.spin_once(timeout_sec=0.1)
            except Exception as error:
                self._failed(error)

    def _failed(self, error):
        """Keep what a callback raised; it is shown at the end of the test that caused it."""
        if not isinstance(error, InvalidHandle):  # rclpy's race with a subscription taken back
            self.errors.append(error)

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self._ending.set()
        self._thread.join(DEADLINE_S)
        self.executor.shutdown()
        for node in reversed(self._nodes):
            getattr(node, 'close', lambda: None)()
            node.destroy_node()
        rclpy.try_shutdown(context=self.context)
        if len(_contexts) > _MOST:  # lifecycle nodes hold theirs in cycles
            gc.unfreeze()
            gc.collect()
        if not any(failure):
            assert not self.errors, self.errors

    def add(self, node):
        """Spin `node` with the others."""
        self._nodes.append(node)
        self.executor.add_node(node)
        return node

    def anomaly_node(self, *, engine=None, state='active', remap=(), **parameters):
        """Start the node with the segmenter that needs no weights and bring it to `state`."""
        from road_anomaly_ros.ros.node import AnomalyNode

        values = {'segmenter': 'synthetic', 'autostart': False, **parameters}
        arguments = [word for rule in remap for word in ('-r', rule)]
        node = self.add(
            AnomalyNode(
                engine=engine,
                context=self.context,
                namespace=self.namespace,
                parameter_overrides=[
                    Parameter(name, value=value) for name, value in values.items()
                ],
                cli_args=['--ros-args', *arguments] if arguments else None,
            )
        )
        if state in ('inactive', 'active'):
            assert node.trigger_configure().name == 'SUCCESS'
        if state == 'active':
            assert node.trigger_activate().name == 'SUCCESS'
        return node

    def collect(self, kind, topic, qos=1):
        """Return a list that fills with the messages of a topic."""
        found = []
        self.client.create_subscription(kind, topic, found.append, qos)
        return found

    def publisher(self, kind, topic, qos=1, readers=1):
        """Return a publisher once as many subscriptions as `readers` know of it."""
        publisher = self.client.create_publisher(kind, topic, qos)
        if readers:
            wait_for(lambda: publisher.get_subscription_count() >= readers, f'readers of {topic}')
        return publisher

    def diagnostics(self):
        """Return a list that fills with the rows of /diagnostics of this graph, newest last."""
        rows = []

        def sort(message):
            rows.extend(row for row in message.status if row.name.startswith(self.namespace))

        self.client.create_subscription(DiagnosticArray, '/diagnostics', sort, 10)
        return rows


def header(seconds=1.0, frame_id='camera'):
    """Return a header with a stamp in seconds."""
    stamp = Time(sec=int(seconds), nanosec=round((seconds % 1) * 1e9))
    return Header(stamp=stamp, frame_id=frame_id)


def image_message(picture=None, seconds=1.0, frame_id='camera', encoding='rgb8'):
    """Return a picture, by default grey, as a message."""
    picture = np.full((48, 64, 3), 90, np.uint8) if picture is None else picture
    return images.to_message(picture, encoding, header(seconds, frame_id))


def scores(messages):
    """Return the values of 32FC1 messages, float32 [H, W] each."""
    return [
        np.frombuffer(message.data, np.float32).reshape(message.height, message.width)
        for message in messages
    ]


def obstacle_picture(left=24):
    """Sky above grey road, and a red box on it."""
    picture = np.full((48, 64, 3), 90, np.uint8)
    picture[:20] = (120, 170, 220)
    picture[30:38, left : left + 12] = (200, 30, 20)
    return picture


def values(row):
    """Return the values of a diagnostics row as a dict."""
    return {pair.key: pair.value for pair in row.values}


def send_until(publisher, message, condition, what, seconds=DEADLINE_S, period=0.05):
    """Publish `message()` again and again until `condition()`; best effort may lose any."""
    last = [0.0]

    def step():
        if time.monotonic() - last[0] > period:
            last[0] = time.monotonic()
            publisher.publish(message())
        return condition()

    return wait_for(step, what, seconds)
