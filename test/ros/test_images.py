# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Messages to arrays and back: bytes, encodings, padding, byte order, refusals."""

from __future__ import annotations

import array

import numpy as np
import pytest

pytest.importorskip('sensor_msgs.msg', reason='no ROS messages installed')

from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from road_anomaly_ros.ros import images
from road_anomaly_ros.tools.encodings import ImageRefused

HEADER = Header(frame_id='camera')
HEADER.stamp.sec, HEADER.stamp.nanosec = 12, 500_000_000
RGB = np.array([[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [10, 11, 12]]], np.uint8)


def message(picture, encoding, padding=0, big=0):
    rows = np.ascontiguousarray(picture).reshape(len(picture), -1).view(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=255)
    return Image(
        header=HEADER,
        height=len(picture),
        width=picture.shape[1],
        encoding=encoding,
        step=rows.shape[1],
        is_bigendian=big,
        data=array.array('B', rows.tobytes()),
    )


@pytest.mark.parametrize('padding', [0, 1, 5])
@pytest.mark.parametrize(
    ('encoding', 'picture', 'expected'),
    [
        ('rgb8', RGB, RGB),
        ('bgr8', RGB[..., ::-1], RGB),
        ('8UC3', RGB[..., ::-1], RGB),
        ('rgba8', np.dstack([RGB, np.full((2, 2), 9, np.uint8)]), RGB),
        ('bgra8', np.dstack([RGB[..., ::-1], np.full((2, 2), 9, np.uint8)]), RGB),
        ('mono8', RGB[..., 0], np.repeat(RGB[..., :1], 3, 2)),
    ],
)
def test_common_encodings(encoding, picture, expected, padding):
    np.testing.assert_array_equal(images.to_array(message(picture, encoding, padding)), expected)


@pytest.mark.parametrize(
    ('data', 'layout', 'says'),
    [
        (b'\0\0\0\1\x67rest', '', r"H\.264 or H\.265 video \(format ''\)"),
        (b'\0\0\0\1\x67rest', 'h264', 'h264 video'),
        (b'anything', 'rgb8; hevc', 'hevc video'),
        (b'\x12\0rest', 'av1', 'av1 video'),
    ],
)
def test_a_message_of_a_video_is_called_one(data, layout, says):
    with pytest.raises(
        ImageRefused, match=f'expected a JPEG or PNG, got a piece of {says}'
    ) as refusal:
        images.to_array(CompressedImage(format=layout, data=data))
    assert refusal.value.reason == 'video' and 'republish' in str(refusal.value)


@pytest.mark.parametrize(('big', 'kind'), [(0, '<u2'), (1, '>u2')])
def test_byte_order_of_16_bit(big, kind):
    grey = np.array([[0, 257], [514, 65535]])
    found = images.to_array(message(grey.astype(kind), 'mono16', 4, big))
    np.testing.assert_array_equal(found[..., 0], [[0, 1], [2, 255]])


@pytest.mark.parametrize('encoding', ['bayer_rggb8', 'bayer_gbrg8', 'yuv422_yuy2', 'nv21'])
def test_rare_encodings_of_a_grey_wall_are_grey(encoding):
    height, channels = (24, 1) if encoding == 'nv21' else (16, 2 if 'yuv' in encoding else 1)
    wall = np.full((height, 16, channels), 128, np.uint8)
    wall = message(wall, encoding)
    wall.height = 16
    found = images.to_array(wall).astype(int)
    assert found.shape == (16, 16, 3)
    assert np.abs(found - 128).max() <= 3


@pytest.mark.parametrize(
    'fields',
    [
        {'height': 0},
        {'width': 0},
        {'height': 2**31},
        {'width': 2**32 - 1},
        {'step': 0},
        {'step': 5},
        {'step': 7},
        {'height': 3},
        {'encoding': ''},
        {'encoding': 'rgb9'},
        {'encoding': 'jpeg\x00'},
        {'encoding': '32FC1'},
        {'data': array.array('B')},
        {'data': array.array('B', b'\x00' * 11)},
    ],
)
def test_damaged_messages_are_refused_with_a_reason(fields):
    damaged = message(RGB, 'rgb8')
    for name, value in fields.items():
        setattr(damaged, name, value)
    with pytest.raises(images.ImageRefused) as refusal:
        images.to_array(damaged)
    assert refusal.value.reason in {'dimensions', 'step', 'size', 'encoding'}
    assert '\n' not in str(refusal.value)


def test_an_image_beyond_the_limit_is_refused_before_its_bytes_are_touched():
    with pytest.raises(images.ImageRefused, match='at most 3 pixels'):
        images.to_array(message(RGB, 'rgb8'), max_pixels=3)


@pytest.mark.parametrize(
    ('encoding', 'picture'),
    [
        ('mono8', RGB[..., 0]),
        ('rgb8', RGB),
        ('16UC1', RGB[..., 1].astype(np.uint16) * 300),
        ('32FC1', RGB[..., 2].astype(np.float32) / 7),
        ('rgb8', RGB[:, ::-1]),
    ],
)
def test_what_is_sent_is_what_was_given(encoding, picture):
    sent = images.to_message(picture, encoding, HEADER)
    assert sent.header is HEADER and (sent.height, sent.width) == (2, 2)
    assert sent.encoding == encoding and sent.step * 2 == len(sent.data) and not sent.is_bigendian
    back = np.frombuffer(sent.data, picture.dtype).reshape(picture.shape)
    np.testing.assert_array_equal(back, picture)


@pytest.mark.parametrize(
    ('encoding', 'picture'),
    [
        ('rgb8', RGB[..., 0]),
        ('mono8', RGB),
        ('32FC1', RGB[..., 0]),
        ('16UC1', RGB[..., 0].astype(np.int32)),
    ],
)
def test_a_picture_that_does_not_fit_its_encoding_is_an_error(encoding, picture):
    with pytest.raises(ValueError, match=f'for {encoding}, got'):
        images.to_message(picture, encoding, HEADER)


def test_jpeg_there_and_back(image):
    sent = images.to_jpeg(image, HEADER, 95)
    assert 'jpeg' in sent.format and sent.header is HEADER
    found = images.to_array(sent).astype(int)
    assert found.shape == image.shape
    assert np.abs(found - image).mean() < 4  # 4:2:0 blurs colours of noise
    red, blue = found[33, 30, 0], found[33, 30, 2]
    assert red > blue + 100  # channels were not swapped


@pytest.mark.parametrize(
    'damage',
    [
        lambda raw: b'',
        lambda raw: raw[:10],
        lambda raw: raw[: len(raw) // 3],
        lambda raw: raw[::-1],
        lambda raw: b'\x00' * 500,
    ],
)
def test_damaged_jpeg_is_refused(image, damage):
    raw = bytes(images.to_jpeg(image, HEADER, 90).data)
    with pytest.raises(images.ImageRefused) as refusal:
        images.to_array(CompressedImage(format='jpeg', data=array.array('B', damage(raw))))
    assert refusal.value.reason == 'undecodable'


def test_a_jpeg_that_claims_to_be_enormous_is_refused_by_its_header(image):
    raw = bytearray(images.to_jpeg(image, HEADER, 90).data)
    frame = raw.index(b'\xff\xc0')
    raw[frame + 5 : frame + 9] = b'\xff\xff\xff\xff'  # height and width
    with pytest.raises(images.ImageRefused) as refusal:
        images.to_array(CompressedImage(format='jpeg', data=array.array('B', bytes(raw))))
    assert refusal.value.reason == 'dimensions'


def test_seconds():
    assert images.seconds(HEADER.stamp) == 12.5
