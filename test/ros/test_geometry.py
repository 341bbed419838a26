# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Obstacles in metres: cloud, markers and scan of a real node, and what becomes of bad input."""

from __future__ import annotations

import math
import re
import sys
import types

import numpy as np
import pytest
import torch
import yaml

pytest.importorskip('rclpy', reason='no rclpy installed')

from conftest import ROOT
from ros_graph import header
from sensor_msgs.msg import CameraInfo

from road_anomaly_ros.perception.contract import AnomalyObject, FrameResult, LabelSet
from road_anomaly_ros.perception.geometry import CameraModel, GeometryOptions, Mounting, Surveyor
from road_anomaly_ros.ros import geometry, images, mounting, outputs, topics
from road_anomaly_ros.tools import results, spatial
from road_anomaly_ros.tools.detection_topics import DEFINITIONS

# 45 degrees are 500 pixels, the horizon of a level camera is row 240.
MODEL = CameraModel((500.0, 500.0, 320.0, 240.0), (480, 640))
GIVEN = {'camera_height': 1.5, 'camera_pitch': 0.0, 'camera_roll': 0.0}
LABELS = LabelSet(('road', 'sky'), ((128, 64, 128), (70, 130, 180)), (0,))


def result(*boxes, size=(480, 640), stamp=None):
    """A frame of road with obstacles in boxes x, y, width, height."""
    instances = np.zeros(size, np.int32)
    objects = []
    for number, (x, y, width, height) in enumerate(boxes, start=1):
        instances[y : y + height, x : x + width] = number
        objects.append(
            AnomalyObject(number, (x, y, width, height), (0.0, 0.0), 1, 0.75, 0.9, 0.9, 0)
        )
    score = torch.zeros(size)
    return FrameResult(
        image=torch.zeros((3, *size), dtype=torch.uint8),
        labels=torch.zeros(size, dtype=torch.uint8),
        score=score,
        mask=torch.from_numpy(instances > 0),
        instances=torch.from_numpy(instances),
        objects=tuple(objects),
        label_set=LABELS,
        scorer='plain',
        threshold=0.5,
        threshold_source='default',
        display_range=(0.0, 1.0),
        stamp=stamp,
    )


def survey(*boxes, **options):
    options = GeometryOptions(**{**GIVEN, **options})
    return Surveyor().survey(result(*boxes), MODEL, Mounting.from_options(options), options)


def cloud_of(message):
    """The points of a cloud by its own description of its fields."""
    kinds = {7: 'f4', 6: 'u4'}
    kind = np.dtype(
        {
            'names': [field.name for field in message.fields],
            'formats': ['<' + kinds[field.datatype] for field in message.fields],
            'offsets': [field.offset for field in message.fields],
            'itemsize': message.point_step,
        }
    )
    assert message.row_step == message.point_step * message.width == len(message.data)
    return np.frombuffer(bytes(message.data), kind)


def message_of(topic, survey, header):
    row = next(row for row in results.OUTPUTS if row.topic == topic)
    return outputs.fill(outputs.message_type(row)(), row.build(survey, header))


def test_the_cloud_holds_the_contact_line_of_each_obstacle():
    message = message_of(
        'obstacle/points', survey((300, 250, 41, 40), (100, 300, 21, 40)), header(2.0, 'roof')
    )
    assert message.header.frame_id == 'base_link' and message.header.stamp.sec == 2
    points = cloud_of(message)
    assert points['id'].tolist() == [1] * 41 + [2] * 21
    np.testing.assert_allclose(points['x'][:41], 750 / 49.5, rtol=1e-6)
    np.testing.assert_allclose(
        points['y'][[0, 40]], [20 * 750 / 49.5 / 500, -20 * 750 / 49.5 / 500], rtol=1e-6
    )
    assert (points['z'] == 0).all() and (points['intensity'] == 0.75).all()
    assert len(cloud_of(message_of('obstacle/points', survey(), header()))) == 0


def test_ten_thousand_tiny_obstacles_are_ten_thousand_points():
    boxes = [(x, y, 1, 1) for y in range(280, 480, 2) for x in range(0, 600, 6)]
    points = cloud_of(message_of('obstacle/points', survey(*boxes), header()))
    assert points['id'].tolist() == list(range(1, 10_001))
    rows = np.array([y for _, y, _, _ in boxes]) + 0.5 - 240
    np.testing.assert_allclose(points['x'], 750 / rows, rtol=1e-5)


