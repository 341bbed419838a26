# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Measure how many images per second the metrics of `evaluate` take in.

Random scores, anomaly labels and class labels are written to a temporary folder and read from it,
as `evaluate` does after the network's pass.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from road_anomaly_ros.evaluation import measuring
from road_anomaly_ros.evaluation.datasets import DataSet
from road_anomaly_ros.evaluation.details import Findings
from road_anomaly_ros.evaluation.layouts import LAYOUTS, Sample
from road_anomaly_ros.evaluation.measuring import STAGES
from road_anomaly_ros.evaluation.store import Store

CLASSES = 19
_KEY = 'random'
_BLOCK = 16  # side of a patch of one class, and of the coarse part of the scores
_VOID, _OBJECT = 0.025, 0.1  # of the width, of the height


def write_random(
    folder: Path, store: Store, size: tuple[int, int], frames: int, seed: int
) -> DataSet:
    """Store scores and labels of one anomaly per image on a known ground with void at its edge."""
    width, height = size
    random = np.random.default_rng(seed)
    coarse = max(1, height // _BLOCK), max(1, width // _BLOCK)
    side = max(1, round(_OBJECT * height))
    samples = []
    for index in range(frames):
        label = np.zeros((height, width), np.uint8)
        label[:, : round(_VOID * width)] = 255
        y, x = random.integers(0, height - side + 1), random.integers(0, width - side + 1)
        label[y : y + side, x : x + side] = 1
        score = cv2.resize(random.random(coarse, np.float32), size)
        score += random.normal(0, 0.02, score.shape).astype(np.float32) + 0.5 * (label == 1)
        classes = cv2.resize(
            random.integers(0, CLASSES, coarse, np.uint8), size, interpolation=cv2.INTER_NEAREST
        )
        store.write(
            _KEY,
            index,
            {
                'score': score.astype(np.float32),
                'classes': classes,
                'seconds': 0.0,
                'stages': [0.0] * len(STAGES),
            },
        )
        paths = [folder / f'{index:06d}_{kind}.png' for kind in ('anomaly', 'classes')]
        for path, picture in zip(paths, (label, classes), strict=True):
            cv2.imwrite(str(path), picture)
        samples.append(Sample(f'{index:06d}', paths[0], *paths))
    layout = dataclasses.replace(
        LAYOUTS['folder'],
        class_names=tuple(map(str, range(CLASSES))),
        class_values={index: index for index in range(CLASSES)},
    )
    return DataSet(layout, folder, tuple(samples))


def rows(data: DataSet, store: Store) -> Iterator[dict[str, Any]]:
    """Yield the rate of each group of metrics, and of all that `evaluate` does with the scores."""
    shared = measuring.shared_classes(*[data.layout.class_names] * 2)
    works: dict[str, Callable[[], Any]] = {
        'AP, AUROC, FPR95': lambda: measuring.curve_of(data, store, _KEY),
        'mIoU': lambda: measuring.mean_iou(data, store, _KEY, shared),
        'with obstacles and figures of single images': lambda: measuring.measure(
            data, store, _KEY, findings=Findings()
        ),
    }
    measuring.curve_of(data, store, _KEY)  # compiles the loops
    for name, work in works.items():
        begin = time.perf_counter()
        work()
        yield {'metrics': name, 'images_per_s': len(data) / (time.perf_counter() - begin)}
