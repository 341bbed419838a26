# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Labelled frames in memory, and the augmented crops that a training step sees."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from road_anomaly_ros.tools.encodings import read_picture
from road_anomaly_ros.tools.pictures import is_picture
from road_anomaly_ros.training import mixing
from road_anomaly_ros.training.generator.rendered import render

IGNORE = 255


@dataclasses.dataclass(frozen=True)
class Frame:
    """One labelled image: `image` uint8 RGB [H,W,3], `labels` uint8 [H,W], 255 = ignored."""

    image: np.ndarray
    labels: np.ndarray


def read_folder(folder: Path, *, classes: int) -> list[Frame]:
    """Read `folder`/images and `folder`/labels (same stems, PNG labels), sorted by name.

    Raises ValueError, in one line, for a missing folder, a missing or unreadable file, sizes that
    differ and label ids that are neither below `classes` nor 255.
    """
    images, labels = folder / 'images', folder / 'labels'
    if not images.is_dir() or not labels.is_dir():
        raise ValueError(
            f'{folder}: expected the folders images/ and labels/ in it; see --data in --help'
        )
    paths = sorted(filter(is_picture, images.iterdir()))
    if not paths:
        raise ValueError(f'{images}: expected images, found none')
    return [_read_frame(path, labels / f'{path.stem}.png', classes) for path in paths]


def _read_frame(path: Path, label_path: Path, classes: int) -> Frame:
    image = read_picture(path)
    labels = cv2.imread(str(label_path), cv2.IMREAD_UNCHANGED) if label_path.is_file() else None
    if labels is None:
        raise ValueError(f'{label_path}: expected a readable image (every image needs a label '
                         'PNG of the same stem)')
    if labels.shape != image.shape[:2] or labels.dtype != np.uint8:
        raise ValueError(
            f'{label_path}: expected uint8 labels of shape {image.shape[:2]}, '
            f'got {labels.dtype} {labels.shape}'
        )
    strange = np.unique(labels[(labels >= classes) & (labels != IGNORE)])
    if strange.size:
        raise ValueError(
            f'{label_path}: expected label ids 0..{classes - 1} or 255, got {strange.tolist()}'
        )
    return Frame(image, labels)


def render_frames(
    count: int, *, size: tuple[int, int], first_seed: int = 1000, cache: Path | None = None
) -> list[Frame]:
    """Render `count` obstacle-free scenes of `size` (H, W), one seed each from `first_seed` on.

    With `cache`, an .npz file, they are read from there if it holds them, else stored there.
    """
    if count == 0:
        return []
    wanted, seeds = [count, *size, first_seed], range(first_seed, first_seed + count)
    if cache is not None and cache.is_file():
        with np.load(cache) as kept:
            if kept['wanted'].tolist() == wanted:
                return [Frame(*pair) for pair in zip(kept['images'], kept['labels'], strict=True)]
    scenes = (render(seed, size) for seed in tqdm(seeds, 'render'))
    frames = [Frame(scene.image, scene.labels) for scene in scenes]
    if cache is not None:
        partial = cache.with_suffix('.partial.npz')
        np.savez(partial, wanted=wanted, images=np.stack([frame.image for frame in frames]),
                 labels=np.stack([frame.labels for frame in frames]))
        os.replace(partial, cache)
    return frames


def class_frequency(frames: Sequence[Frame], classes: int) -> np.ndarray:
    """Return the share of labelled pixels of every class, float64 [classes], summing to 1."""
    counts = sum(np.bincount(frame.labels.ravel(), minlength=256)[:classes] for frame in frames)
    return counts / max(np.sum(counts), 1)


