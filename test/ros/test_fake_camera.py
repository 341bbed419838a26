# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The rendered drive as a camera: pictures, calibration, ground truth and controls over DDS."""

from __future__ import annotations

import threading
import types

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs the extra ros')

from builtin_interfaces.msg import Time
from rclpy.parameter import Parameter
from ros_graph import Graph, wait_for
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import Trigger

from road_anomaly_ros.perception.geometry import Mounting
from road_anomaly_ros.perception.registry import options_of
from road_anomaly_ros.rendering import Drive, DriveOptions
from road_anomaly_ros.ros import images, mounting, outputs
from road_anomaly_ros.ros.controls import camera_qos
from road_anomaly_ros.ros.fake_camera import TRUTH, FakeCamera, FakeCameraOptions
from road_anomaly_ros.tools import true_obstacles

SMALL = {'width': 64, 'height': 48, 'fps': 20.0, 'frames': 3, 'seed': 4, 'start_paused': True}


@pytest.fixture
def graph():
    with Graph() as found:
        yield found


def camera(graph, stop=None, remap=(), **values):
    values = {**SMALL, 'reliable': True, **values}
    return graph.add(
        FakeCamera(
            stop,
            context=graph.context,
            namespace=graph.namespace,
            cli_args=['--ros-args', *(word for rule in remap for word in ('-r', rule))],
            parameter_overrides=[Parameter(name, value=value) for name, value in values.items()],
        )
    )


def call(graph, service):
    """Call a Trigger service of the camera."""
    client = graph.client.create_client(Trigger, f'fake_camera/{service}')
    wait_for(client.service_is_ready, service)
    future = client.call_async(Trigger.Request())
    wait_for(future.done, f'the answer of {service}')
    return future.result()


def matched(node, *topics):
    """Wait until the camera knows of a reader on each topic."""
    for topic in topics:
        (publisher,) = [item for item in node.publishers if item.topic_name.endswith(topic)]
        wait_for(publisher.get_subscription_count, f'a reader of {topic}')


def stamp(message):
    return message.header.stamp.sec, message.header.stamp.nanosec


def test_frames_are_those_of_the_drive_with_calibration_and_truth(graph):
    node = camera(graph, truth=True, frame_id='front')
    pictures = graph.collect(Image, 'image', camera_qos(reliable=True))
    infos = graph.collect(CameraInfo, 'camera_info', camera_qos(reliable=True))
    jpegs = graph.collect(CompressedImage, 'image/compressed', camera_qos(reliable=True))
    truths = {name: graph.collect(Image, f'fake_camera/truth/{name}', 5) for name in TRUTH}
    matched(node, '/image', '/compressed', '/camera_info', *(f'truth/{name}' for name in TRUTH))
    for number in (1, 2):
        assert call(graph, 'play_next').message == f'picture {number}'
    wait_for(
        lambda: all(len(found) == 2 for found in (pictures, infos, jpegs, *truths.values())),
        'two messages on every topic',
    )
    drive = Drive(DriveOptions(width=64, height=48, fps=20.0, frames=3, seed=4))
    for index in range(2):
        view = drive[index]
        header = pictures[index].header
        assert header.frame_id == 'front'
        assert np.array_equal(images.to_array(pictures[index]), view.image)
        assert infos[index].k.tolist() == view.camera_matrix.ravel().tolist()
        assert (infos[index].width, infos[index].height) == (64, 48)
        assert images.to_array(jpegs[index]).shape == (48, 64, 3)
        for name, dtype in (('labels', 'u1'), ('instances', '<u2'), ('depth', '<f4')):
            message = truths[name][index]
            assert message.header == infos[index].header == jpegs[index].header == header
            assert message.encoding == TRUTH[name]
            values = np.frombuffer(message.data, dtype).reshape(48, 64)
            assert np.array_equal(values, getattr(view, name), equal_nan=True)
    assert stamp(pictures[0]) < stamp(pictures[1])


@pytest.mark.parametrize(
    ('rules', 'topic'),
    [
        ((), 'image/compressed'),
        (('image:=cam/image_raw',), 'cam/image_raw/compressed'),
        (('image:=cam/image_raw', 'image/compressed:=jpeg'), 'jpeg'),
    ],
)
def test_compressed_pictures_follow_a_remapped_image(graph, rules, topic):
    node = camera(graph, remap=rules)
    names = {publisher.topic_name for publisher in node.publishers}
    assert [name for name in names if 'compressed' in name or 'jpeg' in name] == [
        f'{graph.namespace}/{topic}'
    ]


