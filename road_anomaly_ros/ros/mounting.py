# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Where a camera is fixed to the vehicle: as TF knows it, where tf2_ros is installed."""

from __future__ import annotations

import threading
from typing import Any

from road_anomaly_ros.perception.geometry import Mounting
from road_anomaly_ros.remarks import one_line

try:
    import tf2_ros
except ImportError:  # no wheel of it; parameters say the same
    tf2_ros = None

REMEDY = 'set geometry.camera_height, .camera_pitch and .camera_roll'


class Transforms:
    """Listens to TF from the first question on."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self._lock = threading.Lock()
        self._buffer: Any = None
        self._listener: Any = None

    def mounting(self, base: str, frame: str) -> Mounting:
        """Return the mounting of a camera's optical frame; LookupError where TF knows none."""
        if tf2_ros is None:
            raise LookupError(
                f'the mounting of the camera is unknown (tf2_ros is not installed '
                f'to look it up): {REMEDY}'
            )
        from rclpy.time import Time

        with self._lock:
            if self._buffer is None:
                self._buffer = tf2_ros.Buffer()
                self._listener = tf2_ros.TransformListener(self._buffer, self._node)
        try:
            found = self._buffer.lookup_transform(base, frame.lstrip('/'), Time()).transform
        except tf2_ros.TransformException as error:
            raise LookupError(
                f'TF knows no mounting of {frame!r} on {base!r} '
                f'({one_line(error)}): publish it or {REMEDY}'
            ) from None
        place, turn = found.translation, found.rotation
        return Mounting.from_transform(
            (place.x, place.y, place.z), (turn.x, turn.y, turn.z, turn.w), 'from TF'
        )

    def close(self) -> None:
        """Stop listening."""
        with self._lock:
            listener, self._listener, self._buffer = self._listener, None, None
        if listener is not None:
            listener.unregister()


def announce(node: Any, mounting: Mounting, base: str, frame: str) -> Any:
    """Send a mounting as a static transform; returns what keeps it there, None without tf2_ros."""
    if tf2_ros is None:
        return None
    from geometry_msgs.msg import TransformStamped

    message = TransformStamped(child_frame_id=frame)
    message.header.stamp, message.header.frame_id = node.get_clock().now().to_msg(), base
    place, turn = message.transform.translation, message.transform.rotation
    place.x, place.y, place.z = mounting.position.tolist()
    turn.x, turn.y, turn.z, turn.w = mounting.quaternion
    broadcaster = tf2_ros.StaticTransformBroadcaster(node)
    broadcaster.sendTransform(message)
    return broadcaster
