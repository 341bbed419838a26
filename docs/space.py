# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Draw what the node tells in metres of one frame: cloud, boxes and scan, seen from above."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np

from road_anomaly_ros.perception import drawing, lettering
from road_anomaly_ros.perception.geometry import (
    CameraModel,
    GeometryOptions,
    Mounting,
    Survey,
    Surveyor,
)
from road_anomaly_ros.perception.pipeline import Pipeline
from road_anomaly_ros.rendering import Drive
from road_anomaly_ros.tools import drive_metres, spatial, true_obstacles
from road_anomaly_ros.tools.sources.rendered import parse_options

SIZE = (900, 1600)  # H and W
LENS = CameraModel((1450.0, 1450.0, 799.5, 449.5), SIZE)
EYE = Mounting(6.0, math.radians(15), yaw=math.radians(-7), forward=-10.0, left=2.5)
RINGS = (10, 20, 30, 40)  # metres
BEFORE = 15  # frames in which tracks begin
NIGHT, LINE, FREE = (24, 28, 34), (84, 92, 102), (38, 92, 66)
RED, GREEN, YELLOW = (232, 60, 45), (90, 230, 110), (255, 220, 70)
CORNERS = np.array(list(itertools.product((-0.5, 0.5), repeat=3)))
EDGES = [(a, b) for a, b in itertools.combinations(range(8), 2) if (a ^ b).bit_count() == 1]
AXES = (((2, 0, 0), RED), ((0, 2, 0), GREEN), ((0, 0, 2), (90, 130, 255)))
KEY = (
    ('obstacle/markers: number, distance (2 sigma), speed', RED),
    ('obstacle/points', YELLOW),
    ('obstacle/scan: the road is free so far', (70, 160, 115)),
    ('true obstacles', GREEN),
)


def draw(street: str) -> tuple[np.ndarray, np.ndarray]:
    """Return overlay and 3D view of the last frame of a rendered street, uint8 RGB [H, W, 3]."""
    drive = Drive(parse_options(street))
    last = drive.options.frames - 1
    pipeline, surveyor = Pipeline.from_config({'tracker': 'kalman'}), Surveyor()
    for index in range(last - BEFORE, last + 1):
        result = pipeline(drive[index].image, index / drive.options.fps)
        model, place = drive_metres.model_of(drive, result.size), drive_metres.mounting(drive)
        survey = surveyor.survey(result, model, place, GeometryOptions())
        told = survey.told
    truth = true_obstacles.markers(drive[last], drive.camera(last), None)
    plain = drawing.DrawingOptions(legend=False, dim=0.0)
    return drawing.overlay(told, plain), _view(survey, truth['markers'][1:])


def _view(survey: Survey, truth: Sequence[dict[str, Any]]) -> np.ndarray:
    canvas, header = np.full((*SIZE, 3), NIGHT, np.uint8), SimpleNamespace(stamp=None)
    _draw_road(canvas, spatial.scan(survey, header), survey.road.shortest)
    for axis, color in AXES:
        _draw_lines(canvas, [(0, 0, 0), axis], color, 3)
    x, y = _pixels([(0, 0, 0)])[0].tolist()
    lettering.draw_text(canvas, survey.options.base_frame, (x + 14, y - 4), 24)
    markers = spatial.markers(survey, header)['markers'][1:]
    boxes = [item for item in markers if 'text' not in item]
    for item in sorted(boxes, key=lambda item: -item['pose']['position']['x']):
        _draw_box(canvas, item, RED, opacity=0.5)
    for item in truth:
        _draw_box(canvas, item, GREEN)
    cloud = spatial.points(survey, header)['data'].view(spatial.CLOUD)
    for spot in _pixels(np.stack([cloud[axis] for axis in 'xyz'], -1)):
        cv2.circle(canvas, spot.tolist(), 3, YELLOW, -1, cv2.LINE_AA)
    for item in markers:
        if 'text' in item:
            x, y = _pixels([list(item['pose']['position'].values())])[0].tolist()
            _draw_plate(canvas, item['text'], (x, y - 40), 26)
    for row, (text, color) in enumerate(KEY):
        lettering.fill(canvas, (24, 28 + 38 * row, 22, 22), color)
        lettering.draw_text(canvas, text, (58, 22 + 38 * row), 26, lettering.GREY)
    return canvas


def _pixels(points: Any) -> np.ndarray:
    """Return where points forward, left, up [n, 3] in metres are seen, int [n, 2]."""
    places = np.asarray(points, float).reshape(-1, 3) - EYE.position
    return np.rint(LENS.pixels(places @ EYE.rotation)).astype(int)


def _draw_lines(canvas: np.ndarray, points: Any, color: Any, thick: int = 2) -> None:
    cv2.polylines(canvas, [_pixels(points)], False, color, thick, cv2.LINE_AA)


def _draw_road(canvas: np.ndarray, scan: dict[str, Any], near: float) -> None:
    """Fill what is free in each bearing, and draw rings of equal distance over it."""
    ranges = np.minimum(scan['ranges'], scan['range_max'])
    bearings = scan['angle_min'] + scan['angle_increment'] * np.arange(len(ranges))
    for bearing, far in zip(bearings[~np.isnan(ranges)], ranges[~np.isnan(ranges)], strict=True):
        sides = bearing + scan['angle_increment'] * np.array([-0.5, 0.5])
        corners = [_polar(sides, near), _polar(sides, max(far, near))[::-1]]
        cv2.fillPoly(canvas, [_pixels(np.concatenate(corners))], FREE, cv2.LINE_AA)
    for ring in RINGS:
        arc = _polar(np.linspace(bearings[0], bearings[-1], 64), ring)
        _draw_lines(canvas, arc, LINE)
        x, y = _pixels(arc[:1])[0].tolist()
        _draw_plate(canvas, f'{ring} m', (x + 46, y), 24)


def _polar(bearings: np.ndarray, distance: float) -> np.ndarray:
    flat = np.cos(bearings), np.sin(bearings), np.zeros(len(bearings))
    return distance * np.stack(flat, -1)


def _draw_box(
    canvas: np.ndarray, marker: dict[str, Any], color: Any, opacity: float = 0.0
) -> None:
    pose, size = marker['pose'], list(marker['scale'].values())
    angle = 2 * math.atan2(pose['orientation'].get('z', 0.0), pose['orientation']['w'])
    (sine, cosine), (x, y, z) = (math.sin(angle), math.cos(angle)), (CORNERS * size).T
    turned = np.stack((cosine * x - sine * y, sine * x + cosine * y, z), -1)
    seen = _pixels(turned + list(pose['position'].values()))
    if opacity:
        body = cv2.fillConvexPoly(canvas.copy(), cv2.convexHull(seen), color, cv2.LINE_AA)
        cv2.addWeighted(body, opacity, canvas, 1 - opacity, 0, canvas)
    for ends in EDGES:
        cv2.line(canvas, *seen[list(ends)].tolist(), color, 2, cv2.LINE_AA)


def _draw_plate(canvas: np.ndarray, text: str, middle: tuple[int, int], size: int) -> None:
    wide, high = lettering.text_width(text, size), lettering.text_height(size)
    x, y = middle[0] - wide // 2, middle[1] - high // 2
    lettering.darken(canvas, (x - 6, y, wide + 12, high))
    lettering.draw_text(canvas, text, (x, y), size)
