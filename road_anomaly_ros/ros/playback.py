# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a replay sends: the pictures of any source, or the stored messages of a bag as they are."""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import cv2
from builtin_interfaces.msg import Time
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from road_anomaly_ros.ros import images, topics
from road_anomaly_ros.ros.controls import camera_qos
from road_anomaly_ros.ros.player import Cue, Line
from road_anomaly_ros.tools import bags, video_topics
from road_anomaly_ros.tools.bags import BagReader
from road_anomaly_ros.tools.pictures import some
from road_anomaly_ros.tools.sources import Frame, Source

IMAGE, INFO = 'image', 'camera_info'
PICTURES = {
    bags.IMAGE: '',
    bags.COMPRESSED: topics.COMPRESSED,
    video_topics.FFMPEG: topics.FFMPEG,
    video_topics.FOXGLOVE: topics.FOXGLOVE,
}
FRAME = 'camera_optical'  # where the input knows none; z looks ahead there
_INFO_TYPE = 'sensor_msgs/msg/CameraInfo'
_CLOCK, _DIAGNOSTICS = '/clock', '/diagnostics'
_STAMPED = ('std_msgs/Header', 'builtin_interfaces/Time')
# What the recorded system said about itself would be taken for the words of the running one.
_LEFT_OUT = ('/rosout', '/parameter_events')


@dataclass(frozen=True)
class Settings:
    """How an input is replayed."""

    fps: float | None = None  # fixed rate of the pictures; None as recorded
    loop: bool = False
    restamp: bool = False  # stamps become the moments of sending
    frame_id: str = FRAME  # where the input does not know one
    size: tuple[int, int] | None = None  # (W, H) to which pictures are resized
    reliable: bool = False
    topic: str | None = None  # the image topic of a bag that has several
    renamed: Mapping[str, str] = field(default_factory=dict)  # recorded name -> new name
    decoded: bool = False  # send a bag's pictures decoded, nothing else
    only_camera: bool = False  # leave out what is neither image nor camera_info
    live: str = ''  # the node that listens: what a bag holds of it, it publishes itself


class Pictures:
    """The pictures of a source as `image`, and as `image/compressed` while somebody listens."""

    def __init__(self, node: Any, source: Callable[[], Source], settings: Settings) -> None:
        self._node, self._open, self._settings = node, source, settings
        qos = functools.partial(camera_qos, reliable=settings.reliable)
        self._image = node.create_publisher(Image, IMAGE, qos())
        self._jpeg = node.create_publisher(CompressedImage, topics.compressed(node, IMAGE), qos())
        self.publishers = [self._image, self._jpeg]
        self.has_clock = False
        self.remarks: list[str] = []
        self.incomplete = False

    def cues(self) -> Iterator[Cue]:
        """Yield one cue per picture."""
        line = Line(self._settings.fps)
        while True:
            before = line.pictures
            with self._open() as source:
                for frame in source:
                    yield Cue(
                        line.at(frame.stamp_ns),
                        frame.stamp_ns,
                        functools.partial(self._send, frame),
                    )
                self._note(source)
            if not self._settings.loop or line.pictures == before:
                return
            line.turn()

    def _note(self, source: Source) -> None:
        self.remarks = [
            f'{count} left out ({reason}): {some(source.left_out[reason])}'
            for reason, count in source.refused.items()
        ]
        self.remarks += [source.problem] if source.problem else []
        self.incomplete = source.incomplete

    def _send(self, frame: Frame) -> None:
        # A stamp of zero means that there is none, but a video begins there.
        stamp = (
            self._node.get_clock().now().to_msg()
            if self._settings.restamp
            else to_time(max(1, frame.stamp_ns))
        )
        header = Header(stamp=stamp, frame_id=frame.frame_id or self._settings.frame_id)
        picture, size = frame.image, self._settings.size
        if size is not None and picture.shape[1::-1] != size:
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        if self._image.get_subscription_count():
            self._image.publish(images.to_message(picture, 'rgb8', header))
        if self._jpeg.get_subscription_count():
            self._jpeg.publish(images.to_jpeg(picture, header, 90))


