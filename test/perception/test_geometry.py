# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Places on the road that can be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from road_anomaly_ros.perception.config import PipelineConfig
from road_anomaly_ros.perception.contract import AnomalyObject, FrameResult, LabelSet
from road_anomaly_ros.perception.geometry import (
    CameraModel,
    GeometryOptions,
    Histories,
    Mounting,
    RoadGrid,
    Surveyor,
    closing,
    locate,
    meet,
    spots,
)
from road_anomaly_ros.perception.geometry.contact import contact_line, feet

# 500 pixels are 45 degrees, the horizon of a level camera is row 240.
MODEL = CameraModel((500.0, 500.0, 320.0, 240.0), (480, 640))
LEVEL = Mounting(1.5)
OPTIONS = GeometryOptions()
EXACT = GeometryOptions(pixel_error=0.0, pitch_error=0.0)


def thing(number, box, **extra):
    """An obstacle of which only number and box count."""
    return AnomalyObject(
        id=number,
        box=box,
        centroid=(0.0, 0.0),
        area=1,
        score=0.5,
        score_max=0.5,
        score_p95=0.5,
        label=0,
        **extra,
    )


def scene(*boxes):
    """A map of instances with boxes x, y, width, height, numbered from 1, and their objects."""
    instances = np.zeros(MODEL.size, np.int32)
    for number, (x, y, width, height) in enumerate(boxes, start=1):
        instances[y : y + height, x : x + width] = number
    return instances, [thing(number, box) for number, box in enumerate(boxes, start=1)]


@pytest.mark.parametrize(
    ('row', 'ahead'),
    [
        (290, 15.0),  # 1.5 m * 500 / 50
        (265, 30.0),
        (340, 7.5),
        (740, 1.5),
    ],
)
def test_a_level_camera_sees_the_road_at_height_times_focal_over_rows(row, ahead):
    found = meet(MODEL, LEVEL, [[320, row]])
    np.testing.assert_allclose(found, [[ahead, 0.0]], atol=1e-9)


@pytest.mark.parametrize(('column', 'left'), [(320, 0.0), (370, -1.5), (220, 3.0)])
def test_columns_right_of_the_middle_are_right_of_the_vehicle(column, left):
    # At row 290 the road is 15 m ahead, so 50 columns are 1.5 m.
    np.testing.assert_allclose(meet(MODEL, LEVEL, [[column, 290]]), [[15.0, left]], atol=1e-9)


@pytest.mark.parametrize('row', [0, 239, 240])
def test_above_the_horizon_nothing_is_known(row):
    assert np.isnan(meet(MODEL, LEVEL, [[320, row]])).all()
    found = spots(MODEL, LEVEL, [[320, row]], OPTIONS)
    assert np.isnan(found.distance).all() and np.isnan(found.nearest).all()


@pytest.mark.parametrize(
    ('mounting', 'pixel', 'place'),
    [
        # 45 degrees down: the middle of the picture is as far ahead as the camera is high.
        (Mounting(1.5, pitch=math.pi / 4), (320, 240), (1.5, 0.0)),
        # 45 degrees up: the horizon lies 500 rows below the middle.
        (Mounting(1.5, pitch=-math.pi / 4), (320, 240), (math.nan, math.nan)),
        # Left by 90 degrees: what was ahead is left, what was left is behind.
        (Mounting(1.5, yaw=math.pi / 2), (270, 290), (-1.5, 15.0)),
        # Two metres before the origin and half a metre left of it.
        (Mounting(1.5, forward=2.0, left=0.5), (320, 290), (17.0, 0.5)),
        # Leaning right by 90 degrees less 45: the view to the right sees what lies below.
        (Mounting(1.5, roll=math.pi / 4), (320 + 50, 240), (1.5 * 500 * math.sqrt(2) / 50, -1.5)),
    ],
)
def test_every_part_of_the_mounting_counts(mounting, pixel, place):
    np.testing.assert_allclose(meet(MODEL, mounting, [pixel]), [place], atol=1e-9)


