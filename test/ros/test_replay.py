# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Replay over DDS: what is sent is what was recorded, under the right names and stamps."""

from __future__ import annotations

import argparse
import struct
import threading
import time

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs the extra ros')

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.serialization import serialize_message
from ros_graph import Graph, header, wait_for
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import Trigger

from road_anomaly_ros.ros import images, replay
from road_anomaly_ros.ros.controls import camera_qos
from road_anomaly_ros.ros.playback import Settings, plan, restamped, topic_kinds
from road_anomaly_ros.ros.replay_node import Replay, as_stored, checked
from road_anomaly_ros.ros.topics import message_class
from road_anomaly_ros.tools import bags

import rclpy  # isort: skip

IMAGE, COMPRESSED = bags.IMAGE, bags.COMPRESSED
INFO = 'sensor_msgs/msg/CameraInfo'
DIAGNOSTICS = 'diagnostic_msgs/msg/DiagnosticArray'
RELIABLE = camera_qos(reliable=True, depth=20)


@pytest.fixture
def graph():
    with Graph() as found:
        yield found


def play(
    graph,
    path,
    *,
    stop=None,
    rate=1.0,
    clock_hz=None,
    start_paused=False,
    wait_for=1,
    wait_node='',
    remap=(),
    **settings,
):
    """Start a replay that waits for one reader of its pictures."""
    return graph.add(
        Replay(
            str(path),
            Settings(**{'reliable': True, **settings}),
            rate=rate,
            clock_hz=clock_hz,
            start_paused=start_paused,
            wait_for=wait_for,
            wait_node=wait_node,
            stop=stop,
            context=graph.context,
            namespace=graph.namespace,
            cli_args=['--ros-args', *(word for rule in remap for word in ('-r', rule))],
        )
    )


def pictures(count=4, height=24, width=32):
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (height, width, 3), np.uint8) for _ in range(count)]


