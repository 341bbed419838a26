# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Cameras of a network and video topics of bags, replayed over DDS."""

from __future__ import annotations

import threading
import time

import pytest

pytest.importorskip('rclpy', reason='needs the extra ros')

import servers
import videos
from ros_graph import Graph, wait_for
from sensor_msgs.msg import CompressedImage, Image

from road_anomaly_ros.ros import images
from road_anomaly_ros.ros.controls import camera_qos
from road_anomaly_ros.ros.playback import Settings
from road_anomaly_ros.ros.replay_node import Replay, as_stored, checked
from road_anomaly_ros.tools import bags
from road_anomaly_ros.tools.video_topics import FFMPEG

RELIABLE = camera_qos(reliable=True, depth=30)


@pytest.fixture
def graph():
    with Graph() as found:
        yield found


def play(graph, path, stop=None):
    settings = Settings(reliable=True, frame_id='front')
    checked(str(path), settings)
    return graph.add(
        Replay(
            str(path),
            settings,
            wait_for=1,
            stop=stop,
            context=graph.context,
            namespace=graph.namespace,
        )
    )


def test_a_network_camera_is_replayed_with_the_time_of_arrival(graph):
    found = graph.collect(Image, 'image', RELIABLE)
    begin = time.time_ns()
    with servers.http_camera(lambda index: videos.picture(index % 20)) as (address, _):
        replay = play(graph, address)
        wait_for(lambda: len(found) >= 3, 'three pictures')
        replay.close()
    stamps = [images.nanoseconds(message.header.stamp) for message in found]
    assert begin < stamps[0] and stamps == sorted(stamps) and stamps[-1] < time.time_ns()
    numbers = [videos.number(images.to_array(message)) for message in found]
    assert all(0 <= number < 20 for number in numbers) and found[0].header.frame_id == 'front'


def test_video_whose_messages_are_not_installed_is_sent_as_pictures(graph, tmp_path):
    bag = videos.write_bag(tmp_path / 'bag', FFMPEG, videos.packets(count=5))
    assert not as_stored(str(bag), Settings())
    found, stop = graph.collect(Image, 'image', RELIABLE), threading.Event()
    play(graph, bag, stop)
    wait_for(lambda: len(found) == 5, 'five pictures')
    assert [videos.number(images.to_array(message)) for message in found] == list(range(5))
    assert stop.wait(10.0)


def test_video_in_compressed_images_is_sent_as_it_was_stored(graph, tmp_path):
    data = videos.packets(count=3)
    bag = videos.write_bag(tmp_path / 'bag', bags.COMPRESSED, data)
    assert as_stored(str(bag), Settings())
    found = graph.collect(CompressedImage, 'image/compressed', RELIABLE)
    play(graph, bag)
    wait_for(lambda: len(found) == 3, 'three messages')
    assert [bytes(message.data) for message in found] == data