def test_options_give_a_mounting_a_guess_or_none():
    assert Mounting.from_options(OPTIONS) is None
    given = Mounting.from_options(
        GeometryOptions(camera_height=1.4, camera_pitch=3.0, camera_roll=0.0, camera_forward=2.0)
    )
    assert given == Mounting(1.4, pitch=math.radians(3.0), forward=2.0, source='given')
    guess = Mounting.from_options(GeometryOptions(camera_height=1.4, camera_pitch=3.0))
    assert guess.source == 'guessed' and guess.roll == 0.0
    assert guess.pitch_error(OPTIONS) == pytest.approx(math.radians(2.0))
    assert given.pitch_error(OPTIONS) == pytest.approx(math.radians(0.3))


@pytest.mark.parametrize(
    ('given', 'word'),
    [
        ({'matrix': (0.0, 0.0, 0.0, 0.0)}, 'calibrate'),
        ({'matrix': (500.0, -500.0, 0.0, 0.0)}, 'calibrate'),
        ({'matrix': (500.0, math.nan, 0.0, 0.0)}, 'finite'),
        ({'distortion': (0.1,) * 3}, 'distortion'),
        ({'distortion': (0.1,) * 5, 'fisheye': True}, 'distortion'),
        ({'distortion': (math.inf,) * 4}, 'finite'),
    ],
)
def test_what_is_no_calibration_is_refused_in_one_line(given, word):
    with pytest.raises(ValueError, match=word) as caught:
        CameraModel(**{'matrix': MODEL.matrix, 'size': (480, 640), **given})
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('distortion', 'fisheye'),
    [
        ((), False),
        ((-0.3, 0.1, 0.001, -0.002, 0.0), False),
        ((0.5, 0.1, 0.0, 0.0, 0.01, 0.8, 0.2, 0.02), False),
        ((0.05, -0.01, 0.002, 0.0), True),
    ],
)
def test_pixels_of_rays_are_the_pixels_again(distortion, fisheye):
    model = CameraModel(MODEL.matrix, MODEL.size, distortion, fisheye)
    pixels = np.array([[320.0, 240.0], [10.0, 400.0], [600.0, 100.0], [333.0, 470.0]])
    np.testing.assert_allclose(model.pixels(model.rays(pixels)), pixels, atol=1e-2)
    assert np.isnan(model.pixels([[0.0, 0.0, -1.0]])).all()


def test_a_lens_bends_the_view_of_the_road():
    """Barrel distortion by k1 alone: r' = r (1 + k1 r^2), upside down by hand."""
    bent = CameraModel(MODEL.matrix, MODEL.size, (-0.2, 0.0, 0.0, 0.0, 0.0))
    slope = 0.4
    row = 240 + 500 * slope * (1 - 0.2 * slope**2)
    np.testing.assert_allclose(meet(bent, LEVEL, [[320, row]]), [[1.5 / slope, 0.0]], atol=1e-5)


def test_a_lens_model_that_folds_back_is_not_believed():
    folding = CameraModel(MODEL.matrix, MODEL.size, (-0.9, 0.0, 0.0, 0.0, 0.0))
    # r (1 - 0.9 r^2) turns back at r = 0.61: a direction beyond comes back into the picture.
    assert np.isnan(folding.pixels([[0.9, 0.0, 1.0]])).all()
    assert np.isfinite(folding.pixels([[0.3, 0.0, 1.0]])).all()


def test_errors_are_those_of_the_angle_of_view():
    # 1.5 m high and 15 m ahead the view falls by atan(0.1); a pitch wrong by two times 0.3
    # degrees moves the place to where it falls by so much more or less.
    options = GeometryOptions(pixel_error=0.0, pitch_error=0.3)
    found = spots(MODEL, LEVEL, [[320, 290]], options)
    fall, error = math.atan(0.1), math.radians(0.6)
    assert found.distance[0] == pytest.approx(15.0)
    assert found.nearest[0] == pytest.approx(1.5 / math.tan(fall + error))
    assert found.farthest[0] == pytest.approx(1.5 / math.tan(fall - error))
    # d(h / tan a) = h / sin(a)^2 da
    assert found.distance_error[0] == pytest.approx(1.5 / math.sin(fall) ** 2 * error)


