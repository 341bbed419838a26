# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The one table of results: what can come out, under which name, in which form, how it is made.

The node publishes these rows and a bag of `run` holds them, both below the node's name: a new
output is a new row. Messages are described as plain values, nested like their fields.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from road_anomaly_ros.perception import drawing
from road_anomaly_ros.perception.contract import AnomalyObject, FrameResult, LabelSet
from road_anomaly_ros.perception.geometry import Survey
from road_anomaly_ros.tools import rle, spatial, stages

LABELS, SCORE = 'semantic/labels', 'anomaly/score'
MASK, INSTANCES = 'obstacle/mask', 'obstacle/instances'
OVERLAY, RUN_LENGTHS = 'overlay', 'obstacle/rle'
_HIGHEST = 0xFFFF


@dataclass
class Shown:
    """The result of a frame and what draws it, which is asked once at most."""

    result: FrameResult
    draw: Callable[[FrameResult], Any]  # -> uint8 RGB [H, W, 3]

    @cached_property
    def overlay(self) -> np.ndarray:
        """The annotated picture, uint8 RGB [H, W, 3]."""
        return _array(self.draw(self.result))


@dataclass(frozen=True)
class Output:
    """One row: its name below the node (and camera), its form, what it means, how it is built.

    `build` makes the picture [H, W] or [H, W, 3] of one `source`, a message's fields of that and
    the header of the image.
    """

    topic: str
    form: str  # encoding of a picture, else the type of the message, 'package/Type'
    text: str
    build: Callable[..., Any]
    source: type = Shown  # what it is built from; LabelSet comes once, for late subscribers too
    jpeg: bool = False  # offered compressed as well, as it looks
    png: bool = False  # offered compressed as well, without loss
    debug: bool = False  # offered with `debug_topics` only
    recorded: bool = False  # also in the bag of `run`, JPEG where it can be

    @property
    def compressed(self) -> bool:
        """Tell whether the picture is offered compressed as well."""
        return self.jpeg or self.png

    @property
    def package(self) -> str:
        """The package of the message's type; empty for a picture."""
        return self.form.rpartition('/')[0]


def _labels(shown: Shown) -> np.ndarray:
    return shown.result.array('labels')


def _color(shown: Shown) -> np.ndarray:
    return _array(drawing.color_labels(shown.result.array('labels'), shown.result.label_set))


def _score(shown: Shown) -> np.ndarray:
    return shown.result.array('score')


def _heatmap(shown: Shown) -> np.ndarray:
    return _array(drawing.heatmap(shown.result.score, shown.result.display_range))


def _mask(shown: Shown) -> np.ndarray:
    return shown.result.array('mask').view(np.uint8) * np.uint8(255)


def _instances(shown: Shown) -> np.ndarray:
    # More obstacles share the last number rather than wrap to another one's.
    return np.minimum(shown.result.array('instances'), _HIGHEST).astype(np.uint16)


def _overlay(shown: Shown) -> np.ndarray:
    return shown.overlay


def _stage(name: str) -> Callable[[Shown], np.ndarray]:
    return lambda shown: shown.result.stages.draw(name)


def _array(picture: Any) -> np.ndarray:
    return picture if isinstance(picture, np.ndarray) else picture.cpu().numpy()


def _detections(shown: Shown, header: Any) -> dict[str, Any]:
    found = [_detection(item, header) for item in shown.result.objects]
    return {'header': header, 'detections': found}


def _detection(found: AnomalyObject, header: Any) -> dict[str, Any]:
    x, y, width, height = found.box
    return {
        'header': header,
        'id': str(found.track_id or found.id),
        'bbox': {
            'center': {'position': {'x': x + width / 2, 'y': y + height / 2}},
            'size_x': float(width),
            'size_y': float(height),
        },
        'results': [{'hypothesis': {'class_id': 'obstacle', 'score': float(found.score)}}],
    }


def _run_lengths(shown: Shown, header: Any) -> dict[str, Any]:
    stamp = header.stamp
    about = {'stamp': f'{stamp.sec}.{stamp.nanosec:09d}', 'frame_id': header.frame_id}
    return {'data': json.dumps({**about, 'objects': rle.described(shown.result)})}


def _label_info(labels: LabelSet, header: Any) -> dict[str, Any]:
    named = enumerate(labels.names)
    return {
        'header': header,
        'class_map': [{'class_id': index, 'class_name': name} for index, name in named],
    }


OUTPUTS = (
    Output(
        LABELS,
        'mono8',
        'Class of every pixel; 255 is unlabelled.',
        _labels,
        png=True,
        recorded=True,
    ),
    Output(
        'semantic/color', 'rgb8', 'Classes in the colours of the label set.', _color, jpeg=True
    ),
    Output(SCORE, '32FC1', 'Anomaly score; higher is stranger.', _score, recorded=True),
    Output('anomaly/heatmap', 'rgb8', 'Anomaly score as colours.', _heatmap, jpeg=True),
    Output(MASK, 'mono8', '255 on obstacles, 0 elsewhere.', _mask, png=True, recorded=True),
    Output(
        INSTANCES,
        '16UC1',
        'Number of the obstacle at a pixel, 0 is none.',
        _instances,
        png=True,
        recorded=True,
    ),
    Output(
        OVERLAY,
        'rgb8',
        'Camera image with heat, obstacles and legend.',
        _overlay,
        jpeg=True,
        recorded=True,
    ),
    Output(
        'obstacle/points',
        'sensor_msgs/PointCloud2',
        'Where each obstacle meets the road, metres before the vehicle; score, id.',
        spatial.points,
        Survey,
        recorded=True,
    ),
    Output(
        'obstacle/markers',
        'visualization_msgs/MarkerArray',
        'Boxes on the road with number, distance and speed, where installed.',
        spatial.markers,
        Survey,
        recorded=True,
    ),
    Output(
        'obstacle/scan',
        'sensor_msgs/LaserScan',
        'How far the road is free in each direction.',
        spatial.scan,
        Survey,
        recorded=True,
    ),
    Output(
        'obstacle/tracks',
        'vision_msgs/Detection3DArray',
        'Boxes on the road with the ids of their tracks, where installed.',
        spatial.tracks,
        Survey,
        recorded=True,
    ),
    Output(
        'obstacle/detections',
        'vision_msgs/Detection2DArray',
        'Boxes of the obstacles, tracked ones with the ids of their tracks, where installed.',
        _detections,
        recorded=True,
    ),
    Output(
        RUN_LENGTHS,
        'std_msgs/String',
        'Obstacles, their tracks and masks (COCO run lengths), as JSON with stamp and frame.',
        _run_lengths,
    ),
    Output(
        'semantic/label_info',
        'vision_msgs/LabelInfo',
        'Names of the classes, latched, where installed.',
        _label_info,
        LabelSet,
    ),
    *(
        Output(f'debug/{name}', 'rgb8', text, _stage(name), debug=True)
        for name, text in stages.TEXTS.items()
    ),
)