@pytest.fixture
def folder(tmp_path):
    """Four pictures as PNG."""
    target = tmp_path / 'pictures'
    target.mkdir()
    for index, picture in enumerate(pictures()):
        cv2.imwrite(str(target / f'{index}.png'), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return target


def make_bag(path, storage='mcap', topic='/front/image_raw', gap_ns=10_000_000):
    """A bag with four pictures, calibration and a latched status; returns what it holds."""
    writer = bags.BagWriter(path, storage)
    writer.add_topic('/front/status', DIAGNOSTICS, latched=True)
    stored = {}

    def write(name, kind, message, stamp):
        writer.write_raw(name, kind, serialize_message(message), stamp)
        stored.setdefault(name, []).append(message)

    status = DiagnosticArray(header=header(99.0))
    write('/front/status', DIAGNOSTICS, status, 100 * 10**9)
    for index, picture in enumerate(pictures()):
        stamp = 100 * 10**9 + index * gap_ns
        head = header(stamp * 1e-9, 'front')
        write(topic, IMAGE, images.to_message(picture, 'rgb8', head), stamp)
        write(
            '/front/camera_info',
            INFO,
            CameraInfo(header=head, width=32, height=24, k=[float(index)] * 9),
            stamp,
        )
    writer.close()
    return stored


def stamps(messages):
    return [
        message.header.stamp.sec * 10**9 + message.header.stamp.nanosec for message in messages
    ]


def test_a_folder_keeps_pixels_stamps_and_order(graph, folder):
    found = graph.collect(Image, 'image', RELIABLE)
    stop = threading.Event()
    play(graph, folder, stop=stop, rate=10.0, frame_id='cam')
    wait_for(lambda: len(found) == 4, 'four pictures')
    assert stop.wait(10.0)
    for message, picture in zip(found, pictures(), strict=True):
        assert np.array_equal(images.to_array(message), picture)
        assert message.header.frame_id == 'cam'
    assert stamps(found) == [1, 10**8, 2 * 10**8, 3 * 10**8], 'zero would mean no stamp'


def test_compressed_pictures_are_made_for_who_listens(graph, folder):
    found = graph.collect(CompressedImage, 'image/compressed', RELIABLE)
    play(graph, folder, fps=100.0)
    wait_for(lambda: len(found) == 4, 'four pictures')
    assert images.to_array(found[0]).shape == (24, 32, 3)


def test_pictures_are_resized_and_restamped(graph, folder):
    found = graph.collect(Image, 'image', RELIABLE)
    before = graph.client.get_clock().now().nanoseconds
    play(graph, folder, fps=100.0, size=(16, 12), restamp=True)
    wait_for(lambda: len(found) == 4, 'four pictures')
    assert {(message.width, message.height) for message in found} == {(16, 12)}
    assert (
        before
        < stamps(found)[0]
        < stamps(found)[-1]
        <= (graph.client.get_clock().now().nanoseconds)
    )


@pytest.mark.parametrize('storage', bags.STORAGES)
def test_a_bag_is_sent_as_stored_under_the_names_of_a_camera(graph, tmp_path, storage):
    stored = make_bag(tmp_path / 'drive', storage)
    found = graph.collect(Image, 'image', RELIABLE)
    infos = graph.collect(CameraInfo, 'camera_info', RELIABLE)
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    play(graph, tmp_path / 'drive')
    wait_for(lambda: len(found) == 4, 'four pictures')
    status = graph.collect(DiagnosticArray, '/front/status', latched)
    wait_for(lambda: status, 'a latched message for a late reader')
    assert found == stored['/front/image_raw']
    assert infos
    assert all(info in stored['/front/camera_info'] for info in infos)
    assert status == stored['/front/status']


def test_a_bag_with_compressed_images_fills_the_compressed_topic(graph, tmp_path):
    writer = bags.BagWriter(tmp_path / 'drive')
    message = images.to_jpeg(pictures()[0], header(5.0), 90)
    writer.write_raw('/cam/image/compressed', COMPRESSED, serialize_message(message), 5 * 10**9)
    writer.close()
    found = graph.collect(CompressedImage, 'image/compressed', RELIABLE)
    play(graph, tmp_path / 'drive')
    wait_for(lambda: found, 'a picture')
    assert found[0] == message


def test_compressed_pictures_follow_a_remapped_image(graph, tmp_path, folder):
    found = graph.collect(CompressedImage, 'cam/image_raw/compressed', RELIABLE)
    play(graph, folder, fps=100.0, remap=['image:=cam/image_raw'])
    wait_for(lambda: len(found) == 4, 'four pictures')
    writer = bags.BagWriter(tmp_path / 'drive')
    message = images.to_jpeg(pictures()[0], header(5.0), 90)
    writer.write_raw('/cam/image/compressed', COMPRESSED, serialize_message(message), 5 * 10**9)
    writer.close()
    play(graph, tmp_path / 'drive', remap=['image:=cam/image_raw', '__node:=second'])
    wait_for(lambda: len(found) == 5, 'that of the bag')


def test_a_replay_waits_for_the_node_that_it_is_for(graph, folder):
    seen = graph.collect(Image, 'image', RELIABLE)
    node = play(graph, folder, fps=100.0, wait_node='late')
    wait_for(lambda: node._stream.publishers[0].get_subscription_count(), 'another reader')
    time.sleep(0.3)
    assert not seen, 'what another node shows began without the one waited for'
    found = []
    late = graph.add(rclpy.create_node('late', context=graph.context, namespace=graph.namespace))
    late.create_subscription(Image, 'image', found.append, RELIABLE)
    wait_for(lambda: len(found) == 4, 'four pictures')


def test_restamping_a_bag_changes_the_stamps_only(graph, tmp_path):
    stored = make_bag(tmp_path / 'drive')
    found = graph.collect(Image, 'image', RELIABLE)
    before = graph.client.get_clock().now().nanoseconds
    play(graph, tmp_path / 'drive', restamp=True)
    wait_for(lambda: len(found) == 4, 'four pictures')
    assert min(stamps(found)) > before
    for message, original in zip(found, stored['/front/image_raw'], strict=True):
        message.header.stamp = original.header.stamp
        assert message == original


def test_a_loop_repeats_until_it_is_closed(graph, tmp_path):
    make_bag(tmp_path / 'drive')
    found = graph.collect(Image, 'image', RELIABLE)
    play(graph, tmp_path / 'drive', loop=True)
    wait_for(lambda: len(found) >= 9, 'nine pictures of a bag of four')
    assert stamps(found)[:4] == stamps(found)[4:8]


def test_the_clock_shows_the_recorded_time(graph, tmp_path):
    make_bag(tmp_path / 'drive')
    found = graph.collect(Clock, '/clock', 10)
    graph.collect(Image, 'image', RELIABLE)
    play(graph, tmp_path / 'drive', clock_hz=200.0, start_paused=True)
    client = graph.client.create_client(Trigger, 'replay/play_next')
    wait_for(client.service_is_ready, 'the service')
    client.call_async(Trigger.Request())
    wait_for(lambda: found, 'a tick')
    seen = {message.clock.sec * 10**9 + message.clock.nanosec for message in list(found)}
    assert seen == {100 * 10**9}, 'paused: the clock stands at the first picture'


def test_the_clock_of_a_bag_stays_the_only_one(graph, tmp_path):
    make_bag(tmp_path / 'drive')
    writer = bags.BagWriter(tmp_path / 'simulated')
    for number in range(3):
        tick = serialize_message(Clock(clock=Time(sec=5 + number)))
        writer.write_raw('/clock', 'rosgraph_msgs/msg/Clock', tick, 10**9 + number * 10**7)
    writer.close()
    found = graph.collect(Clock, '/clock', 10)
    node = play(graph, tmp_path / 'simulated', clock_hz=200.0, wait_for=0, start_paused=True)
    clock = node._stream._outlets['/clock'].publisher
    wait_for(clock.get_subscription_count, 'a reader of the clock')
    node._player.resume()
    wait_for(lambda: len(found) >= 3, 'its ticks')
    node.close()
    assert [message.clock.sec for message in found] == [5, 6, 7]


def test_pause_and_resume_by_service(graph, tmp_path):
    make_bag(tmp_path / 'drive', gap_ns=2 * 10**9)
    found = graph.collect(Image, 'image', RELIABLE)
    play(graph, tmp_path / 'drive', rate=4.0, start_paused=True)
    answers = []
    for name in ('pause', 'play_next', 'play_next', 'resume', 'resume'):
        client = graph.client.create_client(Trigger, f'replay/{name}')
        wait_for(client.service_is_ready, name)
        future = client.call_async(Trigger.Request())
        wait_for(future.done, f'an answer of {name}')
        answers.append((future.result().success, future.result().message))
    assert answers == [
        (False, 'was paused already'),
        (True, 'picture 1'),
        (True, 'picture 2'),
        (True, 'goes on'),
        (False, 'was not paused'),
    ]
    wait_for(lambda: len(found) == 4, 'the rest')


def test_a_bag_that_breaks_off_is_played_up_to_the_break(graph, tmp_path):
    make_bag(tmp_path / 'drive', 'sqlite3')
    (file,) = (tmp_path / 'drive').glob('*.db3')
    cut = tmp_path / 'cut.db3'
    cut.write_bytes(file.read_bytes()[:-4096])
    found = graph.collect(Image, 'image', RELIABLE)
    stop = threading.Event()
    node = play(graph, cut, stop=stop)
    assert stop.wait(20.0)
    assert node.exit_code == 1 and 'cut.db3 is damaged' in node._stream.remarks[-1]
    wait_for(lambda: found, 'what could be read')
    assert len(found) <= 4


@pytest.mark.parametrize('decoded', [False, True])
def test_a_bag_that_lacks_messages_is_told_by_the_exit_code(graph, tmp_path, decoded):
    make_bag(tmp_path / 'drive')
    file = tmp_path / 'drive' / 'metadata.yaml'
    file.write_text(file.read_text().replace('message_count: 4', 'message_count: 6'))
    found = graph.collect(Image, 'image', RELIABLE)
    stop = threading.Event()
    node = play(graph, tmp_path / 'drive', stop=stop, decoded=decoded)
    assert stop.wait(20.0)
    assert node.exit_code == 1
    assert any('messages can be read' in remark for remark in node._stream.remarks)
    wait_for(lambda: len(found) == 4, 'what could be read')


def test_what_the_node_has_published_once_does_not_mix_with_what_it_publishes(graph, tmp_path):
    """Nor does it count as another camera, beside which none would be sent as image."""
    stored = make_bag(tmp_path / 'drive')
    writer = bags.BagWriter(tmp_path / 'all')
    for topic, kind, messages in (
        ('/front/image_raw', IMAGE, stored['/front/image_raw']),
        ('/robot/anomaly_node/overlay', IMAGE, stored['/front/image_raw']),
        ('/robot/anomaly_node/anomaly/score', IMAGE, stored['/front/image_raw']),
        ('/diagnostics', DIAGNOSTICS, stored['/front/status']),
    ):
        for number, message in enumerate(messages):
            writer.write_raw(topic, kind, serialize_message(message), 10**9 + number)
    writer.close()
    found = graph.collect(Image, 'image', RELIABLE)
    words = arguments('bag', '--wait-for-node', '/robot/anomaly_node')
    node = play(graph, tmp_path / 'all', live=replay.to_settings(words).live)
    wait_for(lambda: len(found) == 4, 'four pictures')
    assert list(node._stream._outlets) == ['/front/image_raw']
    assert node._stream.remarks == [
        'left out, /robot/anomaly_node publishes the like itself: /diagnostics, '
        '/robot/anomaly_node/anomaly/score, /robot/anomaly_node/overlay'
    ]
    overlay = '/robot/anomaly_node/overlay'
    named = Settings(live='anomaly_node', renamed={overlay: '/before'})
    reader = bags.BagReader(tmp_path / 'all')
    assert list(topic_kinds(reader, named)) == ['/front/image_raw', overlay]
    assert len(topic_kinds(reader, Settings())) == 4, 'without a node all is sent'
    reader.close()


KINDS = {
    '/front/image_raw': IMAGE,
    '/front/image_raw/compressed': COMPRESSED,
    '/front/camera_info': INFO,
    '/rear/image_raw': IMAGE,
    '/rear/camera_info': INFO,
    '/tf': 'tf2_msgs/msg/TFMessage',
}
OWN = {name: name for name in KINDS}
FRONT = {name: kind for name, kind in KINDS.items() if not name.startswith('/rear')}


@pytest.mark.parametrize(
    ('kinds', 'settings', 'expected'),
    [
        (
            FRONT,
            {},
            {
                '/front/image_raw': 'image',
                '/front/image_raw/compressed': 'image/compressed',
                '/front/camera_info': 'camera_info',
                '/tf': '/tf',
            },
        ),
        (KINDS, {}, OWN),
        (
            KINDS,
            {'topic': '/rear/image_raw'},
            {**OWN, '/rear/image_raw': 'image', '/rear/camera_info': 'camera_info'},
        ),
        (
            KINDS,
            {'topic': '/front/image_raw/compressed', 'only_camera': True},
            {
                '/front/image_raw/compressed': 'image/compressed',
                '/front/camera_info': 'camera_info',
            },
        ),
        (
            KINDS,
            {'topic': '/rear/image_raw', 'only_camera': True, 'renamed': {'/tf': '/old_tf'}},
            {'/rear/image_raw': 'image', '/rear/camera_info': 'camera_info', '/tf': '/old_tf'},
        ),
        ({'/a': IMAGE, '/b': INFO}, {}, {'/a': 'image', '/b': 'camera_info'}),
    ],
)
def test_names(kinds, settings, expected):
    assert plan(kinds, Settings(**settings)) == expected


@pytest.mark.parametrize(
    ('settings', 'text'),
    [
        ({'topic': '/nope'}, "no topic '/nope'; choose one of"),
        ({'topic': '/tf'}, '/tf: expected a topic with images'),
        ({'renamed': {'/nope': '/a'}}, "no topic '/nope'"),
        ({'only_camera': True}, 'several cameras'),
    ],
)
def test_names_that_the_bag_does_not_hold_are_refused(settings, text):
    with pytest.raises(ValueError, match=text):
        plan(KINDS, Settings(**settings))


@pytest.mark.parametrize(('order', 'flag'), [('<', 1), ('>', 0)])
def test_a_stamp_is_put_into_both_byte_orders(order, flag):
    data = bytes([0, flag, 0, 0]) + struct.pack(f'{order}iI', 1, 2) + b'rest'
    new = restamped(data, 7 * 10**9 + 8)
    assert new == data[:4] + struct.pack(f'{order}iI', 7, 8) + b'rest'


def test_message_classes():
    assert message_class(IMAGE) is Image
    assert message_class('nowhere_msgs/msg/Thing') is None
    assert message_class('sensor_msgs/msg/Nothing') is None


def arguments(*words):
    parser = argparse.ArgumentParser(exit_on_error=False)
    replay.add_arguments(parser)
    return parser.parse_args(words)


def test_words_become_settings():
    found = arguments(
        'a.mp4',
        '--fps',
        '5',
        '--loop',
        '--map',
        '/a:=/b',
        '--clock',
        '--ros-args',
        '-r',
        'image:=/x',
    )
    assert replay.to_settings(found) == Settings(fps=5.0, loop=True, renamed={'/a': '/b'})
    assert found.clock == replay.CLOCK_HZ
    assert found.ros_args == ['-r', 'image:=/x']


@pytest.mark.parametrize(
    'words',
    [
        ('--rate', '0'),
        ('--rate', 'nan'),
        ('--fps', 'inf'),
        ('--map', '/a'),
        ('--rate', '2', '--fps', '3'),
        ('--clock', '--restamp'),
    ],
)
def test_wrong_words_are_refused(words):
    with pytest.raises((argparse.ArgumentError, SystemExit)):
        arguments('a.mp4', *words)


def test_what_cannot_be_replayed_is_refused_in_one_line(tmp_path, folder):
    with pytest.raises(ValueError, match='found nothing at'):
        checked(str(tmp_path / 'nope.mp4'), Settings())
    with pytest.raises(ValueError, match='are for rosbag2'):
        checked(str(folder), Settings(only_camera=True))
    make_bag(tmp_path / 'drive')
    with pytest.raises(ValueError, match='no topic'):
        checked(str(tmp_path / 'drive'), Settings(topic='/nope'))
    checked(str(tmp_path / 'drive'), Settings())


@pytest.mark.parametrize(
    ('words', 'topics'),
    [
        (('--topic', '/front/image_raw'), {'image', 'camera_info', '/front/status'}),
        (('--map', '/front/status:=/status'), {'image', 'camera_info', '/status'}),
        (('--only-camera',), {'image', 'camera_info'}),
        (
            ('--topic', '/front/image_raw', '--only-camera', '--map', '/front/status:=/status'),
            {'image', 'camera_info', '/status'},
        ),
    ],
)
def test_topics_of_a_bag_are_chosen_by_words(graph, tmp_path, words, topics):
    make_bag(tmp_path / 'drive')
    settings = replay.to_settings(arguments('drive', *words))
    checked(str(tmp_path / 'drive'), settings)
    node = play(graph, tmp_path / 'drive', **vars(settings))
    names = {name if name.startswith('/') else f'{graph.namespace}/{name}' for name in topics}
    own = {'/rosout', '/parameter_events'}
    assert {publisher.topic_name for publisher in node.publishers} - own == names


def test_resizing_a_bag_means_pictures(tmp_path):
    make_bag(tmp_path / 'drive')
    assert as_stored(str(tmp_path / 'drive'), Settings())
    assert not as_stored(str(tmp_path / 'drive'), Settings(size=(8, 8)))


def test_node_main_says_in_one_line_what_is_wrong(capsys):
    with pytest.raises(SystemExit) as end:
        replay.node_main(['nowhere.mp4'])
    assert end.value.code == 2
    assert capsys.readouterr().err.count('\n') == 1
