# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Recording over DDS: bytes as they came, complete under the final name, limits, unknown types."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import subprocess
import sys
import threading
import types

import pytest

pytest.importorskip('rclpy', reason='needs the extra ros')

from builtin_interfaces.msg import Time
from conftest import ROOT
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from ros_graph import Graph, image_message, send_until, wait_for
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image

from road_anomaly_ros.ros import inputs, record_node
from road_anomaly_ros.ros.controls import camera_qos
from road_anomaly_ros.ros.record_node import Partial, Record, check_target, matching_qos, types_for
from road_anomaly_ros.tools.bags import STORAGES, BagReader


@pytest.fixture
def graph():
    with Graph() as found:
        yield found


def record(graph, out, *topics, **options):
    return graph.add(
        Record(topics, out, context=graph.context, namespace=graph.namespace, **options)
    )


def stored(path):
    """Topics, types and messages of a bag; serialised, padding may hold anything."""
    reader = BagReader(path)
    try:
        return [
            (record.topic, record.kind, deserialize_message(bytes(record.data), Image))
            for record in reader.records()
        ]
    finally:
        reader.close()


@pytest.mark.parametrize('storage', STORAGES)
def test_messages_are_stored_as_they_came(graph, tmp_path, storage):
    out = tmp_path / 'drive'
    node = record(graph, out, 'image', storage=storage)
    sent = [image_message(seconds=index) for index in range(1, 6)]
    publisher = graph.publisher(Image, 'image', camera_qos(reliable=True, depth=10))
    for message in sent:
        publisher.publish(message)
    topic = f'{graph.namespace}/image'
    wait_for(lambda: node.counts[topic] == 5, 'five messages')
    assert not out.exists(), 'the bag must not stand under its name before it is complete'
    node.close()
    assert stored(out) == [(topic, 'sensor_msgs/msg/Image', message) for message in sent]
    assert sorted(path.name for path in tmp_path.iterdir()) == ['drive']
    assert node.exit_code == 0


def test_a_topic_may_appear_later_and_latched_stays_latched(graph, tmp_path):
    node = record(graph, tmp_path / 'drive', 'camera_info')
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    publisher = graph.publisher(CameraInfo, 'camera_info', latched, readers=0)
    publisher.publish(CameraInfo(width=3))
    wait_for(lambda: node.counts, 'a message')
    node.close()
    reader = BagReader(tmp_path / 'drive')
    assert reader.latched() == {f'{graph.namespace}/camera_info'}
    reader.close()


def test_it_stops_at_a_number_of_messages(graph, tmp_path):
    stop = threading.Event()
    node = record(graph, tmp_path / 'drive', 'image', messages=3, stop=stop)
    publisher = graph.publisher(Image, 'image', camera_qos(reliable=True))
    send_until(publisher, image_message, stop.is_set, 'the limit', period=0.005)
    node.close()
    assert len(stored(tmp_path / 'drive')) == 3


def test_it_stops_after_a_time(graph, tmp_path):
    stop = threading.Event()
    record(graph, tmp_path / 'drive', 'image', duration=0.2, stop=stop)
    publisher = graph.publisher(Image, 'image', camera_qos(reliable=True))
    publisher.publish(image_message())
    assert stop.wait(10.0)


def test_nothing_recorded_leaves_nothing(graph, tmp_path):
    node = record(graph, tmp_path / 'drive', 'image', 'nothing')
    node.close()
    assert list(tmp_path.iterdir()) == []
    assert node.exit_code == 1


