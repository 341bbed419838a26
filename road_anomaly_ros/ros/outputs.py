# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The table of published topics; a row is built only while somebody listens to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image, LaserScan, PointCloud2

from road_anomaly_ros.perception import FrameResult, LabelSet, drawing
from road_anomaly_ros.perception.geometry import Survey
from road_anomaly_ros.remarks import one_line
from road_anomaly_ros.ros import images, spatial
from road_anomaly_ros.ros.topics import COMPRESSED, compressed
from road_anomaly_ros.tools import stages

try:
    import vision_msgs.msg as vision
except ImportError:  # optional: its two rows are left out, the node says so once
    vision = None

DETECTIONS = 'obstacle/detections'
LABEL_INFO = 'semantic/label_info'
_OBSTACLE_CLASS = 'obstacle'


@dataclass(frozen=True)
class Output:
    """One picture topic: name below the camera, encoding, what it shows, how it is built."""

    topic: str
    encoding: str
    text: str
    build: Callable[[FrameResult, Any], np.ndarray]  # drawing options -> [H,W] or [H,W,3]
    jpeg: bool = False
    debug: bool = False  # offered with `debug_topics` only


@dataclass(frozen=True)
class SpatialOutput:
    """One topic in metres: name below the camera, type (None: not installed), how it is built."""

    topic: str
    package: str
    kind: Any
    text: str
    build: Callable[[Survey, Any], Any]  # header of the image -> message


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


def _labels(result: FrameResult, _: Any) -> np.ndarray:
    return result.array('labels')


def _color(result: FrameResult, _: Any) -> np.ndarray:
    return _array(drawing.color_labels(result.array('labels'), result.label_set))


def _score(result: FrameResult, _: Any) -> np.ndarray:
    return result.array('score')


def _heatmap(result: FrameResult, _: Any) -> np.ndarray:
    return _array(drawing.heatmap(result.score, result.display_range))


def _mask(result: FrameResult, _: Any) -> np.ndarray:
    return result.array('mask').view(np.uint8) * np.uint8(255)


def _instances(result: FrameResult, _: Any) -> np.ndarray:
    # More than 65535 obstacles share the last number rather than wrap to another one's.
    return np.minimum(result.array('instances'), 0xFFFF).astype(np.uint16)


def _overlay(result: FrameResult, options: Any) -> np.ndarray:
    return _array(drawing.overlay(result, options))


def _stage(name: str) -> Callable[[FrameResult, Any], np.ndarray]:
    return lambda result, _: result.stages.draw(name)


def _array(picture: Any) -> np.ndarray:
    return picture if isinstance(picture, np.ndarray) else picture.cpu().numpy()


OUTPUTS = (
    Output('semantic/labels', 'mono8', 'Class of every pixel; 255 is unlabelled.', _labels),
    Output('semantic/color', 'rgb8', 'Classes in the colours of the label set.', _color, True),
    Output('anomaly/score', '32FC1', 'Anomaly score; higher is stranger.', _score),
    Output('anomaly/heatmap', 'rgb8', 'Anomaly score as colours.', _heatmap, True),
    Output('obstacle/mask', 'mono8', '255 on obstacles, 0 elsewhere.', _mask),
    Output(
        'obstacle/instances', '16UC1', 'Number of the obstacle at a pixel, 0 is none.', _instances
    ),
    Output('overlay', 'rgb8', 'Camera image with heat, obstacles and legend.', _overlay, True),
    *(
        Output(f'debug/{name}', 'rgb8', text, _stage(name), debug=True)
        for name, text in stages.TEXTS.items()
    ),
)

_MARKERS = spatial.visualization and spatial.visualization.MarkerArray
SPATIAL = (
    SpatialOutput(
        'obstacle/points',
        'sensor_msgs/PointCloud2',
        PointCloud2,
        'Where each obstacle meets the road, metres before the vehicle; score, id.',
        spatial.points,
    ),
    SpatialOutput(
        'obstacle/markers',
        'visualization_msgs/MarkerArray',
        _MARKERS,
        'Boxes on the road with number, distance and speed, where installed.',
        spatial.markers,
    ),
    SpatialOutput(
        'obstacle/scan',
        'sensor_msgs/LaserScan',
        LaserScan,
        'How far the road is free in each direction.',
        spatial.scan,
    ),
)


def offered(*, debug: bool) -> list[Output]:
    """Return the rows that a node offers, those for debugging only when asked for."""
    return [output for output in OUTPUTS if debug or not output.debug]