@dataclasses.dataclass(frozen=True)
class CropSpec:
    """(height, width) of crops in pixels, crops per batch, range of scale (1 = as recorded)."""

    size: tuple[int, int]
    batch: int
    scale: tuple[float, float]

    def share(self, members: int) -> CropSpec:
        """Return the part of one of `members` processes: fewer crops, at least one."""
        return dataclasses.replace(self, batch=max(1, self.batch // members))


class CropSampler:
    """Draws augmented crops; everything random comes from the generator handed in.

    `rare` classes are those under `rare_below` of the labelled pixels; a share `rare_share` of
    the crops is centred near a pixel of one of them, since uniform crops seldom hold thin and
    small things. A share `extra_share` of the crops comes from `extra` (rendered) frames.
    """

    def __init__(
        self,
        frames: Sequence[Frame],
        *,
        classes: int,
        extra: Sequence[Frame] = (),
        extra_share: float = 0.0,
        mix_share: float = 0.0,
        rare_share: float = 0.6,
        rare_below: float = 0.025,
    ) -> None:
        self._frames, self._extra = list(frames), list(extra)
        self._extra_share = extra_share if self._extra else 0.0
        self._rare_share, self._mix_share = rare_share, mix_share
        present = [
            np.bincount(frame.labels.ravel(), minlength=256)[:classes] > 8 for frame in frames
        ]
        frequency = class_frequency(frames, classes)
        self._holders = {
            k: [i for i, seen in enumerate(present) if seen[k]]
            for k in range(classes)
            if frequency[k] < rare_below
        }
        self._holders = {k: holders for k, holders in self._holders.items() if holders}

    def draw(self, rng: np.random.Generator, spec: CropSpec) -> tuple[np.ndarray, np.ndarray]:
        """Return image uint8 [h,w,3] and labels uint8 [3,h/2,w/2] at the half grid's centres.

        The labels are those of `mixing.unmixed`: first, second, share of the first.
        """
        crop = self._cut(rng, spec)
        if rng.random() >= self._mix_share:
            return crop[0], mixing.unmixed(crop[1])
        return mixing.mix(rng, crop, self._cut(rng, spec))

    def _cut(self, rng: np.random.Generator, spec: CropSpec) -> tuple[np.ndarray, np.ndarray]:
        frame, centre = self._choose(rng)
        matrix = _placement(rng, frame.labels.shape, spec, centre)
        height, width = spec.size
        image = cv2.warpAffine(frame.image, matrix, (width, height), borderValue=(124, 116, 104),
                               flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        half = matrix @ np.array([[2, 0, 0.5], [0, 2, 0.5], [0, 0, 1]])
        labels = cv2.warpAffine(frame.labels, half, (width // 2, height // 2), borderValue=IGNORE,
                                flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
        return colour_jitter(rng, image), labels

    def _choose(self, rng: np.random.Generator) -> tuple[Frame, np.ndarray | None]:
        if rng.random() < self._extra_share:
            return self._extra[rng.integers(len(self._extra))], None
        if not self._holders or rng.random() >= self._rare_share:
            return self._frames[rng.integers(len(self._frames))], None
        kind = list(self._holders)[rng.integers(len(self._holders))]
        frame = self._frames[self._holders[kind][rng.integers(len(self._holders[kind]))]]
        where = np.flatnonzero(frame.labels == kind)
        row, column = divmod(int(where[rng.integers(len(where))]), frame.labels.shape[1])
        return frame, np.array([column, row], np.float64)


def _placement(
    rng: np.random.Generator, shape: tuple[int, ...], spec: CropSpec, centre: np.ndarray | None
) -> np.ndarray:
    """Return the 2x3 map from crop to frame: scale, aspect, flip, small turn, position."""
    low, high = spec.scale
    scale = low * (high / low) ** rng.random()
    aspect, turn = rng.uniform(0.93, 1.07), np.deg2rad(rng.normal(0, 1.5))
    flip = -1.0 if rng.random() < 0.5 else 1.0
    window = np.array([spec.size[1] / (scale * aspect), spec.size[0] * aspect / scale])
    frame = np.array([shape[1], shape[0]], np.float64)
    if centre is None:
        centre = rng.random(2) * frame
    else:
        centre = centre + (rng.random(2) - 0.5) * window * 0.7
    slack = np.abs(frame - window) / 2
    middle = np.where(
        window < frame,
        np.clip(centre, window / 2, frame - window / 2),
        frame / 2 + slack * rng.uniform(-1, 1, 2),
    )
    turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    linear = turned @ np.diag(window / [spec.size[1], spec.size[0]]) @ np.diag([flip, 1.0])
    offset = middle - linear @ np.array([spec.size[1], spec.size[0]]) / 2
    return np.column_stack([linear, offset])


def colour_jitter(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Return `image` (uint8 RGB) with random tone curve, white balance, saturation and blur."""
    ramp = np.arange(256, dtype=np.float64) / 255
    ramp = ramp ** np.exp(rng.normal(0, 0.2))
    ramp = (ramp - 0.5) * np.exp(rng.normal(0, 0.18)) + 0.5 + rng.normal(0, 0.08)
    table = np.clip(ramp[:, None] * np.exp(rng.normal(0, 0.05, 3)) * 255, 0, 255).astype(np.uint8)
    image = cv2.LUT(image, table[:, None, :].reshape(1, 256, 3))
    keep = rng.uniform(0.5, 1.4)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    image = cv2.addWeighted(image, keep, grey, 1 - keep, 0)
    return cv2.GaussianBlur(image, (3, 3), 0) if rng.random() < 0.1 else image


class StepBatches(Dataset):
    """Batch number `step` of a run: a function of (seed, step, rank), the same when resumed."""

    def __init__(
        self, sampler: CropSampler, spec_of: Callable[[int], CropSpec], *, seed: int, rank: int = 0
    ) -> None:
        self._sampler, self._spec_of, self._seed, self._rank = sampler, spec_of, seed, rank

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images uint8 [B,3,h,w] and labels uint8 [B,3,h/2,w/2]."""
        rng = np.random.default_rng([self._seed, step, self._rank])
        spec = self._spec_of(step)
        crops = [self._sampler.draw(rng, spec) for _ in range(spec.batch)]
        images = np.stack([image for image, _ in crops]).transpose(0, 3, 1, 2)
        return torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(
            np.stack([y for _, y in crops])
        )