def test_a_topic_that_nobody_publishes_is_pointed_out(graph, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(record_node, '_HINT_S', 0.5)
    graph.publisher(Image, 'image', readers=0)
    record(graph, tmp_path / 'drive', 'imgae')
    name = graph.namespace
    text = f'waits for {name}/imgae, which nobody publishes; did you mean {name}/image?'
    said = []
    wait_for(lambda: said.append(capfd.readouterr().err) or text in ''.join(said), text)


def test_an_existing_bag_is_not_overwritten(tmp_path):
    check_target(tmp_path / 'new')
    with pytest.raises(ValueError, match='exists already'):
        check_target(tmp_path)


def test_ctrl_c_completes_the_bag(graph, tmp_path):
    """The real command in a process of its own."""
    out = tmp_path / 'drive'
    topic = f'{graph.namespace}/image'
    process = subprocess.Popen(
        [sys.executable, '-m', 'road_anomaly_ros.cli', 'record', '-o', str(out), topic],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        publisher = graph.publisher(Image, topic, camera_qos(reliable=True))
        folder = tmp_path / '.drive.partial' / 'drive'
        send_until(
            publisher,
            image_message,
            lambda: folder.exists() and any(folder.iterdir()),
            'a message that was received',
        )
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert 'Traceback' not in output
    assert stored(out)


RELIABLE = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
LOSSY = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


@pytest.mark.parametrize(
    ('offered', 'expected'),
    [
        ([RELIABLE], ReliabilityPolicy.RELIABLE),
        ([LOSSY], ReliabilityPolicy.BEST_EFFORT),
        ([RELIABLE, LOSSY], ReliabilityPolicy.BEST_EFFORT),
    ],
)
def test_the_subscription_hears_all_publishers(offered, expected):
    assert matching_qos(offered).reliability == expected


def test_types_come_from_what_is_installed():
    assert 'sensor_msgs/msg/Image' in types_for('sensor_msgs/msg/Image').fielddefs
    store = types_for('type_description_interfaces/msg/TypeDescription')
    assert 'type_description_interfaces/msg/Field' in store.fielddefs
    with pytest.raises(ModuleNotFoundError):
        types_for('nowhere_msgs/msg/Thing')
    with pytest.raises(ValueError, match='is not installed'):
        types_for('sensor_msgs/msg/Nothing')


# --- a recording that is killed ------------------------------------------------------------------


@pytest.mark.parametrize('storage', STORAGES)
def test_what_came_is_on_disk_while_the_recording_goes_on(graph, tmp_path, storage):
    node = record(graph, tmp_path / 'drive', 'image', storage=storage)
    publisher = graph.publisher(Image, 'image', camera_qos(reliable=True, depth=10))
    for index in range(1, 4):
        publisher.publish(image_message(seconds=index))
    partial = tmp_path / '.drive.partial' / 'drive'
    wait_for(lambda: partial.exists() and readable(partial) == 3, 'three messages on disk')
    node.close()
    assert len(stored(tmp_path / 'drive')) == 3


def readable(folder):
    """Count the messages that whoever comes after a SIGKILL would find.

    SQLite would take back what is not committed, though a reader without the journal sees it.
    """
    try:
        for file in folder.glob('*.db3'):
            uri = f'file:{file}?mode=ro'
            with contextlib.closing(sqlite3.connect(uri, uri=True)) as database:
                return database.execute('SELECT count(*) FROM messages').fetchone()[0]
        return len(stored(folder))
    except (ValueError, sqlite3.Error):
        return 0


@pytest.mark.parametrize('storage', STORAGES)
def test_what_a_killed_recording_left_is_set_aside_and_named(graph, tmp_path, storage, capfd):
    out, topic = tmp_path / 'drive', f'{graph.namespace}/image'
    process = subprocess.Popen(
        [
            sys.executable,
            '-m',
            'road_anomaly_ros.cli',
            'record',
            '-o',
            str(out),
            topic,
            '--storage',
            storage,
        ],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        publisher = graph.publisher(Image, topic, camera_qos(reliable=True))
        partial = tmp_path / '.drive.partial' / 'drive'
        send_until(
            publisher,
            image_message,
            lambda: partial.exists() and readable(partial) > 2,
            'messages on disk',
        )
    finally:
        process.kill()
        process.wait()
    found = readable(partial)
    node = record(graph, out, 'image', storage=storage)
    node.close()
    assert found > 2 and len(stored(tmp_path / 'drive_recovered')) == found
    assert [path.name for path in tmp_path.iterdir()] == ['drive_recovered']
    assert f'is kept as {tmp_path / "drive_recovered"}' in capfd.readouterr().err


def test_nothing_that_lies_in_the_way_is_lost(tmp_path):
    for name in ('.drive.partial', 'drive_recovered'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'notes').write_text(name)
    partial = Partial(tmp_path / 'drive')
    assert (tmp_path / 'drive_recovered_2' / 'notes').read_text() == '.drive.partial'
    assert (tmp_path / 'drive_recovered' / 'notes').read_text() == 'drive_recovered'
    with pytest.raises(ValueError, match='another recording is making'):
        Partial(tmp_path / 'drive')
    partial.remove()
    again = Partial(tmp_path / 'drive')
    assert again.recovered == ''
    again.remove()


def test_a_bag_that_appeared_meanwhile_is_not_replaced(graph, tmp_path):
    node = record(graph, tmp_path / 'drive', 'image')
    publisher = graph.publisher(Image, 'image', camera_qos(reliable=True))
    publisher.publish(image_message())
    wait_for(lambda: node.counts, 'a message')
    (tmp_path / 'drive').mkdir()
    node.close()
    assert node.exit_code == 1 and not any((tmp_path / 'drive').iterdir())
    assert len(stored(tmp_path / '.drive.partial' / 'drive')) == 1


def test_in_simulated_time_nothing_is_stored_before_it_begins(graph, tmp_path, capfd):
    simulated = [Parameter('use_sim_time', value=True)]
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    graph.publisher(CameraInfo, 'camera_info', latched, readers=0).publish(CameraInfo(width=3))
    node = record(graph, tmp_path / 'drive', 'camera_info', parameter_overrides=simulated)
    text, said = 'stores nothing yet: use_sim_time is set', []
    wait_for(lambda: said.append(capfd.readouterr().err) or text in ''.join(said), text)
    assert not node.counts
    clock = graph.publisher(Clock, '/clock')
    send_until(clock, lambda: Clock(clock=Time(sec=7)), lambda: node.counts, 'the message')
    node.close()
    reader = BagReader(tmp_path / 'drive')
    assert [record.stamp_ns for record in reader.records()] == [7 * 10**9]
    reader.close()


def test_what_got_lost_on_its_way_is_told(graph, tmp_path, capfd):
    node = record(graph, tmp_path / 'drive', 'image')
    publisher = graph.publisher(Image, 'image', camera_qos(reliable=True))
    publisher.publish(image_message())
    wait_for(lambda: node.counts, 'a message')
    topic = f'{graph.namespace}/image'
    for count in (2, 3):
        node._lose(topic, count)
    node.close()
    said = capfd.readouterr().err
    assert said.count(f'messages of {topic} get lost on their way') == 1
    assert f'5 messages of {topic} were lost on their way' in said


def test_losses_are_heard_of_where_the_middleware_tells():
    class Node:
        """A node of a middleware that counts losses, or not."""

        def __init__(self, *, counts):
            self._counts = counts

        def create_subscription(self, *_, event_callbacks, **__):
            if event_callbacks.message_lost and not self._counts:
                raise inputs.UnsupportedEventTypeError
            return event_callbacks

    heard = []
    qos = inputs.input_qos()
    made = inputs.subscribe(Node(counts=True), Image, 'image', None, qos, lost=heard.append)
    made.message_lost(types.SimpleNamespace(total_count_change=4))
    assert heard == [4]
    made = inputs.subscribe(Node(counts=False), Image, 'image', None, qos, lost=heard.append)
    assert made.message_lost is None
