# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The table of results as topics; a row is built only while somebody listens to it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from road_anomaly_ros.perception import LabelSet
from road_anomaly_ros.perception.geometry import Survey
from road_anomaly_ros.remarks import one_line
from road_anomaly_ros.ros import images
from road_anomaly_ros.ros.topics import COMPRESSED, compressed, message_class, overriding
from road_anomaly_ros.tools import results
from road_anomaly_ros.tools.results import OVERLAY, Output


class Failure(NamedTuple):
    """A row that was left out, and why."""

    topic: str
    reason: str


class _Row(NamedTuple):
    output: Output
    plain: Any  # publisher of the picture or message
    small: Any  # publisher of the compressed picture, or None

    def heard(self) -> list[Any]:
        """Return the publishers that somebody listens to."""
        both = (self.plain, self.small)
        return [one for one in both if one is not None and one.get_subscription_count() > 0]


def qos(*, latched: bool = False) -> QoSProfile:
    """Return the profile of an output: reliable, so that it serves every kind of subscriber.

    A new object each time, because rclpy writes the user's overrides into it.
    """
    durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
    return QoSProfile(
        depth=1,
        history=HistoryPolicy.KEEP_LAST,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=durability,
    )


def offered(*, debug: bool) -> list[Output]:
    """Return the rows that a node offers, those for debugging only when asked for."""
    return [output for output in results.OUTPUTS if debug or not output.debug]


def missing() -> dict[str, list[str]]:
    """Return the packages of messages that are not installed, with the topics left out."""
    found: dict[str, list[str]] = {}
    for output in results.OUTPUTS:
        if message_type(output) is None:
            found.setdefault(output.package, []).append(output.topic)
    return found


def message_type(output: Output) -> Any:
    """Return the class of a row's messages; None where its package is not installed."""
    return message_class(output.form.replace('/', '/msg/')) if output.package else Image


def topics(camera: str = '', *, debug: bool = False) -> dict[str, str]:
    """Return the private names of the picture topics of one camera with their message types."""
    found = {}
    for output in offered(debug=debug):
        if not output.package:
            name = topic_name(camera, output.topic)
            found[name] = 'sensor_msgs/msg/Image'
            if output.compressed:
                found[name + COMPRESSED] = 'sensor_msgs/msg/CompressedImage'
    return found


def topic_name(camera: str, topic: str) -> str:
    """Return the private name of a topic, below its camera where there are several."""
    return f'~/{camera}/{topic}' if camera else f'~/{topic}'


class Publishers:
    """The publishers of one camera."""

    def __init__(
        self, node: Any, camera: str, events: Callable[[str], Any], *, debug: bool = False
    ) -> None:
        self._node = node
        self._events = events
        self._made: list[Any] = []
        try:
            self._rows = [
                self._row(output, kind, topic_name(camera, output.topic))
                for output in offered(debug=debug)
                if (kind := message_type(output)) is not None
            ]
        except Exception:  # of a QoS override that does not exist, for example
            self.destroy()
            raise

    def _row(self, output: Output, kind: type, name: str) -> _Row:
        plain = self._create(kind, name, latched=output.source is LabelSet)
        small = None
        if output.compressed:
            small = self._create(CompressedImage, compressed(self._node, name))
        return _Row(output, plain, small)

    def _create(self, kind: type, name: str, *, latched: bool = False) -> Any:
        publisher = self._node.create_lifecycle_publisher(
            kind,
            name,
            qos(latched=latched),
            event_callbacks=self._events(name),
            qos_overriding_options=overriding(self._node, name, 'publisher'),
        )
        self._made.append(publisher)
        return publisher

    def publish(self, source: Any, header: Any, quality: int = 0) -> list[Failure]:
        """Publish what is built from `source` and listened to; returns what failed.

        Each message goes under `header`, JPEGs in this quality. The names of the classes, a
        LabelSet, are sent to late subscribers too. An output that fails costs only itself.
        """
        failed = []
        for row in self._rows:
            if not isinstance(source, row.output.source):
                continue
            publishers = [row.plain] if isinstance(source, LabelSet) else row.heard()
            try:
                if publishers:
                    _send(row, publishers, source, header, quality)
            except Exception as error:
                failed.append(Failure(row.output.topic, one_line(error)))
        return failed

    @property
    def wants_overlay(self) -> bool:
        """Tell whether somebody looks at the overlay, which shows the distances known."""
        return any(row.output.topic == OVERLAY and row.heard() for row in self._rows)

    @property
    def wants_metres(self) -> bool:
        """Tell whether somebody listens to a topic in metres."""
        return any(row.output.source is Survey and row.heard() for row in self._rows)

    def destroy(self) -> None:
        """Take all publishers back."""
        self._rows = []
        while self._made:
            self._node.destroy_lifecycle_publisher(self._made.pop())


def _send(row: _Row, publishers: list[Any], source: Any, header: Any, quality: int) -> None:
    output = row.output
    if output.package:
        row.plain.publish(fill(message_type(output)(), output.build(source, header)))
        return
    picture = output.build(source)
    for publisher in publishers:
        if publisher is not row.small:
            publisher.publish(images.to_message(picture, output.form, header))
        elif output.png:
            publisher.publish(images.to_png(picture, output.form, header))
        else:
            publisher.publish(images.to_jpeg(picture, header, quality))


def fill(message: Any, values: Mapping[str, Any]) -> Any:
    """Return `message` with its fields set to plain values, nested like them.

    Bytes of an array are set as they are; fields that are not named keep their defaults.
    """
    kinds = message.get_fields_and_field_types()
    for name, value in values.items():
        if isinstance(value, Mapping):
            fill(getattr(message, name), value)
        elif isinstance(value, np.ndarray):
            setattr(message, name, images.to_bytes(value))
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            kind = _element(kinds[name])
            setattr(message, name, [fill(kind(), item) for item in value])
        else:
            setattr(message, name, value)
    return message


def _element(kind: str) -> Any:
    """Return the class of the elements of 'sequence<package/Type>'."""
    package, name = re.findall(r'\w+', kind.removeprefix('sequence<'))[:2]
    return message_class(f'{package}/msg/{name}')
