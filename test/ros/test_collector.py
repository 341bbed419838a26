# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The collector of the live demo asks a camera for pictures: one found late, slow, or ended."""

from __future__ import annotations

import dataclasses
import json
import threading

import numpy as np
import pytest
import torch

pytest.importorskip('rclpy', reason='no rclpy installed')

from ros_graph import Graph, image_message
from sensor_msgs.msg import Image
from std_msgs.msg import Header, String
from std_srvs.srv import Trigger

from road_anomaly_ros.perception import PipelineConfig
from road_anomaly_ros.perception.contract import LabelSet
from road_anomaly_ros.ros import collector as gathering
from road_anomaly_ros.ros import live
from road_anomaly_ros.ros.controls import ENDED
from road_anomaly_ros.tools.results import OUTPUTS, RUN_LENGTHS, Shown


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


def test_tracks_metres_and_surroundings_come_back_from_the_text(rng):
    instances = np.zeros((40, 60), np.int32)
    instances[5:15, 5:20], instances[20:30, 30:50], instances[32:36, 2:9] = 1, 2, 3
    score = rng.random(instances.shape, np.float32)
    seen = {
        1: {'track_id': 41, 'age_s': 1.25, 'velocity': (-3.5, 0.0), 'distance': 8.125},
        2: {'track_id': 7, 'confirmed': False, 'label': 0},
        3: {'label': 2},
    }
    objects = tuple(
        dataclasses.replace(item, **seen[item.id]) for item in gathering.describe(instances, score)
    )
    names = ('sky', 'car', 'road')
    result = gathering.LiveResult(
        image=torch.zeros(3, *instances.shape, dtype=torch.uint8),
        labels=torch.zeros(instances.shape, dtype=torch.uint8),
        score=torch.from_numpy(score),
        mask=torch.from_numpy(instances > 0),
        instances=torch.from_numpy(instances),
        objects=objects,
        label_set=LabelSet(names, ((0, 0, 0),) * 3),
        scorer='plain',
        threshold=0.5,
        threshold_source='default',
        display_range=(0.0, 1.0),
    )
    (row,) = (row for row in OUTPUTS if row.topic == RUN_LENGTHS)
    text = row.build(Shown(result, None), Header())['data']
    found, around = gathering.told(gathering.describe(instances, score), text)
    assert [
        dataclasses.replace(after, label=before.label)
        for before, after in zip(objects, found, strict=True)
    ] == list(objects)
    assert [around.names[item.label] if item.label < 255 else None for item in found] == [
        None,
        'sky',
        'road',
    ]


def test_a_text_belongs_to_the_picture_of_its_moment():
    picture = image_message(seconds=1.000_000_025)
    stamp = picture.header.stamp
    text = String(data=json.dumps({'stamp': f'{stamp.sec}.{stamp.nanosec:09d}'}))
    assert gathering._key(text) == gathering._key(picture) == (1, 25)


def test_an_option_set_to_its_default_reaches_the_node_of_the_demo(graph, collector):
    """Given at its start, a default is left to the calibration."""
    given = {'objects.on_drivable': 'off', 'objects.min_area': 77, 'drawing.boxes': True}
    wishes = live.defaults_set(PipelineConfig().replace(given))
    assert wishes == {'objects.on_drivable': 'off', 'drawing.boxes': True}
    node = graph.anomaly_node(**given)
    assert not node._settings.config.is_set('objects.on_drivable')
    collector.set_parameters_of_node(wishes)
    config = node._settings.config
    assert all(config.is_set(name) and config.get(name) == given[name] for name in given)
    with pytest.raises(ValueError, match=r'objects\.contact'):
        collector.set_parameters_of_node({'objects.contact': 7.0})
