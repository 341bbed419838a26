# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The rendered drive: repeatable, and its ground truth fits its pictures and geometry."""

import dataclasses

import numpy as np
import pytest

from road_anomaly_ros.perception.labels import CITYSCAPES
from road_anomaly_ros.rendering import Drive, DriveOptions, RenderedFrame, facades, people
from road_anomaly_ros.rendering import canvas as names
from road_anomaly_ros.rendering.camera import Camera
from road_anomaly_ros.rendering.canvas import ROAD, SKY, Canvas, surface_code
from road_anomaly_ros.rendering.style import sample_style
from road_anomaly_ros.rendering.textures import Texture

SMALL = {'width': 96, 'height': 64}
NEAR_CLUSTER = 36


def small_drive(**changes):
    return Drive(DriveOptions(**{**SMALL, **changes}))


def assert_same(one: RenderedFrame, other: RenderedFrame):
    for field in dataclasses.fields(RenderedFrame):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


def test_same_seed_gives_same_bytes_in_any_order():
    forward = [small_drive(frames=6, fps=2.0)[i] for i in range(6)]
    backward = small_drive(frames=6, fps=2.0)
    for index in (5, 2, 0, 4, 1, 3, 3):
        assert_same(backward[index], forward[index])
    for one, other in zip(backward, forward, strict=True):
        assert_same(one, other)


def test_other_seed_gives_another_street():
    assert not np.array_equal(small_drive(seed=1)[0].image, small_drive(seed=2)[0].image)


def test_the_camera_moves():
    drive = small_drive()
    assert not np.array_equal(drive[0].image, drive[1].image)


def test_frame_has_the_documented_arrays():
    drive = small_drive(fps=10.0)
    frame = drive[3]
    assert frame.image.shape == (64, 96, 3) and frame.image.dtype == np.uint8
    assert frame.image.flags.c_contiguous
    assert frame.labels.shape == (64, 96) and frame.labels.dtype == np.uint8
    assert frame.instances.shape == (64, 96) and frame.instances.dtype == np.uint16
    assert frame.depth.shape == (64, 96) and frame.depth.dtype == np.float32
    assert frame.camera_matrix.shape == (3, 3) and frame.camera_matrix.dtype == np.float64
    assert frame.stamp == pytest.approx(0.3) and frame.index == 3 and len(drive) == 120


@pytest.mark.parametrize('index', [0, 20, NEAR_CLUSTER, 70, 110])
def test_labels_instances_and_depth_agree(index):
    frame = small_drive()[index]
    obstacle = frame.instances > 0
    assert set(np.unique(frame.labels)) <= {*range(19), 255}
    np.testing.assert_array_equal(obstacle, frame.labels == 255)
    np.testing.assert_array_equal(np.isinf(frame.depth), frame.labels == SKY)
    assert (frame.depth > 0).all()


def test_without_obstacles_it_is_the_same_street():
    with_things, without = small_drive()[NEAR_CLUSTER], small_drive(obstacles=False)[NEAR_CLUSTER]
    known = with_things.instances == 0
    assert not known.all()
    assert not without.instances.any() and not (without.labels == 255).any()
    np.testing.assert_array_equal(with_things.labels[known], without.labels[known])
    np.testing.assert_array_equal(with_things.depth[known], without.depth[known])


def test_obstacle_ids_are_stable_while_the_camera_closes_in():
    drive = small_drive()
    step = drive.style.speed / drive.options.fps
    nearest: dict[int, list[float]] = {}
    for frame in (drive[i] for i in range(18, 30)):
        for number in np.unique(frame.instances[frame.instances > 0]):
            nearest.setdefault(int(number), []).append(
                float(np.median(frame.depth[frame.instances == number]))
            )
    long_seen = [depths for depths in nearest.values() if len(depths) > 8]
    assert len(long_seen) >= 2
    for depths in long_seen:
        np.testing.assert_allclose(-np.diff(depths), step, atol=0.7)


def test_default_drive_shows_four_large_obstacles_and_an_empty_road():
    drive, largest, empty = Drive(), {}, 0
    for index in range(0, len(drive), 3):
        numbers, counts = np.unique(drive[index].instances, return_counts=True)
        empty += len(numbers) == 1
        for number, count in zip(numbers[1:], counts[1:], strict=True):
            largest[int(number)] = max(largest.get(int(number), 0), int(count))
    assert sum(size > 600 for size in largest.values()) >= 4
    assert empty >= 4


@pytest.mark.parametrize(
    'point, pixel',
    [
        ((0.0, 0.0, 10.0), (50.0, 65.0)),
        ((1.0, 0.0, 10.0), (60.0, 65.0)),
        ((-2.0, 1.5, 20.0), (40.0, 50.0)),
        ((0.0, 3.0, 5.0), (50.0, 20.0)),
    ],
)
def test_projection_by_hand(point, pixel):
    camera = Camera(101, 101, 100.0, 1.5, 0.0, 0.0, 0.0, lambda ahead: 0 * ahead)
    np.testing.assert_allclose(camera.project(np.array(point)), pixel)
    homogeneous = camera.matrix @ camera.to_camera(np.array(point))
    np.testing.assert_allclose(homogeneous[:2] / homogeneous[2], pixel)


def test_pitch_keeps_the_distance_to_a_point():
    camera = Camera(101, 101, 100.0, 1.5, 0.1, 0.5, 2.0, lambda ahead: 0 * ahead)
    seen = camera.to_camera(np.array([1.0, 0.0, 12.0]))
    assert np.linalg.norm(seen) == pytest.approx(np.sqrt(0.5**2 + 1.5**2 + 10**2))
    assert camera.project(np.array([0.5, 1.5, 1e9]))[1] == pytest.approx(camera.horizon)


