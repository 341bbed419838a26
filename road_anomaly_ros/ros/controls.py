# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What nodes that play something have in common: services, waiting for readers, a report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from std_srvs.srv import Trigger

from road_anomaly_ros.remarks import one_line
from road_anomaly_ros.ros.player import Player

ENDED = 'the end is reached'
STEP_S = 30.0  # longest wait for a picture that was asked for
_POLL_S = 0.05
_FLUSH_S = 2.0


def camera_qos(*, reliable: bool = False, depth: int = 5) -> QoSProfile:
    """Return the profile of a camera's topics: sensor data, or reliable for who must lose none."""
    kind = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
    return QoSProfile(depth=depth, history=HistoryPolicy.KEEP_LAST, reliability=kind)


class Controls:
    """Services ~/pause, ~/resume and ~/play_next of a player, which starts when readers are there.

    `pictures` are the publishers whose subscribers are counted against `wait_for`; where
    `wait_node` is given, the node of that name must be among them.
    """

    def __init__(
        self,
        node: Any,
        player: Player,
        pictures: Sequence[Any],
        wait_for: int = 0,
        wait_node: str = '',
    ) -> None:
        self._node, self._player, self._pictures = node, player, pictures
        self._wait_for, self._wait_node = max(wait_for, bool(wait_node)), wait_node
        self._begin: float | None = None
        group = MutuallyExclusiveCallbackGroup()  # a step waits; nothing else shall
        for name, action in (
            ('pause', self._pause),
            ('resume', self._resume),
            ('play_next', self._play_next),
        ):
            node.create_service(Trigger, f'~/{name}', action, callback_group=group)
        # The steady clock ticks also where simulated time stands still.
        self._timer = node.create_timer(
            _POLL_S, self._start, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        if self._wait_for:
            whom = wait_node or f'{self._wait_for} subscribers'
            node.get_logger().info(
                f'waiting for {whom} to listen to '
                f'{" or ".join(item.topic_name for item in pictures)}'
            )
        else:
            self._start()

    def _start(self) -> None:
        readers = sum(item.get_subscription_count() for item in self._pictures)
        if self._begin is None and readers >= self._wait_for and self._is_heard_by_node():
            self._timer.cancel()
            self._begin = time.monotonic()
            self._player.start()

    def _is_heard_by_node(self) -> bool:
        """Tell whether the node waited for listens, and asks for no more than is offered."""
        if not self._wait_node:
            return True
        return any(
            self._is_node(found)
            and not (
                found.qos_profile.reliability == ReliabilityPolicy.RELIABLE
                and publisher.qos_profile.reliability != ReliabilityPolicy.RELIABLE
            )
            for publisher in self._pictures
            for found in self._node.get_subscriptions_info_by_topic(publisher.topic_name)
        )

    def _is_node(self, found: Any) -> bool:
        full = f'{found.node_namespace.rstrip("/")}/{found.node_name}'
        return self._wait_node in (found.node_name, full)

    def _pause(self, _: Any, response: Any) -> Any:
        response.success = self._player.pause()
        response.message = 'paused' if response.success else 'was paused already'
        return response

    def _resume(self, _: Any, response: Any) -> Any:
        response.success = self._player.resume()
        response.message = 'goes on' if response.success else 'was not paused'
        return response

    def _play_next(self, _: Any, response: Any) -> Any:
        try:
            response.success = self._player.step(STEP_S)
            ended = ENDED if self._player.finished else 'no picture is ready'
            response.message = f'picture {self._player.pictures}' if response.success else ended
        except ValueError as error:
            response.message = one_line(error)
        return response

    def close(self, extra: str = '') -> None:
        """Stop the player, wait until reliable readers have all, say what was sent."""
        player = self._player
        player.stop()
        for publisher in self._pictures:
            if hasattr(publisher, 'wait_for_all_acked') and publisher.get_subscription_count():
                publisher.wait_for_all_acked(Duration(seconds=_FLUSH_S))
        spent = time.monotonic() - self._begin if self._begin is not None else 0.0
        rate = f' ({player.pictures / spent:.1f}/s)' if spent and player.pictures > 1 else ''
        others = f' and {player.others} other messages' if player.others else ''
        late = f', at most {player.late_ns * 1e-6:.0f} ms late' if player.late_ns else ''
        self._node.get_logger().info(
            f'sent {player.pictures} pictures{rate}{others} in {spent:.1f} s{late}{extra}'
        )
        if player.error is not None:
            self._node.get_logger().error(f'ended early: {one_line(player.error)}')