def test_a_pixel_is_more_metres_farther_away():
    options = GeometryOptions(pixel_error=1.0, pitch_error=0.0)
    found = spots(MODEL, LEVEL, [[320, 290], [320, 265]], options)
    # Two rows down and up: 750 / 52 and 750 / 48.
    np.testing.assert_allclose(found.nearest, [750 / 52, 750 / 27], rtol=1e-3)
    np.testing.assert_allclose(found.farthest, [750 / 48, 750 / 23], rtol=1e-3)


def test_near_the_horizon_it_may_be_anywhere_beyond():
    found = spots(MODEL, LEVEL, [[320, 244]], OPTIONS)
    assert found.distance[0] == pytest.approx(187.5) and found.farthest[0] == math.inf


def test_the_contact_line_is_the_lowest_pixel_of_each_column():
    instances = np.array([[1, 1, 0, 2], [1, 0, 0, 2], [0, 1, 0, 2]], np.int32)
    line = contact_line(instances)
    assert line.ids.tolist() == [1, 2] and line.begin.tolist() == [0, 2]
    assert list(
        zip(line.owner.tolist(), line.column.tolist(), line.row.tolist(), strict=True)
    ) == [(0, 0, 1), (0, 1, 2), (1, 3, 2)]
    assert len(contact_line(np.zeros((3, 4), np.int32))) == 0


def test_a_hair_below_an_outline_is_not_its_foot():
    instances = np.zeros((50, 60), np.int32)
    instances[10:20, 10:40] = 1
    instances[10:40, 25] = 1
    row, column = feet(contact_line(instances))
    assert row.tolist() == [19]
    instances[10:40, 25:29] = 1
    row, column = feet(contact_line(instances))
    assert row.tolist() == [39] and column.tolist() == [26.5]


def test_an_obstacle_has_place_width_and_height():
    # The lower edge of row 289 is 289.5 - 240 = 49.5 rows below the horizon: 750 / 49.5 metres.
    instances, objects = scene((300, 240, 41, 50))
    (found,) = locate(objects, instances, MODEL, LEVEL, EXACT)
    ahead = 750 / 49.5
    assert found.forward == pytest.approx(ahead) and found.left == pytest.approx(0.0, abs=1e-9)
    assert found.width == pytest.approx(41 * ahead / 500)
    # It begins half a row above the horizon, where the camera's own height is seen.
    assert found.height == pytest.approx(1.5 + 0.5 * ahead / 500)
    assert found.nearest == found.farthest == pytest.approx(found.distance)
    assert found.source == 'road' and not found.cut
    assert found.line.shape == (41, 3)
    np.testing.assert_allclose(found.line[:, 0], ahead)
    np.testing.assert_allclose(found.line[[0, -1], 1], [20 * ahead / 500, -20 * ahead / 500])
    assert (found.line[:, 2] == 0).all()


def test_an_obstacle_aside_is_where_its_middle_is():
    instances, objects = scene((420, 260, 41, 30))
    (found,) = locate(objects, instances, MODEL, LEVEL, OPTIONS)
    ahead = 750 / 49.5
    # It stands across the view, not across the road: the middle of its width is not quite that of
    # its columns.
    assert found.left == pytest.approx(-120 * ahead / 500, rel=3e-3)
    assert found.forward == pytest.approx(ahead, rel=3e-3)
    assert found.distance == pytest.approx(math.hypot(found.forward, found.left), rel=1e-3)
    assert 0 < found.left_error < found.forward_error


def test_what_ends_above_the_horizon_or_too_far_away_has_no_place():
    instances, objects = scene((300, 100, 20, 50), (100, 200, 20, 43), (200, 200, 20, 90))
    assert [found.id for found in locate(objects, instances, MODEL, LEVEL, EXACT)] == [3]
    near = GeometryOptions(max_range=10.0)
    assert locate(objects, instances, MODEL, LEVEL, near) == ()