@pytest.mark.parametrize('index', [0, 50])
def test_road_depth_follows_the_ground_plane(index):
    drive = small_drive()
    frame, camera = drive[index], drive.camera(index)
    rows, columns = np.nonzero(frame.labels == ROAD)
    assert len(rows) > 500
    pixels = np.stack([columns, rows, np.ones_like(rows)])
    points = np.linalg.inv(frame.camera_matrix) @ pixels * frame.depth[rows, columns]
    up = -(points[1] * np.cos(camera.pitch) + points[2] * np.sin(camera.pitch))
    np.testing.assert_allclose(up, -camera.elevation, atol=1e-3)


def test_a_point_on_the_road_lands_on_road_of_its_depth():
    drive = Drive(DriveOptions(width=320, height=240, obstacles=False))
    frame, camera = drive[10], drive.camera(10)
    point = np.array([camera.x, 0.0, camera.station + 6.0])
    u, v = camera.project(point).round().astype(int)
    assert frame.labels[v, u] == ROAD
    assert frame.depth[v, u] == pytest.approx(camera.to_camera(point)[2], rel=0.02)


@pytest.mark.parametrize('start, labelled, tone', [(2.25, False, 64), (1.75, True, 191)])
def test_a_mixed_pixel_carries_the_label_of_its_majority(start, labelled, tone):
    canvas = Canvas(16, 16)
    depth = np.full(16, 7.0, np.float32)
    canvas.board(
        Texture(np.full((8, 8, 3), 255, np.uint8)),
        np.array([start, 4.0]),
        np.array([start + 8, 12.0]),
        depth,
        surface_code(255, 5),
        1.0,
    )
    assert (canvas.codes[8, 2] == surface_code(255, 5)) == labelled
    assert (canvas.depth[8, 2] == 7.0) == labelled
    assert canvas.color[8, 2, 0] == pytest.approx(tone, abs=3)
    assert canvas.codes[8, 3] == surface_code(255, 5) and canvas.codes[8, 1] == SKY


@pytest.mark.parametrize('size', [(16, 16), (17, 33), (31, 16), (333, 17), (17, 333)])
def test_odd_sizes(size):
    width, height = size
    frame = Drive(DriveOptions(width=width, height=height, seed=4))[NEAR_CLUSTER]
    assert frame.image.shape == (height, width, 3)
    np.testing.assert_array_equal(np.isinf(frame.depth), frame.labels == SKY)


@pytest.mark.parametrize(
    'change, error',
    [
        ({'width': 1}, ValueError),
        ({'height': 1}, ValueError),
        ({'width': 9000}, ValueError),
        ({'frames': 0}, ValueError),
        ({'fps': 0.0}, ValueError),
        ({'fps': float('nan')}, ValueError),
        ({'seed': -1}, ValueError),
        ({'width': None}, TypeError),
        ({'obstacles': 3}, TypeError),
        ({'height': 1.5}, TypeError),
    ],
)
def test_bad_options_are_refused_by_name(change, error):
    with pytest.raises(error, match=next(iter(change))):
        DriveOptions(**change)


def test_options_are_frozen_and_indices_checked():
    drive = small_drive(frames=3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        drive.options.width = 3
    with pytest.raises(IndexError, match='3'):
        drive[3]
    assert drive[-1].index == 2


def test_streets_show_every_class_that_is_drawn():
    seen = set()
    for seed in range(16):
        scene = Drive(DriveOptions(width=240, height=180, seed=seed, frames=1, obstacles=False))
        seen |= set(np.unique(scene[0].labels).tolist())
    assert {CITYSCAPES[label] for label in seen} == set(CITYSCAPES) - {
        'truck',
        'bus',
        'train',
        'motorcycle',
    }


@pytest.mark.parametrize('name', CITYSCAPES)
def test_labels_are_the_train_ids(name):
    """ROAD is 0, TRAFFIC_LIGHT 6 and so on: the constants have the ids of their names."""
    assert CITYSCAPES[getattr(names, name.upper().replace(' ', '_'))] == name


@pytest.mark.parametrize('variant, wide', [(0, False), (1, True)])
def test_a_rider_is_told_from_the_bicycle(variant, wide):
    """Head and coat are the rider's; handlebar, tyres on the ground and wheels the bicycle's."""
    canvas = Canvas(160, 190)
    low, high = np.array([5.0, 5.0]), np.array([155.0, 185.0])
    canvas.board(
        people.bicyclist(variant, 0),
        low,
        high,
        np.full(190, 7.0, np.float32),
        names.RIDER,
        1.0,
        names.BICYCLE,
    )
    assert set(np.unique(canvas.codes)) == {SKY, names.RIDER, names.BICYCLE}
    rider, bicycle = (np.argwhere(canvas.codes == label) for label in (names.RIDER, names.BICYCLE))
    assert rider[:, 0].min() < 20 and rider[:, 0].max() < 170
    assert bicycle[:, 0].min() > 75 and bicycle[:, 0].max() > 175
    assert len(rider) > len(bicycle) > 200
    assert (np.ptp(bicycle[bicycle[:, 0] > 140, 1]) > 100) == wide


def test_brick_is_a_wall_and_boards_and_railings_are_a_fence():
    assert [facades.is_wall(variant) for variant in range(8)] == [False, False, True, False] * 2


def test_verges_are_terrain_outside_towns_and_paved_inside():
    settings = {style.setting: style.verge for style in map(sample_style, range(40))}
    assert settings == {'city': names.SIDEWALK, 'suburb': names.TERRAIN, 'country': names.TERRAIN}
