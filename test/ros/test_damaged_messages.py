# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Thousands of damaged messages: each is read by the letter of its definition or refused."""

from __future__ import annotations

import array
import io
import time

import cv2
import numpy as np
import PIL.Image
import pytest

pytest.importorskip('rclpy', reason='no rclpy installed')

from builtin_interfaces.msg import Time
from fuzzing import count, damage
from ros_graph import Graph, header, image_message, send_until, values, wait_for
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from road_anomaly_ros.perception import Pipeline
from road_anomaly_ros.ros import images
from road_anomaly_ros.ros.engine import Engine
from road_anomaly_ros.ros.worker import Frame

# A quarter of the images and files is left as it was, so 20,000 and more are mutated.
IMAGES, FILES, INFOS, CHAINED = count(16_000), count(3_000), count(7_000), count(300)
LIMIT = 1 << 16  # pixels; keeps what the mutations claim affordable
ENCODINGS = (
    'rgb8',
    'bgr8',
    'rgba8',
    'bgra8',
    'mono8',
    'mono16',
    '8UC1',
    '8UC3',
    '8UC4',
    '16UC1',
    '16SC2',
    '32FC1',
    '32FC3',
    '64FC1',
    'bayer_rggb8',
    'bayer_bggr16',
    'yuv422',
    'nv12',
    'nv21',
    'nv24',
    'yuv422_yuy2',
    '',
    'RGB8',
    'rgb8 ',
    'h264',
    '8UC',
    '8UC0',
    '99UC9',
    '\x00',
    'ü',
    '../rgb8',
    'x' * 300,
)
NUMBERS = (
    0,
    1,
    2,
    3,
    7,
    63,
    64,
    65,
    191,
    192,
    193,
    255,
    256,
    4095,
    65535,
    2**31 - 1,
    2**31,
    2**32 - 1,
)
STAMPS = ((0, 0), (-(2**31), 0), (2**31 - 1, 999_999_999), (5, 2**32 - 1), (1, 1))


@pytest.fixture
def graph():
    with Graph() as graph:
        yield graph


def bytes_of(data):
    return array.array('B', bytes(data))


def mutated_image(rng):
    height, width = int(rng.integers(1, 9)), int(rng.integers(1, 9))
    picture = rng.integers(0, 256, (height, width, 3), np.uint8)
    message = images.to_message(picture, 'rgb8', header(float(rng.integers(1, 5))))
    for _ in range(rng.integers(0, 4)):
        match rng.integers(8):
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
            case 7:  # a step that nearly fits, and as much data as it asks for
                message.step = max(0, 3 * width + int(rng.integers(-2, 5)))
                size = message.step * height - int(rng.integers(0, 5))
                message.data = bytes_of(rng.integers(0, 256, max(0, size), np.uint8))
    return message


def mutated_compressed(rng, files):
    message = CompressedImage(
        header=header(),
        format=str(
            rng.choice(
                [
                    'jpeg',
                    'png',
                    '',
                    'rgb8; jpeg compressed bgr8',
                    '32FC1; compressedDepth png',
                    '\x00',
                ]
            )
        ),
    )
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
    picture = rng.integers(0, 256, (9, 11, 3), np.uint8)
    return [cv2.imencode(kind, picture)[1].tobytes() for kind in ('.jpg', '.png', '.bmp', '.webp')]


# Encoding -> numbers of one pixel: type and count. Depth (16UC1, 32FC1, 64FC1) is no picture.
LAYOUTS = {
    'rgb8': ('u1', 3),
    'bgr8': ('u1', 3),
    '8UC3': ('u1', 3),
    'rgba8': ('u1', 4),
    'bgra8': ('u1', 4),
    '8UC4': ('u1', 4),
    'mono8': ('u1', 1),
    '8UC1': ('u1', 1),
    'mono16': ('u2', 1),
    '32FC3': ('f4', 3),
    'bayer_rggb8': ('u1', 1),
    'bayer_bggr16': ('u2', 1),
    'yuv422': ('u1', 2),
    'yuv422_yuy2': ('u1', 2),
    'nv12': ('u1', 1),
    'nv21': ('u1', 1),
}
# OpenCV names a Bayer pattern after its second row.
CONVERSIONS = {
    'bayer_rggb8': cv2.COLOR_BAYER_BG2RGB,
    'bayer_bggr16': cv2.COLOR_BAYER_RG2RGB,
    'yuv422': cv2.COLOR_YUV2RGB_UYVY,
    'yuv422_yuy2': cv2.COLOR_YUV2RGB_YUYV,
    'nv12': cv2.COLOR_YUV2RGB_NV12,
    'nv21': cv2.COLOR_YUV2RGB_NV21,
}