def test_a_drive_that_is_stepped_keeps_its_own_time(graph):
    node = camera(graph, drive_time=True)
    pictures = graph.collect(Image, 'image', camera_qos(reliable=True))
    matched(node, '/image')
    for count in (1, 2):
        assert call(graph, 'play_next').success
        wait_for(lambda count=count: len(pictures) == count, 'a picture')
    period = round(1e9 / node.get_parameter('fps').value)
    first, second = (images.nanoseconds(picture.header.stamp) for picture in pictures)
    assert second - first == pytest.approx(period, abs=1)


def test_true_obstacles_stand_where_the_camera_sees_them():
    visualization = pytest.importorskip('visualization_msgs.msg')
    drive = Drive(DriveOptions(width=320, height=240, frames=40, seed=1))
    view, lens = drive[39], drive.camera(39)
    fields = true_obstacles.markers(view, lens, Time(sec=3))
    gone, *boxes = outputs.fill(visualization.MarkerArray(), fields).markers
    assert gone.action == gone.DELETEALL and gone.header.frame_id == 'base_link'
    large = [box for box in boxes if (view.instances == box.id).sum() > 200]
    assert large
    for box in large:
        rows, columns = np.nonzero(view.instances == box.id)
        near, place = box.pose.position.x - box.scale.x / 2, box.pose.position
        # Road level below the near side, as the pinhole of the camera sees it.
        below, sine, cosine = lens.elevation, np.sin(lens.pitch), np.cos(lens.pitch)
        depth = near * cosine + below * sine
        row = lens.center[1] + lens.focal * (below * cosine - near * sine) / depth
        column = lens.center[0] - lens.focal * place.y / depth
        assert row == pytest.approx(rows.max(), abs=6)
        assert columns.min() - 3 <= column <= columns.max() + 3


def test_without_truth_there_are_no_truth_topics(graph):
    node = camera(graph)
    names = {publisher.topic_name for publisher in node.publishers}
    assert not [name for name in names if 'truth' in name]


def test_the_drive_loops_or_ends(graph):
    stop = threading.Event()
    node = camera(graph, stop, loop=False)
    pictures = graph.collect(Image, 'image', camera_qos(reliable=True))
    matched(node, '/image')
    assert call(graph, 'resume').success
    assert stop.wait(20.0)
    wait_for(lambda: len(pictures) == 3, 'three pictures')


def test_a_looping_drive_comes_back_to_its_first_picture(graph):
    node = camera(graph, start_paused=False, wait_for_subscribers=1)
    pictures = graph.collect(Image, 'image', camera_qos(reliable=True, depth=20))
    wait_for(lambda: len(pictures) >= 7, 'seven pictures of a drive of three')
    views = [images.to_array(message) for message in pictures[:7]]
    assert np.array_equal(views[0], views[3])
    assert np.array_equal(views[0], views[6])
    assert not np.array_equal(views[0], views[1])
    assert node.controls is not None


def test_every_option_is_a_described_bounded_parameter(graph):
    node = camera(graph)
    for item in options_of(FakeCameraOptions):
        described = node.describe_parameter(item.name)
        assert len(described.description) > 10, item.name
        assert described.read_only
        if item.low is not None:
            ranges = (*described.integer_range, *described.floating_point_range)
            assert [entry.from_value for entry in ranges] == [item.low]


@pytest.mark.parametrize(
    ('name', 'value', 'text'),
    [
        ('fps', -1.0, 'fps: expected a value in'),
        ('width', 3, 'width: expected a value in'),
        ('loop', 'maybe', 'loop: expected bool'),
    ],
)
def test_a_wrong_value_is_refused_by_name(graph, name, value, text):
    with pytest.raises((ValueError, TypeError), match=text):
        camera(graph, **{name: value})


def test_an_integer_is_good_enough_for_a_rate(graph):
    assert camera(graph, fps=20).get_parameter('fps').value == 20.0


def test_the_mounting_is_said_and_sent_where_tf_is_installed(graph, monkeypatch, capfd):
    sent = []

    class Broadcaster:
        def __init__(self, node):
            self.sendTransform = sent.append  # the name that tf2_ros gives it

    monkeypatch.setattr(
        mounting, 'tf2_ros', types.SimpleNamespace(StaticTransformBroadcaster=Broadcaster)
    )
    camera(graph, frame_id='front')
    (message,) = sent
    assert (message.header.frame_id, message.child_frame_id) == ('base_link', 'front')
    style = Drive(DriveOptions(width=64, height=48, frames=3, seed=4)).style
    place, turn = message.transform.translation, message.transform.rotation
    found = Mounting.from_transform((place.x, place.y, place.z), (turn.x, turn.y, turn.z, turn.w))
    assert found.height == pytest.approx(style.camera_height)
    assert found.pitch == pytest.approx(style.pitch)
    assert f'camera_height:={style.camera_height:.2f}' in capfd.readouterr().err
