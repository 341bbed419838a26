# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The augmented crops that a training step sees."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from road_anomaly_ros.training import label_sets, surroundings
from road_anomaly_ros.training.outliers import Canvas, Paster
from road_anomaly_ros.training.roads import IGNORE, Frame, Source

_RARE = tuple(
    label_sets.CODES[name]
    for name in (
        'wall',
        'fence',
        'pole',
        'traffic light',
        'traffic sign',
        'signal',
        'person',
        'rider',
        'cyclist',
        'truck',
        'bus',
        'motorcycle',
        'bicycle',
        'terrain',
        'barrier',
    )
)


@dataclasses.dataclass(frozen=True)
class CropSpec:
    """Height and width of the crops in pixels, and how often what is done to them.

    `outliers` and `known`: share of the crops with strange or known things laid in; `rare`: share
    centred near a pixel of a rare class.
    """

    size: tuple[int, int] = (288, 384)
    outliers: float = 0.7
    known: float = 0.35
    rare: float = 0.35


class Batch(NamedTuple):
    """Images uint8 [B,3,h,w]; codes and anomaly uint8, weight float16, all [B,h/2,w/2]."""

    image: Tensor
    codes: Tensor
    anomaly: Tensor
    weight: Tensor


class CropSampler:
    """Draws augmented crops; everything random comes from the generator handed in."""

    def __init__(self, sources: Sequence[Source], paster: Paster, spec: CropSpec) -> None:
        self._sources = [source for source in sources if source.weight > 0 and len(source.frames)]
        weights = np.array([source.weight for source in self._sources], float)
        self._shares, self._paster, self._spec = weights / weights.sum(), paster, spec
        self._vouched = label_sets.vouched()

    def draw(self, rng: np.random.Generator) -> Canvas:
        """Return one crop with its truth."""
        source = self._sources[rng.choice(len(self._shares), p=self._shares)]
        frame = source.frames[rng.integers(len(source.frames))]
        canvas = self._cut(rng, source, frame)
        if rng.random() < 0.5:
            surroundings.mark_ground(rng, canvas)
        if rng.random() < self._spec.known:
            self._paster.knowns(rng, canvas)
        if rng.random() < self._spec.outliers:
            self._paster.outliers(rng, canvas)
        if rng.random() < 0.4:
            canvas.image = surroundings.shade(rng, canvas.image)
        if rng.random() < 0.07:
            surroundings.bonnet(rng, canvas)
        canvas.image = surroundings.weather(rng, canvas.image)
        return canvas

    def _cut(self, rng: np.random.Generator, source: Source, frame: Frame) -> Canvas:
        height, width = self._spec.size
        matrix = self._placement(rng, frame, source.scale(rng, frame))
        linear = cv2.INTER_AREA if matrix[0, 0] ** 2 > 2 else cv2.INTER_LINEAR
        image = cv2.warpAffine(
            frame.image,
            matrix,
            (width, height),
            borderValue=(124, 116, 104),
            flags=linear | cv2.WARP_INVERSE_MAP,
        )
        half = matrix @ np.array([[2, 0, 0.5], [0, 2, 0.5], [0, 0, 1]])

        def nearest(plane: np.ndarray, border: int) -> np.ndarray:
            return cv2.warpAffine(
                plane,
                half,
                (width // 2, height // 2),
                borderValue=border,
                flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
            )

        codes = nearest(frame.codes, IGNORE)
        anomaly = np.where(self._vouched[codes], 0, IGNORE).astype(np.uint8)
        if frame.unknown is not None:
            unknown = nearest(frame.unknown.astype(np.uint8), 0) > 0
            anomaly[unknown], codes[unknown] = 1, IGNORE
        return Canvas(image, codes, anomaly, np.ones(codes.shape, np.float32))

    def _placement(self, rng: np.random.Generator, frame: Frame, scale: float) -> np.ndarray:
        """Return the 2x3 map from crop to frame: scale, aspect, flip, small turn, position."""
        size = np.array(self._spec.size[::-1], np.float64)
        aspect, turn = rng.uniform(0.9, 1.11), np.deg2rad(rng.normal(0, 1.5))
        flip = -1.0 if rng.random() < 0.5 else 1.0
        window = size / np.array([scale * aspect, scale / aspect])
        whole = np.array(frame.codes.shape[::-1], np.float64)
        centre = self._centre(rng, frame, window, whole)
        slack = np.abs(whole - window) / 2
        middle = np.where(
            window < whole,
            np.clip(centre, np.minimum(window, whole) / 2, whole - np.minimum(window, whole) / 2),
            whole / 2 + slack * rng.uniform(-1, 1, 2),
        )
        turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        linear = turned @ np.diag(window / size) @ np.diag([flip, 1.0])
        return np.column_stack([linear, middle - linear @ size / 2])

    def _centre(
        self, rng: np.random.Generator, frame: Frame, window: np.ndarray, whole: np.ndarray
    ) -> np.ndarray:
        if rng.random() < self._spec.rare:
            kinds = np.flatnonzero(np.bincount(frame.codes.ravel(), minlength=256)[list(_RARE)])
            if len(kinds):
                kind = _RARE[kinds[rng.integers(len(kinds))]]
                where = np.flatnonzero(frame.codes == kind)
                row, column = divmod(int(where[rng.integers(len(where))]), frame.codes.shape[1])
                return np.array([column, row]) + (rng.random(2) - 0.5) * window * 0.7
        return rng.random(2) * whole


class StepBatches(Dataset):
    """Batch number `step` of a run, or the crops of it that are numbered in `share`.

    Each crop is a function of (seed, step, number), the same whoever draws it, and when.
    """

    def __init__(self, sampler: CropSampler, share: Sequence[int], *, seed: int) -> None:
        self._sampler, self._share, self._seed = sampler, share, seed

    def __getitem__(self, step: int) -> Batch:
        crops = [
            self._sampler.draw(np.random.default_rng([self._seed, step, number]))
            for number in self._share
        ]
        images = np.stack([crop.image for crop in crops]).transpose(0, 3, 1, 2)
        planes = (
            np.stack([getattr(crop, name) for crop in crops])
            for name in ('codes', 'anomaly', 'weight')
        )
        codes, anomaly, weight = planes
        return Batch(
            torch.from_numpy(np.ascontiguousarray(images)),
            torch.from_numpy(codes),
            torch.from_numpy(anomaly),
            torch.from_numpy(weight.astype(np.float16)),
        )
