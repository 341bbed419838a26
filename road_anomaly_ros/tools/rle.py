# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Obstacles with their masks as text: run lengths as COCO stores them."""

from __future__ import annotations

from typing import Any

import numpy as np

from road_anomaly_ros.files import plain
from road_anomaly_ros.perception.contract import AnomalyObject, FrameResult


def encode(mask: np.ndarray, at: tuple[int, int], size: tuple[int, int]) -> dict[str, Any]:
    """Return a bool mask [h, w], whose corner lies `at` (x, y), as COCO's compressed run lengths.

    `size` is (H, W) of the image. Runs go down the columns, from left to right.
    """
    height, width = size
    x, y = at
    strip = np.zeros((mask.shape[1], height), np.int8)
    strip[:, y : y + mask.shape[0]] = mask.T
    changes = np.flatnonzero(np.diff(strip.ravel(), prepend=0, append=0)) + x * height
    counts = np.diff(np.unique(np.r_[0, changes, height * width])).tolist()
    begins_inside = len(changes) > 0 and changes[0] == 0  # the first run is of what is outside
    return {'size': [height, width], 'counts': _text([0, *counts] if begins_inside else counts)}


def _text(counts: list[int]) -> str:
    """Return run lengths in COCO's characters: six bits each, differences from the third on."""
    found = bytearray()
    for index, count in enumerate(counts):
        rest = count - counts[index - 2] if index > 2 else count
        more = True
        while more:
            bits, rest = rest & 31, rest >> 5
            more = rest != (-1 if bits & 16 else 0)
            found.append(48 + bits + 32 * more)
    return found.decode('ascii')


def _tracked(item: AnomalyObject) -> dict[str, Any]:
    moving = item.velocity and [round(speed, 2) for speed in item.velocity]
    return {
        'track_id': item.track_id,
        'confirmed': item.confirmed,
        'age_s': round(item.age_s, 3),
        'velocity': moving,
    }


def described(result: FrameResult) -> list[dict[str, Any]]:
    """Return the obstacles of a frame as COCO describes instances, with what we know besides.

    The values are those that JSON knows.
    """
    instances, names = result.array('instances'), result.label_set.names
    found = []
    for item in result.objects:
        x, y, width, height = item.box
        mask = instances[y : y + height, x : x + width] == item.id
        metres = {} if item.distance is None else {'distance': round(item.distance, 3)}
        found.append(
            {
                'id': item.id,
                **(_tracked(item) if item.track_id else {}),
                **metres,
                'bbox': [x, y, width, height],
                'area': item.area,
                'score': round(item.score, 6),
                'around': names[item.label] if item.label < len(names) else None,
                'segmentation': encode(mask, (x, y), instances.shape),
            }
        )
    return plain(found)
