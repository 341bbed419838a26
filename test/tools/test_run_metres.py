# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The command `run` in metres: bags with a calibration, and where their cameras are mounted."""

import json
import re

import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from runs import SIZE, START, rows, run, write_bag, write_video

from road_anomaly_ros.remarks import Remark
from road_anomaly_ros.tools import spatial
from road_anomaly_ros.tools.bags import BagReader, BagWriter, message_of

BOXES = 'vision_msgs/msg/Detection2DArray'


def bag_with_calibration(folder, size=SIZE, focal=50.0, cameras=('',)):
    """Pictures of cameras that see the horizon in row 18."""
    write_bag(folder / 'pictures')
    reader = BagReader(folder / 'pictures')
    writer, kind = BagWriter(folder / 'bag'), 'sensor_msgs/msg/CameraInfo'
    matrix = np.array([focal, 0, 31.5, 0, focal, 18, 0, 0, 1])
    for record in reader.records():
        info = message_of(kind, {'height': size[0], 'width': size[1], 'k': matrix})
        for name in cameras:
            writer.write(f'{name}/camera_info', kind, info, record.stamp_ns)
            topic, picture = f'{name}{record.topic}', reader.decode(record)
            writer.write(topic, record.kind, picture, record.stamp_ns)
    writer.close()
    reader.close()
    return folder / 'bag'


def test_a_bag_with_calibration_and_a_height_tells_metres(tmp_path):
    source = bag_with_calibration(tmp_path)
    options = ('--set', 'geometry.camera_height=1.5', '--bag', 'mcap')
    assert run(source, tmp_path / 'out', *options) == 0
    reader = BagReader(tmp_path / 'out' / 'bag')
    names = [f'/anomaly_node/obstacle/{name}' for name in ('points', 'markers', 'scan')]
    found = {name: [] for name in names}
    for record in reader.records(names):
        found[record.topic].append(reader.decode(record))
    reader.close()
    assert [len(messages) for messages in found.values()] == [6, 6, 6]
    # The box ends with row 39, 21.5 rows below the horizon: 1.5 m * 50 / 21.5 = 3.49 m.
    for cloud in found[names[0]]:
        points = np.asarray(cloud.data).view(spatial.CLOUD)
        near = points[points['x'] < 10]
        assert len(points) == cloud.width and len(set(near['id'])) == 1
        assert 16 <= len(near) <= 22 and np.median(near['x']) == pytest.approx(3.49, rel=0.05)
        assert cloud.header.frame_id == 'base_link' and cloud.header.stamp.sec == START // 10**9
    for boxes in found[names[1]]:
        assert any(re.match(r'#\d 3\.[45] m ', marker.text) for marker in boxes.markers)
    assert all(3.3 < np.nanmin(message.ranges) < 3.6 for message in found[names[2]])


def test_a_height_without_calibration_is_told_once(tmp_path):
    with pytest.warns(Remark, match='no camera_info beside the pictures'):
        source = write_bag(tmp_path / 'in')
        assert run(source, tmp_path / 'out', '--set', 'geometry.camera_height=1.5') == 0


@pytest.mark.parametrize(
    ('wrong', 'word'),
    [
        ({'size': (480, 640)}, 'expected a calibration for 64x48, got one for 640x480'),
        ({'focal': 0.0}, 'camera_info cannot be used: expected a calibrated camera'),
    ],
)
def test_a_calibration_that_does_not_fit_ends_the_run_in_one_line(tmp_path, capsys, wrong, word):
    source = bag_with_calibration(tmp_path, **wrong)
    assert run(source, tmp_path / 'out', '--set', 'geometry.camera_height=1.5') != 0
    assert word in capsys.readouterr().err.splitlines()[-1]


def distance(out):
    """How far the box is in the median, which is the largest obstacle of each frame."""
    lines = [json.loads(line) for line in (out / 'objects.jsonl').read_text().splitlines()]
    largest = (max(line['objects'], key=lambda item: item['area']) for line in lines)
    return np.median([item['distance'] for item in largest])


def mountings(**heights):
    words = ((f'geometry.{name}camera_height', height) for name, height in heights.items())
    return [word for name, height in words for word in ('--set', f'{name}={height}')]


@pytest.mark.parametrize(
    ('topic', 'height'),
    [('/front/camera', 1.0), ('/roof/rear/camera', 1.5), ('/roof/left/camera', 2.0)],
)
def test_each_camera_of_a_bag_has_the_mounting_of_its_name(tmp_path, topic, height):
    """That of all where it has none, that of the last of several names above its topic."""
    source = bag_with_calibration(tmp_path, cameras=('/front', '/roof/rear', '/roof/left'))
    options = mountings(**{'': 1.0, 'roof.': 2.0, 'rear.': 1.5})
    assert run(source, tmp_path / 'out', '--topic', topic, *options) == 0
    assert distance(tmp_path / 'out') == pytest.approx(height * 50 / 21.5, rel=0.05)


def test_a_mounting_of_no_camera_is_told(tmp_path, recwarn):
    source = bag_with_calibration(tmp_path, cameras=('/front', '/rear'))
    options = mountings(**{'front.': 1.5, 'rear.': 1.0, 'camera.': 2.0})
    assert run(source, tmp_path / 'out', '--topic', '/front/camera', *options) == 0
    video = write_video(tmp_path / 'in.avi', 2)
    assert run(video, tmp_path / 'other', *mountings(**{'rear.': 1.0})) == 0
    told = (str(item.message) for item in recwarn if item.category is Remark)
    assert [text for text in told if 'geometry.' in text] == [
        f'{source}: no topic of pictures below camera/, there are /front/camera, /rear/camera: '
        'geometry.camera.* has no effect',
        f'{video}: no topic of pictures below rear/: geometry.rear.* has no effect',
    ]


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_a_bag_brings_the_ids_of_tracks_for_who_never_heard_of_us(tmp_path, storage):
    source, out = bag_with_calibration(tmp_path), tmp_path / 'out'
    options = ('--set', 'geometry.camera_height=1.5', '--set', 'tracker=kalman')
    assert run(source, out, *options, '--bag', storage) == 0
    boxes, volumes = {}, {}
    with AnyReader([out / 'bag']) as reader:  # with the definitions that lie in the bag
        for connection, stamp, data in reader.messages():
            kinds = {BOXES: boxes, BOXES.replace('2D', '3D'): volumes}
            if connection.msgtype in kinds:
                message = reader.deserialize(data, connection.msgtype)
                kinds[connection.msgtype][f'{stamp // 10**9}.{stamp % 10**9:09d}'] = message
    assert len(boxes) == len(volumes) == 6
    expected, confirmed = {stamp: {} for stamp in boxes}, {stamp: set() for stamp in boxes}
    for row in rows(out / 'tracks.csv'):
        place = tuple(int(row[name]) for name in 'xywh')
        expected[row['stamp']][row['track_id']] = place
        if row['confirmed'] == '1':
            confirmed[row['stamp']].add(row['track_id'])
    assert any(confirmed.values())
    for stamp, message in boxes.items():
        found = {}
        for item in message.detections:
            centre, size = item.bbox.center.position, (item.bbox.size_x, item.bbox.size_y)
            found[item.id] = (centre.x - size[0] / 2, centre.y - size[1] / 2, *size)
            assert item.results[0].hypothesis.class_id == 'obstacle'
        assert found == expected[stamp]
    for stamp, message in volumes.items():
        assert {item.id for item in message.detections} == confirmed[stamp]
        assert all(item.bbox.center.position.x > 0 for item in message.detections)
