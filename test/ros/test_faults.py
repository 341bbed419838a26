# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Nothing that arrives ends the node: thousands of damaged messages, faults, odd clocks."""

from __future__ import annotations

import array
import copy
import time
from collections import Counter

import numpy as np
import pytest
import torch

pytest.importorskip('rclpy', reason='no rclpy installed')

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from ros_graph import Graph, header, image_message, send_until, values, wait_for
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from road_anomaly_ros.perception import Pipeline
from road_anomaly_ros.ros import images
from road_anomaly_ros.ros.engine import Engine
from road_anomaly_ros.ros.worker import Frame
from road_anomaly_ros.tools.encodings import ImageRefused

MANY = 20_000
LIMIT = 1 << 16                     # pixels; keeps what the mutations claim affordable
ENCODINGS = ('rgb8', 'bgr8', 'rgba8', 'bgra8', 'mono8', 'mono16', '8UC1', '8UC3', '8UC4', '16UC1',
             '16SC2', '32FC1', '32FC3', '64FC1', 'bayer_rggb8', 'bayer_bggr16', 'yuv422', 'nv12',
             'nv21', 'nv24', 'yuv422_yuy2', '', 'RGB8', 'rgb8 ', 'h264', '8UC', '8UC0', '99UC9',
             '\x00', 'ü', '../rgb8', 'x' * 300)
NUMBERS = (0, 1, 2, 3, 7, 63, 64, 65, 191, 192, 193, 255, 256, 4095, 65535, 2 ** 31 - 1, 2 ** 31,
           2 ** 32 - 1)
STAMPS = ((0, 0), (-2 ** 31, 0), (2 ** 31 - 1, 999_999_999), (5, 2 ** 32 - 1), (1, 1))


@pytest.fixture
def graph():
    with Graph() as graph:
        yield graph


def bytes_of(data):
    return array.array('B', bytes(data))


def damage(rng, raw):
    """Cut, lengthen, flip or replace bytes."""
    raw = bytearray(raw)
    kind = rng.integers(6)
    if kind == 0:
        return raw[:rng.integers(len(raw) + 1)]
    if kind == 1:
        return raw + bytes(rng.integers(0, 256, rng.integers(1, 300), np.uint8))
    if kind == 2:
        return bytes(rng.integers(0, 256, len(raw), np.uint8))
    if kind == 3:
        return b''
    for place in rng.integers(0, len(raw), rng.integers(1, 12)) if raw else ():
        raw[place] = rng.integers(256)
    return raw


def mutated_image(rng):
    height, width = int(rng.integers(1, 9)), int(rng.integers(1, 9))
    picture = rng.integers(0, 256, (height, width, 3), np.uint8)
    message = images.to_message(picture, 'rgb8', header(float(rng.integers(1, 5))))
    for _ in range(rng.integers(0, 4)):
        match rng.integers(7):
            case 0:
                message.height = int(rng.choice(NUMBERS))
            case 1:
                message.width = int(rng.choice(NUMBERS))
            case 2:
                message.step = int(rng.choice(NUMBERS))
            case 3:
                message.encoding = ENCODINGS[rng.integers(len(ENCODINGS))]
            case 4:
                message.data = bytes_of(damage(rng, message.data))
            case 5:
                message.is_bigendian = int(rng.integers(256))
            case 6:
                seconds, nanoseconds = STAMPS[rng.integers(len(STAMPS))]
                message.header.stamp = Time(sec=seconds, nanosec=nanoseconds)
    return message


def mutated_compressed(rng, files):
    message = CompressedImage(header=header(), format=str(rng.choice(
        ['jpeg', 'png', '', 'rgb8; jpeg compressed bgr8', '32FC1; compressedDepth png', '\x00'])))
    raw = files[rng.integers(len(files))]
    message.data = bytes_of(damage(rng, raw) if rng.integers(4) else raw)
    return message


def mutated_info(rng):
    message = CameraInfo(height=int(rng.choice(NUMBERS)), width=int(rng.choice(NUMBERS)))
    wild = [float('nan'), float('inf'), -1.0, 0.0, 500.0, 1e308]
    message.k = rng.choice(wild if rng.integers(2) else [0.0, 500.0], 9)
    message.d = list(rng.choice(wild, rng.integers(0, 40)))
    message.distortion_model = str(rng.choice(['plumb_bob', '', '\x00', 'ü' * 50]))
    return message


