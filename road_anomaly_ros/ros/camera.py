# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One camera's topics: inputs that keep the newest frame, outputs, and why it is silent."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
from rclpy.qos import qos_policy_name_from_kind
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from road_anomaly_ros.perception import FrameResult, LabelSet, PipelineConfig
from road_anomaly_ros.perception.drawing import overlay
from road_anomaly_ros.perception.geometry import GeometryOptions
from road_anomaly_ros.remarks import one_line
from road_anomaly_ros.ros import images, loss, topics
from road_anomaly_ros.ros.absence import Absence
from road_anomaly_ros.ros.geometry import Geometry, Unplaced
from road_anomaly_ros.ros.health import FAILED, CameraStats, Throttle
from road_anomaly_ros.ros.inputs import AUTO, BEST_EFFORT, Input
from road_anomaly_ros.ros.mounting import Transforms
from road_anomaly_ros.ros.outputs import Failure, Publishers
from road_anomaly_ros.ros.pairing import Pairing
from road_anomaly_ros.ros.video import DEPTH, TRANSPORTS, Video, header_of, message_class
from road_anomaly_ros.ros.worker import Frame, NewestFrames
from road_anomaly_ros.tools.camera_info import picture_size
from road_anomaly_ros.tools.encodings import check_photograph
from road_anomaly_ros.tools.results import Shown
from road_anomaly_ros.tools.video_topics import KEY_FRAME

try:
    from rclpy.event_handler import PublisherEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks

_NAME = re.compile(r'[A-Za-z][A-Za-z0-9_]*')
_NUMBER = re.compile(r'[-+]?\d[\d.]*(e[-+]?\d+)?')
_TOLD = 32  # different lines that are said but once
_INFO_LIMIT = 1 << 16  # pixels per side beyond which a camera_info is damaged


def check_names(names: tuple[str, ...]) -> None:
    """Raise ValueError when camera names cannot be parts of topic names or are not unique."""
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(f'cameras: expected names of letters, digits and _, got {name!r}')
        if name in GeometryOptions.__dataclass_fields__:
            raise ValueError(
                f'cameras: {name!r} is an option of the geometry: choose another name'
            )
    if len(set(names)) != len(names):
        raise ValueError(f'cameras: expected different names, got {list(names)}')


