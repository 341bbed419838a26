# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One camera's topics: inputs that keep the newest frame, outputs, and why it is silent."""

from __future__ import annotations

import math
import re
import time
from typing import Any

from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy, qos_policy_name_from_kind
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from road_anomaly_ros.perception import FrameResult
from road_anomaly_ros.ros import images
from road_anomaly_ros.ros.health import CameraStats, Throttle, kind_of
from road_anomaly_ros.ros.outputs import COMPRESSED, Publishers
from road_anomaly_ros.ros.pairing import Pairing
from road_anomaly_ros.ros.worker import Frame, NewestFrames

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:                     # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks

_KINDS = {'raw': (Image, ''), 'compressed': (CompressedImage, COMPRESSED)}
_NAME = re.compile(r'[A-Za-z][A-Za-z0-9_]*')
_INFO_LIMIT = 1 << 16               # pixels per side beyond which a camera_info is damaged


def input_qos() -> QoSProfile:
    """Return the profile of an input: sensor data, and no queue of ours that could grow old."""
    return QoSProfile(depth=1, history=HistoryPolicy.KEEP_LAST,
                      reliability=ReliabilityPolicy.BEST_EFFORT)


def check_names(names: tuple[str, ...]) -> None:
    """Raise ValueError when camera names cannot be parts of topic names or are not unique."""
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(f'cameras: expected names of letters, digits and _, got {name!r}')
    if len(set(names)) != len(names):
        raise ValueError(f'cameras: expected different names, got {list(names)}')