@pytest.fixture
def files(rng):
    import cv2
    picture = rng.integers(0, 256, (9, 11, 3), np.uint8)
    return [cv2.imencode(kind, picture)[1].tobytes() for kind in ('.jpg', '.png', '.bmp', '.webp')]


def reference(message):
    """Read an 8-bit message byte by byte, the slow and obvious way; None for other encodings."""
    order = {'rgb8': (0, 1, 2), 'bgr8': (2, 1, 0), '8UC3': (2, 1, 0), 'rgba8': (0, 1, 2),
             'bgra8': (2, 1, 0), '8UC4': (2, 1, 0), 'mono8': (0, 0, 0), '8UC1': (0, 0, 0)}
    if message.encoding not in order:
        return None
    pixel = {'a': 4, '4': 4, '1': 1, 'm': 1}.get(
        message.encoding[-1] if 'UC' in message.encoding else
        'm' if message.encoding == 'mono8' else 'a' if 'a8' in message.encoding else '3', 3)
    found = np.zeros((message.height, message.width, 3), np.uint8)
    for y in range(message.height):
        for x in range(message.width):
            start = y * message.step + x * pixel
            found[y, x] = [message.data[start + place] for place in order[message.encoding]]
    return found


def test_mutated_images_are_read_right_or_refused(rng):
    """Whatever is accepted as 8 bit must equal what a byte-by-byte reading gives."""
    refused, compared = Counter(), 0
    for number in range(MANY):
        message = mutated_image(rng)
        try:
            picture = images.to_array(message, LIMIT)
        except ImageRefused as refusal:
            refused[refusal.reason] += 1
            assert '\n' not in str(refusal) and len(str(refusal)) < 600
            continue
        assert picture.dtype == np.uint8
        assert picture.shape == (message.height, message.width, 3)
        if number % 4 == 0:
            expected = reference(message)
            if expected is not None:
                np.testing.assert_array_equal(picture, expected)
                compared += 1
    assert compared > 500
    assert set(refused) >= {'dimensions', 'step', 'size', 'encoding'}