def test_ten_thousand_specks_have_their_places():
    specks = [(4 + 6 * (index % 100), 250 + 2 * (index // 100), 2, 1) for index in range(10_000)]
    instances, objects = scene(*specks)
    found = locate(objects, instances, MODEL, LEVEL, OPTIONS)
    assert 5_000 < len(found) <= 10_000  # those that others hide from below have theirs, too
    assert all(math.isfinite(one.distance) for one in found)


def test_obstacles_at_the_borders_are_cut():
    instances, objects = scene((0, 300, 30, 20), (610, 300, 30, 20), (300, 400, 50, 80))
    left, right, bottom = locate(objects, instances, MODEL, LEVEL, OPTIONS)
    assert left.cut and right.cut and bottom.cut
    assert left.nearest > 0 and bottom.nearest == 0.0  # its foot is out of view: at most so far


def test_what_hangs_over_the_road_does_not_reach_back_to_the_horizon():
    # A gate: two posts with a beam between them that has no ground below it.
    instances = np.zeros(MODEL.size, np.int32)
    instances[200:230, 300:340] = 1
    instances[200:290, [300, 301, 302, 337, 338, 339]] = 1
    (found,) = locate([thing(1, (300, 200, 40, 90))], instances, MODEL, LEVEL, EXACT)
    assert np.isfinite(found.line).all()
    assert found.line[:, 0].max() <= found.distance + max(found.width, 0.5) + 1e-9


def test_depth_wins_where_it_is_known():
    instances, objects = scene((300, 240, 41, 50), (100, 240, 41, 50))
    depth = np.zeros(MODEL.size, np.uint16)
    depth[instances == 1] = 12_000
    first, second = locate(objects, instances, MODEL, LEVEL, OPTIONS, depth)
    assert (first.source, second.source) == ('depth', 'road')
    assert first.forward == pytest.approx(12.0) and second.forward == pytest.approx(
        750 / 49.5, rel=1e-3
    )
    assert first.distance - first.nearest == pytest.approx(0.04 * 12)
    # 12 m along the axis, 49.5 rows down: 1.188 m below the camera.
    np.testing.assert_allclose(first.line[:, 2], 1.5 - 49.5 * 12 / 500)
    same = locate(objects, instances, MODEL, LEVEL, OPTIONS, depth / np.float32(1000))
    assert same[0].forward == pytest.approx(12.0)


def test_depth_of_an_obstacle_above_the_horizon_gives_it_a_place():
    instances, objects = scene((300, 100, 41, 50))
    depth = np.where(instances == 1, np.float32(20), np.float32(np.nan))
    (found,) = locate(objects, instances, MODEL, LEVEL, OPTIONS, depth)
    assert found.forward == pytest.approx(20.0)
    assert found.line[:, 2].min() > 1.5


def test_holes_and_stray_depths_do_not_count():
    instances, objects = scene((300, 240, 40, 50))
    depth = np.full(MODEL.size, np.nan, np.float32)
    depth[instances == 1] = 10.0
    depth[240:260, 300:340] = 0.0
    depth[270, 300:340] = np.inf
    depth[289, 300:310] = 45.0  # an edge that shows what is behind
    (found,) = locate(objects, instances, MODEL, LEVEL, OPTIONS, depth)
    assert found.forward == pytest.approx(10.0)
    np.testing.assert_allclose(found.line[:, 0], 10.0)
    depth[instances == 1] = np.nan
    depth[280, 300:304] = 3.0  # four pixels are none
    (found,) = locate(objects, instances, MODEL, LEVEL, OPTIONS, depth)
    assert found.source == 'road'


@pytest.mark.parametrize('depth', [np.zeros((240, 320), np.float32), np.zeros((480, 640))])
def test_depth_of_another_size_or_kind_is_refused(depth):
    instances, objects = scene((300, 240, 40, 50))
    with pytest.raises(ValueError, match='depth'):
        locate(objects, instances, MODEL, LEVEL, OPTIONS, depth)


def test_a_calibration_of_another_size_is_refused():
    with pytest.raises(ValueError, match='640x480'):
        locate([], np.zeros((240, 320), np.int32), MODEL, LEVEL, OPTIONS)


def test_ten_thousand_tiny_obstacles_all_have_a_place():
    instances = np.zeros((480, 640), np.int32)
    instances[280:480:2, 0:600:6] = np.arange(1, 10_001).reshape(100, 100)
    objects = [thing(number, (0, 280, 1, 1)) for number in range(1, 10_001)]
    found = locate(objects, instances, MODEL, LEVEL, OPTIONS)
    assert [place.id for place in found] == list(range(1, 10_001))


def profile(free, points=()):
    grid = RoadGrid(MODEL, LEVEL, GeometryOptions(max_range=60.0, bearings=41))
    return grid.profile(free, np.array(points, float).reshape(-1, 2))


def at(road, degrees):
    return road.distances[np.abs(road.bearings - math.radians(degrees)).argmin()]


def test_a_free_plane_is_free_as_far_as_it_is_seen():
    road = profile(np.ones(MODEL.size, bool))
    assert (np.diff(road.bearings) > 0).all()
    assert at(road, 0.0) == math.inf
    # The lowest row looks down by 239 / 500.
    assert road.shortest == pytest.approx(750 / 239, rel=1e-6)
    assert np.isfinite(road.distances).sum() < 3  # at the very rim the view ends sideways


def test_the_profile_ends_where_the_road_does():
    free = np.ones(MODEL.size, bool)
    free[:291] = False  # from 15 m on
    free[:, :200] = False  # and left of 120 / 500 of the distance
    road = profile(free)
    assert at(road, 0.0) == pytest.approx(750 / 50, rel=0.02)
    assert at(road, -5.0) == pytest.approx(15.0 / math.cos(math.radians(5)), rel=0.02)
    assert at(road, 20.0) == pytest.approx(road.shortest, rel=0.1)


def test_an_obstacle_between_two_bearings_is_not_missed():
    free = np.ones(MODEL.size, bool)
    road = profile(free, [(20.0, 0.3), (5.0, 400.0), (-5.0, 0.0)])
    assert at(road, math.degrees(math.atan2(0.3, 20.0))) == pytest.approx(20.0, rel=1e-3)
    assert np.isfinite(road.distances).sum() < 4


def test_a_camera_that_sees_no_road_says_so():
    with pytest.raises(ValueError, match='no road within'):
        RoadGrid(MODEL, Mounting(1.5, pitch=math.radians(-40)), OPTIONS)


def test_time_to_contact_of_a_steady_approach():
    # 20 m away, nearer by 1 m each tenth of a second: 10 m/s, 16 m left after 0.4 s.
    times = [0.0, 0.1, 0.2, 0.3, 0.4]
    found = closing(times, [20.0, 19.0, 18.0, 17.0, 16.0], [0.5] * 5)
    assert found.speed == pytest.approx(10.0) and found.seconds == pytest.approx(1.6)
    # Weights 1 / 0.25, spread 0.1: 1 / sqrt(0.4).
    assert found.speed_error == pytest.approx(1 / math.sqrt(0.4))
    tall = closing(times, [24.0, 22.8, 21.6, 20.4, 19.2], [0.5] * 5)
    assert tall.seconds == pytest.approx(1.6)  # a height wrong by a fifth cancels out


def test_what_does_not_surely_come_nearer_has_no_time_to_contact():
    times = [0.0, 0.1, 0.2, 0.3]
    assert closing(times, [20.0, 21.0, 22.0, 23.0], [0.1] * 4).seconds == math.inf
    assert closing(times, [20.0, 19.9, 19.8, 19.7], [5.0] * 4).seconds == math.inf
    assert closing(times[:2], [20.0, 19.0], [0.1] * 2) is None
    assert closing([0.0, 0.01, 0.02], [20.0, 19.0, 18.0], [0.1] * 3) is None


def test_histories_start_anew_when_time_runs_backwards():
    kept = Histories()
    for step in range(4):
        kept.begin(step / 10)
        kept.begin(step / 10)  # a stamp that repeats counts once
        kept.add(7, 20.0 - step, 0.1)
        found = kept.add(7, 3.0, 0.1)
    assert found.speed == pytest.approx(10.0)
    kept.begin(0.05)
    assert kept.add(7, 20.0, 0.1) is None


def frame(instances, objects, *, stamp=None, drivable=(0,)):
    """A result with road everywhere."""
    return FrameResult(
        image=torch.zeros(3, *MODEL.size, dtype=torch.uint8),
        labels=torch.zeros(MODEL.size, dtype=torch.uint8),
        score=torch.zeros(MODEL.size),
        mask=torch.from_numpy(instances > 0),
        instances=torch.from_numpy(instances),
        objects=tuple(objects),
        label_set=LabelSet(('road',), ((0, 0, 0),), drivable),
        scorer='plain',
        threshold=0.5,
        threshold_source='option',
        display_range=(0.0, 1.0),
        stamp=stamp,
    )


def test_a_survey_tells_confirmed_obstacles_and_a_road_that_ends_at_all():
    instances, _ = scene((300, 250, 41, 40), (100, 250, 41, 40), (500, 100, 20, 20))
    objects = [
        thing(1, (300, 250, 41, 40), track_id=9, confirmed=True),
        thing(2, (100, 250, 41, 40), track_id=8, confirmed=False),
        thing(3, (500, 100, 20, 20), track_id=7, confirmed=True),
    ]
    survey = Surveyor().survey(frame(instances, objects), MODEL, LEVEL, OPTIONS)
    (found,) = survey.obstacles
    assert found.id == 9 and found.closing is None and survey.unknown == 1
    ends = survey.road
    for column in (320, 120):
        bearing = math.degrees(math.atan((320 - column) / 500))
        assert at(ends, bearing) == pytest.approx(15.0 / math.cos(math.radians(bearing)), rel=0.03)


def test_objects_without_tracks_have_their_own_numbers_and_no_speed():
    surveyor = Surveyor()
    for step in range(5):
        instances, objects = scene((300, 250, 41, 40 + 5 * step))
        survey = surveyor.survey(frame(instances, objects, stamp=step / 10), MODEL, LEVEL, OPTIONS)
        (found,) = survey.obstacles
    assert found.id == 1 and found.closing is None


def test_tracks_have_speed_and_time_to_contact():
    surveyor = Surveyor()
    options = GeometryOptions(pixel_error=0.1, pitch_error=0.05)
    for step in range(6):
        foot = round(240 + 750 / (20.0 - step))  # 10 m/s
        instances, _ = scene((300, foot - 30, 41, 30))
        objects = [thing(1, (300, foot - 30, 41, 30), track_id=4, confirmed=True)]
        survey = surveyor.survey(frame(instances, objects, stamp=step / 10), MODEL, LEVEL, options)
        (found,) = survey.obstacles
    assert found.closing.speed == pytest.approx(10.0, rel=0.1)
    assert found.closing.seconds == pytest.approx(1.5, rel=0.15)


def test_labels_without_a_drivable_class_tell_no_road():
    instances, objects = scene((300, 250, 41, 40))
    survey = Surveyor().survey(frame(instances, objects, drivable=()), MODEL, LEVEL, OPTIONS)
    assert len(survey.obstacles) == 1
    with pytest.raises(ValueError, match='no drivable class'):
        _ = survey.road


def test_a_value_may_be_left_open_although_it_has_a_range():
    config = PipelineConfig.from_any({'geometry.camera_height': math.nan})
    assert math.isnan(config.options('geometry').camera_height)
    with pytest.raises(ValueError, match='camera_height'):
        PipelineConfig.from_any({'geometry.camera_height': 0.0})
    with pytest.raises(ValueError, match='max_range'):
        PipelineConfig.from_any({'geometry.max_range': math.nan})


@pytest.mark.parametrize('frame', ['', ' ', '/base_link', 'base link'])
def test_a_frame_that_tf_cannot_know_is_refused_in_one_line(frame):
    with pytest.raises(ValueError, match=r'geometry\.base_frame: expected .* such as base_link'):
        PipelineConfig.from_any({'geometry.base_frame': frame})
    assert PipelineConfig.from_any({'geometry.base_frame': 'car/base'}).options('geometry')


def test_what_is_set_for_one_camera_wins_over_what_is_set_for_all():
    config = PipelineConfig.from_any(
        {
            'geometry.camera_height': 1.5,
            'geometry.camera_yaw': 10.0,
            'geometry.rear.camera_yaw': 0.0,
            'geometry.rear.camera_height': math.nan,
            'geometry.max_range': 50.0,
        }
    )
    rear = config.options('geometry', 'rear')
    assert (rear.camera_height, rear.camera_yaw, rear.max_range) == (1.5, 0.0, 50.0)
    assert config.options('geometry', 'front') == config.options('geometry')
    with pytest.raises(ValueError, match=r'geometry\.rear\.max_range.*geometry\.rear\.camera_yaw'):
        PipelineConfig.from_any({'geometry.rear.max_range': 50.0})
