# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The pitch of a camera out of its motion: points that can be made by hand, a rendered drive."""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np
import pytest
import torch

from road_anomaly_ros.perception.contract import FrameResult, LabelSet
from road_anomaly_ros.perception.geometry import GeometryOptions, Mounting, PitchEstimate, Surveyor
from road_anomaly_ros.perception.geometry.pitch import vanishing_point
from road_anomaly_ros.rendering import Drive, DriveOptions
from road_anomaly_ros.tools import drive_metres

SIZE, FRAMES, FPS = (240, 320), 48, 15


def moved(rng, travel, turn, count=200):
    """Rays [n, 2, 2] of points before and after a camera has moved by `travel` and turned."""
    before = rng.uniform((-3.0, -1.5, 4.0), (3.0, 1.5, 30.0), (count, 3))
    after = (before - travel) @ cv2.Rodrigues(np.array(turn))[0].T
    return np.stack([points[:, :2] / points[:, 2:] for points in (before, after)], 1)


@pytest.mark.parametrize('turn', [(0.0, 0.0, 0.0), (0.004, -0.03, 0.01)])
def test_points_move_apart_from_where_the_camera_moves_to(rng, turn):
    rays = moved(rng, np.array([0.05, -0.04, 1.0]), turn)
    found = vanishing_point(rays, np.zeros(2), 1e-3)
    np.testing.assert_allclose(found, [0.05, -0.04], atol=1e-4)
    # Some of them on a vehicle that crosses, in one part of the picture.
    crosses = np.flatnonzero(np.abs(rays[:, 0] - (0.2, 0.0)).max(1) < 0.08)
    assert 10 <= len(crosses) <= 40
    rays[crosses, 1] = rays[crosses, 0] + (0.02, 0.01)
    found = vanishing_point(rays, np.zeros(2), 1e-3)
    np.testing.assert_allclose(found, [0.05, -0.04], atol=5e-3)  # 0.3 degrees


@pytest.fixture(scope='module')
def street():
    """Pictures of a drive with their times, its calibration and its mounting."""
    drive = Drive(DriveOptions(width=SIZE[1], height=SIZE[0], frames=FRAMES, seed=103))
    pictures = [(view.image, view.stamp) for view in drive]
    return pictures, drive_metres.model_of(drive, SIZE), drive_metres.mounting(drive)


def seen(pictures, model, given):
    """What is told of the mounting after each picture."""
    estimate = PitchEstimate()
    return [estimate.add(image, stamp, model, given) for image, stamp in pictures]


@pytest.mark.parametrize('wrong', [-2.0, 1.0])
def test_a_wrong_pitch_is_corrected_while_the_vehicle_drives(street, wrong):
    pictures, model, true = street
    given = dataclasses.replace(true, pitch=true.pitch + math.radians(wrong))
    told = seen(pictures, model, given)
    assert told[:38] == [given] * 38  # twenty pairs are two frames apart
    assert told[-1].source == 'pitch estimated' and told[-1].height == given.height
    assert math.degrees(told[-1].pitch - true.pitch) == pytest.approx(0.0, abs=0.3)


def test_a_camera_to_the_rear_sees_the_drive_backwards(street):
    pictures, model, true = street
    stamps = [stamp for _, stamp in pictures]
    backwards = [(image, stamp) for (image, _), stamp in zip(pictures[::-1], stamps, strict=True)]
    given = dataclasses.replace(true, yaw=math.pi, pitch=true.pitch - math.radians(1.0))
    told = seen(backwards, model, given)[-1]
    assert math.degrees(told.pitch - true.pitch) == pytest.approx(0.0, abs=0.3)


def test_nothing_is_told_without_motion_or_by_a_camera_that_looks_aside(street):
    pictures, model, true = street
    still = [(pictures[0][0], stamp) for _, stamp in pictures]
    assert seen(still, model, true)[-1] is true
    grey = [(np.full_like(image, 90), stamp) for image, stamp in pictures]
    assert seen(grey, model, true)[-1] is true
    aside = Mounting(1.5, yaw=math.radians(60))
    assert seen(pictures, model, aside)[-1] is aside


def test_another_mounting_and_time_that_runs_backwards_begin_anew(street):
    pictures, model, true = street
    estimate = PitchEstimate()
    for image, stamp in pictures:
        told = estimate.add(image, stamp, model, true)
    assert told is not true
    other = dataclasses.replace(true, height=2.0)
    assert estimate.add(*pictures[-1], model, other) is other
    for image, stamp in pictures:
        told = estimate.add(image, stamp + 60.0, model, other)
    assert told is not other
    assert estimate.add(*pictures[0], model, other) is other


@pytest.mark.parametrize('wanted', [True, False])
def test_a_survey_corrects_the_pitch_on_request(street, wanted):
    pictures, model, true = street
    given = dataclasses.replace(true, pitch=true.pitch + math.radians(1.0))
    surveyor, zeros = Surveyor(), torch.zeros(SIZE)
    for image, stamp in pictures:
        result = FrameResult(
            image=torch.from_numpy(image).permute(2, 0, 1),
            labels=zeros.byte(),
            score=zeros,
            mask=zeros.bool(),
            instances=zeros.int(),
            objects=(),
            label_set=LabelSet(('road',), ((0, 0, 0),), (0,)),
            scorer='plain',
            threshold=0.5,
            threshold_source='default',
            display_range=(0.0, 1.0),
            stamp=stamp,
        )
        seen = surveyor.survey(result, model, given, GeometryOptions(estimate_pitch=wanted))
    assert (seen.mounting != given) == wanted
