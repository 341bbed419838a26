# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A data set of four tiny images for the tests of commands that measure."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from road_anomaly_ros import cli

SIZE = (48, 64)
CHAIN = ('--set', 'segmenter=synthetic')


def write_scenes(folder: Path, rng: np.random.Generator) -> Path:
    """Write grey road under a blue sky, in three of four images with a labelled magenta box."""
    for name in ('images', 'labels_masks'):
        (folder / name).mkdir(parents=True)
    for index in range(4):
        picture, truth = np.full((*SIZE, 3), 110, np.uint8), np.zeros(SIZE, np.uint8)
        picture[:18], truth[:3] = (120, 170, 235), 255
        if index < 3:
            picture[26:40, 8 + index : 28 + index] = (230, 20, 200)
            truth[28:40, 10 + index : 30 + index] = 1
        picture = np.clip(picture + rng.integers(-8, 9, picture.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / 'images' / f'{index}.png'), picture[..., ::-1])
        cv2.imwrite(str(folder / 'labels_masks' / f'{index}.png'), truth)
    return folder


def command(name: str, *words: object) -> int:
    """Run a command of `road-anomaly` and return its exit code."""
    return cli.main([name, *map(str, words)])