def expected_picture(message):
    """Read an Image by the letter of its definition, 0..255 in floats; None where none is told."""
    height, width, encoding = message.height, message.width, message.encoding
    if not 1 <= height * width <= LIMIT or encoding not in LAYOUTS:
        return None
    planar = encoding in ('nv12', 'nv21')
    if planar and (height % 2 or width % 2):
        return None
    kind, count = LAYOUTS[encoding]
    dtype = np.dtype(('>' if message.is_bigendian else '<') + kind)
    rows, row = height * 3 // 2 if planar else height, width * count * dtype.itemsize
    data, step = message.data.tobytes(), message.step
    if step < row or not step * (rows - 1) + row <= len(data) <= step * rows:
        return None
    data = b''.join(data[y * step : y * step + row] for y in range(rows))
    pixels = np.frombuffer(data, dtype).reshape(rows, width, count).astype(kind)
    if encoding in CONVERSIONS:
        try:
            pixels = cv2.cvtColor(pixels, CONVERSIONS[encoding])
        except cv2.error:  # odd widths of 4:2:2
            return None
    pixels = pixels.astype(np.float64) / (257 if kind == 'u2' else 1)
    pixels = np.nan_to_num(pixels, nan=0.0).clip(0, 255)
    if count == 1 and encoding not in CONVERSIONS:
        return np.repeat(pixels, 3, 2)
    return (
        pixels[..., :3]
        if encoding.startswith('rgb') or encoding in CONVERSIONS
        else pixels[..., 2::-1]
    )


def expected_of_file(message, whole):
    """Return what the file in a CompressedImage shows; None where it shows nothing."""
    raw = bytes(message.data)
    if 'compressedDepth' in message.format:
        return None
    if whole:  # another decoder says the same
        with PIL.Image.open(io.BytesIO(raw)) as picture:
            return np.asarray(picture.convert('RGB'))
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        found = cv2.imdecode(np.frombuffer(raw, np.uint8), flags)
    except cv2.error:  # empty, or an absurd size
        return None
    return None if found is None else found[..., ::-1]


class Direct:
    """In the place of the newest frames: each is processed at once, so that none is replaced."""

    def __init__(self, node):
        self.process = node._process

    def put(self, frame):
        self.process([frame])
        return True


class Watched(Pipeline):
    """Keeps the picture that reaches the chain; the result is that of the first, for speed."""

    seen: list
    result = None

    def batch(self, pictures, *others):
        self.seen += pictures
        if Watched.result is None:
            Watched.result = super().batch(pictures, *others)[0]
        return [Watched.result]


@pytest.fixture
def intake(graph):
    """A node whose callbacks are called directly, its camera, and what reaches the chain."""
    kind = type('Case', (Watched,), {'seen': []})
    node = graph.anomaly_node(engine=Engine(kind), state='inactive', max_pixels=LIMIT)
    camera = node.cameras['']
    camera.subscribe(Direct(node))
    kind.seen.clear()  # of the frame that warms up
    return camera, kind.seen


def check_intake(intake, message, expected, exact=True):
    """Hand a message in; it must arrive as expected, or be refused with one counted reason."""
    camera, seen = intake
    before = camera.stats.processed, camera.stats.refused.copy()
    camera.on_image(message)
    new = camera.stats.refused - before[1]
    if seen:
        (picture,) = seen
        seen.clear()
        assert camera.stats.processed == before[0] + 1 and not new
        assert picture.dtype == np.uint8 and picture.shape == expected.shape
        # Numbers beyond 8 bit are cut or rounded, as the converter likes.
        assert np.abs(picture - expected.astype(np.float64)).max() <= (0 if exact else 1)
    else:
        assert camera.stats.processed == before[0] and sum(new.values()) == 1
    return sum(new.values())


