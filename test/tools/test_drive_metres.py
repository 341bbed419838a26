# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Distances and identities beside the truth of a drive, on what the drive itself renders."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch

from road_anomaly_ros.perception.contract import AnomalyObject, FrameResult, LabelSet
from road_anomaly_ros.perception.geometry import GeometryOptions
from road_anomaly_ros.rendering import Drive, DriveOptions
from road_anomaly_ros.tools import drive_metres
from road_anomaly_ros.tools.place import Place, Placed
from road_anomaly_ros.tools.sources import Frame

SIZE = (360, 480)


@pytest.fixture(scope='module')
def drive():
    return Drive(DriveOptions(width=480, height=360, frames=60, seed=1))


def perfect(drive, index, track_ids=None):
    """A frame and a result that finds exactly what is there, obstacle n as track n."""
    view = drive[index]
    instances = torch.from_numpy(view.instances.astype(np.int32))
    objects = []
    for number in instances.unique().tolist():
        rows, columns = np.nonzero(view.instances == number)
        if not number or len(rows) <= 600:
            continue
        low, high = (int(columns.min()), int(rows.min())), (int(columns.max()), int(rows.max()))
        box = (*low, high[0] - low[0] + 1, high[1] - low[1] + 1)
        item = AnomalyObject(number, box, (0.0, 0.0), len(rows), 0.9, 0.9, 0.9, 0)
        track = (track_ids or {}).get(number, number)
        objects.append(dataclasses.replace(item, track_id=track))
    score = torch.zeros(SIZE)
    result = FrameResult(
        image=torch.from_numpy(view.image).permute(2, 0, 1),
        labels=torch.zeros(SIZE, dtype=torch.uint8),
        score=score,
        mask=instances > 0,
        instances=instances,
        objects=tuple(objects),
        label_set=LabelSet(('road',), ((0, 0, 0),), (0,)),
        scorer='plain',
        threshold=0.5,
        threshold_source='default',
        display_range=(0.0, 1.0),
    )
    frame = Frame(view.image, 0, str(index), truth=view.instances, depth=view.depth)
    return frame, result


def test_what_is_found_exactly_has_its_identity_and_its_distance(drive):
    compared = drive_metres.Compared(drive)
    place = Place(
        partial(drive_metres.model_of, drive), drive_metres.mounting(drive), GeometryOptions()
    )
    for index in range(28, 44, 3):
        frame, result = perfect(drive, index)
        placed = Placed(lambda *_, found=result: found, place)
        compared.add(placed(frame.image), frame)
    found = compared.figures()['tracking']
    assert found['IDF1'] == 1.0 and found['ranges'] >= 6
    assert found['range_error'] < 0.05


def test_a_track_that_changes_its_id_half_way_is_half_an_identity(drive):
    compared = drive_metres.Compared(drive)
    indices = [index for index in range(28, 44) if perfect(drive, index)[1].objects][:6]
    only = min(item.id for index in indices for item in perfect(drive, index)[1].objects)
    for place, index in enumerate(indices):
        frame, result = perfect(drive, index, {only: 90 + (place >= 3)})
        mine = tuple(item for item in result.objects if item.id == only)
        truth = np.where(frame.truth == only, frame.truth, 0)
        frame = dataclasses.replace(frame, truth=truth)
        compared.add(dataclasses.replace(result, objects=mine), frame)
    # Three of six appearances belong to the better of two tracks: 2 * 3 / (6 + 6).
    assert compared.figures()['tracking']['IDF1'] == pytest.approx(0.5, abs=0.1)


def test_without_tracks_nothing_is_told(drive):
    compared = drive_metres.Compared(drive)
    frame, result = perfect(drive, 30)
    compared.add(dataclasses.replace(result, objects=()), frame)
    assert compared.figures() == {}


def test_the_model_fits_pictures_of_another_size(drive):
    whole, half = (drive_metres.model_of(drive, size) for size in (SIZE, (180, 240)))
    corner = whole.rays(np.array([[-0.5, -0.5]]))
    assert half.rays(np.array([[-0.5, -0.5]])) == pytest.approx(corner)
    assert half.matrix[0] == pytest.approx(whole.matrix[0] / 2)
