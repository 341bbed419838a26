# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The node's topics over real DDS: cameras that come, fall silent, go, and what is said of it."""

from __future__ import annotations

import pytest

pytest.importorskip('rclpy', reason='no rclpy installed')

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros_graph import Graph, image_message, obstacle_picture, scores, send_until, wait_for
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from road_anomaly_ros.ros import images

SCORE = 'anomaly_node/anomaly/score'


@pytest.fixture
def graph():
    with Graph() as graph:
        yield graph


def test_several_cameras_have_topics_of_their_own(graph):
    node = graph.anomaly_node(cameras=['left', 'right'])
    found = {
        name: graph.collect(Image, f'anomaly_node/{name}/anomaly/score') for name in node.cameras
    }
    publishers = {name: graph.publisher(Image, f'{name}/image') for name in node.cameras}
    pictures = {'left': obstacle_picture(4), 'right': obstacle_picture(44)}

    def both():
        for name, publisher in publishers.items():
            publisher.publish(image_message(pictures[name], frame_id=name))
        return image_message(pictures['left'], frame_id='left')

    send_until(publishers['left'], both, lambda: all(found.values()), 'scores of both cameras')
    for name, messages in found.items():
        assert {message.header.frame_id for message in messages} == {name}
        score = scores(messages)[-1]
        here, there = score[33, 10], score[33, 50]
        assert (here > there) == (name == 'left')


def test_a_camera_that_dies_is_reported_and_the_other_goes_on(graph):
    node = graph.anomaly_node(cameras=['left', 'right'], stale_after=0.5)
    rows = graph.diagnostics()
    right = graph.collect(Image, 'anomaly_node/right/obstacle/mask')
    left = graph.publisher(Image, 'left/image')
    publisher = graph.publisher(Image, 'right/image')
    send_until(left, image_message, lambda: node.cameras['left'].stats.processed, 'left alive')
    graph.client.destroy_publisher(left)

    def dead():
        return [
            row
            for row in rows
            if row.name.endswith('left') and row.level == DiagnosticStatus.ERROR
        ]

    send_until(publisher, image_message, dead, 'a report of the dead camera')
    assert 'nobody publishes' in dead()[-1].message
    count = len(right)
    rows.clear()
    send_until(publisher, image_message, lambda: len(right) > count + 5, 'results of the other')
    send_until(
        publisher,
        image_message,
        lambda: [
            row for row in rows if row.name.endswith('right') and row.level == DiagnosticStatus.OK
        ],
        'the other camera to be well',
    )


def test_a_camera_that_comes_back_goes_on(graph):
    node = graph.anomaly_node(stale_after=0.5)
    rows = graph.diagnostics()
    stats = node.cameras[''].stats
    publisher = graph.publisher(Image, 'image')
    send_until(publisher, image_message, lambda: stats.processed, 'the first frames')
    graph.client.destroy_publisher(publisher)
    wait_for(lambda: [row for row in rows if row.level == DiagnosticStatus.ERROR], 'a report')
    before = stats.processed
    send_until(
        graph.publisher(Image, 'image'),
        image_message,
        lambda: stats.processed > before + 2,
        'frames of the camera that came back',
    )


def test_compressed_input(graph):
    graph.anomaly_node(image_transport='compressed')
    found = graph.collect(Image, SCORE)
    publisher = graph.publisher(CompressedImage, 'image/compressed')
    message = images.to_jpeg(obstacle_picture(), image_message().header, 95)
    send_until(publisher, lambda: message, lambda: found, 'a score')
    assert (found[-1].height, found[-1].width) == (48, 64)


def test_topics_can_be_remapped(graph):
    graph.anomaly_node(remap=['image:=/front/camera/image_raw'.replace('/front', graph.namespace)])
    found = graph.collect(Image, SCORE)
    publisher = graph.publisher(Image, 'camera/image_raw')
    send_until(publisher, image_message, lambda: found, 'a score')