class Messages:
    """The messages of a bag, serialised as they were stored, on topics that fit this package.

    Topics whose message type is not installed are left out with a remark.
    """

    def __init__(self, node: Any, path: Path, settings: Settings) -> None:
        self._node, self._path, self._settings = node, path, settings
        reader = BagReader(path)
        try:
            kinds = topic_kinds(reader, settings)
            known = {topic for topic, _ in reader.counts}
            self._plan = plan(kinds, settings)
            latched = reader.latched()
        finally:
            reader.close()
        left = sorted(topic for topic in known - {*kinds} if of_node(topic, settings.live))
        told = f'left out, {settings.live} publishes the like itself: {some(left)}'
        self.remarks = [told] if left else []
        self.incomplete = False
        self._outlets: dict[str, _Outlet] = {}
        for topic, name in self._plan.items():
            self._add(topic, name, kinds[topic], topic in latched)
        self.publishers = [outlet.publisher for outlet in self._outlets.values() if outlet.picture]
        self.has_clock = _CLOCK in self._plan.values()  # two of them would make time jump

    def _add(self, topic: str, name: str, kind: str, latched: bool) -> None:
        cls = topics.message_class(kind)
        if cls is None:
            self.remarks.append(f'{topic} left out, {kind} is not installed')
            return
        camera = kind in PICTURES or kind == _INFO_TYPE
        qos = camera_qos(reliable=self._settings.reliable) if camera else QoSProfile(depth=10)
        if latched:
            qos.durability = DurabilityPolicy.TRANSIENT_LOCAL
        suffix = PICTURES.get(kind)
        if suffix and name == IMAGE + suffix:
            name = topics.compressed(self._node, IMAGE, suffix)
        publisher = self._node.create_publisher(cls, name, qos)
        self._outlets[topic] = _Outlet(publisher, kind in PICTURES, starts_with_header(cls))

    def cues(self) -> Iterator[Cue]:
        """Yield one cue per stored message."""
        line = Line(self._settings.fps)
        while True:
            reader, sent = BagReader(self._path), 0
            try:
                for record in reader.records(list(self._outlets)):
                    outlet = self._outlets[record.topic]
                    time = line.at(record.stamp_ns, picture=outlet.picture)
                    yield Cue(
                        time,
                        record.stamp_ns,
                        functools.partial(self._send, outlet, bytes(record.data)),
                        outlet.picture,
                    )
                    sent += 1
                self.incomplete = reader.incomplete
                if reader.problem and reader.problem not in self.remarks:
                    self.remarks.append(reader.problem)
            finally:
                reader.close()
            if not self._settings.loop or not sent:
                return
            line.turn()

    def _send(self, outlet: _Outlet, data: bytes) -> None:
        if self._settings.restamp and outlet.stamped:
            data = restamped(data, self._node.get_clock().now().nanoseconds)
        outlet.publisher.publish(data)


class _Outlet(NamedTuple):
    publisher: Any
    picture: bool
    stamped: bool  # the message begins with a header


def topic_kinds(reader: BagReader, settings: Settings) -> dict[str, str]:
    """Return name and type of the topics of a bag that can be replayed.

    Those of the node that listens would mix with what it publishes; they are sent where named.
    """
    named = {settings.topic, *settings.renamed}
    return {
        topic: kind
        for topic, kind in sorted(reader.counts)
        if topic not in _LEFT_OUT and (topic in named or not of_node(topic, settings.live))
    }


def of_node(topic: str, node: str) -> bool:
    """Tell whether a recorded topic is one that a node of this name publishes; '' has none."""
    name = node.rpartition('/')[2]
    return bool(name) and (topic == _DIAGNOSTICS or f'/{name}/' in topic)


def to_time(stamp_ns: int) -> Time:
    """Return a time in nanoseconds as builtin_interfaces/Time."""
    return Time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)


def starts_with_header(cls: Any) -> bool:
    """Tell whether a message class begins with a std_msgs/Header, or with a stamp alone."""
    return next(iter(cls.get_fields_and_field_types().values()), '') in _STAMPED


def restamped(data: bytes, stamp_ns: int) -> bytes:
    """Return a serialised message that begins with a header under a new stamp.

    The CDR encapsulation takes four bytes, the second of which tells the byte order.
    """
    order = '<' if data[1] & 1 else '>'
    seconds, nanoseconds = divmod(stamp_ns, 10**9)
    return data[:4] + struct.pack(f'{order}iI', seconds, nanoseconds) + data[12:]


def plan(kinds: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """Return under which name each recorded topic (name -> type) is published.

    The image topic of a bag that holds one camera, or that `topic` names, becomes `image` or
    `image/compressed`, its calibration `camera_info`; others keep their names; `renamed` wins.
    Raises ValueError for names that the bag does not hold.
    """
    unknown = [name for name in (settings.topic, *settings.renamed) if name and name not in kinds]
    if unknown:
        raise ValueError(f'the bag has no topic {unknown[0]!r}; choose one of {sorted(kinds)}')
    camera = _camera(kinds, settings.topic)
    found = {topic: camera.get(topic, topic) for topic in kinds}
    if settings.only_camera:
        found = {
            topic: found[topic] for topic in kinds if topic in camera or topic in settings.renamed
        }
        if not found:
            raise ValueError('the bag holds several cameras; choose one with --topic')
    return {**found, **settings.renamed}


def _camera(kinds: Mapping[str, str], topic: str | None) -> dict[str, str]:
    """Return the topics of the chosen camera with the names of ours."""
    pictures = {
        name: name.removesuffix(PICTURES[kind]) for name, kind in kinds.items() if kind in PICTURES
    }
    bases = {pictures[topic]} if topic in pictures else set(pictures.values())
    if topic is not None and topic not in pictures:
        raise ValueError(f'{topic}: expected a topic with images, it carries {kinds[topic]}')
    if len(bases) != 1:
        return {}
    (base,) = bases
    found = {
        name: IMAGE + PICTURES[kinds[name]]
        for name in pictures
        if pictures[name] == base and topic in (None, name)
    }
    infos = [name for name, kind in kinds.items() if kind == _INFO_TYPE]
    beside = f'{base.rpartition("/")[0]}/{INFO}'
    if beside in infos or len(infos) == 1:
        found[beside if beside in infos else infos[0]] = INFO
    return found