def test_the_scan_counts_bearings_from_right_to_left():
    message = message_of('obstacle/scan', survey((300, 250, 41, 40)), header())
    assert message.header.frame_id == 'base_link' and message.angle_min < 0 < message.angle_max
    bearings = message.angle_min + message.angle_increment * np.arange(len(message.ranges))
    assert bearings[-1] == pytest.approx(message.angle_max, abs=1e-5)
    ranges = np.array(message.ranges)
    assert ranges[np.abs(bearings).argmin()] == pytest.approx(750 / 49.5, rel=0.02)
    assert ranges[np.abs(bearings - math.radians(15)).argmin()] == math.inf


@pytest.mark.skipif('visualization_msgs' in outputs.missing(), reason='no visualization_msgs')
def test_markers_are_boxes_on_the_road_and_those_before_are_gone():
    gone, box, label = message_of('obstacle/markers', survey((300, 250, 41, 40)), header()).markers
    assert gone.action == gone.DELETEALL and box.action == label.action == box.ADD
    ahead = 750 / 49.5
    assert box.pose.position.x == pytest.approx(ahead + box.scale.x / 2)
    assert box.scale.y == pytest.approx(41 * ahead / 500)
    assert box.pose.position.z == pytest.approx(box.scale.z / 2)
    assert label.text.startswith('#1 15.2 m (')
    assert len(message_of('obstacle/markers', survey(), header()).markers) == 1


def info(height=480, width=640, k=(500.0, 0.0, 320.0, 0.0, 500.0, 240.0, 0.0, 0.0, 1.0), **more):
    return CameraInfo(header=header(), height=height, width=width, k=list(k), **more)


