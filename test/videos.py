# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Packets of video, encoded here, and the messages of each kind of video topic."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

import numpy as np
import pytest

from road_anomaly_ros.tools.bags import BagWriter, compressed_message, header, type_store
from road_anomaly_ros.tools.video_topics import FFMPEG, FOXGLOVE

SIZE = (64, 96)
GROUP = 8  # pictures from one key frame to the next
START = 1_700_000_000_000_000_000
STEP = 50_000_000
_OPTIONS = {
    'libx264': {
        'tune': 'zerolatency',
        'x264-params': 'repeat-headers=1:scenecut=0',
        'preset': 'ultrafast',
    },
    'libx265': {
        'tune': 'zerolatency',
        'x265-params': 'repeat-headers=1:bframes=0:scenecut=0:log-level=none',
    },
}


def picture(index: int) -> np.ndarray:
    """A picture whose green tells its number: 10 more with each."""
    found = np.zeros((*SIZE, 3), np.uint8)
    found[..., 1] = 10 + 10 * index
    found[:, :20] = 200, 30, 30
    return found


def number(image: np.ndarray) -> int:
    """Return the number of a decoded picture."""
    return round((float(image[:, 30:, 1].mean()) - 10) / 10)


def packets(
    encoder: str = 'libx264', count: int = 20, pictures: Iterable[np.ndarray] = (), **changed: str
) -> list[bytes]:
    """Encode pictures, `count` of ours where none are given, a key frame every GROUP."""
    av = pytest.importorskip('av', reason='needs the extra video')
    frames = list(pictures) or [picture(index) for index in range(count)]
    codec = av.CodecContext.create(encoder, 'w')
    codec.height, codec.width = frames[0].shape[:2]
    codec.pix_fmt, codec.time_base, codec.framerate = 'yuv420p', Fraction(1, 20), 20
    codec.gop_size, codec.options = GROUP, {**_OPTIONS[encoder], **changed}
    found = []
    for index, image in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(image, format='rgb24')
        frame.pts = index
        found += codec.encode(frame)
    return [bytes(packet) for packet in (*found, *codec.encode(None))]


def message(kind: str, data: bytes, codec: str, index: int):
    """Return a message of a kind of video topic, with stamp and frame of the camera."""
    stamp, content = START + index * STEP, np.frombuffer(data, np.uint8)
    about = header(stamp, 'front')
    if kind == FFMPEG:
        return type_store().types[FFMPEG](
            header=about,
            width=SIZE[1],
            height=SIZE[0],
            encoding=f'{codec};yuv420p;bgr8;bgr8',
            pts=index,
            flags=0,
            is_bigendian=False,
            data=content,
        )
    if kind == FOXGLOVE:
        return type_store().types[FOXGLOVE](
            timestamp=about.stamp, frame_id='front', data=content, format=codec
        )
    return compressed_message(content, codec, stamp_ns=stamp, frame_id='front')


def write_bag(folder, kind: str, data: Iterable[bytes], codec='h264', storage='mcap'):
    """Write packets as the messages of a bag's only topic."""
    writer = BagWriter(folder, storage)
    for index, packet in enumerate(data):
        stamp = START + index * STEP
        writer.write('/camera/image/video', kind, message(kind, packet, codec, index), stamp)
    writer.close()
    return folder
