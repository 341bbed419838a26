# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Video topics of the live graph: packets are decoded when they come, RGB is made when used."""

from __future__ import annotations

from typing import Any, NamedTuple

from sensor_msgs.msg import Image
from std_msgs.msg import Header

from road_anomaly_ros.ros import topics
from road_anomaly_ros.tools import video_topics
from road_anomaly_ros.tools.encodings import ImageRefused

# What image_transport calls the ways of sending an image: type, and what follows the topic.
TRANSPORTS = {
    'raw': ('sensor_msgs/msg/Image', ''),
    'compressed': ('sensor_msgs/msg/CompressedImage', topics.COMPRESSED),
    'ffmpeg': (video_topics.FFMPEG, topics.FFMPEG),
    'foxglove': (video_topics.FOXGLOVE, topics.FOXGLOVE),
}
DEPTH = 30  # packets that wait for their turn: one that is lost costs all up to the next key frame


class Picture(NamedTuple):
    """A decoded picture under the header of its message."""

    header: Header
    decoded: Any


def message_class(transport: str) -> type:
    """Return the type of message of a transport; ValueError where it is not installed."""
    kind, _ = TRANSPORTS[transport]
    found = topics.message_class(kind)
    if found is None:
        package = kind.partition('/')[0]
        raise ValueError(
            f'image_transport {transport}: expected the package {package}, which is not '
            "installed; install it, or choose 'raw' or 'compressed'"
        )
    return found


def header_of(message: Any) -> Header:
    """Return the header of an image or a packet of video."""
    if hasattr(message, 'header'):
        return message.header
    return Header(stamp=message.timestamp, frame_id=message.frame_id)


class Video:
    """The pictures that one camera's messages bring to light, in the order of their showing."""

    def __init__(self) -> None:
        self._decoder: video_topics.VideoDecoder[Header] = video_topics.VideoDecoder()

    def shown(self, message: Any) -> list[Any]:
        """Return what is to be processed now: the message itself where it is no video.

        Raises ImageRefused for packets that cannot be decoded yet, or ever.
        """
        packet = None if isinstance(message, Image) else video_topics.packet_of(message)
        if packet is None:
            return [message]
        return [Picture(*pair) for pair in self._decoder.decode(packet, header_of(message))]

    def restart(self) -> int:
        """Wait for a key frame again, as after a gap; returns how many packets were held."""
        before, self._decoder = self._decoder, video_topics.VideoDecoder()
        return before.held

    def lost(self) -> int:
        """Return how many packets since the last call were taken and gave no picture."""
        lost, self._decoder.lost = len(self._decoder.lost), []
        return lost


def to_rgb(picture: Picture, max_pixels: int) -> Any:
    """Return a picture as uint8 RGB [H, W, 3]; raises ImageRefused for too many pixels."""
    height, width = picture.decoded.height, picture.decoded.width
    if height * width > max_pixels:
        raise ImageRefused(
            'dimensions', f'expected at most {max_pixels} pixels, got {width}x{height}'
        )
    return video_topics.to_rgb(picture.decoded)
