# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Video topics and exported models in the live node."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs the extra ros')

import tiny_models
import videos
from ros_graph import Graph, image_message, obstacle_picture, scores, send_until, wait_for
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from road_anomaly_ros import cli
from road_anomaly_ros.perception import Pipeline
from road_anomaly_ros.perception.engines.graph import Graph as ExportedGraph
from road_anomaly_ros.ros import images, playback, topics, video
from road_anomaly_ros.ros.controls import camera_qos
from road_anomaly_ros.tools.encodings import ImageRefused

SCORE = 'anomaly_node/anomaly/score'
RELIABLE = camera_qos(reliable=True, depth=30)


@pytest.fixture
def graph():
    with Graph() as found:
        yield found


def stamped(index: int, data: bytes) -> CompressedImage:
    stamp = playback.to_time(videos.START + index * videos.STEP)
    return CompressedImage(header=Header(stamp=stamp), format='h264', data=data)


def test_the_node_waits_for_a_key_frame_and_then_sees_every_packet(graph):
    data = videos.packets(count=12)
    node = graph.anomaly_node(image_transport='compressed')
    found = graph.collect(Image, SCORE, RELIABLE)
    publisher = graph.publisher(CompressedImage, 'image/compressed', RELIABLE)
    camera = node.cameras['']
    for index in range(3, 8):
        publisher.publish(stamped(index, data[index]))
    wait_for(lambda: camera.stats.refused['keyframe'] == 5, 'five packets left out')
    for count, index in enumerate((8, 9, 10), 1):
        publisher.publish(stamped(index, data[index]))
        wait_for(lambda count=count: len(found) == count, 'a score')
    sent = [videos.START + index * videos.STEP for index in (8, 9, 10)]
    assert [images.nanoseconds(message.header.stamp) for message in found] == sent
    assert (found[0].height, found[0].width) == videos.SIZE and not camera.stats.failed


@pytest.mark.parametrize('codec', ['libx264', 'libx265'])
def test_after_a_pause_of_the_node_video_waits_for_a_key_frame(graph, codec):
    """What came meanwhile is unknown, and what builds on it would be a picture of nothing."""
    data = videos.packets(codec)
    node = graph.anomaly_node(image_transport='compressed', state='inactive')
    camera = node.cameras['']
    layout = 'h264' if codec == 'libx264' else 'hevc'

    def send(*numbers):
        for index in numbers:
            message = stamped(index, data[index])
            message.format = layout
            camera.on_image(message)

    assert node.trigger_activate().name == 'SUCCESS'
    send(*range(4))
    assert node.trigger_deactivate().name == node.trigger_activate().name == 'SUCCESS'
    send(*range(4, 10))
    assert node.trigger_deactivate().name == 'SUCCESS'
    stats = camera.stats
    assert stats.refused == {'keyframe': 4} and stats.received == 10
    assert stats.received == stats.processed + stats.dropped + stats.failed + 4


def test_packets_without_a_picture_are_counted_when_the_node_stops(graph):
    """Pictures that are shown in another order than sent are held back."""
    data = videos.packets(tune='film', bf='2')
    node = graph.anomaly_node(image_transport='compressed')
    camera = node.cameras['']
    for index in range(5):
        camera.on_image(stamped(index, data[index]))
    assert node.trigger_deactivate().name == 'SUCCESS'
    stats = camera.stats
    assert stats.received == 5 == stats.processed + stats.dropped + sum(stats.refused.values())


def test_pictures_of_video_are_held_to_the_size_that_is_allowed():
    [shown] = video.Video().shown(stamped(0, videos.packets(count=1)[0]))
    assert videos.number(images.to_array(shown)) == 0
    with pytest.raises(ImageRefused, match='expected at most 100 pixels, got 96x64'):
        images.to_array(shown, 100)


def test_messages_that_are_not_installed_are_named(monkeypatch):
    monkeypatch.setattr(topics, 'message_class', lambda kind: None)
    with pytest.raises(ValueError, match='expected the package ffmpeg_image_transport_msgs'):
        video.message_class('ffmpeg')


class CompressedVideo:
    """What foxglove_msgs/CompressedVideo holds."""

    def __init__(self, index: int, data: bytes) -> None:
        self.timestamp = playback.to_time(videos.START + index * videos.STEP)
        self.frame_id, self.format, self.data = 'front', 'h264', data


def test_foxglove_video_gets_a_header_of_its_own():
    decoder = video.Video()
    shown = [decoder.shown(CompressedVideo(*pair)) for pair in enumerate(videos.packets(count=3))]
    headers = [picture.header for [picture] in shown]
    assert [header.frame_id for header in headers] == ['front'] * 3
    sent = [videos.START + index * videos.STEP for index in range(3)]
    assert [images.nanoseconds(header.stamp) for header in headers] == sent


def test_an_exported_model_runs_in_the_node(graph, tmp_path, monkeypatch):
    pytest.importorskip('onnx', reason='needs the extra export')
    folder = tmp_path / 'model'
    tiny_models.segformer(folder)
    assert cli.main(['export', '--model', str(folder)]) == 0
    chosen = {'segmenter': 'segformer', 'model': str(folder), 'scorer': 'max_logit'}
    engine = {'segmenters.segformer.engine': 'onnxruntime', 'device': 'cpu'}
    called, compute = [], ExportedGraph.__call__
    monkeypatch.setattr(
        ExportedGraph, '__call__', lambda *each: called.append(1) or compute(*each)
    )
    graph.anomaly_node(**chosen, **engine)
    found = graph.collect(Image, SCORE)
    publisher = graph.publisher(Image, 'image')
    picture = obstacle_picture()
    send_until(publisher, lambda: image_message(picture), lambda: found, 'a score')
    assert called
    torch_engine = {'segmenters.segformer.engine': 'torch', 'device': 'cpu'}
    wanted = Pipeline.from_config(**chosen, **torch_engine)(picture)
    np.testing.assert_allclose(scores(found)[0], wanted.score.numpy(), atol=1e-3)
