# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Camera messages to RGB arrays: checked first, then converted; a refusal says what was wrong.

Works on any object with the fields of sensor_msgs/Image or sensor_msgs/CompressedImage, whether it
comes from rclpy or from a bag, and imports neither.
"""

from __future__ import annotations

import functools
import io
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from road_anomaly_ros.remarks import one_line
from road_anomaly_ros.tools.pictures import HEIF, MAX_PIXELS, container

# The format of a message that image_transport's subscribers expect: what it was, what it is.
JPEG = 'rgb8; jpeg compressed bgr8'
JPEG_END = b'\xff\xd9'

# Encoding -> channels and the order in which they make RGB.
_FAST: dict[str, tuple[int, tuple[int, int, int]]] = {
    'rgb8': (3, (0, 1, 2)),
    'bgr8': (3, (2, 1, 0)),
    '8UC3': (3, (2, 1, 0)),
    'rgba8': (4, (0, 1, 2)),
    'bgra8': (4, (2, 1, 0)),
    '8UC4': (4, (2, 1, 0)),
    'mono8': (1, (0, 0, 0)),
    '8UC1': (1, (0, 0, 0)),
}
FAST_ENCODINGS = frozenset(_FAST)
_MAPS = {'32FC1': 'f4', '16UC1': 'u2', 'mono16': 'u2', 'mono8': 'u1', '8UC1': 'u1'}
_TO_RGB = {
    (3, (2, 1, 0)): cv2.COLOR_BGR2RGB,
    (4, (0, 1, 2)): cv2.COLOR_RGBA2RGB,
    (4, (2, 1, 0)): cv2.COLOR_BGRA2RGB,
    (1, (0, 0, 0)): cv2.COLOR_GRAY2RGB,
}
# What drivers send as depth, disparity or other measurements, in units of their own.
_MEASURED = re.compile(r'(16U|16S|32S|32F|64F)C[12]')
_DEPTH_TOPIC = re.compile(r'depth|disparity|range', re.IGNORECASE)
_PLANAR = ('nv12', 'nv21')  # colour follows the grey plane, in half as many rows
# Those of cameras and of what converts their pictures; others of Pillow run programs.
_FORMATS = (
    'AVIF',
    'BMP',
    'DIB',
    'GIF',
    'HEIF',
    'JPEG',
    'JPEG2000',
    'MPO',
    'PNG',
    'PPM',
    'TIFF',
    'WEBP',
)
_DARK = 1 << 14  # of 16 bits: depth in millimetres, and what a camera of 14 bits does not fill
_SEVERAL = ('GIF', 'PNG', 'TIFF', 'WEBP')  # in JPEG and HEIF others are previews
_NUMBERS = re.compile(r'(8|16|32|64)([USF])(?:C([1-4]))?')


class ImageRefused(ValueError):
    """A message that holds no usable picture; `reason` is one word for counting."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def check_photograph(layout: str, topic: str = '') -> None:
    """Raise ImageRefused where an encoding, or the format of a compressed image, is no photograph.

    A depth image in millimetres would pass for a near-black picture. Thermal cameras send mono16,
    and so do some depth cameras, whose `topic` tells.
    """
    kind = re.split(r'[;\s]', layout, maxsplit=1)[0]
    named = kind == 'mono16' and _DEPTH_TOPIC.search(topic)
    if named or _MEASURED.fullmatch(kind) or 'compressedDepth' in layout:
        raise ImageRefused(
            'encoding',
            f'expected a photograph, got {kind or layout!r}: depth or other measurements; '
            'choose the topic of the colour camera '
            '(grey ones of 16 bit call themselves mono16)',
        )


