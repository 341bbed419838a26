# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One camera's inputs on a node that answers at once: nothing is lost at start or end."""

from __future__ import annotations

import types

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='no rclpy installed')

import rclpy
from ros_graph import image_message
from sensor_msgs.msg import Image

from road_anomaly_ros.ros.camera import Camera
from road_anomaly_ros.ros.worker import NewestFrames


class Eager:
    """A node on which messages arrive while their subscription is made."""

    def __init__(self, early):
        self._early = early

    def create_subscription(self, kind, topic, callback, *_, **__):
        for message in self._early.get(topic, ()):
            callback(message)
        return topic

    def destroy_subscription(self, subscription):
        pass

    def resolve_topic_name(self, topic, **_):
        return topic

    def get_publishers_info_by_topic(self, topic):
        return []

    def get_logger(self):
        return types.SimpleNamespace(warning=lambda text: None)


@pytest.fixture
def camera(monkeypatch):
    def make(early, tolerance):
        monkeypatch.setattr('road_anomaly_ros.ros.camera.Publishers', lambda *_, **__: None)
        return Camera(Eager(early), '', 'raw', None, tolerance)

    return make


def test_an_image_that_comes_while_subscribing_waits_for_its_map(camera):
    made, frames = camera({'image': [image_message(seconds=3.0)]}, 0.05), NewestFrames()
    made.subscribe(frames)
    assert frames.close() == []
    frames = NewestFrames()
    made = camera(
        {'image': [image_message(seconds=3.0)], 'anomaly_in': [image_message(seconds=3.0)]}, 0.05
    )
    made.subscribe(frames)
    (frame,) = frames.take(1)
    assert isinstance(frame.anomaly, Image) and made.stats.dropped == 0


def test_without_maps_the_first_image_is_a_frame(camera):
    frames = NewestFrames()
    camera({'image': [image_message()]}, None).subscribe(frames)
    (frame,) = frames.take(1)
    assert frame.anomaly is None


def test_images_that_wait_for_their_map_when_the_node_stops_are_counted(camera):
    made = camera({'image': [image_message(seconds=float(moment)) for moment in (1, 2, 3)]}, 0.05)
    made.subscribe(NewestFrames())
    made.unsubscribe()
    made.unsubscribe()
    assert (made.stats.received, made.stats.dropped) == (3, 3)


def test_the_benchmark_offers_pictures_in_the_quality_of_the_node(monkeypatch):
    from road_anomaly_ros.ros import bench_node, outputs

    given = []
    monkeypatch.setattr(
        outputs.Publishers, 'publish', lambda self, source, header, quality: given.append(quality)
    )
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    try:
        bench_node.unheard(context, np.zeros((8, 8, 3), np.uint8))()
    finally:
        rclpy.try_shutdown(context=context)
    assert given == [90]


def test_the_camera_of_the_benchmark_offers_what_the_node_listens_to(monkeypatch):
    from road_anomaly_ros.ros import bench_node

    monkeypatch.setattr(bench_node, 'namespace', lambda: '/bench_test')
    with bench_node.Camera([np.zeros((8, 8, 3), np.uint8)], 30) as camera:
        assert camera._publisher.topic_name == '/bench_test/image'
        (subscription,) = (
            one for one in camera._node.subscriptions if one.topic_name.endswith('/mask')
        )
        assert subscription.topic_name == '/bench_test/anomaly_node/obstacle/mask'
