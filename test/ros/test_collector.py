# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The collector of the live demo asks a camera for pictures: one found late, slow, or ended."""

from __future__ import annotations

import threading

import pytest

pytest.importorskip('rclpy', reason='no rclpy installed')

from ros_graph import Graph, image_message
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from road_anomaly_ros.ros import collector as gathering
from road_anomaly_ros.ros.controls import ENDED


@pytest.fixture
def graph():
    with Graph() as graph:
        yield graph


@pytest.fixture
def collector(graph):
    return graph.add(
        gathering.Collector(
            ('overlay',), camera='cam', context=graph.context, namespace=graph.namespace
        )
    )


def serve(graph, *answers):
    """Offer the camera's service: a picture for each True, a refusal for each text."""
    publisher, rest = graph.publisher(Image, 'image', qos=8), list(answers)

    def step(_, response):
        answer = rest.pop(0)
        response.success = answer is True
        if response.success:
            publisher.publish(image_message(seconds=len(rest) + 1.0))
        else:
            response.message = answer
        return response

    graph.client.create_service(Trigger, 'cam/play_next', step)


def test_a_camera_that_is_found_late_is_waited_for(graph, collector):
    late = threading.Timer(0.5, serve, (graph, True, ENDED))
    late.start()
    moment, message = collector.next_picture(lambda: True)
    late.join()
    assert moment > 0 and message.header.stamp.sec == 2
    assert collector.next_picture(lambda: True) is None


def test_a_camera_that_has_left_is_the_end(collector):
    assert collector.next_picture(lambda: False) is None


def test_no_picture_is_not_the_end(graph, collector, monkeypatch):
    monkeypatch.setattr(gathering, 'READY_S', 0.2)
    with pytest.raises(TimeoutError, match='the camera cannot be reached, waited 0 s'):
        collector.next_picture(lambda: True)
    monkeypatch.undo()
    serve(graph, 'no picture is ready')
    with pytest.raises(TimeoutError, match='the camera gives no picture: no picture is ready'):
        collector.next_picture(lambda: True)