def topics(camera: str = '', *, debug: bool = False) -> dict[str, str]:
    """Return the private names of the picture topics of one camera with their message types."""
    found = {}
    for output in offered(debug=debug):
        name = topic_name(camera, output.topic)
        found[name] = 'sensor_msgs/msg/Image'
        if output.jpeg:
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
        self._rows = []
        for output in offered(debug=debug):
            name = topic_name(camera, output.topic)
            raw = self._create(Image, name)
            jpeg = self._create(CompressedImage, compressed(node, name)) if output.jpeg else None
            self._rows.append((output, raw, jpeg))
        self._spatial = [
            (output, self._create(output.kind, topic_name(camera, output.topic)))
            for output in SPATIAL
            if output.kind is not None
        ]
        self._detections = self._label_info = None
        if vision is not None:
            self._detections = self._create(
                vision.Detection2DArray, topic_name(camera, DETECTIONS)
            )
            self._label_info = self._create(
                vision.LabelInfo, topic_name(camera, LABEL_INFO), latched=True
            )

    def _create(self, kind: type, name: str, *, latched: bool = False) -> Any:
        return self._node.create_lifecycle_publisher(
            kind,
            name,
            qos(latched=latched),
            event_callbacks=self._events(name),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

    def publish(self, result: FrameResult, header: Any, options: Any, quality: int) -> list[str]:
        """Publish what is listened to, each message under `header`; returns what failed.

        An output that fails costs only itself.
        """
        failed = []
        for output, raw, jpeg in self._rows:
            wanted = [publisher for publisher in (raw, jpeg) if _heard(publisher)]
            try:
                picture = output.build(result, options) if wanted else None
                for publisher in wanted:
                    publisher.publish(
                        images.to_jpeg(picture, header, quality)
                        if publisher is jpeg
                        else images.to_message(picture, output.encoding, header)
                    )
            except Exception as error:
                failed.append(f'{output.topic}: {one_line(error)}')
        if _heard(self._detections):
            self._detections.publish(detections(result, header))
        return failed

    @property
    def wants_metres(self) -> bool:
        """Tell whether somebody listens to a topic in metres."""
        return any(_heard(publisher) for _, publisher in self._spatial)

    def publish_survey(self, survey: Survey, header: Any) -> list[str]:
        """Publish what is listened to in metres; returns what failed, which costs only itself."""
        failed = []
        for output, publisher in self._spatial:
            try:
                if _heard(publisher):
                    publisher.publish(output.build(survey, header))
            except Exception as error:
                failed.append(f'{output.topic}: {one_line(error)}')
        return failed

    def publish_label_info(self, labels: LabelSet, stamp: Any) -> None:
        """Send the names of the classes once; late subscribers get them too."""
        if self._label_info is not None:
            self._label_info.publish(label_info(labels, stamp))

    def destroy(self) -> None:
        """Take all publishers back."""
        publishers = [publisher for _, raw, jpeg in self._rows for publisher in (raw, jpeg)]
        publishers += [publisher for _, publisher in self._spatial]
        for publisher in (*publishers, self._detections, self._label_info):
            if publisher is not None:
                self._node.destroy_lifecycle_publisher(publisher)
        self._rows, self._spatial = [], []
        self._detections = self._label_info = None


def _heard(publisher: Any) -> bool:
    return publisher is not None and publisher.get_subscription_count() > 0


def detections(result: FrameResult, header: Any) -> Any:
    """Return the obstacles as vision_msgs/Detection2DArray, boxes in pixels of the image."""
    return vision.Detection2DArray(
        header=header, detections=[_detection(found, header) for found in result.objects]
    )


def _detection(found: Any, header: Any) -> Any:
    x, y, width, height = found.box
    detection = vision.Detection2D(header=header, id=str(found.id))
    detection.bbox.center.position.x = x + width / 2
    detection.bbox.center.position.y = y + height / 2
    detection.bbox.size_x, detection.bbox.size_y = float(width), float(height)
    hypothesis = vision.ObjectHypothesisWithPose()
    hypothesis.hypothesis.class_id = _OBSTACLE_CLASS
    hypothesis.hypothesis.score = float(found.score)
    detection.results = [hypothesis]
    return detection


def label_info(labels: LabelSet, stamp: Any) -> Any:
    """Return the names of the classes as vision_msgs/LabelInfo."""
    message = vision.LabelInfo(
        class_map=[
            vision.VisionClass(class_id=index, class_name=name)
            for index, name in enumerate(labels.names)
        ]
    )
    message.header.stamp = stamp
    return message
