# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Where the camera of a source is and how it sees, and results in metres by that."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from road_anomaly_ros.perception.config import PipelineConfig
from road_anomaly_ros.perception.contract import FrameResult
from road_anomaly_ros.perception.geometry import (
    CameraModel,
    GeometryOptions,
    Mounting,
    Survey,
    Surveyor,
)
from road_anomaly_ros.remarks import Remark
from road_anomaly_ros.tools import drive_metres
from road_anomaly_ros.tools.camera_info import to_model
from road_anomaly_ros.tools.sources import Source


@dataclass(frozen=True)
class Place:
    """A camera on its vehicle; `model` returns its calibration for pictures of a size (H, W)."""

    model: Callable[[tuple[int, int]], CameraModel]
    mounting: Mounting
    options: GeometryOptions

    @classmethod
    def of(cls, source: Source, config: PipelineConfig, *, resized: bool = False) -> Place | None:
        """Return that of a rendered drive, or of a bag with camera_info and a height in options.

        One of several cameras has the mounting of its name, as in the node.

        None where it is unknown, with a warning where a height is given. Pictures of another
        size than the calibration's are taken for the same ones only when they are `resized`.
        Raises ValueError for what is no calibration.
        """
        options: GeometryOptions = config.options('geometry', camera_of(source, config.cameras))
        if source.drive is not None:
            drive = source.drive
            return cls(
                partial(drive_metres.model_of, drive), drive_metres.mounting(drive), options
            )
        mounting = Mounting.from_options(options)
        if mounting is None:
            return None
        if source.camera_info is None:
            text = 'no camera_info beside the pictures: nothing is told in metres'
            warnings.warn(f'{source.name}: {text}', Remark, stacklevel=2)
            return None
        try:
            model = to_model(source.camera_info, rectified=options.rectified)
        except ValueError as error:
            raise ValueError(f'{source.name}: camera_info cannot be used: {error}') from None
        return cls(partial(_scaled, model) if resized else lambda _: model, mounting, options)

    def surveys(self) -> Callable[[FrameResult], Survey]:
        """Return what brings the frames of one camera into metres; keeps their past."""
        surveyor = Surveyor()
        return lambda result: surveyor.survey(
            result, self.model(result.size), self.mounting, self.options
        )


def camera_of(source: Source, names: Collection[str]) -> str:
    """Return which of the cameras of these names took the pictures, '' for none of them.

    Its topic lies below its name, of several names below the last. Names without any topic of
    pictures below them are told.
    """
    for name in sorted(names):
        if not any(name in _above(topic) for topic in source.topics):
            known = f', there are {", ".join(source.topics)}' if source.topics else ''
            text = f'no topic of pictures below {name}/{known}: geometry.{name}.* has no effect'
            warnings.warn(f'{source.name}: {text}', Remark, stacklevel=2)
    return next((part for part in reversed(_above(source.topic or '')) if part in names), '')


def _above(topic: str) -> list[str]:
    return topic.split('/')[:-1]


class Placed:
    """A pipeline whose results tell distances; all else of it stays."""

    def __init__(self, pipeline: Any, place: Place) -> None:
        self._pipeline, self._survey = pipeline, place.surveys()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipeline, name)

    def __call__(self, image: Any, stamp: float | None = None, **more: Any) -> Any:
        """Return the result of the pipeline, its obstacles with their distances."""
        return self._survey(self._pipeline(image, stamp, **more)).told


def _scaled(model: CameraModel, size: tuple[int, int]) -> CameraModel:
    """Return the calibration of a camera whose pictures were resized to (H, W)."""
    down, across = size[0] / model.size[0], size[1] / model.size[1]
    fx, fy, cx, cy = model.matrix
    center = (cx + 0.5) * across - 0.5, (cy + 0.5) * down - 0.5
    return replace(model, matrix=(fx * across, fy * down, *center), size=size)