def test_mutated_images_arrive_right_or_are_refused(intake, rng):
    """Whatever can be read by the letter of the definition is accepted, nothing else is."""
    camera, _ = intake
    for _ in range(IMAGES):
        message = mutated_image(rng)
        expected = expected_picture(message)
        exact = LAYOUTS.get(message.encoding, ' ')[0] == 'u1'
        assert check_intake(intake, message, expected, exact) == (expected is None), message
    stats = camera.stats
    assert stats.received == IMAGES == stats.processed + sum(stats.refused.values())
    assert stats.processed > IMAGES // 4 and stats.failed == stats.dropped == 0
    assert set(stats.refused) == {'dimensions', 'step', 'size', 'encoding'}


def test_mutated_compressed_images_arrive_right_or_are_refused(intake, rng, files):
    camera, _ = intake
    for _ in range(FILES):
        message = mutated_compressed(rng, files)
        whole = bytes(message.data) in files
        expected = expected_of_file(message, whole)
        refused = check_intake(intake, message, expected)
        assert not (whole and refused) or expected is None
    stats = camera.stats
    assert stats.received == FILES == stats.processed + sum(stats.refused.values())
    assert stats.processed > FILES // 4 and stats.failed == stats.dropped == 0
    assert set(stats.refused) >= {'undecodable', 'encoding'}


def test_mutated_camera_infos_are_noted_or_refused(graph, intake, rng):
    """Every refusal is counted, and stays visible in /diagnostics."""
    camera, _ = intake
    rows = graph.diagnostics()
    known, refused = None, 0
    for _ in range(INFOS):
        message = mutated_info(rng)
        camera.on_info(message)
        if (
            1 <= message.height <= 1 << 16
            and 1 <= message.width <= 1 << 16
            and np.isfinite(message.k).all()
        ):
            part, across, down = message.roi, message.binning_x, message.binning_y
            known = (
                (part.height or message.height) // max(1, down),
                (part.width or message.width) // max(1, across),
            )
        else:
            refused += 1
        assert camera.stats.info_size == known
        assert camera.stats.refused['camera_info'] == refused
    assert INFOS // 10 < refused < INFOS
    rows.clear()
    row = wait_for(lambda: [row for row in rows if row.name.endswith(': camera')], 'a report')[-1]
    assert values(row)['refused'] == values(row)['refused_camera_info'] == str(refused)


def test_every_mutated_message_is_accounted_for_by_the_chain(graph, rng, files):
    """Through the real chain; afterwards a good frame is processed as before."""
    node = graph.anomaly_node(state='inactive', max_pixels=LIMIT)
    stats = node.cameras[''].stats
    for number in range(CHAINED):
        message = mutated_image(rng) if number % 2 else mutated_compressed(rng, files)
        node._process([Frame('', message, time.monotonic())])
    assert stats.processed + sum(stats.refused.values()) == CHAINED
    assert stats.failed == 0 and stats.processed > CHAINED // 10
    before = stats.processed
    node._process([Frame('', image_message(), time.monotonic())])
    assert stats.processed == before + 1


def test_mutated_messages_over_dds(graph, rng):
    node = graph.anomaly_node(max_pixels=LIMIT)
    rows = graph.diagnostics()
    labels = graph.collect(Image, 'anomaly_node/semantic/labels')
    publisher = graph.publisher(Image, 'image')
    stats = node.cameras[''].stats
    send_until(
        publisher,
        lambda: mutated_image(rng),
        lambda: stats.received >= 300,
        'mutated messages',
        period=0.005,
    )
    wait_for(
        lambda: (
            stats.received
            == stats.processed + stats.dropped + stats.failed + sum(stats.refused.values())
        ),
        'every message to be accounted for',
    )
    assert stats.failed == 0 and sum(stats.refused.values()) > 50
    good = image_message(seconds=77.0, frame_id='good')
    send_until(
        publisher,
        lambda: good,
        lambda: [m for m in labels if m.header.frame_id == 'good'],
        'the next good frame',
    )
    rows.clear()
    wait_for(lambda: len(rows) >= 2, 'diagnostics')
    found = values(next(row for row in rows if row.name.endswith(': camera')))
    assert (
        sum(int(found[key]) for key in found if key.startswith('refused_'))
        == int(found['refused'])
        == sum(stats.refused.values())
    )