@pytest.mark.parametrize(
    ('publish', 'says'),
    [
        (None, 'nobody publishes'),
        ('elsewhere', 'images are published on'),
        ('compressed', 'choose image_transport'),
    ],
)
def test_a_silent_camera_is_explained(graph, publish, says):
    if publish == 'elsewhere':
        graph.publisher(Image, 'other_image', readers=0)
    graph.anomaly_node(stale_after=0.2)
    rows = graph.diagnostics()
    with Graph() as other:  # one participant cannot have two types on one topic
        if publish == 'compressed':
            other.publisher(CompressedImage, f'{graph.namespace}/image', readers=0)
        found = wait_for(
            lambda: [
                row for row in rows if row.level == DiagnosticStatus.ERROR and says in row.message
            ],
            says,
        )
        assert 'image' in found[0].message


def test_a_qos_mismatch_is_reported_with_what_to_change(graph, capfd):
    topic = f'{graph.namespace}/image'
    graph.anomaly_node(
        stale_after=0.2, **{f'qos_overrides.{topic}.subscription.reliability': 'reliable'}
    )
    rows = graph.diagnostics()
    best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    graph.publisher(Image, 'image', best_effort, readers=0)
    remedy = f'set qos_overrides.{topic}.subscription.reliability'
    wait_for(
        lambda: [
            row for row in rows if row.level == DiagnosticStatus.ERROR and remedy in row.message
        ],
        'the remedy',
        seconds=5.0,
    )
    assert remedy in capfd.readouterr().err


def test_an_output_subscriber_that_asks_for_too_much_is_told(graph):
    node = graph.anomaly_node()
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    graph.collect(Image, SCORE, latched)
    wait_for(
        lambda: [
            text
            for text in node.cameras[''].stats.recent().values()
            if 'asks for more' in text and 'durability' in text
        ],
        'a complaint',
    )


def test_calibration_of_another_size_is_pointed_out(graph):
    node = graph.anomaly_node()
    rows = graph.diagnostics()
    info = graph.publisher(CameraInfo, 'camera_info')
    publisher = graph.publisher(Image, 'image')
    message = CameraInfo(height=480, width=640)
    send_until(info, lambda: message, lambda: node.cameras[''].stats.info_size, 'camera_info')

    def warned():
        return [row for row in rows if 'camera_info is for 640x480' in row.message]

    send_until(publisher, image_message, warned, 'a warning')


def test_the_calibration_of_a_whole_sensor_fits_binned_pictures(graph):
    node = graph.anomaly_node()
    info = graph.publisher(CameraInfo, 'camera_info')
    publisher = graph.publisher(Image, 'image')
    message = CameraInfo(height=96, width=140, binning_x=2, binning_y=2)
    message.roi.width = 128
    stats = node.cameras[''].stats
    send_until(info, lambda: message, lambda: stats.info_size, 'camera_info')
    send_until(publisher, image_message, lambda: stats.processed, 'a frame')
    assert stats.info_size == stats.size == (48, 64)


def test_a_transport_that_cannot_be_read_is_named(graph):
    rows = graph.diagnostics()
    graph.publisher(CompressedImage, 'cam/image/zstd', readers=0)
    graph.anomaly_node(stale_after=0.2, remap=['image:=cam/image'])
    says = f'the camera publishes {graph.namespace}/cam/image/zstd, which this node cannot read'
    wait_for(lambda: [row for row in rows if says in row.message], says)


def test_what_is_no_image_at_all_is_not_a_matter_of_the_transport(graph):
    rows = graph.diagnostics()
    graph.anomaly_node(stale_after=0.2)
    with Graph() as other:
        other.publisher(CameraInfo, f'{graph.namespace}/image', readers=0)
        says = "expected sensor_msgs/msg/Image: remap 'image'"
        wait_for(lambda: [row for row in rows if says in row.message], says)
