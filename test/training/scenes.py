# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Tiny road scenes and cut-outs on disk."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

SIZE = (48, 64)
SKY, ROAD, PAVEMENT, CAR = 0, 3, 4, 8


def camvid(folder: Path, count: int = 3) -> Path:
    """Sky over road with a pavement on the right, a car, and an unlabelled corner."""
    rng = np.random.default_rng(0)
    for name in ('images', 'labels'):
        (folder / name).mkdir(parents=True)
    colours = np.zeros((256, 3), np.uint8)
    colours[SKY], colours[ROAD] = (230, 180, 140), (90, 85, 80)
    colours[PAVEMENT], colours[CAR] = (120, 130, 140), (40, 40, 160)
    for index in range(count):
        labels = np.full(SIZE, SKY, np.uint8)
        labels[20:] = ROAD
        labels[20:, 48:] = PAVEMENT
        labels[22:30, 4 + index : 14 + index] = CAR
        labels[44:, :6] = 255
        image = np.clip(colours[labels] + rng.normal(0, 8, (*SIZE, 3)), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / 'images' / f'scene{index}.png'), image)
        cv2.imwrite(str(folder / 'labels' / f'scene{index}.png'), labels)
    return folder


def cityscapes(folder: Path) -> Path:
    """One scene with label ids as Cityscapes stores them."""
    labels = np.full(SIZE, 23, np.uint8)
    labels[20:] = 7
    labels[22:30, 4:14] = 26
    labels[44:, :6] = 1
    for part, name, image in (
        ('leftImg8bit', 'leftImg8bit', np.full((*SIZE, 3), 100, np.uint8)),
        ('gtFine', 'gtFine_labelIds', labels),
    ):
        (folder / part / 'train' / 'ulm').mkdir(parents=True)
        cv2.imwrite(str(folder / part / 'train' / 'ulm' / f'ulm_000_{name}.png'), image)
    return folder


def cutouts(folder: Path) -> Path:
    """A green disc, a magenta box and a white triangle with transparent surroundings."""
    folder.mkdir(parents=True)
    y, x = np.mgrid[0:20, 0:24]
    for name, mask, colour in (
        ('disc_0', (y - 10) ** 2 + (x - 12) ** 2 < 90, (30, 200, 40)),
        ('box_0', (y > 2) & (x > 3) & (x < 20), (200, 30, 200)),
        ('triangle_0', x - 12 < y / 2, (250, 250, 250)),
    ):
        image = np.dstack([np.broadcast_to(np.uint8(colour), (20, 24, 3)), np.uint8(mask) * 255])
        cv2.imwrite(str(folder / f'{name}.png'), image)
    return folder