def test_mutated_compressed_images_are_read_or_refused(rng, files):
    refused, read = Counter(), 0
    for _ in range(MANY // 4):
        try:
            picture = images.to_array(mutated_compressed(rng, files), LIMIT)
        except ImageRefused as refusal:
            refused[refusal.reason] += 1
            continue
        assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
        assert 1 <= picture.shape[0] * picture.shape[1] <= LIMIT
        read += 1
    assert read > 500
    assert set(refused) >= {'undecodable', 'encoding'}


def test_every_mutated_message_is_accounted_for_by_the_node(graph, rng, files):
    """Through the callbacks and the chain; afterwards a good frame is processed as before."""
    node = graph.anomaly_node(state='inactive', max_pixels=LIMIT)
    camera = node.cameras['']
    count = 2000                            # the chain runs on what is accepted
    for number in range(count):
        message = mutated_image(rng) if number % 2 else mutated_compressed(rng, files)
        node._process([Frame('', message, time.monotonic())])
    stats = camera.stats
    assert stats.processed + sum(stats.refused.values()) == count
    assert stats.failed == 0 and stats.processed > 200
    assert set(stats.refused) >= {'dimensions', 'step', 'size', 'encoding', 'undecodable'}
    for _ in range(count):
        camera.on_info(mutated_info(rng))
    assert 0 < stats.refused['camera_info'] < count
    assert stats.info_size is None or min(stats.info_size) >= 1
    before = stats.processed
    node._process([Frame('', image_message(), time.monotonic())])
    assert stats.processed == before + 1


def test_mutated_messages_over_dds(graph, rng):
    node = graph.anomaly_node(max_pixels=LIMIT)
    rows = graph.diagnostics()
    labels = graph.collect(Image, 'anomaly_node/semantic/labels')
    publisher = graph.publisher(Image, 'image')
    stats = node.cameras[''].stats
    send_until(publisher, lambda: mutated_image(rng), lambda: stats.received >= 300,
               'mutated messages', period=0.005)
    wait_for(lambda: stats.received == stats.processed + stats.dropped + stats.failed
             + sum(stats.refused.values()), 'every message to be accounted for')
    assert stats.failed == 0 and sum(stats.refused.values()) > 50
    good = image_message(seconds=77.0, frame_id='good')
    send_until(publisher, lambda: good,
               lambda: [m for m in labels if m.header.frame_id == 'good'], 'the next good frame')
    rows.clear()
    wait_for(lambda: len(rows) >= 2, 'diagnostics')
    found = values(next(row for row in rows if row.name.endswith(': camera')))
    assert sum(int(found[key]) for key in found if key.startswith('refused_')) == \
        int(found['refused']) == sum(stats.refused.values())


def test_refusals_are_explained_and_throttled(graph, capfd):
    node = graph.anomaly_node(state='inactive')
    bad = image_message()
    bad.step = 5
    for _ in range(200):
        node._process([Frame('', copy.copy(bad), time.monotonic())])
    lines = [line for line in capfd.readouterr().err.splitlines() if 'refused (step)' in line]
    assert len(lines) == 1 and 'expected a step of at least 192 bytes' in lines[0]
    assert node.cameras[''].stats.refused == {'step': 200}


def test_time_may_run_backwards(graph, capfd):
    node = graph.anomaly_node()
    masks = graph.collect(Image, 'anomaly_node/obstacle/mask')
    publisher = graph.publisher(Image, 'image')
    stats = node.cameras[''].stats
    send_until(publisher, lambda: image_message(seconds=500.0), lambda: stats.processed,
               'a frame')
    send_until(publisher, lambda: image_message(seconds=3.0),
               lambda: [m for m in masks if m.header.stamp.sec == 3], 'the second round')
    assert stats.backwards == 1
    assert 'stamps ran backwards' in capfd.readouterr().err


class Sick(Pipeline):
    """A pipeline that raises what `faults` holds, one per call."""

    faults: list

    def batch(self, pictures, *others):
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            raise fault
        return super().batch(pictures, *others)


@pytest.fixture
def sick(graph):
    kind = type('Case', (Sick,), {'faults': []})
    engine = Engine(kind)
    return kind, engine


def test_a_chain_that_fails_costs_one_frame(graph, sick):
    kind, engine = sick
    node = graph.anomaly_node(engine=engine)
    rows = graph.diagnostics()
    publisher = graph.publisher(Image, 'image')
    stats = node.cameras[''].stats
    kind.faults[:] = [RuntimeError('singular matrix'), ValueError('shape')]
    send_until(publisher, image_message, lambda: stats.processed >= 2, 'the next good frames')
    assert stats.failed == 2
    wait_for(lambda: [row for row in rows if 'frame failed: shape' in row.message], 'a report')


def test_out_of_memory_ends_in_a_clear_state_and_not_in_a_loop(graph, sick, capfd):
    kind, engine = sick
    node = graph.anomaly_node(engine=engine)
    rows = graph.diagnostics()
    publisher = graph.publisher(Image, 'image')
    kind.faults[:] = [torch.cuda.OutOfMemoryError('CUDA out of memory')] * 2
    send_until(publisher, image_message, lambda: not engine.loaded, 'the release')
    row = wait_for(lambda: [row for row in rows if row.level == DiagnosticStatus.ERROR
                            and values(row).get('state') == 'unconfigured'], 'the clear state')[-1]
    assert 'no memory for one image' in row.message
    assert capfd.readouterr().err.count('no memory for one image') == 1
    assert node.trigger_configure().name == 'SUCCESS'
    assert node.trigger_activate().name == 'SUCCESS'
    stats = node.cameras[''].stats
    send_until(publisher, image_message, lambda: stats.processed, 'frames as before')


def test_out_of_memory_while_loading_is_a_refusal(graph):
    class TooBig(Pipeline):
        def warm_up(self, *size):
            raise torch.cuda.OutOfMemoryError('CUDA out of memory')
    engine = Engine(TooBig)
    node = graph.anomaly_node(engine=engine, state='unconfigured')
    assert node.trigger_configure().name == 'FAILURE'
    assert not engine.loaded


def test_a_refinement_that_throws_is_named(graph):
    class Noted(Pipeline):
        def batch(self, pictures, *others):
            import dataclasses
            note = 'refinement gaussian skipped: no room'
            return [dataclasses.replace(result, notes=(note,))
                    for result in super().batch(pictures, *others)]
    node = graph.anomaly_node(engine=Engine(Noted))
    rows = graph.diagnostics()
    publisher = graph.publisher(Image, 'image')
    stats = node.cameras[''].stats
    send_until(publisher, image_message, lambda: [
        row for row in rows if row.level == DiagnosticStatus.WARN
        and 'refinement gaussian skipped: no room' in row.message], 'the name of the refinement')
    assert stats.processed > 0 and stats.failed == 0