class Camera:
    """Subscriptions, publishers and counters of one camera; '' names the only camera.

    With a `tolerance` in seconds every image waits for an anomaly map of its moment; `debug`
    offers the intermediate pictures as well; `reliability` is one of inputs.RELIABILITIES; with
    `depth` it listens to depth images, too; `transforms` know where it is mounted.
    """

    def __init__(
        self,
        node: Any,
        name: str,
        transport: str,
        group: Any,
        tolerance: float | None = None,
        *,
        debug: bool = False,
        reliability: str = AUTO,
        depth: bool = False,
        transforms: Transforms | None = None,
    ) -> None:
        self._node, self.name = node, name
        self._kind, self._video = message_class(transport), Video()
        self._suffix = TRANSPORTS[transport][1]
        self._name_topics(f'{name}/' if name else '')
        self.stats, self._throttle, self._loss = CameraStats(), Throttle(), loss.Loss()
        self._tolerance = tolerance
        self._pairing: Pairing | None = None
        self._frames: NewestFrames | None = None
        self._told: set[str] = set()
        self._qos_fault = ''
        self._listening = False
        self._last_stamp: tuple[int, int] | None = None
        self._since = time.monotonic()
        self._images, *others = self._make_inputs(group, reliability, depth=depth)
        self._inputs = [self._images, *others]
        self._absence = Absence(node, self._images, self._kind, self._base_topic)
        self.geometry = Geometry(
            node.resolve_topic_name(self.info_topic),
            node.resolve_topic_name(self.depth_topic),
            transforms or Transforms(node),
            self._tell_once,
        )
        self.publishers = Publishers(node, name, self._output_events, debug=debug)

    def _name_topics(self, prefix: str) -> None:
        self._base_topic = f'{prefix}image'
        self.image_topic = f'{self._base_topic}{self._suffix}'
        self.info_topic = f'{prefix}camera_info'
        self.anomaly_topic = f'{prefix}anomaly_in'
        self.depth_topic = f'{prefix}depth'

    def _make_inputs(self, group: Any, reliability: str, *, depth: bool) -> list[Input]:
        def listen(kind: type, topic: str, callback: Any, **options: Any) -> Input:
            name = self._node.resolve_topic_name(topic)
            mismatch = partial(self._on_input_qos, name)
            return Input(
                self._node, kind, topic, callback, group=group, mismatch=mismatch, **options
            )

        alike = {'reliability': reliability}
        main = self._base_topic
        if self._suffix:
            main = topics.compressed(self._node, main, self._suffix)
        queue = DEPTH if self._suffix else 1
        found = [
            listen(
                self._kind, main, self.on_image, lost=self._loss.add_lost, depth=queue, **alike
            ),
            listen(CameraInfo, self.info_topic, self.on_info),
        ]
        if self._tolerance is not None:
            found.append(listen(Image, self.anomaly_topic, self.on_anomaly, **alike))
        if depth:
            found.append(listen(Image, self.depth_topic, self.on_depth, **alike))
        return found

    @property
    def title(self) -> str:
        """The name as shown to people."""
        return self.name or 'camera'

    def subscribe(self, frames: NewestFrames) -> None:
        """Begin to store the newest frame in `frames`."""
        # All that a callback needs comes first: an image may arrive within create_subscription.
        paired = self._tolerance is not None
        self._pairing = Pairing(round((self._tolerance or 0.0) * 1e9)) if paired else None
        self._since = time.monotonic()
        self._last_stamp = None
        self._loss.restart()
        self._qos_fault = ''
        self._frames = frames
        self._listening = True
        for item in self._inputs:
            item.open()

    def unsubscribe(self) -> None:
        """Stop listening."""
        self._frames = None
        self._listening = False
        for item in self._inputs:
            item.close()
        self.stats.dropped += self._video.restart()  # what comes later does not build on it
        if self._pairing is not None:
            self.stats.dropped += self._pairing.close()  # images that waited for their map

    @property
    def listens(self) -> str:
        """The topics that are subscribed to, in words."""
        names = ', '.join(item.name for item in self._inputs[1:])
        return f'{self._images.name} ({self._images.reliability.replace("_", " ")}), {names}'

    def review(self) -> None:
        """Follow what publishers offer and notice images that get lost; once a second."""
        if not self._listening:
            return
        for item in self._inputs:
            item.review()
        self.stats.lost, share = self._loss.total, self._loss.share()
        if share >= loss.NOTICED:
            self.complain('loss', f'{share:.0%} of the images never arrive: {self._why_lost()}')

    def _why_lost(self) -> str:
        size, asked = self._loss.size, self._images.reliability
        offered = ' and '.join(sorted(self._images.offers())).replace('_', ' ') or 'nothing now'
        about = (
            f'{size / 2**20:.2g} MiB each, {asked.replace("_", " ")}, publishers of '
            f'{self._images.name} offer {offered}, load {os.getloadavg()[0]:.1f} on '
            f'{len(os.sched_getaffinity(0))} cores'
        )
        if asked == BEST_EFFORT and size > loss.LARGE:
            return f'{about}; a machine without time to spare loses them, {loss.REMEDIES}'
        return (
            f'their stamps have gaps ({about}): look for what drops them, the camera driver, '
            f'a relay, the network or a machine without time to spare'
        )

    def destroy(self) -> None:
        """Take everything back that was created on the node."""
        self.unsubscribe()
        self.publishers.destroy()

    def on_image(self, message: Any) -> None:
        """Store a message as the newest; nothing but video is decoded here."""
        frames = self._frames
        if frames is None:  # arrived while the node was being deactivated
            return
        self._qos_fault = ''
        self.stats.received += 1
        self.stats.arrivals.add(0.0)
        stamp = header_of(message).stamp
        self._loss.add(images.nanoseconds(stamp), len(message.data))
        self._check_time(stamp)
        arrived = time.monotonic()
        for shown in self._shown(message):
            if self._pairing is None:
                self._put(frames, Frame(self.name, shown, arrived))
            else:
                moment = images.nanoseconds(shown.header.stamp)
                self._put_pair(frames, *self._pairing.add_image(moment, (shown, arrived)))

    def _shown(self, message: Any) -> list[Any]:
        """Return what a message brings to light; what a video lost is counted out."""
        try:
            return self._video.shown(message)
        except images.ImageRefused as error:
            self.refuse(error.reason, str(error))
            return []
        finally:
            if lost := self._video.lost():
                self.stats.refused[KEY_FRAME] += lost

    def on_anomaly(self, message: Any) -> None:
        """Bring an anomaly map together with the image of its moment."""
        frames, pairing = self._frames, self._pairing
        if frames is not None and pairing is not None:
            self._put_pair(
                frames, *pairing.add_map(images.nanoseconds(message.header.stamp), message)
            )

    def _put_pair(self, frames: NewestFrames, pair: Any, lost: int) -> None:
        self.stats.dropped += lost
        if lost:
            self.complain(
                'anomaly',
                f'no anomaly map for an image: publish one with its stamp on '
                f'{self._node.resolve_topic_name(self.anomaly_topic)}',
            )
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
        if usable and np.isfinite(message.k).all():
            self.stats.info_size = picture_size(message)
            self.geometry.on_info(message)
        else:
            self.stats.refused['camera_info'] += 1
            finite = 'finite' if np.isfinite(message.k).all() else 'not finite'
            self._tell_once(
                'refused camera_info',
                f'message refused (camera_info): expected a size and finite numbers in K, got '
                f'{width}x{height} and K that is {finite}: calibrate the camera '
                f'(camera_calibration) or remap camera_info to that of this camera',
            )

    def on_depth(self, message: Any) -> None:
        """Keep a depth image for the image of its moment; nothing is decoded here."""
        self.geometry.on_depth(message)

    def _check_time(self, stamp: Any) -> None:
        moment = (stamp.sec, stamp.nanosec)
        if self._last_stamp is not None and moment < self._last_stamp:
            self.stats.backwards += 1
            self.complain(
                'time',
                f'stamps ran backwards, from {_clock(self._last_stamp)} to '
                f'{_clock(moment)} s: a bag that loops, or two publishers on '
                f'{self.image_topic}',
            )
        elif moment == self._last_stamp:
            self.stats.repeated += 1
            self._log_once(
                f'a stamp repeats ({_clock(moment)} s): tracks and speeds count such images as '
                f'one; look at the camera driver or for two publishers on {self.image_topic}'
            )
        self._last_stamp = moment

    def to_array(self, message: Any, max_pixels: int) -> Any:
        """Return a message's picture, uint8 RGB [H, W, 3]; None, counted, when it has none."""
        layout = getattr(message, 'encoding', '') or getattr(message, 'format', '')
        try:
            check_photograph(layout, self._images.name)
        except images.ImageRefused as error:
            self.refuse(error.reason, f'{error}{self._absence.others()}')
            return None
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
            anomaly = images.to_map(frame.anomaly, max_pixels)
            if not np.isfinite(anomaly).any():
                raise images.ImageRefused('values', 'expected finite numbers, got none')
            return picture, stamp, anomaly, self.name
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
        self.complain(FAILED, f'frame failed: {text}')

    def complain(self, kind: str, text: str) -> None:
        """Say what went wrong, in the log at most every few seconds, and in the diagnostics."""
        self.stats.complain(kind, text)
        if self._throttle.ready(kind):
            self._node.get_logger().warning(f'{self.title}: {text}')

    def announce(self, labels: LabelSet, stamp: Any) -> None:
        """Send the names of the classes, also to who comes later."""
        self._note(self.publishers.publish(labels, Header(stamp=stamp)))

    def publish(
        self, frame: Frame, result: FrameResult, chain: PipelineConfig, quality: int
    ) -> None:
        """Send a result under the header of its frame and note how old it is."""
        header, options = frame.message.header, chain.options('drawing')
        result = self._publish_metres(header, result, chain.options('geometry', self.name))
        shown = Shown(result, lambda result: overlay(result, options))
        self._note(self.publishers.publish(shown, header, quality))
        stats = self.stats
        stats.processed += 1
        stats.sanitized += result.sanitized
        stats.tracks = sum(item.track_id > 0 for item in result.objects)
        stats.confirmed = sum(item.confirmed for item in result.objects)
        stats.latency.add((time.monotonic() - frame.arrived) * 1e3)
        now = self._node.get_clock().now().nanoseconds * 1e-9
        if now:  # else simulated time has not begun
            stats.stamp_age.add((now - images.seconds(header.stamp)) * 1e3)

    def _publish_metres(
        self, header: Any, result: FrameResult, options: GeometryOptions
    ) -> FrameResult:
        """Send what is listened to in metres; returns the result with the distances found."""
        shown = self.publishers.wants_overlay and self.geometry.given(options)
        if not (self.publishers.wants_metres or shown):
            return result
        try:
            survey = self.geometry.survey(result, header, options)
            self._note(self.publishers.publish(survey, header))
            self.geometry.note(survey)
            return survey.told
        except Unplaced as error:
            text = str(error)
        except Exception as error:  # costs the metres, never the frame
            text = f'nothing is told in metres: {one_line(error)}'
        self.stats.left_out['metres'] += 1
        self._tell_once('metres', text)
        return result

    def _note(self, failures: Iterable[Failure]) -> None:
        """Count outputs that could not be made, each in its own place."""
        for topic, reason in failures:
            self.stats.left_out[topic] += 1
            self._tell_once(f'output {topic}', f'output left out: {topic}: {reason}')

    def _tell_once(self, kind: str, text: str) -> None:
        """Show what is missing in the diagnostics as long as it is, in the log but once."""
        self.stats.complain(kind, text)
        self._log_once(text)

    def _log_once(self, text: str) -> None:
        kind = _NUMBER.sub('0', text)  # a stamp, for example, differs each time
        if kind not in self._told and len(self._told) < _TOLD:
            self._told.add(kind)
            self._node.get_logger().warning(f'{self.title}: {text}')

    def silence(self, allowed: float) -> str:
        """Explain why no image came for longer than `allowed` seconds; empty when images come."""
        waited = min(time.monotonic() - self._since, self.stats.arrivals.age())
        if not self._listening or waited <= allowed:
            return ''
        return f'no image for {waited:.0f} s: {self._qos_fault or self._absence.reason()}'

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

    def _on_input_qos(self, topic: str, policy: str) -> None:
        remedy = " or the parameter reliability to 'auto'" if policy == 'reliability' else ''
        text = (
            f'a publisher of {topic} offers less than this node asks for ({policy}): no '
            f'message can come; set qos_overrides.{topic}.subscription.{policy} to what it '
            f'offers{remedy}, or change the camera'
        )
        if topic == self._images.name:
            self._qos_fault = text
        self._node.get_logger().error(f'{self.title}: {text}')

    def _output_events(self, topic: str) -> PublisherEventCallbacks:
        def tell(event: Any) -> None:
            policy = qos_policy_name_from_kind(event.last_policy_kind).lower()
            name = self._node.resolve_topic_name(topic)
            self.complain(
                f'qos {topic}',
                f'a subscriber of {name} asks for more than is offered '
                f'({policy}) and gets nothing: change its {policy}',
            )

        return PublisherEventCallbacks(incompatible_qos=tell)


def _clock(moment: tuple[int, int]) -> str:
    return f'{moment[0]}.{moment[1]:09d}'
