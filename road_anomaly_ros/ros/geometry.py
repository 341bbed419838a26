# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What one camera's frames say in metres: its calibration, mounting and depth brought together."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from road_anomaly_ros.perception import FrameResult
from road_anomaly_ros.perception.geometry import (
    CameraModel,
    GeometryOptions,
    Mounting,
    Survey,
    Surveyor,
)
from road_anomaly_ros.ros import images, mounting
from road_anomaly_ros.tools.camera_info import to_model

_KEPT = 8  # depth images that wait for their image
_DEPTHS = {'16UC1', 'mono16', '32FC1'}


class Unplaced(ValueError):
    """Nothing can be said in metres; one line with what is missing."""


class Geometry:
    """Calibration, depth images and mounting of one camera; `complain(kind, text)` hears faults.

    Messages may come from any thread; `survey` belongs to one.
    """

    def __init__(
        self,
        info_topic: str,
        depth_topic: str,
        transforms: mounting.Transforms,
        complain: Callable[[str, str], None],
    ) -> None:
        self._info_topic, self._depth_topic = info_topic, depth_topic
        self._transforms, self._complain = transforms, complain
        self._lock = threading.Lock()
        self._info: Any = None
        self._depths: deque[Any] = deque(maxlen=_KEPT)
        self._known: tuple[Any, CameraModel] | None = None
        self._surveyor = Surveyor()
        self._figures: dict[str, str] = {}
        self._seen_from = ''
        self._fault = ''
        self._counts = {'depth_used': 0, 'depth_missed': 0}

    def on_info(self, message: Any) -> None:
        """Note a camera_info; it is read when somebody asks for metres."""
        self._info = message

    def on_depth(self, message: Any) -> None:
        """Keep a depth image for the image of its moment."""
        with self._lock:
            self._depths.append(message)

    def survey(self, result: FrameResult, header: Any, options: GeometryOptions) -> Survey:
        """Return a frame in metres; raises Unplaced where calibration or mounting is missing."""
        model = self._model(result.size, options.rectified)
        place = self._place(header.frame_id, options)
        depth = self._depth(header.stamp, result.size, options) if options.use_depth else None
        return self._surveyor.survey(result, model, place, options, depth)

    def given(self, options: GeometryOptions) -> bool:
        """Tell whether calibration and mounting are there without asking TF."""
        return self._info is not None and not math.isnan(options.camera_height)

    def note(self, survey: Survey) -> None:
        """Keep the figures of a frame for the diagnostics, and nothing of the frame itself."""
        errors = [one.position.distance - one.position.nearest for one in survey.obstacles]
        mean = f'{np.mean(errors):.2f}' if errors else 'nan'
        self._seen_from = str(survey.mounting)
        self._figures = {
            'located': str(len(errors)),
            'without_place': str(survey.unknown),
            'mean_range_error_m': mean,
        }

    def _place(self, frame: str, options: GeometryOptions) -> Mounting:
        try:
            found = Mounting.from_options(options) or self._transforms.mounting(
                options.base_frame, frame
            )
        except (LookupError, ValueError) as error:
            self._fault = str(error)
            raise Unplaced(f'{error}; until then nothing is told in metres') from None
        self._fault = ''
        return found

    def _model(self, size: tuple[int, int], rectified: bool) -> CameraModel:
        info = self._info
        if info is None:
            raise Unplaced(
                f'no camera_info on {self._info_topic}: publish the calibration of the '
                f'camera or remap camera_info; until then nothing is told in metres'
            )
        facts = _facts(info, rectified)
        if self._known is None or self._known[0] != facts:
            try:
                found = to_model(info, rectified=rectified)
            except ValueError as error:
                raise Unplaced(f'camera_info cannot be used: {error}') from None
            if self._known is not None:
                self._complain(
                    'camera_info',
                    f'camera_info has changed, fx from '
                    f'{self._known[1].matrix[0]:g} to {found.matrix[0]:g}: the new '
                    f'one is used',
                )
            self._known = facts, found
        model = self._known[1]
        if model.size != size:
            raise Unplaced(
                f'camera_info is for {model.size[1]}x{model.size[0]}, images are '
                f'{size[1]}x{size[0]}: remap camera_info to that of this camera'
            )
        return model

    def _depth(self, stamp: Any, size: tuple[int, int], options: GeometryOptions) -> Any:
        """Return the depth image of an image; None, counted and told, where there is none."""
        with self._lock:
            waiting = list(self._depths)
        found, text = _nearest(waiting, images.nanoseconds(stamp), options.depth_tolerance)
        if found is not None:
            found, text = to_depth(found, size)
        self._counts['depth_missed' if found is None else 'depth_used'] += 1
        if found is None:
            self._complain('depth', f'{self._depth_topic}: {text}; distances come from the road')
        return found

    def values(self, options: GeometryOptions) -> dict[str, str]:
        """Return the mounting and how sure the last distances were, as texts."""
        found = {'mounting': self._mounting_text(options)}
        if options.use_depth:
            found.update((name, str(count)) for name, count in self._counts.items())
        return {**found, **self._figures}

    def _mounting_text(self, options: GeometryOptions) -> str:
        """Say where the mounting is from without asking TF for it, which costs a subscription."""
        try:
            given = Mounting.from_options(options)
        except ValueError as error:
            return f'unusable: {error}'
        if given is not None:
            return self._seen_from if options.estimate_pitch and self._seen_from else str(given)
        if self._fault or mounting.tf2_ros is None:
            return f'missing: {self._fault or mounting.REMEDY}'
        return self._seen_from or 'from TF, when somebody listens'


def to_depth(message: Any, size: tuple[int, int]) -> tuple[np.ndarray | None, str]:
    """Return a depth image of `size` as uint16 in mm or float32 in m, or None and why not."""
    if message.encoding not in _DEPTHS:
        return None, f'expected depth as 16UC1 in mm or 32FC1 in m, got {message.encoding!r}'
    if (message.height, message.width) != size:
        return None, (
            f'expected depth registered to the image, {size[1]}x{size[0]}, got '
            f'{message.width}x{message.height}'
        )
    try:
        found = images.to_map(message, size[0] * size[1])
    except images.ImageRefused as error:
        return None, str(error)
    if not (found > 0).any():  # NaN is not
        return None, 'expected depths above 0, the image holds none: look at the depth camera'
    return found, ''


def _nearest(waiting: list[Any], stamp: int, tolerance: float) -> tuple[Any, str]:
    """Return the message nearest in time, or None and why none fits."""
    if not waiting:
        return None, 'no depth image yet'
    found = min(waiting, key=lambda item: abs(images.nanoseconds(item.header.stamp) - stamp))
    late = (images.nanoseconds(found.header.stamp) - stamp) * 1e-9
    if abs(late) > tolerance:
        return None, (
            f'no depth image within {tolerance * 1e3:.0f} ms of the image, the nearest '
            f'is {late:+.1g} s away: synchronise the sensors or raise '
            f'geometry.depth_tolerance'
        )
    return found, ''


def _facts(info: Any, rectified: bool) -> tuple[Any, ...]:
    """Return all of a camera_info that a model depends on."""
    part = info.roi
    return (
        rectified,
        info.height,
        info.width,
        str(info.distortion_model),
        tuple(info.d),
        tuple(info.k),
        tuple(info.p),
        info.binning_x,
        info.binning_y,
        part.x_offset,
        part.y_offset,
        part.height,
        part.width,
    )
