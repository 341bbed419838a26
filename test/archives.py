# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Small files for the command `mine`, in which a patch of noise is strange."""

from __future__ import annotations

import cv2
import numpy as np

from road_anomaly_ros.tools.bags import IMAGE, BagWriter, image_message

SIZE = (96, 128)
FRAMES, STRETCH, FPS = 14, 8, 10.0
# The patch is no more than suspicious to the model: rules that ask for more are off.
RULES = {'threshold': 0.1, 'low_threshold': 0.05, 'min_evidence': 0, 'on_drivable': 'off'}
CHAIN = [
    word
    for name, value in {'min_area': 20, 'opening': 0, **RULES}.items()
    for word in ('--set', f'objects.{name}={value}')
]


def road(index):
    """A grey road on which a patch of noise moves to the right."""
    image = np.full((*SIZE, 3), 90, np.uint8)
    image[:40] = (150, 180, 210)
    noise = np.random.default_rng(7).integers(0, 256, (24, 24, 3), np.uint8)
    image[60:84, 20 + 3 * index : 44 + 3 * index] = noise
    return image


def write_video(path, frames=FRAMES):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), FPS, SIZE[::-1])
    for index in range(frames):
        writer.write(road(index)[..., ::-1])
    writer.release()


def write_bag(folder, frames=FRAMES):
    writer = BagWriter(folder)
    for index in range(frames):
        stamp = 1_700_000_000_000_000_000 + round(index * 1e9 / FPS)
        message = image_message(road(index), 'rgb8', stamp_ns=stamp, frame_id='front')
        writer.write('/front/image', IMAGE, message, stamp)
    writer.close()
