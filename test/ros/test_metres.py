# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Metres of a real node: for who listens, where somebody looks, never at the cost of a frame."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='no rclpy installed')

from rclpy.parameter import Parameter
from ros_graph import Graph, header, image_message, send_until, values, wait_for
from sensor_msgs.msg import CameraInfo, Image, LaserScan, PointCloud2

from road_anomaly_ros.ros import camera, geometry, images
from road_anomaly_ros.tools import spatial

GIVEN = {'camera_height': 1.5, 'camera_pitch': 0.0, 'camera_roll': 0.0}


@pytest.fixture
def graph():
    with Graph() as graph:
        yield graph


SMALL = (50.0, 0.0, 31.5, 0.0, 50.0, 10.0, 0.0, 0.0, 1.0)


def start(graph, image, **parameters):
    """A node that sees a red box, with its calibration; the function sends a picture."""
    node = graph.anomaly_node(**parameters)
    sender, about = graph.publisher(Image, 'image'), graph.publisher(CameraInfo, 'camera_info')

    def picture():
        about.publish(CameraInfo(height=48, width=64, k=SMALL))
        return image_message(image)

    return node, sender, picture


def test_the_node_tells_metres_only_to_who_listens(graph, image, monkeypatch):
    given = {f'geometry.{name}': value for name, value in GIVEN.items()}
    node, sender, picture = start(graph, image, **given)
    asked = []
    survey_of = geometry.Geometry.survey
    monkeypatch.setattr(
        geometry.Geometry, 'survey', lambda *values: asked.append(1) or survey_of(*values)
    )
    send_until(sender, picture, lambda: node.cameras[''].stats.processed > 2, 'frames')
    assert not asked
    clouds = graph.collect(PointCloud2, 'anomaly_node/obstacle/points')
    scans = graph.collect(LaserScan, 'anomaly_node/obstacle/scan')
    send_until(sender, picture, lambda: clouds and scans, 'cloud and scan')
    assert clouds[-1].header.frame_id == scans[-1].header.frame_id == 'base_link'
    rows = graph.diagnostics()
    row = wait_for(lambda: [row for row in rows if row.name.endswith(': camera')], 'a report')[-1]
    assert values(row)['mounting'].startswith('given: height 1.50 m')


def nearest(clouds):
    """How far ahead the points of the newest cloud begin; None before there is one."""
    rows = np.frombuffer(bytes(clouds[-1].data), spatial.CLOUD) if clouds else ()
    return float(rows['x'].min()) if len(rows) else None


def test_each_camera_has_its_own_mounting(graph, image):
    mountings = {'geometry.camera_height': 1.0, 'geometry.high.camera_height': 2.0}
    level = {'geometry.camera_pitch': 0.0, 'geometry.camera_roll': 0.0}
    node = graph.anomaly_node(cameras=['low', 'high'], **mountings, **level)
    names = ('low', 'high')
    clouds = {
        name: graph.collect(PointCloud2, f'anomaly_node/{name}/obstacle/points') for name in names
    }
    senders = {
        name: (
            graph.publisher(Image, f'{name}/image'),
            graph.publisher(CameraInfo, f'{name}/camera_info'),
        )
        for name in names
    }

    def heights(*expected):
        for pictures, about in senders.values():
            about.publish(CameraInfo(height=48, width=64, k=SMALL))
            pictures.publish(image_message(image))
        places = [nearest(clouds[name]) for name in names]
        # The box ends 27.5 rows below the horizon of a focal length of 50.
        right = [height * 50 / 27.5 for height in expected]
        return None not in places and np.allclose(places, right, rtol=0.08)

    wait_for(lambda: heights(1.0, 2.0), 'the same row at two distances')
    node.set_parameters([Parameter('geometry.high.camera_height', value=3.0)])
    wait_for(lambda: heights(1.0, 3.0), 'the new height')
    node.set_parameters([Parameter('geometry.high.camera_height', value=math.nan)])
    wait_for(lambda: heights(1.0, 1.0), 'the height of all')
    rows = graph.diagnostics()
    row = wait_for(lambda: [row for row in rows if row.name.endswith(': high')], 'a report')[-1]
    assert values(row)['mounting'].startswith('given: height 1.00 m')
    (refused,) = node.set_parameters([Parameter('geometry.high.camera_height', value=-1.0)])
    assert not refused.successful and 'geometry.high.camera_height' in refused.reason
    described = node.describe_parameter('geometry.high.camera_pitch')
    assert "'high' alone" in described.description and 'deg' in described.description