def decode_image(message: Any, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Convert a message with the fields of sensor_msgs/Image to uint8 RGB [H, W, 3].

    `8UC3` and `8UC4` are read as BGR(A), as cv_bridge does; alpha is dropped; 16 bit is scaled
    to 8; float is taken as 0..255. Raises ImageRefused for what cannot be read, and for what is no
    photograph.
    """
    check_photograph(str(message.encoding))
    height, width, encoding = int(message.height), int(message.width), str(message.encoding)
    _check_dimensions(height, width, max_pixels)
    channels, order = _FAST.get(encoding, (0, (0, 1, 2)))
    if not channels:
        return _decode_rare(message, height, width, encoding)
    pixels = _rows(message, height, width * channels).reshape(height, width, channels)
    conversion = _TO_RGB.get((channels, order))
    return pixels.copy() if conversion is None else cv2.cvtColor(pixels, conversion)


def decode_map(message: Any, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Return the values of a one-channel message, 32FC1, 16UC1 or mono8, as they are: [H, W].

    Raises ImageRefused for other encodings and for what cannot be read.
    """
    height, width, encoding = int(message.height), int(message.width), str(message.encoding)
    if encoding not in _MAPS:
        raise ImageRefused('encoding', f'expected a map of {", ".join(_MAPS)}, got {encoding!r}')
    _check_dimensions(height, width, max_pixels)
    order = '>' if message.is_bigendian else '<'
    kind = np.dtype(_MAPS[encoding]).newbyteorder(order)
    rows = np.ascontiguousarray(_rows(message, height, width * kind.itemsize))
    return rows.view(kind).astype(kind.newbyteorder('='))


def decode_compressed(data: Any, layout: str = '', max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Convert a JPEG or PNG (bytes or uint8 array) to uint8 RGB [H, W, 3].

    The size is read from the header and checked before anything is decoded; `layout` is the
    message's `format`. Orientation tags are ignored: the camera's pixels stay where they are.
    Raises ImageRefused for what cannot be read.
    """
    check_photograph(layout)
    raw = bytes(data)
    _refuse_video(raw, layout)
    height, width = peek_size(raw)
    _check_dimensions(height, width, max_pixels)
    if raw.startswith(b'\xff\xd8') and raw.rfind(JPEG_END) < len(raw) // 2:
        raise ImageRefused(
            'undecodable', f'expected a whole JPEG, got one that breaks off after {len(raw)} bytes'
        )
    return _imdecode(raw, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)


def _refuse_video(raw: bytes, layout: str) -> None:
    named = re.search(r'h\.?264|h\.?265|hevc|\bav1\b|\bvp[89]\b', layout, re.IGNORECASE)
    if named or raw.startswith((b'\0\0\0\1', b'\0\0\1')):
        kind = named[0] if named else 'H.264 or H.265'
        raise ImageRefused(
            'video',
            f'expected a JPEG or PNG, got a piece of {kind} video '
            f'(format {layout!r}), which no single message can show; turn '
            f'it into images before, as image_transport republish does '
            f'with ffmpeg_image_transport',
        )


def decode_file(raw: bytes, max_pixels: int = MAX_PIXELS, *, upright: bool = True) -> np.ndarray:
    """Convert the bytes of an image file of any common format to uint8 RGB [H, W, 3].

    It is turned as its orientation tag says, or left as stored (not `upright`). Grey becomes RGB,
    alpha is dropped, 16 bit is scaled to 8, of several pictures the first counts. Raises
    ImageRefused, also for what is no photograph: floats, and 16 bits of which but 14 are used.
    """
    height, width = peek_size(raw)
    _check_dimensions(height, width, max_pixels)
    measured = _opened(raw).mode[:1] in ('I', 'F')
    if not container(raw[:64]) and not measured:
        try:
            turned = 0 if upright else cv2.IMREAD_IGNORE_ORIENTATION
            return _imdecode(raw, cv2.IMREAD_COLOR | turned)
        except ImageRefused:
            pass  # Pillow knows more formats, and refuses what is damaged
    return _with_pillow(raw, upright)


def further_pictures(raw: bytes) -> int:
    """Return how many pictures an image file holds after the first: pages, or an animation."""
    try:
        picture = _opened(raw)
        return getattr(picture, 'n_frames', 1) - 1 if picture.format in _SEVERAL else 0
    except Exception:  # Pillow's plug-ins raise all kinds on damaged pages
        return 0


def read_stored(path: Path) -> np.ndarray | None:
    """Return the values of an image file as they are, by OpenCV; None where it cannot be read.

    Its own reader ends the process where a name is no UTF-8.
    """
    data = np.fromfile(path, np.uint8) if path.is_file() else ()
    return cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if len(data) else None


def read_picture(path: Path, *, upright: bool = True) -> np.ndarray:
    """Read an image file as `decode_file` does; ValueError, one line, for what is none."""
    try:
        return decode_file(path.read_bytes(), upright=upright)
    except (ImageRefused, OSError) as error:
        raise ValueError(f'{path}: expected a readable image; {one_line(error)}') from None


def _with_pillow(raw: bytes, upright: bool) -> np.ndarray:
    import PIL.ImageOps

    try:
        with _opened(raw) as picture:
            turned = PIL.ImageOps.exif_transpose(picture) if upright else picture
            if turned.mode[:1] in ('I', 'F'):
                return cv2.cvtColor(_as_bytes(_bright(np.asarray(turned))), cv2.COLOR_GRAY2RGB)
            return np.array(turned.convert('RGB'))
    except ImageRefused:
        raise
    except Exception as error:  # Pillow's plug-ins raise all kinds on damaged files
        raise ImageRefused(
            'undecodable',
            f'cannot decode the picture ({len(raw)} bytes), it is damaged: {one_line(error)}',
        ) from None


def _bright(grey: np.ndarray) -> np.ndarray:
    """Return what a file holds in 16 bits; ImageRefused where it would be a near-black picture."""
    brightest = grey.max()
    if grey.dtype.kind == 'f' or brightest < _DARK:
        raise ImageRefused(
            'no photograph',
            f'expected a photograph, got {grey.dtype} values up to {brightest:g}: depth or other '
            'measurements; scale them to 8 or 16 bits if they are a picture',
        )
    return grey.clip(0, 65535).astype(np.uint16)


def peek_size(raw: bytes) -> tuple[int, int]:
    """Return (H, W) as an image file's header tells, without decoding it; raises ImageRefused."""
    import PIL.Image

    try:
        width, height = _opened(raw).size
    except PIL.Image.DecompressionBombError:
        raise ImageRefused(
            'dimensions', 'expected a picture, its header names an absurd size'
        ) from None
    except ImageRefused:
        raise
    except Exception as error:  # Pillow's plug-ins raise all kinds on damaged headers
        start = raw[:4].hex(' ') or 'nothing'
        raise ImageRefused(
            'undecodable', f'expected a JPEG or PNG, got {len(raw)} bytes that start with {start}'
        ) from error
    return height, width


def _opened(raw: bytes) -> Any:
    """Return a picture of Pillow whose pixels are not decoded yet; ImageRefused without reader."""
    import PIL.Image

    PIL.Image.init()
    known = container(raw[:64])
    if known and known not in PIL.Image.OPEN and not _heif_reader(known):
        remedy = (
            "pip install 'road_anomaly_ros[heif]'"
            if known == HEIF
            else 'install Pillow 11.3 or newer'
        )
        raise ImageRefused(
            f'{known} without a reader',
            f'expected a reader for {known} pictures, none is installed; {remedy}, '
            'or convert it to JPEG',
        )
    return PIL.Image.open(
        io.BytesIO(raw), formats=[name for name in _FORMATS if name in PIL.Image.OPEN]
    )


@functools.cache
def _heif_reader(kind: str) -> bool:
    """Teach Pillow to read HEIF; returns whether there is a reader for `kind` now."""
    import PIL.Image

    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return kind in PIL.Image.OPEN


def _check_dimensions(height: int, width: int, max_pixels: int) -> None:
    if height < 1 or width < 1:
        raise ImageRefused(
            'dimensions', f'expected at least 1x1 pixel, got width {width}, height {height}'
        )
    if height * width > max_pixels:
        raise ImageRefused(
            'dimensions', f'expected at most {max_pixels} pixels, got {width}x{height}'
        )


def _rows(message: Any, height: int, row_bytes: int) -> np.ndarray:
    """Return the message's bytes as uint8 [height, row_bytes], the padding of rows removed."""
    step = int(message.step)
    if step < row_bytes:
        raise ImageRefused(
            'step',
            f'expected a step of at least {row_bytes} bytes for '
            f'{message.width} pixels {message.encoding}, got {step}',
        )
    data = np.frombuffer(message.data, np.uint8)
    # The last row may end without its padding: some drivers leave it out.
    if not step * (height - 1) + row_bytes <= data.size <= step * height:
        raise ImageRefused(
            'size',
            f'expected {step * height} bytes (step {step} x {height} rows), got {data.size}',
        )
    if step == row_bytes:
        return data[: height * step].reshape(height, step)
    return np.lib.stride_tricks.as_strided(data, (height, row_bytes), (step, 1), writeable=False)


def _decode_rare(message: Any, height: int, width: int, encoding: str) -> np.ndarray:
    image = _library()
    try:
        _, _, kind, channels = image.to_cvtype(encoding)
    except image.ImageError:
        raise ImageRefused(
            'encoding',
            f'expected a known image encoding such as rgb8, bgr8 or mono8, got {encoding!r}',
        ) from None
    planes = 3 if encoding in _PLANAR else 2
    if planes == 3 and (height % 2 or width % 2):
        raise ImageRefused(
            'dimensions', f'expected even width and height for {encoding}, got {width}x{height}'
        )
    dtype = np.dtype(kind).newbyteorder('>' if message.is_bigendian else '<')
    rows = _rows(message, height * planes // 2, width * channels * dtype.itemsize)
    pixels = np.ascontiguousarray(rows).view(dtype).reshape(len(rows), width, channels)
    pixels = np.ascontiguousarray(pixels, dtype.newbyteorder('='))
    try:
        return _to_rgb(image, pixels, encoding)
    except (image.ImageError, cv2.error) as error:
        raise ImageRefused(
            'encoding', f'cannot turn {encoding} into RGB: {one_line(error)}'
        ) from None


def _to_rgb(image: Any, pixels: np.ndarray, encoding: str) -> np.ndarray:
    if _NUMBERS.fullmatch(encoding):
        pixels = _as_bytes(pixels)
        encoding = {1: 'mono8', 3: 'bgr8', 4: 'bgra8'}.get(pixels.shape[2], encoding)
    pixels = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    return np.ascontiguousarray(image.convert_color(pixels, encoding, 'rgb8'))


def _as_bytes(pixels: np.ndarray) -> np.ndarray:
    """Scale uint16 to 0..255, take any other numbers as 0..255 already; NaN becomes 0."""
    if pixels.dtype == np.uint16:
        return (pixels // 257).astype(np.uint8)
    return np.nan_to_num(pixels, nan=0.0).clip(0, 255).astype(np.uint8)


def _library() -> Any:
    try:
        from rosbags.image import image
    except ImportError:
        raise ImageRefused(
            'encoding',
            f'expected one of {sorted(_FAST)}; Bayer, YUV, 16 bit and '
            f"float need 'pip install rosbags-image'",
        ) from None
    return image


def _imdecode(raw: bytes, flags: int) -> np.ndarray:
    try:
        picture = cv2.imdecode(np.frombuffer(raw, np.uint8), flags)
    except cv2.error as error:
        raise ImageRefused(
            'undecodable', f'cannot decode the picture: {one_line(error)}'
        ) from None
    if picture is None:
        raise ImageRefused(
            'undecodable', f'cannot decode the picture ({len(raw)} bytes), it is damaged'
        )
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
