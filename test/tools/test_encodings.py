# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0

from array import array
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from road_anomaly_ros.tools import encodings
from road_anomaly_ros.tools.encodings import ImageRefused, decode_compressed, decode_image

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def message(encoding, pixels, /, *, pad=0, bigendian=False, **changes):
    """Pack an array [H, W(, C)] as the fields of sensor_msgs/Image, `pad` bytes after each row."""
    pixels = np.asarray(pixels)
    height, width = pixels.shape[:2]
    rows = np.ascontiguousarray(pixels).reshape(height, -1).view(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, pad)), constant_values=77)
    fields = {
        'height': height,
        'width': width,
        'encoding': encoding,
        'is_bigendian': bigendian,
        'step': rows.shape[1],
        'data': rows.tobytes(),
    }
    return SimpleNamespace(**{**fields, **changes})


def picture(seed=0, height=6, width=8, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


@pytest.mark.parametrize('pad', [0, 5])
@pytest.mark.parametrize(
    'encoding, order',
    [
        ('rgb8', [0, 1, 2]),
        ('bgr8', [2, 1, 0]),
        ('8UC3', [2, 1, 0]),
        ('rgba8', [0, 1, 2]),
        ('bgra8', [2, 1, 0]),
        ('8UC4', [2, 1, 0]),
    ],
)
def test_colour_encodings_keep_every_pixel(encoding, order, pad):
    pixels = picture(channels=4 if '4' in encoding or 'a' in encoding else 3)
    decoded = decode_image(message(encoding, pixels, pad=pad))
    assert decoded.dtype == np.uint8 and decoded.flags.c_contiguous and decoded.flags.writeable
    np.testing.assert_array_equal(decoded, pixels[..., order])


@pytest.mark.parametrize('pad', [0, 3])
@pytest.mark.parametrize('encoding', ['mono8', '8UC1'])
def test_grey_becomes_three_equal_channels(encoding, pad):
    pixels = picture(channels=1)
    decoded = decode_image(message(encoding, pixels, pad=pad))
    np.testing.assert_array_equal(decoded, np.repeat(pixels, 3, axis=2))


def test_data_may_be_any_buffer():
    pixels = picture()
    for kind in (
        bytes,
        bytearray,
        memoryview,
        lambda raw: array('B', raw),
        lambda raw: np.frombuffer(raw, np.uint8),
    ):
        raw = message('rgb8', pixels)
        raw.data = kind(raw.data)
        np.testing.assert_array_equal(decode_image(raw), pixels)


def test_padding_of_the_last_row_may_be_missing():
    pixels = picture()
    padded = message('rgb8', pixels, pad=4)
    padded.data = padded.data[:-4]
    np.testing.assert_array_equal(decode_image(padded), pixels)


def test_a_decoded_picture_is_independent_of_the_message():
    data = bytearray(message('rgb8', picture()).data)
    decoded = decode_image(message('rgb8', picture(), data=data))
    before = decoded.copy()
    data[:] = bytes(len(data))
    np.testing.assert_array_equal(decoded, before)


@pytest.mark.parametrize(
    'changes, reason, words',
    [
        ({'height': 0}, 'dimensions', 'at least 1x1'),
        ({'width': 0}, 'dimensions', 'at least 1x1'),
        ({'width': 2**31, 'height': 2**31}, 'dimensions', 'at most'),
        ({'step': 23}, 'step', 'at least 24 bytes'),
        ({'step': 2**32 - 1}, 'size', 'got 144'),
        ({'data': b''}, 'size', 'got 0'),
        ({'data': bytes(143)}, 'size', 'expected 144 bytes'),
        ({'data': bytes(145)}, 'size', 'expected 144 bytes'),
        ({'encoding': ''}, 'encoding', 'known image encoding'),
        ({'encoding': 'rgb9'}, 'encoding', "'rgb9'"),
        ({'encoding': '8UC2', 'step': 24, 'width': 12}, 'encoding', '8UC2'),
    ],
)
def test_refusals_are_one_line_with_a_reason(changes, reason, words):
    with pytest.raises(ImageRefused, match=words) as caught:
        decode_image(message('rgb8', picture(), **changes))
    assert caught.value.reason == reason
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('bigendian', [False, True])
def test_sixteen_bit_is_scaled_and_honours_endianness(bigendian):
    pytest.importorskip('rosbags.image')
    values = np.array([[0, 257, 65535]], np.dtype('>u2' if bigendian else '<u2'))
    decoded = decode_image(message('mono16', values, pad=2, bigendian=bigendian))
    np.testing.assert_array_equal(decoded[0, :, 1], [0, 1, 255])


def test_float_is_taken_as_bytes_and_nan_as_black():
    pytest.importorskip('rosbags.image')
    values = np.array([[-3.0, 12.7, 300.0, np.nan]], np.float32).repeat(3, 0).T[None]
    decoded = decode_image(message('32FC3', values))
    np.testing.assert_array_equal(decoded[0, :, 0], [0, 12, 255, 0])


@pytest.mark.parametrize(
    'encoding, tile',
    [
        ('bayer_rggb8', [[RED, GREEN], [GREEN, BLUE]]),
        ('bayer_bggr8', [[BLUE, GREEN], [GREEN, RED]]),
        ('bayer_gbrg8', [[GREEN, BLUE], [RED, GREEN]]),
        ('bayer_grbg8', [[GREEN, RED], [BLUE, GREEN]]),
    ],
)
def test_bayer_gives_back_the_colour_that_was_seen(encoding, tile):
    pytest.importorskip('rosbags.image')
    seen = np.array([200, 120, 40])
    mosaic = np.tile((np.array(tile) // 255 * seen).sum(-1), (4, 4)).astype(np.uint8)
    decoded = decode_image(message(encoding, mosaic, pad=3))
    np.testing.assert_array_equal(decoded[3, 3], seen)


def test_yuv_gives_back_grey():
    pytest.importorskip('rosbags.image')
    grey = np.full((4, 6), 128, np.uint8)
    for encoding in ('uyvy', 'yuyv'):
        decoded = decode_image(message(encoding, np.stack([grey, grey], axis=-1)))
        assert np.ptp(decoded) == 0 and abs(int(decoded[0, 0, 0]) - 130) < 5
    planes = message('nv12', np.vstack([grey, grey[:2]]), height=4)
    assert decode_image(planes).shape == (4, 6, 3)
    with pytest.raises(ImageRefused, match='even width'):
        decode_image(message('nv12', np.zeros((3, 6), np.uint8)))


def encoded(suffix, pixels=None, flags=()):
    pixels = picture(height=40, width=60) if pixels is None else pixels
    return cv2.imencode(suffix, pixels, list(flags))[1].tobytes()


def test_compressed_png_is_exact_and_jpeg_is_close():
    pixels = picture(height=4, width=5)
    np.testing.assert_array_equal(decode_compressed(encoded('.png', pixels[..., ::-1])), pixels)
    smooth = np.full((16, 16, 3), (10, 120, 200), np.uint8)
    raw = np.frombuffer(encoded('.jpg', smooth[..., ::-1]), np.uint8)
    decoded = decode_compressed(raw, 'jpeg')
    assert np.abs(decoded.astype(int) - smooth).max() < 8


@pytest.mark.parametrize(
    'pixels',
    [
        np.full((3, 4), 9, np.uint8),
        np.full((3, 4, 4), 9, np.uint8),
        np.full((3, 4), 9 * 257, np.uint16),
    ],
)
def test_compressed_grey_alpha_and_sixteen_bit_become_rgb(pixels):
    np.testing.assert_array_equal(
        decode_compressed(encoded('.png', pixels)), np.full((3, 4, 3), 9, np.uint8)
    )


@pytest.mark.parametrize(
    'raw, layout, reason',
    [
        (b'', '', 'undecodable'),
        (b'no picture at all', 'jpeg', 'undecodable'),
        (encoded('.jpg')[:400], 'jpeg', 'undecodable'),
        (encoded('.png')[:60], 'png', 'undecodable'),
        (encoded('.png'), '16UC1; compressedDepth', 'encoding'),
    ],
)
def test_damaged_pictures_are_refused(raw, layout, reason):
    with pytest.raises(ImageRefused) as caught:
        decode_compressed(raw, layout)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ('layout', 'topic', 'photograph'),
    [
        ('mono16', '/flir/image_raw', True),
        ('mono16; png compressed ', '/flir/image_raw/compressed', True),
        ('mono16', '/camera/aligned_depth_to_color/image_raw', False),
        ('mono8', '/camera/depth/preview', True),
        ('16UC1', '/camera/image_raw', False),
        ('32FC1', '', False),
        ('64FC2', '', False),
        ('32FC3', '', True),
        ('bayer_rggb16', '', True),
    ],
)
def test_what_can_be_a_photograph(layout, topic, photograph):
    if photograph:
        encodings.check_photograph(layout, topic)
    else:
        with pytest.raises(ImageRefused, match='choose the topic of the colour camera'):
            encodings.check_photograph(layout, topic)


def test_an_enormous_picture_is_refused_by_its_header_alone(monkeypatch):
    raw = encoded('.png')
    monkeypatch.setattr(encodings, '_imdecode', lambda *_: pytest.fail('decoded'))
    with pytest.raises(ImageRefused, match='at most 2000 pixels, got 60x40'):
        decode_compressed(raw, max_pixels=2000)
    bomb = raw[:16] + (2**31 - 1).to_bytes(4, 'big') * 2 + raw[24:]
    with pytest.raises(ImageRefused):
        decode_compressed(bomb)


def test_random_damage_never_gets_past_a_refusal():
    generator = np.random.default_rng(7)
    good = message('bgr8', picture())
    for _ in range(500):
        bad = SimpleNamespace(**vars(good))
        field = generator.choice(['height', 'width', 'step'])
        setattr(bad, field, int(generator.integers(0, 40)))
        bad.encoding = str(generator.choice(['bgr8', 'mono8', 'rgba8', 'mono16', 'nv12', 'x']))
        try:
            assert decode_image(bad).shape == (bad.height, bad.width, 3)
        except ImageRefused as refusal:
            assert refusal.reason in ('dimensions', 'step', 'size', 'encoding')
    jpeg = bytearray(encoded('.jpg'))
    for _ in range(200):
        broken = bytearray(jpeg)
        broken[int(generator.integers(len(broken)))] = int(generator.integers(256))
        try:
            assert decode_compressed(broken).ndim == 3
        except ImageRefused as refusal:
            assert refusal.reason in ('dimensions', 'undecodable')
