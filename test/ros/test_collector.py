# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The collector of the live demo asks a camera for pictures: one found late, slow, or ended."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest
import torch

pytest.importorskip('rclpy', reason='no rclpy installed')

from ros_graph import Graph, image_message
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from road_anomaly_ros.perception import PipelineConfig
from road_anomaly_ros.perception.contract import LabelSet
from road_anomaly_ros.perception.geometry import GeometryOptions, Surveyor
from road_anomaly_ros.rendering import Drive, DriveOptions
from road_anomaly_ros.ros import collector as gathering
from road_anomaly_ros.ros import live, outputs
from road_anomaly_ros.ros.controls import ENDED
from road_anomaly_ros.tools import drive_metres, spatial


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


def test_tracks_and_metres_come_back_from_the_cloud():
    drive = Drive(DriveOptions(width=480, height=360, frames=60, seed=1))
    view, place = drive[36], drive_metres.mounting(drive)
    instances = torch.from_numpy(view.instances.astype(np.int32))
    score = torch.where(instances > 0, 0.9, 0.0)
    objects = tuple(
        dataclasses.replace(item, track_id=40 + item.id)
        for item in gathering.describe(instances.numpy(), score.numpy())
        if item.area > 600
    )
    assert objects
    result = gathering.LiveResult(
        image=torch.from_numpy(view.image).permute(2, 0, 1),
        labels=torch.zeros(instances.shape, dtype=torch.uint8),
        score=score,
        mask=instances > 0,
        instances=instances,
        objects=objects,
        label_set=LabelSet(('road',), ((0, 0, 0),), (0,)),
        scorer='plain',
        threshold=0.5,
        threshold_source='default',
        display_range=(0.0, 1.0),
    )
    model = drive_metres.model_of(drive, result.size)
    survey = Surveyor().survey(result, model, place, GeometryOptions())
    cloud = outputs.fill(PointCloud2(), spatial.points(survey, Header()))
    bare = tuple(dataclasses.replace(item, track_id=0) for item in objects)
    found = gathering.followed(dataclasses.replace(result, objects=bare), cloud, drive)
    known = {one.found.id: one.position.distance for one in survey.obstacles}
    assert known
    for before, after in zip(objects, found.objects, strict=True):
        if before.id in known:
            assert after.track_id == before.track_id and after.confirmed
            assert after.distance == pytest.approx(known[before.id], rel=0.1)
        else:
            assert after.track_id == 0 and not after.confirmed


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
