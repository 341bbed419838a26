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

    def picture(**other):
        about.publish(CameraInfo(**{'height': 48, 'width': 64, 'k': SMALL, **other}))
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


def words(capfd, part):
    """The lines of the log that hold some text."""
    return [line for line in capfd.readouterr().err.splitlines() if part in line]


@pytest.mark.parametrize(
    ('info', 'parameters', 'says'),
    [
        ({'height': 24, 'width': 32}, {}, 'camera_info is for 32x24, images are 64x48'),
        ({'k': (0.0,) * 9}, {}, 'calibrate it (camera_calibration)'),
        ({'k': (math.nan,) * 9}, {}, 'K that is not finite: calibrate the camera'),
        (
            {'k': SMALL, 'd': [0.1] * 3, 'distortion_model': 'plumb_bob'},
            {},
            'calibrate the camera',
        ),
        ({}, {'geometry.camera_roll': 180.0}, 'mounted upright'),
        ({}, {'geometry.camera_pitch': -40.0}, 'output left out: obstacle/scan: no road'),
    ],
)
def test_what_tells_no_metres_costs_one_line_and_no_frame(
    graph, image, capfd, info, parameters, says
):
    given = {f'geometry.{name}': value for name, value in GIVEN.items()}
    node, sender, picture = start(graph, image, **{**given, **parameters})
    scans = graph.collect(LaserScan, 'anomaly_node/obstacle/scan')
    labels = graph.collect(Image, 'anomaly_node/semantic/labels')
    camera = node.cameras['']
    wait_for(lambda: camera.publishers.wants_metres, 'a listener')
    counts, infos = camera.stats.left_out, camera.stats.refused
    send_until(
        sender,
        lambda: picture(**info),
        lambda: len(labels) > 5 and sum(counts.values()) > 3,
        'frames without metres',
    )
    assert scans == [] and camera.stats.failed == 0
    assert len(words(capfd, says)) == 1
    assert bool(infos['camera_info']) == ('not finite' in says)
    rows = graph.diagnostics()
    row = wait_for(lambda: [row for row in rows if row.name.endswith(': camera')], 'a report')[-1]
    name = 'left_out_obstacle/scan' if 'scan' in says else 'left_out_metres'
    assert int(values(row)[name]) > 3 and row.level == row.WARN


def test_a_calibration_that_changes_while_it_runs_is_taken_over(graph, image, capfd):
    given = {f'geometry.{name}': value for name, value in GIVEN.items()}
    _, sender, picture = start(graph, image, **given)
    clouds = graph.collect(PointCloud2, 'anomaly_node/obstacle/points')

    def ahead(metres):
        return nearest(clouds) == pytest.approx(metres, rel=0.08)

    send_until(sender, picture, lambda: ahead(1.5 * 50 / 27.5), 'a place')
    twice = (100.0, 0.0, 31.5, 0.0, 100.0, 10.0, 0.0, 0.0, 1.0)
    send_until(sender, lambda: picture(k=twice), lambda: ahead(1.5 * 100 / 27.5), 'the other one')
    assert len(words(capfd, 'camera_info has changed, fx from 50 to 100')) == 1


def test_a_stamp_that_repeats_is_told_once_and_counted(graph, image, capfd):
    node, sender, picture = start(graph, image)
    stats = node.cameras[''].stats
    send_until(sender, picture, lambda: stats.processed > 4, 'frames')
    assert stats.repeated >= 4 and stats.backwards == stats.failed == 0
    assert len(words(capfd, 'a stamp repeats (1.000000000 s)')) == 1


def test_stamps_that_repeat_again_and_again_leave_room_for_other_words(graph, image, capfd):
    node, _, _ = start(graph, image)
    camera = node.cameras['']
    for number in range(200):
        camera.on_image(image_message(image, seconds=1 + number // 2 / 30))
    camera._tell_once('metres', 'nothing is told in metres: no room')
    said = capfd.readouterr().err
    assert said.count('a stamp repeats') == 1 and said.count('no room') == 1
    assert camera.stats.repeated == 100


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


@pytest.mark.parametrize(
    ('ranges', 'seconds', 'says'),
    [
        (np.full((48, 64), np.nan, np.float32), 1.0, 'the image holds none'),
        (np.zeros((48, 64), np.float32), 1.0, 'the image holds none'),
        (np.full((24, 32), 4.0, np.float32), 1.0, 'registered to the image, 64x48, got 32x24'),
        (np.full((48, 64), 4.0, np.float32), 1.2, 'the nearest is +0.2 s away'),
    ],
)
def test_depth_that_tells_nothing_leaves_it_to_the_road(
    graph, image, capfd, ranges, seconds, says
):
    given = {f'geometry.{name}': value for name, value in GIVEN.items()}
    node, sender, picture = start(graph, image, **given, **{'geometry.use_depth': True})
    depth = graph.publisher(Image, 'depth')
    clouds = graph.collect(PointCloud2, 'anomaly_node/obstacle/points')

    def both():
        depth.publish(images.to_message(ranges, '32FC1', header(seconds)))
        return picture()

    told = []
    send_until(
        sender, both, lambda: told.extend(words(capfd, says)) or (told and len(clouds) > 5), says
    )
    assert nearest(clouds) == pytest.approx(1.5 * 50 / 27.5, rel=0.08)
    assert len(told + words(capfd, says)) == 1
    rows = graph.diagnostics()
    row = wait_for(lambda: [row for row in rows if row.name.endswith(': camera')], 'a report')[-1]
    assert int(values(row)['depth_missed']) >= 3 and values(row)['depth_used'] == '0'
    assert node.cameras[''].stats.failed == 0


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