class Camera:
    """Subscriptions, publishers and counters of one camera; '' names the only camera.

    With a `tolerance` in seconds every image waits for an anomaly map of its moment; `debug`
    offers the intermediate pictures as well.
    """

    def __init__(self, node: Any, name: str, transport: str, group: Any,
                 tolerance: float | None = None, *, debug: bool = False) -> None:
        self._node = node
        self._group = group
        self._kind, suffix = _KINDS[transport]
        prefix = f'{name}/' if name else ''
        self.name = name
        self.stats = CameraStats()
        self.image_topic = f'{prefix}image{suffix}'
        self.info_topic = f'{prefix}camera_info'
        self.anomaly_topic = f'{prefix}anomaly_in'
        self._tolerance = tolerance
        self._pairing: Pairing | None = None
        self._base_topic = f'{prefix}image'
        self._throttle = Throttle()
        self._frames: NewestFrames | None = None
        self._subscriptions: list[Any] = []
        self._last_stamp: tuple[int, int] | None = None
        self._since = time.monotonic()
        self._qos_fault = ''
        self.publishers = Publishers(node, name, self._output_events, debug=debug)

    @property
    def title(self) -> str:
        """The name as shown to people."""
        return self.name or 'camera'

    def subscribe(self, frames: NewestFrames) -> None:
        """Begin to store the newest frame in `frames`."""
        self._frames = frames
        self._since = time.monotonic()
        self._last_stamp = None
        self._qos_fault = ''
        self._subscriptions = [
            self._subscribe(self._kind, self.image_topic, self.on_image),
            self._subscribe(CameraInfo, self.info_topic, self.on_info)]
        if self._tolerance is not None:
            self._pairing = Pairing(round(self._tolerance * 1e9))
            self._subscriptions.append(
                self._subscribe(Image, self.anomaly_topic, self.on_anomaly))

    def _subscribe(self, kind: type, topic: str, callback: Any) -> Any:
        events = SubscriptionEventCallbacks(
            incompatible_qos=lambda event: self._on_input_qos(topic, event))
        return self._node.create_subscription(
            kind, topic, callback, input_qos(), callback_group=self._group, event_callbacks=events,
            qos_overriding_options=QoSOverridingOptions.with_default_policies())

    def unsubscribe(self) -> None:
        """Stop listening."""
        subscriptions, self._subscriptions = self._subscriptions, []
        self._frames = None
        for subscription in subscriptions:
            self._node.destroy_subscription(subscription)

    def destroy(self) -> None:
        """Take everything back that was created on the node."""
        self.unsubscribe()
        self.publishers.destroy()

    def on_image(self, message: Any) -> None:
        """Store a message as the newest; nothing is decoded here."""
        frames = self._frames
        if frames is None:                  # arrived while the node was being deactivated
            return
        self._qos_fault = ''
        self.stats.received += 1
        self.stats.arrivals.add(0.0)
        self._check_time(message.header.stamp)
        arrived = time.monotonic()
        if self._pairing is None:
            self._put(frames, Frame(self.name, message, arrived))
        else:
            self._put_pair(frames, *self._pairing.add_image(
                images.nanoseconds(message.header.stamp), (message, arrived)))

    def on_anomaly(self, message: Any) -> None:
        """Bring an anomaly map together with the image of its moment."""
        frames, pairing = self._frames, self._pairing
        if frames is not None and pairing is not None:
            self._put_pair(frames, *pairing.add_map(
                images.nanoseconds(message.header.stamp), message))

    def _put_pair(self, frames: NewestFrames, pair: Any, lost: int) -> None:
        self.stats.dropped += lost
        if lost:
            self.complain('anomaly', f'no anomaly map for an image: publish one with its stamp on '
                                     f'{self._node.resolve_topic_name(self.anomaly_topic)}')
        if pair is not None:
            (message, arrived), anomaly = pair
            self._put(frames, Frame(self.name, message, arrived, anomaly))

    def _put(self, frames: NewestFrames, frame: Frame) -> None:
        if not frames.put(frame):
            self.stats.dropped += 1

    def on_info(self, message: CameraInfo) -> None:
        """Note the size that the calibration is for; it is compared with that of the pictures."""
        height, width = message.height, message.width
        usable = 1 <= height <= _INFO_LIMIT and 1 <= width <= _INFO_LIMIT
        if usable and all(math.isfinite(value) for value in message.k):
            self.stats.info_size = (height, width)
        else:
            self.refuse('camera_info', f'expected width, height and K of a calibration, '
                                       f'got {width}x{height} and K {list(message.k)}')

    def _check_time(self, stamp: Any) -> None:
        moment = (stamp.sec, stamp.nanosec)
        if self._last_stamp is not None and moment < self._last_stamp:
            self.stats.backwards += 1
            self.complain('time', f'stamps ran backwards, from {_clock(self._last_stamp)} to '
                                  f'{_clock(moment)} s: a bag that loops, or two publishers on '
                                  f'{self.image_topic}')
        self._last_stamp = moment

    def to_array(self, message: Any, max_pixels: int) -> Any:
        """Return a message's picture, uint8 RGB [H, W, 3]; None, counted, when it has none."""
        try:
            picture = images.to_array(message, max_pixels)
        except images.ImageRefused as error:
            self.refuse(error.reason, str(error))
            return None
        self.stats.size = picture.shape[:2]
        return picture

    def to_inputs(self, frame: Frame, max_pixels: int) -> tuple[Any, ...] | None:
        """Return picture, stamp, anomaly map or None, and camera; None for what is unusable."""
        picture = self.to_array(frame.message, max_pixels)
        if picture is None:
            return None
        stamp = images.seconds(frame.message.header.stamp)
        if frame.anomaly is None:
            return picture, stamp, None, self.name
        try:
            return picture, stamp, images.to_map(frame.anomaly, max_pixels), self.name
        except images.ImageRefused as error:
            self.refuse(error.reason, f'anomaly map: {error}')
            return None

    def refuse(self, reason: str, text: str) -> None:
        """Count a message that holds nothing usable."""
        self.stats.refused[reason] += 1
        self.complain(f'refused {reason}', f'message refused ({reason}): {text}')

    def fail(self, text: str) -> None:
        """Count a frame that the chain could not process."""
        self.stats.failed += 1
        self.complain('failed', f'frame failed: {text}')

    def complain(self, kind: str, text: str) -> None:
        """Say what went wrong, in the log at most every few seconds, and in the diagnostics."""
        self.stats.complain(kind, text)
        if self._throttle.ready(kind):
            self._node.get_logger().warning(f'{self.title}: {text}')

    def publish(self, frame: Frame, result: FrameResult, options: Any, quality: int) -> None:
        """Send a result under the header of its frame and note how old it is."""
        header = frame.message.header
        for failure in self.publishers.publish(result, header, options, quality):
            self.complain(f'output {kind_of(failure)}', f'output left out: {failure}')
        stats = self.stats
        stats.processed += 1
        stats.sanitized += result.sanitized
        stats.latency.add((time.monotonic() - frame.arrived) * 1e3)
        now = self._node.get_clock().now().nanoseconds * 1e-9
        stats.stamp_age.add((now - images.seconds(header.stamp)) * 1e3)

    def silence(self, allowed: float) -> str:
        """Explain why no image came for longer than `allowed` seconds; empty when images come."""
        waited = min(time.monotonic() - self._since, self.stats.arrivals.age())
        if not self._subscriptions or waited <= allowed:
            return ''
        return f'no image for {waited:.0f} s: {self._qos_fault or self._explain()}'

    def warn_silence(self, text: str) -> None:
        """Log a silence, repeated at most every few seconds."""
        if text and self._throttle.ready('silence'):
            self._node.get_logger().warning(f'{self.title}: {text}')

    def waiting(self) -> float:
        """Return for how many seconds images have come without any result."""
        stats = self.stats
        if stats.arrivals.age() > 1.0 or stats.received == stats.dropped == 0:
            return 0.0
        return min(stats.latency.age(), time.monotonic() - self._since)

    def _explain(self) -> str:
        topic = self._node.resolve_topic_name(self.image_topic)
        wanted = f'{self._kind.__module__.split(".")[0]}/msg/{self._kind.__name__}'
        found = self._node.get_publishers_info_by_topic(topic)
        for publisher in found:
            if publisher.topic_type != wanted:
                return (f'{topic} carries {publisher.topic_type}, expected {wanted}: '
                        f'choose image_transport to match')
        if found:
            return f'{topic} has a publisher that sends nothing: look at the camera driver'
        others = sorted(name for name, kinds in self._node.get_topic_names_and_types()
                        if wanted in kinds and self._node.count_publishers(name)
                        and not name.startswith(self._node.get_fully_qualified_name() + '/'))
        hint = f'; images are published on {", ".join(others[:3])}' if others else ''
        return f"nobody publishes {topic}: start the camera or remap '{self.image_topic}'{hint}"

    def _on_input_qos(self, topic: str, event: Any) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind).lower()
        topic = self._node.resolve_topic_name(topic)
        text = (f'a publisher of {topic} offers less than this node asks for ({policy}): no '
                f'message can come; set qos_overrides.{topic}.subscription.{policy} to what it '
                f'offers, or change the camera')
        if topic == self._node.resolve_topic_name(self.image_topic):
            self._qos_fault = text
        self._node.get_logger().error(f'{self.title}: {text}')

    def _output_events(self, topic: str) -> PublisherEventCallbacks:
        def tell(event: Any) -> None:
            policy = qos_policy_name_from_kind(event.last_policy_kind).lower()
            name = self._node.resolve_topic_name(topic)
            self.complain(f'qos {topic}', f'a subscriber of {name} asks for more than is offered '
                                          f'({policy}) and gets nothing: change its {policy}')
        return PublisherEventCallbacks(incompatible_qos=tell)


def _clock(moment: tuple[int, int]) -> str:
    return f'{moment[0]}.{moment[1]:09d}'
