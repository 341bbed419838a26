# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a user may say about the mounting of a camera and about what is made of it."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass

from road_anomaly_ros.perception.registry import Option, option, options_of

_FRAME = re.compile(r'[^/\s]\S*')


@dataclass(frozen=True)
class MountingOptions:
    """Where a camera is fixed to the vehicle."""

    camera_height: float = option(
        math.nan,
        'Height of the camera above the road, of every camera; nan takes the mounting '
        'from TF, where tf2_ros is installed. One camera of several: geometry.NAME.camera_height, '
        'and so on.',
        low=0.05,
        high=20.0,
        unit='m',
    )
    camera_pitch: float = option(
        math.nan,
        'Angle by which the camera looks down; nan beside a height is guessed as 0.',
        low=-45.0,
        high=90.0,
        unit='deg',
    )
    camera_roll: float = option(
        math.nan,
        'Angle by which the camera leans to its right; nan beside a height is guessed as 0.',
        low=-180.0,
        high=180.0,
        unit='deg',
    )
    camera_yaw: float = option(
        0.0, 'Angle by which the camera looks to the left.', low=-180.0, high=180.0, unit='deg'
    )
    camera_forward: float = option(
        0.0, "Distance of the camera before the vehicle's origin.", low=-20.0, high=20.0, unit='m'
    )
    camera_left: float = option(
        0.0,
        "Distance of the camera to the left of the vehicle's origin.",
        low=-20.0,
        high=20.0,
        unit='m',
    )


@dataclass(frozen=True)
class GeometryOptions(MountingOptions):
    """Where the camera is, how well that is known, and how far positions are told."""

    base_frame: str = option(
        'base_link',
        'Coordinate frame of the vehicle, its origin on the road, of the outputs in '
        'metres; with TF the frame from which the mounting is taken.',
    )
    rectified: bool = option(
        False, 'Images are rectified: take P of camera_info instead of K and the distortion.'
    )
    use_depth: bool = option(
        False,
        'Read registered depth images on depth (16UC1 in mm, 32FC1 in m), which tell '
        'distances better than the road does.',
        live=False,
    )
    depth_tolerance: float = option(
        0.05,
        'Largest difference of the stamps of an image and its depth image.',
        low=0.0,
        high=10.0,
        unit='s',
    )
    depth_error: float = option(
        0.02, 'Standard deviation of a depth.', low=0.0, high=1.0, unit='depth'
    )
    pixel_error: float = option(
        1.0,
        'Standard deviation of where an obstacle touches the road.',
        low=0.0,
        high=100.0,
        unit='pixel',
    )
    pitch_error: float = option(
        0.3, 'Standard deviation of the pitch while driving.', low=0.0, high=10.0, unit='deg'
    )
    estimate_pitch: bool = option(
        False,
        'Correct the pitch of the mounting while the vehicle drives, by the point from which the '
        'picture moves apart; takes some seconds of driving.',
    )
    max_range: float = option(
        100.0,
        'Obstacles and free road are told up to this distance.',
        low=1.0,
        high=1000.0,
        unit='m',
    )
    bearings: int = option(
        121, 'Directions in which the free road is looked for.', low=3, high=1441
    )

    def __post_init__(self) -> None:
        if not _FRAME.fullmatch(self.base_frame):
            raise ValueError(
                f'geometry.base_frame: expected the name of a frame as TF knows it, such as '
                f'base_link, got {self.base_frame!r}: name one, without / before it'
            )


def of_camera(camera: str) -> list[Option]:
    """Return the mounting of one of several cameras as options; NaN is what all cameras have."""
    return [
        dataclasses.replace(
            item,
            default=math.nan,
            text=f"As {item.name}, of the camera '{camera}' alone; nan takes that of all.",
            name=f'geometry.{camera}.{item.name.removeprefix("geometry.")}',
        )
        for item in options_of(MountingOptions, 'geometry.')
    ]
