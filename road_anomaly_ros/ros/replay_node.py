# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The node `replay`: plays an input on camera topics."""

from __future__ import annotations

import functools
import threading
from pathlib import Path
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rosgraph_msgs.msg import Clock as ClockMessage

from road_anomaly_ros.ros.controls import Controls
from road_anomaly_ros.ros.playback import (
    PICTURES,
    Messages,
    Pictures,
    Settings,
    plan,
    to_time,
    topic_kinds,
)
from road_anomaly_ros.ros.player import Player
from road_anomaly_ros.ros.topics import message_class
from road_anomaly_ros.tools.bag_files import is_bag
from road_anomaly_ros.tools.bags import BagReader
from road_anomaly_ros.tools.sources import open_source
from road_anomaly_ros.tools.sources.stream import is_live, is_stream, without_secret

_PATIENCE_S = 1.0  # for a camera or a pipe that may hang


class Replay(Node):
    """Publishes `path` until it ends, which sets `stop`; see the command `replay`.

    `clock_hz` is the rate of /clock, None for none. `checked` tells beforehand whether the input
    can be read.
    """

    def __init__(
        self,
        path: str,
        settings: Settings,
        *,
        rate: float = 1.0,
        clock_hz: float | None = None,
        start_paused: bool = False,
        wait_for: int = 0,
        wait_node: str = '',
        stop: threading.Event | None = None,
        **node_arguments: Any,
    ) -> None:
        super().__init__('replay', **node_arguments)
        self._stream: Pictures | Messages
        if as_stored(path, settings):
            self._stream = Messages(self, Path(path), settings)
        else:
            self._stream = Pictures(
                self, functools.partial(open_source, path, settings.topic), settings
            )
        self._player = Player(
            self._stream.cues(),
            rate=rate,
            paused=start_paused,
            newest=is_live(path),
            patience=_PATIENCE_S if is_stream(path) else None,
            ended=stop.set if stop else lambda: None,
        )
        self._clock_publisher: Any = None
        if clock_hz is not None and self._stream.has_clock:
            self.get_logger().info('/clock is that of the bag, --clock adds none')
        elif clock_hz is not None:
            self._clock_publisher = self.create_publisher(ClockMessage, '/clock', 1)
            self.create_timer(
                1.0 / clock_hz, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME)
            )
        self.controls = Controls(self, self._player, self._stream.publishers, wait_for, wait_node)

    @property
    def exit_code(self) -> int:
        """0, or 1 where the input is not complete or could not be read to its end."""
        return int(self._player.error is not None or self._stream.incomplete)

    def _tick(self) -> None:
        now = self._player.clock()
        if now is not None:
            self._clock_publisher.publish(ClockMessage(clock=to_time(now)))

    def close(self) -> None:
        """Stop sending and say what was sent and what was not."""
        self.controls.close(''.join(f'; {remark}' for remark in self._stream.remarks))


def as_stored(path: str, settings: Settings) -> bool:
    """Tell whether messages are sent as the bag holds them.

    ROS 1 bags hold pictures only, and of video whose messages are not installed pictures are sent.
    """
    pictures = settings.decoded or settings.size is not None or Path(path).suffix == '.bag'
    if pictures or not is_bag(Path(path)):
        return False
    reader = BagReader(Path(path))
    try:
        found = topic_kinds(reader, settings).values()
        kinds = {kind for kind in found if kind in PICTURES}
    finally:
        reader.close()
    return not kinds or any(message_class(kind) for kind in kinds)


def checked(path: str, settings: Settings) -> None:
    """Raise ValueError, one line, when `path` cannot be replayed like that."""
    if not as_stored(path, settings):
        if settings.renamed or settings.only_camera:
            raise ValueError(
                '--map and --only-camera are for rosbag2, '
                f'{without_secret(path)} is played as pictures'
            )
        if not is_stream(path):  # what goes on meanwhile, or can be read but once
            open_source(path, settings.topic).close()
        return
    reader = BagReader(Path(path))
    try:
        plan(topic_kinds(reader, settings), settings)
    finally:
        reader.close()
