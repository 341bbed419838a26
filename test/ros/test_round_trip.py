# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Replay, node and record together over DDS: every header accounted for, every pixel the same."""

from __future__ import annotations

import threading

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='no rclpy installed')

from rclpy.qos import QoSProfile
from ros_graph import Graph, header, wait_for
from sensor_msgs.msg import Image

from road_anomaly_ros.perception import Pipeline
from road_anomaly_ros.ros import images
from road_anomaly_ros.ros.playback import Settings
from road_anomaly_ros.ros.record_node import Record
from road_anomaly_ros.ros.replay_node import Replay

DEEP = 400  # messages kept, so that the middleware loses none
OUTPUTS = ('semantic/labels', 'anomaly/score', 'obstacle/mask')


@pytest.fixture
def graph():
    with Graph() as graph:
        yield graph


def reliable_node(graph, **parameters):
    """The node with an input that loses nothing on its way: what is left out is left out by us."""
    topic = f'qos_overrides.{graph.namespace}/image.subscription'
    outputs = {
        f'qos_overrides.{graph.namespace}/anomaly_node/{name}.publisher.depth': DEEP
        for name in OUTPUTS
    }
    return graph.anomaly_node(
        **{f'{topic}.reliability': 'reliable', f'{topic}.depth': DEEP}, **outputs, **parameters
    )


def play(graph, path, *, rate=1.0, readers=1):
    """Replay to the end; returns the images as a listener of its own receives them."""
    sent = graph.collect(Image, 'image', QoSProfile(depth=DEEP))
    stop = threading.Event()
    graph.add(
        Replay(
            str(path),
            Settings(reliable=True),
            rate=rate,
            wait_for=readers + 1,
            stop=stop,
            context=graph.context,
            namespace=graph.namespace,
        )
    )
    assert stop.wait(60.0)
    return sent


def stamp(message):
    return message.header.stamp.sec, message.header.stamp.nanosec


def test_every_frame_of_the_highway_is_processed_or_counted_as_dropped(graph, shared):
    clip = shared / 'data' / 'dashcam' / 'highway_960x540_25fps.mp4'
    node = reliable_node(graph)
    found = {
        name: graph.collect(Image, f'anomaly_node/{name}', QoSProfile(depth=DEEP))
        for name in OUTPUTS
    }
    sent = play(graph, clip, rate=2.0)
    stats = node.cameras[''].stats
    wait_for(lambda: stats.received == len(sent) > 10, 'every frame at the node')
    wait_for(lambda: stats.processed + stats.dropped == stats.received, 'the last result')
    wait_for(
        lambda: all(len(messages) == stats.processed for messages in found.values()),
        'every result',
    )
    assert stats.failed == 0 and not stats.refused and stats.backwards == 0
    stamps = [stamp(message) for message in sent]
    for name, messages in found.items():
        came = [stamp(message) for message in messages]
        assert came == sorted(set(came)) and set(came) <= set(stamps), name
        assert all((message.height, message.width) == (540, 960) for message in messages)
        assert {message.header.frame_id for message in messages} == {sent[0].header.frame_id}


def test_a_recorded_drive_gives_the_same_pixels_as_the_chain_offline(graph, tmp_path, image, rng):
    """Record, replay and process: each result equals that of the pipeline without ROS."""
    pictures = [np.roll(image, 3 * index, axis=1) for index in range(6)]
    recorder = graph.add(
        Record(['image'], tmp_path / 'drive', context=graph.context, namespace=graph.namespace)
    )
    publisher = graph.publisher(Image, 'image', QoSProfile(depth=DEEP))
    for index, picture in enumerate(pictures, 1):
        publisher.publish(images.to_message(picture, 'rgb8', header(index * 0.1, 'roof')))
    topic = f'{graph.namespace}/image'
    wait_for(lambda: recorder.counts[topic] == len(pictures), 'the recording')
    recorder.close()
    options = {'scorer': 'eam', 'refinements': ['gaussian']}
    offline = Pipeline.from_config(segmenter='synthetic', device='cpu', **options)
    expected = {
        round(index * 0.1, 6): offline(picture) for index, picture in enumerate(pictures, 1)
    }
    with Graph() as second:
        reliable_node(second, **options)
        found = {
            name: second.collect(Image, f'anomaly_node/{name}', QoSProfile(depth=DEEP))
            for name in OUTPUTS
        }
        play(second, tmp_path / 'drive', rate=0.5)
        wait_for(
            lambda: all(
                stamp(messages[-1]) == (0, 600_000_000) if messages else False
                for messages in found.values()
            ),
            'the last result',
        )
        for name, field, kind in (
            ('semantic/labels', 'labels', np.uint8),
            ('anomaly/score', 'score', np.float32),
            ('obstacle/mask', 'mask', np.uint8),
        ):
            for message in found[name]:
                result = expected[round(images.seconds(message.header.stamp), 6)]
                pixels = np.frombuffer(message.data, kind).reshape(image.shape[:2])
                wanted = getattr(result, field).numpy()
                np.testing.assert_array_equal(pixels, wanted * 255 if field == 'mask' else wanted)
                assert message.header.frame_id == 'roof'
