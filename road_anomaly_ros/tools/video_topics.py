# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures out of video topics, whose messages build on one another: decoded through PyAV.

Works on any object with the fields of sensor_msgs/CompressedImage (format h264 or h265),
ffmpeg_image_transport_msgs/FFMPEGPacket or foxglove_msgs/CompressedVideo.
"""

from __future__ import annotations

import re
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from road_anomaly_ros.remarks import one_line
from road_anomaly_ros.tools.encodings import ImageRefused, check_photograph
from road_anomaly_ros.tools.h264 import Continuity, begins
from road_anomaly_ros.tools.pictures import MAX_PIXELS

T = TypeVar('T')

FFMPEG = 'ffmpeg_image_transport_msgs/msg/FFMPEGPacket'
FOXGLOVE = 'foxglove_msgs/msg/CompressedVideo'
# For bags that do not bring them along.
DEFINITIONS = {
    FFMPEG: 'std_msgs/Header header\nint32 width\nint32 height\nstring encoding\nuint64 pts\n'
    'uint8 flags\nbool is_bigendian\nuint8[] data\n',
    FOXGLOVE: 'builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n',
}
KEY_FRAME = 'keyframe'
_CODECS = {
    'h264': 'h264',
    'avc': 'h264',
    'libx264': 'h264',
    'h265': 'hevc',
    'hevc': 'hevc',
    'libx265': 'hevc',
    'av1': 'av1',
    'vp9': 'vp9',
    'vp8': 'vp8',
    'mjpeg': 'mjpeg',
}
_IN_FLIGHT = 64  # packets that a decoder may hold back


class Packet(NamedTuple):
    """What a message of a video topic holds."""

    codec: str  # as FFmpeg calls it
    data: bytes
    stamp_ns: int
    frame_id: str


def packet_of(message: Any) -> Packet | None:
    """Return the packet of a message, None where it holds a picture of its own.

    Raises ImageRefused for video that is none of a colour camera, or of an unknown codec.
    """
    layout = str(getattr(message, 'format', '') or getattr(message, 'encoding', ''))
    if hasattr(message, 'pts'):
        check_photograph(layout.split(';')[-1])
    codec = _codec(layout, message)
    if codec is None:
        return None
    header = getattr(message, 'header', None)
    stamp = header.stamp if header is not None else message.timestamp
    frame_id = header.frame_id if header is not None else message.frame_id
    return Packet(
        codec, bytes(message.data), stamp.sec * 1_000_000_000 + stamp.nanosec, str(frame_id)
    )


def _codec(layout: str, message: Any) -> str | None:
    word = re.split(r'[;\s]', layout.lower(), maxsplit=1)[0].replace('.', '')
    found = _CODECS.get(word) or _CODECS.get(word.split('_')[0])
    only_video = hasattr(message, 'pts') or hasattr(message, 'timestamp')
    if found is None and only_video:
        raise ImageRefused(
            'encoding', f'expected a video of {", ".join(sorted(set(_CODECS)))}, got {layout!r}'
        )
    if only_video or (found is not None and found != 'mjpeg'):
        return found
    beginning = bytes(memoryview(message.data)[:4]) if hasattr(message, 'format') else b''
    return 'h264' if beginning.startswith((b'\0\0\0\1', b'\0\0\1')) else None


class VideoDecoder(Generic[T]):
    """The pictures of one video topic, in the order in which they are to be shown.

    While pictures lack that others build on, packets are refused until the next key frame; `lost`
    gathers the items of those that were taken and still gave no picture, for the caller to clear.
    """

    def __init__(self, max_pixels: int = MAX_PIXELS) -> None:
        self._max_pixels = max_pixels
        self._codec = ''
        self._decoder: Any = None
        self._continuity = Continuity()
        self._waiting = True
        self._number = 0
        self._held: dict[int, T] = {}
        self.lost: list[T] = []

    @property
    def held(self) -> int:
        """How many items wait for their picture."""
        return len(self._held)

    def decode(self, packet: Packet, item: T) -> list[tuple[T, Any]]:
        """Return what is to be shown now: items with their pictures, for `to_rgb`.

        Raises ImageRefused, with the reason `KEY_FRAME` where it is one to wait for.
        """
        if packet.codec != self._codec:
            self._open(packet.codec)
        whole = packet.codec != 'h264' or self._continuity.follows(packet.data)
        self._waiting = not whole or (self._waiting and not begins(packet.codec, packet.data))
        if self._waiting:
            self._wait()
        number = self._number
        self._held[number] = item
        self._lose(number - _IN_FLIGHT)
        try:
            return self._pictures(packet.data)
        except ImageRefused:
            self._held.pop(number, None)  # the caller knows of this one
            raise

    def finish(self) -> list[tuple[T, Any]]:
        """Return what the decoder still holds back at the end of the stream."""
        try:
            return self._pictures(None) if self._decoder is not None else []
        finally:
            self._lose(self._number)

    def _lose(self, before: int) -> None:
        """Give up the items up to the one of a number."""
        for number in [number for number in self._held if number < before]:
            self.lost.append(self._held.pop(number))

    def _open(self, codec: str) -> None:
        try:
            import av
        except ImportError:
            raise ImageRefused(
                'video',
                f'expected a picture, got {codec} video, which takes PyAV to decode; install it '
                "with pip install 'road_anomaly_ros[video]'",
            ) from None
        self._codec, self._waiting, self._continuity = codec, True, Continuity()
        self._decoder = av.CodecContext.create(codec, 'r')
        self._decoder.options = {'max_pixels': str(self._max_pixels)}

    def _wait(self) -> None:
        self._decoder.flush_buffers()
        self._lose(self._number)
        raise ImageRefused(
            KEY_FRAME,
            f'expected a key frame of the {self._codec} video, got one that builds on pictures '
            'that never came; the next key frame is waited for',
        )

    def _pictures(self, data: bytes | None) -> list[tuple[T, Any]]:
        import av

        packet = av.Packet(data) if data is not None else None
        if packet is not None:
            packet.pts = self._number
            self._number += 1
        try:
            found = self._decoder.decode(packet)
        except av.FFmpegError as error:
            self._waiting = True
            raise ImageRefused(
                'undecodable', f'cannot decode the {self._codec} video: {one_line(error)}'
            ) from None
        shown = []
        for picture in found:
            if picture.key_frame:  # what came before it is shown before it, or never
                self._lose(picture.pts)
            if picture.pts in self._held:
                shown.append((self._held.pop(picture.pts), picture))
        return shown


def to_rgb(picture: Any) -> np.ndarray:
    """Return a decoded picture as uint8 RGB [H, W, 3]."""
    found: np.ndarray = picture.to_ndarray(format='rgb24')
    return found
