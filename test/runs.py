# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Small sources for the command `run`, and what it leaves."""

import csv
import json

import cv2
import numpy as np

from road_anomaly_ros import cli
from road_anomaly_ros.tools.bags import IMAGE, BagWriter, image_message

SIZE = (48, 64)
SYNTHETIC = ['--set', 'segmenter=synthetic', '--scorer', 'plain']
START = 1_700_000_000_123_456_789
PATIENCE = 300  # seconds; a loaded machine takes its time to import torch


def scene(index):
    """Grey road under a blue sky with a magenta box that moves: no class has its hue."""
    picture = np.full((*SIZE, 3), 110, np.uint8)
    picture[:18] = (120, 170, 235)
    picture[28:40, 10 + index : 26 + index] = (230, 20, 200)
    return picture


def write_video(path, frames=12):
    code = cv2.VideoWriter_fourcc(*'MJPG')
    writer = cv2.VideoWriter(str(path), code, 20, SIZE[::-1])
    for index in range(frames):
        writer.write(scene(index)[..., ::-1])
    writer.release()
    return path


def write_bag(folder, frames=6):
    writer = BagWriter(folder)
    for index in range(frames):
        stamp = START + index * 100_000_000
        message = image_message(scene(index), 'rgb8', stamp_ns=stamp, frame_id='front')
        writer.write('/camera', IMAGE, message, stamp)
    writer.close()
    return folder


def run(source, out, *options):
    return cli.main(['run', str(source), '-o', str(out), *SYNTHETIC, *options])


def rows(path):
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def summary(out):
    return json.loads((out / 'summary.json').read_text())


def count_frames(path):
    capture, frames = cv2.VideoCapture(str(path)), 0
    while capture.read()[0]:
        frames += 1
    return frames