def test_a_camera_info_becomes_a_model():
    assert geometry.to_model(info(), rectified=False) == MODEL
    assert (
        geometry.to_model(info(d=[0.0] * 5, distortion_model='plumb_bob'), rectified=False)
        == MODEL
    )
    bent = geometry.to_model(
        info(d=[0.1, 0.0, 0.0, 0.0], distortion_model='equidistant'), rectified=False
    )
    assert bent.fisheye and bent.distortion == (0.1, 0.0, 0.0, 0.0)
    flat = geometry.to_model(
        info(
            d=[0.1] * 5,
            distortion_model='plumb_bob',
            p=[400.0, 0.0, 300.0, 0.0, 0.0, 410.0, 200.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        ),
        rectified=True,
    )
    assert flat == CameraModel((400.0, 410.0, 300.0, 200.0), (480, 640))


def test_binning_and_region_of_interest_move_the_pixels():
    message = info(
        height=960,
        width=1280,
        k=(1000.0, 0.0, 640.5, 0.0, 1000.0, 500.5, 0, 0, 1),
        binning_x=2,
        binning_y=2,
    )
    message.roi.y_offset, message.roi.height, message.roi.width = 20, 800, 1280
    # (500.5 - 20 + 0.5) / 2 - 0.5
    assert geometry.to_model(message, rectified=False) == CameraModel(
        (500.0, 500.0, 320.0, 240.0), (400, 640)
    )


class Owner:
    """The geometry of a camera without a node, and what it complains of."""

    def __init__(self, transforms=None):
        self.said = []
        self.geometry = geometry.Geometry(
            '/camera_info',
            '/depth',
            transforms or mounting.Transforms(None),
            lambda kind, text: self.said.append(text),
        )

    def ask(self, *boxes, seconds=1.0, **options):
        given = GeometryOptions(**{**GIVEN, **options})
        return self.geometry.survey(result(*boxes), header(seconds), given)


@pytest.mark.parametrize(
    ('message', 'says'),
    [
        (None, 'no camera_info on /camera_info'),
        (info(k=[0.0] * 9), 'calibrate it'),
        (info(height=240, width=320), 'camera_info is for 320x240, images are 640x480'),
        (info(d=[0.1] * 5, distortion_model='magic'), "got 'magic'"),
        (info(d=[0.1] * 3, distortion_model='plumb_bob'), 'numbers of distortion'),
        (info(d=[math.nan] * 5, distortion_model='plumb_bob'), 'finite'),
    ],
)
def test_a_calibration_that_is_none_is_told_in_one_line(message, says):
    owner = Owner()
    if message is not None:
        owner.geometry.on_info(message)
    with pytest.raises(geometry.Unplaced, match=says) as caught:
        owner.ask()
    assert '\n' not in str(caught.value)


def test_a_calibration_that_changes_is_taken_over_and_told_once():
    owner = Owner()
    owner.geometry.on_info(info())
    (before,) = owner.ask((300, 250, 41, 40)).obstacles
    owner.geometry.on_info(info(k=(250.0, 0, 320.0, 0, 250.0, 240.0, 0, 0, 1)))
    (after,) = owner.ask((300, 250, 41, 40)).obstacles
    owner.ask()
    assert after.position.distance == pytest.approx(before.position.distance / 2, rel=1e-3)
    assert owner.said == ['camera_info has changed, fx from 500 to 250: the new one is used']


def test_without_a_mounting_one_line_says_what_to_set():
    owner = Owner()
    owner.geometry.on_info(info())
    with pytest.raises(geometry.Unplaced, match='camera_height'):
        owner.ask(camera_height=math.nan)
    assert owner.geometry.values(GeometryOptions())['mounting'].startswith('missing: ')
    with pytest.raises(geometry.Unplaced, match='upright'):
        owner.ask(camera_roll=180.0)
    upside = GeometryOptions(**{**GIVEN, 'camera_roll': 180.0})
    assert owner.geometry.values(upside)['mounting'].startswith('unusable: ')


def test_the_mounting_is_said_to_be_given_guessed_or_missing():
    owner = Owner()
    said = owner.geometry.values(GeometryOptions(**GIVEN))['mounting']
    assert said == 'given: height 1.50 m, pitch 0.00, roll 0.00, yaw 0.00 deg'
    guess = GeometryOptions(camera_height=1.5)
    assert owner.geometry.values(guess)['mounting'].startswith('guessed: ')
    owner.geometry.on_info(info())
    owner.geometry.note(owner.ask((300, 250, 41, 40), (300, 100, 20, 20)))
    found = owner.geometry.values(GeometryOptions(**GIVEN))
    assert (found['located'], found['without_place']) == ('1', '1')
    assert 1.0 < float(found['mean_range_error_m']) < 3.0


def test_a_pitch_that_was_estimated_is_told():
    owner, options = Owner(), GeometryOptions(**GIVEN, estimate_pitch=True)
    assert owner.geometry.values(options)['mounting'].startswith('given: ')
    told = types.SimpleNamespace(
        obstacles=(),
        unknown=0,
        mounting=Mounting(1.5, math.radians(2.0), source='pitch estimated'),
    )
    owner.geometry.note(told)
    assert owner.geometry.values(options)['mounting'].startswith(
        'pitch estimated: height 1.50 m, pitch 2.00'
    )
    plain = GeometryOptions(**GIVEN)
    assert owner.geometry.values(plain)['mounting'].startswith('given: ')


def depth_message(value=12_000, seconds=1.0, size=(480, 640), encoding='16UC1'):
    kind = np.float32 if encoding == '32FC1' else np.uint16
    return images.to_message(np.full(size, value, kind), encoding, header(seconds))


def test_depth_of_the_moment_gives_the_distance():
    owner = Owner()
    owner.geometry.on_info(info())
    for seconds, value in ((0.9, 30_000), (1.01, 12_000), (1.2, 40_000)):
        owner.geometry.on_depth(depth_message(value, seconds))
    (found,) = owner.ask((300, 250, 41, 40), use_depth=True).obstacles
    assert found.position.source == 'depth'
    assert found.position.forward == pytest.approx(12.0)
    assert owner.said == []
    owner.geometry.on_depth(depth_message(8.0, 1.0, encoding='32FC1'))
    (found,) = owner.ask((300, 250, 41, 40), use_depth=True).obstacles
    assert found.position.forward == pytest.approx(8.0)


@pytest.mark.parametrize(
    ('message', 'says'),
    [
        (None, 'no depth image yet'),
        (depth_message(seconds=1.2), r'the nearest is \+0\.2 s away'),
        (depth_message(size=(240, 320)), 'expected depth registered to the image, 640x480'),
        (images.to_message(np.zeros((480, 640), np.uint8), 'mono8', header()), "got 'mono8'"),
        (depth_message(0), 'the image holds none'),
        (depth_message(math.nan, encoding='32FC1'), 'the image holds none'),
    ],
)
def test_depth_that_does_not_fit_is_told_and_the_road_steps_in(message, says):
    owner = Owner()
    owner.geometry.on_info(info())
    if message is not None:
        owner.geometry.on_depth(message)
    (found,) = owner.ask((300, 250, 41, 40), use_depth=True).obstacles
    assert found.position.source == 'road'
    (said,) = owner.said
    assert re.search(says, said)
    counted = owner.geometry.values(GeometryOptions(**GIVEN, use_depth=True))
    assert (counted['depth_used'], counted['depth_missed']) == ('0', '1')


class FakeTf2(types.SimpleNamespace):
    """Stands in for tf2_ros, of which there is no wheel: one transform, or none."""

    def __init__(self, transform):
        class TransformException(Exception):
            pass

        class Buffer:
            def lookup_transform(self, target, source, time):
                if transform is None:
                    raise TransformException(f'"{source}" does not exist')
                assert (target, source) == ('base_link', 'camera')
                return types.SimpleNamespace(transform=transform)

        class TransformListener:
            def __init__(self, buffer, node):
                pass

            def unregister(self):
                pass

        super().__init__(
            Buffer=Buffer,
            TransformListener=TransformListener,
            TransformException=TransformException,
        )


def test_tf_gives_the_mounting_where_it_is_installed(monkeypatch):
    from geometry_msgs.msg import Quaternion, Transform, Vector3

    transform = Transform(
        translation=Vector3(x=2.0, y=0.0, z=1.5), rotation=Quaternion(x=-0.5, y=0.5, z=-0.5, w=0.5)
    )
    monkeypatch.setattr(mounting, 'tf2_ros', FakeTf2(transform))
    owner = Owner()
    owner.geometry.on_info(info())
    seen = owner.ask((300, 250, 41, 40), camera_height=math.nan)
    (found,) = seen.obstacles
    assert found.position.forward == pytest.approx(2.0 + 750 / 49.5)
    assert owner.geometry.values(GeometryOptions())['mounting'] == 'from TF, when somebody listens'
    owner.geometry.note(seen)
    said = owner.geometry.values(GeometryOptions())['mounting']
    assert said.startswith('from TF: height 1.50 m')


def test_tf_that_knows_nothing_is_told(monkeypatch):
    monkeypatch.setattr(mounting, 'tf2_ros', FakeTf2(None))
    owner = Owner()
    owner.geometry.on_info(info())
    with pytest.raises(geometry.Unplaced, match='does not exist'):
        owner.ask(camera_height=math.nan)
    assert owner.geometry.values(GeometryOptions())['mounting'].startswith('missing: TF knows no')


def read_as_obstacle_layer(layer, clouds, cells, resolution):
    """Marks of a costmap of `cells` squared around base_link: clear by rays, then mark, as Nav2.

    Returns a set of cells (x, y); `clouds` hold x, y, z arrays by topic.
    """

    def cell(x, y):
        return math.floor(x / resolution), math.floor(y / resolution)

    marks = set(cells)
    sources = [layer[name] for name in layer['observation_sources'].split()]
    for source in sources:
        if source['clearing']:
            for x, y in clouds[source['topic']][:, :2]:
                reach = min(math.hypot(x, y), source['raytrace_max_range'])
                turn = math.atan2(y, x)
                steps = np.arange(source['raytrace_min_range'], reach - resolution, resolution / 4)
                marks -= {cell(r * math.cos(turn), r * math.sin(turn)) for r in steps}
    for source in sources:
        if source['marking']:
            for x, y, z in clouds[source['topic']]:
                near = (
                    source['obstacle_min_range']
                    <= math.hypot(x, y)
                    <= (source['obstacle_max_range'])
                )
                if near and all(
                    each['min_obstacle_height'] <= z <= each['max_obstacle_height']
                    for each in (layer, source)
                ):
                    marks.add(cell(x, y))
    return marks


def scan_points(message, inf_is_valid):
    """What Nav2 makes of a scan: NaN is left out, inf the largest range where that is valid."""
    ranges = np.array(message.ranges)
    if inf_is_valid:
        ranges = np.where(np.isposinf(ranges), message.range_max - 1e-4, ranges)
    turn = message.angle_min + message.angle_increment * np.arange(len(ranges))
    used = np.isfinite(ranges) & (ranges >= message.range_min) & (ranges < message.range_max)
    points = np.stack((ranges * np.cos(turn), ranges * np.sin(turn), np.zeros(len(turn))), 1)
    return points[used]


def test_the_costmap_example_marks_obstacles_and_clears_the_free_road():
    tree = yaml.safe_load((ROOT / 'config' / 'nav2_costmap.yaml').read_text(encoding='utf-8'))
    layers = tree['local_costmap']['local_costmap']['ros__parameters']
    layer = layers['obstacle_layer']
    sources = [layer[name] for name in layer['observation_sources'].split()]
    offered = {'/anomaly_node/' + row.topic: row.form.partition('/')[2] for row in results.OUTPUTS}
    assert all(offered[source['topic']] == source['data_type'] for source in sources)
    assert layers['robot_base_frame'] == GeometryOptions().base_frame
    seen = survey((300, 250, 41, 40))  # 15.15 m ahead, 1.24 m wide
    points = cloud_of(message_of('obstacle/points', seen, header()))
    clouds = {
        '/anomaly_node/obstacle/points': np.stack([points[axis] for axis in 'xyz'], 1).astype(
            float
        ),
        '/anomaly_node/obstacle/scan': scan_points(
            message_of('obstacle/scan', seen, header()), layer['free_road']['inf_is_valid']
        ),
    }
    resolution = layers['resolution']
    stale = {(40, 0), (20, 5), (90, 0), (5, 0)}  # 8 m, 4 m, behind, below the picture
    marks = read_as_obstacle_layer(layer, clouds, stale, resolution)
    # Points that a depth image puts a little below the road are marked as well.
    clouds['/anomaly_node/obstacle/points'][:, 2] = -0.1
    assert marks == read_as_obstacle_layer(layer, clouds, stale, resolution)
    assert (75, 0) in marks and (75, 2) in marks and (75, -3) in marks
    assert not {(40, 0), (20, 5)} & marks  # known to be free now
    assert {(90, 0), (5, 0)} <= marks  # not seen, so they stay


def test_tracks_are_boxes_on_the_road():
    seen = survey((300, 240, 41, 50))
    found = spatial.tracks(seen, header())
    (box,), (one,) = found['detections'], seen.obstacles
    assert found['header']['frame_id'] == 'base_link' and box['id'] == str(one.id)
    # 1.5 m * 500 / 49.5 ahead, and as wide as 41 pixels are there.
    center, size = box['bbox']['center'], box['bbox']['size']
    assert center['position']['x'] - size['x'] / 2 == pytest.approx(750 / 49.5, rel=1e-3)
    assert size['y'] == pytest.approx(41 * 1.5 / 49.5, rel=1e-3)
    (result,) = box['results']
    errors = one.position.forward_error, one.position.left_error
    covariance = result['pose']['covariance']
    assert len(covariance) == 36
    assert covariance[0] == pytest.approx((errors[0] / 2) ** 2)
    assert covariance[7] == pytest.approx((errors[1] / 2) ** 2)


def stand_in(name):
    """A message with the fields of a definition of vision_msgs and no others, as rclpy has it."""
    lines = [line.split() for line in DEFINITIONS[f'vision_msgs/msg/{name}'].splitlines()]
    kinds = {
        field: f'sequence<{kind[:-2]}>' if kind.endswith('[]') else kind for kind, field in lines
    }

    class Message:
        __slots__ = tuple(kinds)

        def __init__(self):
            for field, kind in kinds.items():
                made = topics.message_class(kind.replace('/', '/msg/')) if '/' in kind else None
                simple = {'string': '', 'float64': 0.0}.get(kind, [])
                setattr(self, field, simple if made is None else made())

        @staticmethod
        def get_fields_and_field_types():
            return dict(kinds)

    return Message


def test_tracks_fill_messages_of_vision_msgs(monkeypatch):
    """There is no wheel of the package: its definitions stand for it."""
    package = types.ModuleType('vision_msgs.msg')
    for kind in DEFINITIONS:
        name = kind.rpartition('/')[2]
        setattr(package, name, stand_in(name))
    monkeypatch.setitem(sys.modules, 'vision_msgs', types.ModuleType('vision_msgs'))
    monkeypatch.setitem(sys.modules, 'vision_msgs.msg', package)
    seen = survey((300, 240, 41, 50), (100, 240, 21, 50))
    message = message_of('obstacle/tracks', seen, header(2.0, 'roof'))
    assert isinstance(message, package.Detection3DArray)
    assert (message.header.frame_id, message.header.stamp.sec) == ('base_link', 2)
    assert [box.id for box in message.detections] == ['1', '2']
    first, one = message.detections[0], seen.obstacles[0]
    assert isinstance(first, package.Detection3D) and first.header == message.header
    assert first.bbox.center.position.x - first.bbox.size.x / 2 == pytest.approx(750 / 49.5)
    (found,) = first.results
    assert (found.hypothesis.class_id, found.hypothesis.score) == ('obstacle', 0.75)
    assert found.pose.pose == first.bbox.center
    assert found.pose.covariance[0] == pytest.approx((one.position.forward_error / 2) ** 2)
    flat = types.SimpleNamespace(result=seen.result)
    row = next(row for row in results.OUTPUTS if row.topic == 'obstacle/detections')
    boxes = outputs.fill(outputs.message_type(row)(), row.build(flat, header()))
    assert boxes.detections[0].bbox.center.position.y == 265.0
    assert boxes.detections[1].bbox.size_x == 21.0