def test_the_overlay_gets_the_metres_that_are_known(graph, image, monkeypatch):
    given = {f'geometry.{name}': value for name, value in GIVEN.items()}
    drawn = []
    monkeypatch.setattr(
        camera, 'overlay', lambda found, _: drawn.append(found) or np.zeros((48, 64, 3), np.uint8)
    )
    _, sender, picture = start(graph, image, tracker='kalman', **given)
    tenths = itertools.count(1)

    def next_picture():
        message = picture()
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(
            next(tenths) * 10**8, 10**9
        )
        return message

    rows = graph.diagnostics()
    graph.collect(Image, 'anomaly_node/overlay')

    def shown():
        return [item for found in drawn for item in found.objects if item.distance is not None]

    send_until(sender, next_picture, lambda: any(item.track_id for item in shown()), 'overlays')
    assert all(item.distance > 0 and item.confirmed for item in shown())
    wait_for(
        lambda: [
            row for row in rows if row.name.endswith(': camera') and values(row)['tracks'] != '0'
        ],
        'a report of the track',
    )


def test_without_a_mounting_the_node_says_so_once_and_goes_on(graph, image, capfd):
    node, sender, picture = start(graph, image)
    clouds = graph.collect(PointCloud2, 'anomaly_node/obstacle/points')
    stats = node.cameras[''].stats
    heard = node.cameras[''].publishers
    wait_for(lambda: heard.wants_metres, 'a listener')
    before = stats.processed
    send_until(sender, picture, lambda: stats.processed > before + 5, 'frames')
    rows = graph.diagnostics()
    wait_for(lambda: [row for row in rows if 'nothing is told in metres' in row.message], 'a word')
    assert clouds == [] and stats.failed == 0
    told = [line for line in capfd.readouterr().err.splitlines() if 'camera_height' in line]
    assert len(told) == 1


def test_what_fails_in_metres_costs_no_frame(graph, image, monkeypatch):
    def fail(*values):
        raise RuntimeError('no room')

    monkeypatch.setattr(geometry.Geometry, 'survey', fail)
    node, sender, picture = start(graph, image)
    clouds = graph.collect(PointCloud2, 'anomaly_node/obstacle/points')
    wait_for(lambda: node.cameras[''].publishers.wants_metres, 'a listener')
    labels = graph.collect(Image, 'anomaly_node/semantic/labels')
    send_until(sender, picture, lambda: len(labels) > 2, 'labels')
    wait_for(
        lambda: 'no room' in ' '.join(node.cameras[''].stats.recent().values()), 'a complaint'
    )
    assert clouds == [] and node.cameras[''].stats.failed == 0


def test_depth_images_are_listened_to_on_request(graph, image):
    given = {f'geometry.{name}': value for name, value in GIVEN.items()}
    node, sender, picture = start(graph, image, **given, **{'geometry.use_depth': True})
    depth = graph.publisher(Image, 'depth')
    clouds = graph.collect(PointCloud2, 'anomaly_node/obstacle/points')
    ranges = np.full((48, 64), 4.0, np.float32)

    def both():
        depth.publish(images.to_message(ranges, '32FC1', header()))
        return picture()

    send_until(
        sender,
        both,
        lambda: any(
            len(message.data)
            and np.allclose(np.frombuffer(bytes(message.data), spatial.CLOUD)['x'], 4.0, atol=1e-3)
            for message in clouds
        ),
        'a cloud at 4 m',
    )
    assert node.cameras[''].stats.failed == 0
