# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A subscription that asks for what its publishers offer."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Mapping
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy, qos_policy_name_from_kind

from road_anomaly_ros.ros import topics

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError

AUTO, RELIABLE, BEST_EFFORT = 'auto', 'reliable', 'best_effort'
RELIABILITIES = (AUTO, RELIABLE, BEST_EFFORT)
_KINDS = {RELIABLE: ReliabilityPolicy.RELIABLE, BEST_EFFORT: ReliabilityPolicy.BEST_EFFORT}


def input_qos(reliability: str = BEST_EFFORT, depth: int = 1) -> QoSProfile:
    """Return the profile of an input: no queue of ours that could grow old."""
    return QoSProfile(
        depth=depth, history=HistoryPolicy.KEEP_LAST, reliability=_KINDS[reliability]
    )


def subscribe(
    node: Any,
    kind: type,
    topic: str,
    callback: Callable[[Any], None],
    qos: QoSProfile,
    *,
    lost: Callable[[int], None] | None = None,
    events: Mapping[str, Callable[[Any], None]] | None = None,
    **options: Any,
) -> Any:
    """Return a subscription with callbacks of `events`; `options` are those of rclpy.

    `lost(count)` hears of lost messages where the middleware tells.
    """
    heard = dict(events or {})
    create = functools.partial(node.create_subscription, kind, topic, callback, qos, **options)
    if lost is not None:
        told = {**heard, 'message_lost': lambda event: lost(event.total_count_change)}
        with contextlib.suppress(UnsupportedEventTypeError):  # not every middleware counts them
            return create(event_callbacks=SubscriptionEventCallbacks(**told))
    return create(event_callbacks=SubscriptionEventCallbacks(**heard))


class Input:
    """One subscription of `node`, open from `open` to `close`.

    With `reliability` 'auto' it asks for reliable delivery while all its publishers offer that,
    and for best effort otherwise: images larger than the shared memory of Fast DDS get lost with
    best effort. An override of the user wins. `lost(count)` hears of lost messages where the
    middleware tells, `mismatch(policy)` that a publisher offers too little.
    """

    def __init__(
        self,
        node: Any,
        kind: type,
        topic: str,
        callback: Callable[[Any], None],
        *,
        group: Any,
        reliability: str = BEST_EFFORT,
        depth: int = 1,
        lost: Callable[[int], None] | None = None,
        mismatch: Callable[[str], None] = lambda policy: None,
    ) -> None:
        self._node, self._kind, self._topic, self._callback = node, kind, topic, callback
        self._group, self._lost, self._mismatch = group, lost, mismatch
        self._depth = depth
        self.name = node.resolve_topic_name(topic)
        override = f'qos_overrides.{self.name}.subscription.reliability'
        self._overridden = override in getattr(node, '_parameter_overrides', {})
        self._auto = reliability == AUTO and not self._overridden
        self._fixed = BEST_EFFORT if reliability == AUTO else reliability
        self._lock = threading.Lock()
        self._subscription: Any = None
        self._asked = ''

    @property
    def reliability(self) -> str:
        """What is asked for now: 'reliable' or 'best_effort'."""
        found = self._subscription
        reliable = found is not None and found.qos_profile.reliability == _KINDS[RELIABLE]
        return RELIABLE if reliable else BEST_EFFORT

    def open(self) -> None:
        """Begin to listen."""
        with self._lock:
            self._create(self._wanted() if self._auto else self._fixed)

    def close(self) -> None:
        """Stop listening."""
        with self._lock:
            self._destroy()

    def review(self) -> None:
        """Ask anew where the publishers now offer something else; from any thread."""
        with self._lock:
            if self._subscription is None or not self._auto:
                return
            wanted = self._wanted()
            if wanted != self._asked:
                self._destroy()
                self._create(wanted)

    def offers(self) -> set[str]:
        """Return what the publishers of the topic offer."""
        names = {kind: name for name, kind in _KINDS.items()}
        found = self._node.get_publishers_info_by_topic(self.name)
        return {names.get(item.qos_profile.reliability, RELIABLE) for item in found}

    def _wanted(self) -> str:
        return BEST_EFFORT if BEST_EFFORT in self.offers() else RELIABLE

    def _create(self, reliability: str) -> None:
        self._asked = reliability
        # What rclpy has declared as an override once would win over every later profile.
        policies = topics.DEFAULT_POLICIES if self._overridden else topics.SIZES
        overriding = topics.overriding(self._node, self._topic, 'subscription', policies)
        self._subscription = subscribe(
            self._node,
            self._kind,
            self._topic,
            self._callback,
            input_qos(reliability, self._depth),
            lost=self._lost,
            events={'incompatible_qos': self._on_mismatch},
            callback_group=self._group,
            qos_overriding_options=overriding,
        )

    def _destroy(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            self._node.destroy_subscription(subscription)

    def _on_mismatch(self, event: Any) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind).lower()
        if not (self._auto and policy == 'reliability'):
            self._mismatch(policy)
            return

        def once() -> None:
            timer.cancel()
            self.review()
            self._node.destroy_timer(timer)

        # Not from here: the subscription whose event this is would be destroyed below itself.
        timer = self._node.create_timer(
            0.0, once, callback_group=self._group, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
