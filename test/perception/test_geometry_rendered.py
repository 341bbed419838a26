# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Distances of obstacles against the exact depth of the rendered drive."""

from __future__ import annotations

import math

import numpy as np
import pytest

from road_anomaly_ros.perception.contract import AnomalyObject
from road_anomaly_ros.perception.geometry import CameraModel, GeometryOptions, Mounting, locate
from road_anomaly_ros.rendering import Drive, DriveOptions


@pytest.fixture(scope='module')
def rendered():
    """Frames of rendered drives with whole obstacles: (frame, camera, objects, true distances)."""
    found = []
    for seed in range(4):
        drive = Drive(DriveOptions(seed=seed, frames=100))
        for index in range(5, 100, 12):
            view, camera = drive[index], drive.camera(index)
            instances = view.instances.astype(np.int32)
            objects = [
                AnomalyObject(number, box_of(instances == number), (0.0, 0.0), 1, 0.5, 0.5, 0.5, 0)
                for number in np.unique(instances[instances > 0]).tolist()
                if (instances == number).sum() >= 30
            ]
            truth = {one.id: true_distance(view, camera, instances == one.id) for one in objects}
            found.append((view, camera, objects, truth))
    return found


def box_of(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (int(columns[0]), int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1)


def true_distance(view, camera, mask):
    """Distance over the road of the near side of an obstacle, from the exact depth."""
    rows, columns = np.nonzero(mask)
    depth = view.depth[mask]
    rays = np.stack((columns, rows, np.ones_like(rows))) * depth
    right, down, ahead = np.linalg.inv(view.camera_matrix) @ rays
    level = ahead * math.cos(camera.pitch) - down * math.sin(camera.pitch)
    return float(np.quantile(np.hypot(level, right), 0.05))


def compared(rendered, options, *, wrong=0.0, depth=False):
    """Rows (truth, position) of obstacles in full view, the pitch `wrong` by so many degrees."""
    rows = []
    for view, camera, objects, truth in rendered:
        focal, (u, v) = camera.focal, camera.center
        model = CameraModel((focal, focal, u, v), view.depth.shape)
        mounting = Mounting(camera.elevation, pitch=camera.pitch + math.radians(wrong))
        places = locate(
            objects,
            view.instances.astype(np.int32),
            model,
            mounting,
            options,
            view.depth if depth else None,
        )
        rows += [(truth[place.id], place) for place in places if not place.cut]
    return rows


def test_distances_of_the_rendered_drive_are_right(rendered):
    rows = compared(rendered, GeometryOptions(max_range=200.0))
    for low, high, allowed, least in ((0, 30, 0.05, 20), (30, 60, 0.10, 10)):
        errors = [abs(place.distance - true) / true for true, place in rows if low <= true < high]
        assert len(errors) >= least and np.median(errors) <= allowed


def test_depth_of_the_rendered_drive_gives_the_same_distances(rendered):
    rows = compared(rendered, GeometryOptions(), depth=True)
    assert len(rows) > 30 and all(place.source == 'depth' for _, place in rows)
    assert np.median([abs(place.distance - true) / true for true, place in rows]) < 0.01


@pytest.mark.parametrize('wrong', [0.5, -0.5])
def test_the_truth_lies_within_what_is_stated_although_the_pitch_is_wrong(rendered, wrong):
    rows = compared(rendered, GeometryOptions(max_range=200.0), wrong=wrong)
    inside = [place.nearest <= true <= place.farthest for true, place in rows]
    assert len(rows) > 30 and np.mean(inside) >= 0.9
    # And it is the stated error that does it, not a bound so wide that it could not fail.
    blind = compared(rendered, GeometryOptions(max_range=200.0, pitch_error=0.0), wrong=wrong)
    assert np.mean([place.nearest <= true <= place.farthest for true, place in blind]) < 0.5
