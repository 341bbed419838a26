# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Camera messages to RGB arrays and arrays to messages: one copy in, one copy out."""

from __future__ import annotations

import array
import functools
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from road_anomaly_ros.remarks import one_line
from road_anomaly_ros.ros.video import Picture, to_rgb
from road_anomaly_ros.tools.encodings import (
    FAST_ENCODINGS,
    JPEG,
    MAX_PIXELS,
    ImageRefused,
    check_photograph,
    decode_compressed,
    decode_image,
    decode_map,
)

DTYPES = {'mono8': np.uint8, 'rgb8': np.uint8, '16UC1': np.uint16, '32FC1': np.float32}
_CHANNELS = {'rgb8': 3}


def to_array(message: Any, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Return the picture of an Image, a CompressedImage or of video as uint8 RGB [H, W, 3].

    Raises ImageRefused, whose `reason` is one word, for whatever cannot be read.
    """
    try:
        if isinstance(message, Picture):
            return to_rgb(message, max_pixels)
        if isinstance(message, CompressedImage):
            return decode_compressed(message.data, message.format, max_pixels)
        if message.encoding not in FAST_ENCODINGS and _cv_bridge() is not None:
            return _through_cv_bridge(message, max_pixels)
        return decode_image(message, max_pixels)
    except ImageRefused:
        raise
    except MemoryError:
        raise ImageRefused(
            'memory', 'expected a picture that fits in memory; lower max_pixels'
        ) from None
    except Exception as error:  # no message may end the node, whatever a decoder makes of it
        raise ImageRefused('undecodable', f'cannot read the picture: {one_line(error)}') from error


def to_message(picture: np.ndarray, encoding: str, header: Any) -> Image:
    """Return an Image that holds `picture`, [H, W] or [H, W, 3], with the given header.

    Raises ValueError when shape or dtype do not fit the encoding.
    """
    dtype, channels = DTYPES[encoding], _CHANNELS.get(encoding, 1)
    if picture.dtype != dtype or picture.shape[2:] != ((3,) if channels == 3 else ()):
        raise ValueError(
            f'expected {np.dtype(dtype)} with {channels} channels for {encoding}, '
            f'got {picture.dtype} {list(picture.shape)}'
        )
    picture = np.ascontiguousarray(picture)
    height, width = picture.shape[:2]
    message = Image(
        header=header,
        height=height,
        width=width,
        encoding=encoding,
        step=width * channels * picture.itemsize,
        is_bigendian=0,
    )
    message.data = to_bytes(picture)
    return message


def to_jpeg(picture: np.ndarray, header: Any, quality: int) -> CompressedImage:
    """Return a CompressedImage that holds an RGB picture uint8 [H, W, 3] as JPEG."""
    done, encoded = cv2.imencode(
        '.jpg', cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    if not done:
        raise ValueError(f'cannot encode a picture of shape {list(picture.shape)} as JPEG')
    message = CompressedImage(header=header, format=JPEG)
    message.data = to_bytes(encoded)
    return message


def to_png(picture: np.ndarray, encoding: str, header: Any) -> CompressedImage:
    """Return a CompressedImage that holds a picture [H, W] of mono8 or 16UC1 without loss."""
    done, encoded = cv2.imencode('.png', picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise ValueError(f'cannot encode a picture of shape {list(picture.shape)} as PNG')
    message = CompressedImage(header=header, format=f'{encoding}; png compressed {encoding}')
    message.data = to_bytes(encoded)
    return message


def to_bytes(values: np.ndarray) -> array.array:
    """Return C-contiguous values as array('B'), which Image.data takes without a look per byte."""
    data = array.array('B')
    data.frombytes(memoryview(values.reshape(-1)).cast('B') if values.size else b'')
    return data


def to_map(message: Any, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Return the anomaly map of an Image of 32FC1, 16UC1 or mono8 as [H, W] of its own type.

    Raises ImageRefused, whose `reason` is one word, for whatever cannot be read.
    """
    return decode_map(message, max_pixels)


def nanoseconds(stamp: Any) -> int:
    """Return a builtin_interfaces/Time in nanoseconds."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def seconds(stamp: Any) -> float:
    """Return a builtin_interfaces/Time in seconds."""
    return stamp.sec + stamp.nanosec * 1e-9


def _through_cv_bridge(message: Any, max_pixels: int) -> np.ndarray:
    check_photograph(message.encoding)
    height, width = message.height, message.width
    if not 1 <= height * width <= max_pixels:
        raise ImageRefused(
            'dimensions', f'expected 1 to {max_pixels} pixels, got {width}x{height}'
        )
    step, size = message.step, len(message.data)
    if step * height > size:
        raise ImageRefused(
            'size', f'expected {step * height} bytes (step {step} x {height} rows), got {size}'
        )
    picture = _cv_bridge()(message, 'rgb8')
    if picture.dtype != np.uint8 or picture.shape != (height, width, 3):
        raise ImageRefused('encoding', f'cannot turn {message.encoding!r} into RGB')
    return picture


@functools.cache
def _cv_bridge() -> Callable[[Any, str], np.ndarray] | None:
    try:
        from cv_bridge import CvBridge
    except Exception:  # absent, or built for another NumPy: rosbags-image steps in
        return None
    return CvBridge().imgmsg_to_cv2
