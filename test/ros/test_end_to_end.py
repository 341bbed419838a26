# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Real footage through replay, node and record over DDS, each header accounted for."""

from __future__ import annotations

import itertools
import threading

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs the extra ros')

from ros_graph import Graph, wait_for
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from road_anomaly_ros import cli
from road_anomaly_ros.ros import images
from road_anomaly_ros.ros.controls import camera_qos
from road_anomaly_ros.ros.playback import Settings
from road_anomaly_ros.ros.record_node import Record
from road_anomaly_ros.ros.replay_node import Replay
from road_anomaly_ros.tools.bags import BagReader
from road_anomaly_ros.tools.sources import open_source

SIZE = (320, 180)
DEADLINE_S = 240.0
RELIABLE = camera_qos(reliable=True, depth=400)
RESULTS = ('semantic/labels', 'anomaly/score', 'obstacle/mask', 'obstacle/instances')


@pytest.fixture
def clip(shared):
    return shared / 'data' / 'dashcam' / 'highway_960x540_25fps.mp4'


@pytest.fixture
def graph():
    with Graph() as found:
        yield found


def replay(graph, path, **options):
    settings = Settings(**{'reliable': True, **options.pop('settings', {})})
    return graph.add(
        Replay(str(path), settings, context=graph.context, namespace=graph.namespace, **options)
    )


def stamp(message):
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def test_every_header_of_the_highway_clip_is_accounted_for(graph, clip):
    """Faster than the node can work: a frame is processed or counted as dropped, never lost."""
    # The middleware keeps one picture by default and tells nobody which it drops.
    policy = f'qos_overrides.{graph.namespace}/image.subscription'
    node = graph.anomaly_node(**{f'{policy}.depth': 400, f'{policy}.reliability': 'reliable'})
    sent = graph.collect(Image, 'image', RELIABLE)
    scores = graph.collect(Image, 'anomaly_node/anomaly/score', RELIABLE)
    (score,) = [item for item in node.publishers if item.topic_name.endswith('/score')]
    wait_for(score.get_subscription_count, 'a reader of the score')
    stop = threading.Event()
    player = replay(graph, clip, rate=6.0, wait_for=2, stop=stop, settings={'size': SIZE})
    assert stop.wait(DEADLINE_S), 'the clip has no end'
    with open_source(clip) as source:
        expected = [max(1, frame.stamp_ns) for frame in source]
    wait_for(lambda: len(sent) == len(expected), 'every picture of the clip')
    stats = node.cameras[''].stats
    wait_for(lambda: stats.received == len(expected), 'every picture at the node')
    wait_for(lambda: stats.processed + stats.dropped == stats.received, 'the last result')
    wait_for(lambda: len(scores) == stats.processed, 'every result')
    assert player.exit_code == 0
    assert [stamp(message) for message in sent] == expected
    results = [stamp(message) for message in scores]
    assert results == sorted(set(results)), 'a result came twice or out of order'
    assert set(results) <= set(expected)
    assert stats.failed == sum(stats.refused.values()) == stats.backwards == 0
    assert {(message.width, message.height, message.header.frame_id) for message in scores} == {
        (*SIZE, 'camera_optical')
    }
    assert results[-1] == expected[-1], 'the newest frame is never the one that is dropped'


@pytest.fixture
def stills(clip, tmp_path):
    """Five pictures of the clip as PNG."""
    folder = tmp_path / 'stills'
    folder.mkdir()
    with open_source(clip) as source:
        for index, frame in enumerate(itertools.islice(source, 0, 50, 10)):
            small = cv2.resize(frame.image, SIZE, interpolation=cv2.INTER_AREA)
            cv2.imwrite(str(folder / f'{index}.png'), cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
    return folder


def messages(path):
    """Stamps and pixels of a bag's pictures by topic."""
    reader = BagReader(path)
    try:
        found = {}
        for record in reader.records():
            if record.kind != 'sensor_msgs/msg/Image':
                continue
            message = reader.decode(record)
            found.setdefault(record.topic, []).append(
                (stamp(message), message.header.frame_id, bytes(message.data))
            )
        return found
    finally:
        reader.close()


def test_what_the_node_publishes_is_what_the_offline_run_gives(graph, stills, tmp_path):
    """Replay, node, record; then the recorded pictures offline, and once more through replay."""
    node = graph.anomaly_node(segmenter='mask2former')
    topics = ['image', *(f'anomaly_node/{name}' for name in RESULTS)]
    bag = tmp_path / 'drive'
    recorder = graph.add(Record(topics, bag, context=graph.context, namespace=graph.namespace))
    player = replay(graph, stills, wait_for=2, start_paused=True)
    (pictures,) = [item for item in player.publishers if item.topic_name.endswith('/image')]
    outputs = [
        item
        for item in node.publishers
        if item.topic_name.endswith(tuple(f'anomaly_node/{name}' for name in RESULTS))
    ]
    wait_for(lambda: all(item.get_subscription_count() for item in outputs), 'the recorder')
    step = graph.client.create_client(Trigger, 'replay/play_next')
    wait_for(step.service_is_ready, 'play_next')
    wait_for(lambda: pictures.get_subscription_count() == 2, 'node and recorder')
    for number in range(1, 6):
        step.call_async(Trigger.Request())
        wait_for(
            lambda number=number: (
                min(recorder.counts[graph.client.resolve_topic_name(name)] for name in topics)
                == number
            ),
            f'frame {number}',
        )
    recorder.close()
    recorded = messages(bag)
    assert [len(found) for found in recorded.values()] == [5] * len(topics)

    out = tmp_path / 'out'
    assert (
        cli.main(
            [
                'run',
                str(bag),
                '-o',
                str(out),
                '--bag',
                '--no-video',
                '--topic',
                f'{graph.namespace}/image',
            ]
        )
        == 0
    )
    again = messages(out / 'bag')
    for name in RESULTS:
        assert (
            recorded[f'{graph.namespace}/anomaly_node/{name}'] == again[f'/anomaly_node/{name}']
        ), f'{name} differs'


def test_a_recorded_bag_plays_the_pictures_that_were_recorded(graph, stills, tmp_path):
    recorder = graph.add(
        Record(['image'], tmp_path / 'drive', context=graph.context, namespace=graph.namespace)
    )
    first = replay(graph, stills, rate=10.0, wait_for=1)
    topic = f'{graph.namespace}/image'
    wait_for(lambda: recorder.counts[topic] == 5, 'five pictures')
    first.close()
    recorder.close()
    found = graph.collect(Image, 'image', RELIABLE)
    replay(graph, tmp_path / 'drive', rate=10.0, wait_for=1)
    wait_for(lambda: len(found) == 5, 'five pictures')
    for index, message in enumerate(found):
        picture = cv2.cvtColor(cv2.imread(str(stills / f'{index}.png')), cv2.COLOR_BGR2RGB)
        assert np.array_equal(images.to_array(message), picture)
        assert stamp(message) == max(1, index * 10**8)
