# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Crops keep image and truth together, and depend on nothing but seed, step and rank."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from road_anomaly_ros.training import data, label_sets, surroundings
from road_anomaly_ros.training.outliers import Paster
from road_anomaly_ros.training.roads import Frame, Source

CODES, IGNORE = label_sets.CODES, label_sets.IGNORE
KINDS = ('sky', 'road', 'pole')
COLOURS = np.array([[10, 20, 30], [120, 130, 140], [230, 220, 210]], np.uint8)
STRANGE = (200, 20, 20)


def frame(seed: int = 0, *, unknown: bool = False) -> Frame:
    """A scene whose colour tells the label; poles are rare, a corner is unlabelled."""
    rng = np.random.default_rng(seed)
    places = np.zeros((96, 128), np.uint8)
    places[48:] = 1
    row, column = rng.integers(0, 88), rng.integers(0, 120)
    places[row : row + 8, column : column + 8] = 2
    image, codes = COLOURS[places], np.uint8([CODES[kind] for kind in KINDS])[places]
    codes[:6, :6] = IGNORE
    if not unknown:
        return Frame(image, codes)
    strange = np.zeros((96, 128), bool)
    strange[50:90, 30:90] = True
    image[strange] = STRANGE
    return Frame(image, codes, strange)


def source(*frames: Frame, weight: float = 1.0, zoom=(0.25, 0.6), name: str = 'camvid') -> Source:
    return Source(name, frames, weight, zoom)


def sampler(*sources: Source, size=(64, 96), rare: float = 0.35, **shares) -> data.CropSampler:
    spec = data.CropSpec(size, **{'outliers': 0.0, 'known': 0.0, 'rare': rare, **shares})
    return data.CropSampler(sources, Paster([], []), spec)


@pytest.fixture
def plain(monkeypatch):
    """No marks, no shadows, no bonnet, no weather."""
    monkeypatch.setattr(surroundings, 'mark_ground', lambda rng, canvas: None)
    monkeypatch.setattr(surroundings, 'bonnet', lambda rng, canvas: None)
    for name in ('shade', 'weather'):
        monkeypatch.setattr(surroundings, name, lambda rng, image: image)


def nearest(image: np.ndarray, colours) -> np.ndarray:
    half = image.reshape(image.shape[0] // 2, 2, image.shape[1] // 2, 2, 3).mean((1, 3))
    return np.abs(half[:, :, None] - np.asarray(colours, float)).sum(-1).argmin(-1)


def test_a_crop_moves_image_and_truth_alike(plain):
    drawn = sampler(source(frame()))
    ids = np.array([CODES[kind] for kind in KINDS])
    for seed in range(20):
        crop = drawn.draw(np.random.default_rng(seed))
        assert crop.image.shape == (64, 96, 3) and crop.codes.shape == (32, 48)
        known = crop.codes != IGNORE
        agreement = ids[nearest(crop.image, COLOURS)] == crop.codes
        assert known.any() and agreement[known].mean() > 0.93
        assert (crop.anomaly[known] == 0).all() and (crop.anomaly[~known] == IGNORE).all()
        assert (crop.weight == 1).all()


def test_things_known_to_be_strange_are_anomalies(plain):
    drawn, seen = sampler(source(frame(unknown=True))), 0
    for seed in range(20):
        crop = drawn.draw(np.random.default_rng(seed))
        strange = crop.anomaly == 1
        assert (crop.codes[strange] == IGNORE).all()
        found = nearest(crop.image, [*COLOURS, STRANGE]) == 3
        assert (found == strange).mean() > 0.95
        seen += strange.any()
    assert seen > 10


def test_labels_that_may_hold_strange_things_are_not_called_normal(plain):
    living = Frame(np.zeros((96, 128, 3), np.uint8), np.full((96, 128), CODES['living'], np.uint8))
    crop = sampler(source(living, zoom=(4.0, 4.0))).draw(np.random.default_rng(0))
    assert (crop.codes == CODES['living']).all() and (crop.anomaly == IGNORE).all()


def test_beyond_the_frame_nothing_is_known(plain):
    crop = sampler(source(frame(), zoom=(0.05, 0.05))).draw(np.random.default_rng(0))
    assert (crop.codes == IGNORE).mean() > 0.8
    assert (crop.anomaly[crop.codes == IGNORE] == IGNORE).all()


def test_rare_classes_are_sought(plain):
    frames = [frame(seed) for seed in range(4)]

    def seen(share: float) -> int:
        drawn = sampler(source(*frames, zoom=(12.0, 12.0)), rare=share)
        crops = (drawn.draw(np.random.default_rng(seed)) for seed in range(40))
        return sum((crop.codes == CODES['pole']).any() for crop in crops)

    assert seen(1.0) > 2 * seen(0.0)


def test_sources_are_drawn_by_their_weights(plain):
    def even(colour: int) -> Frame:
        return Frame(np.full((64, 64, 3), colour, np.uint8), np.zeros((64, 64), np.uint8))

    drawn = sampler(
        source(even(50), weight=3),
        source(even(150)),
        source(even(250), weight=0),
        source(weight=100),
    )
    values = [
        int(np.median(drawn.draw(np.random.default_rng(seed)).image[20:40, 30:60]))
        for seed in range(60)
    ]
    assert set(values) == {50, 150}
    assert values.count(50) > 1.5 * values.count(150)


def test_things_are_laid_in_as_often_as_asked(plain):
    cutout = np.full((30, 30, 3), STRANGE, np.uint8), np.ones((30, 30), np.float32)
    spec = data.CropSpec((64, 96), outliers=1.0, known=0.0)

    def share(chance: float) -> float:
        drawn = data.CropSampler(
            [source(frame())],
            Paster([[cutout]], []),
            data.CropSpec((64, 96), outliers=chance, known=0.0),
        )
        return np.mean(
            [(drawn.draw(np.random.default_rng(seed)).anomaly == 1).any() for seed in range(30)]
        )

    assert spec.rare == 0.35
    assert share(1.0) > 0.8 and share(0.0) == 0


def test_crops_depend_on_seed_step_and_number_only():
    drawn = sampler(source(frame(), frame(1)), outliers=0.5)

    def batch(step: int, *, seed: int = 0, share: tuple[int, ...] = (0, 1)) -> data.Batch:
        return data.StepBatches(drawn, share, seed=seed)[step]

    first = batch(3)
    assert first.image.shape == (2, 3, 64, 96) and first.image.dtype == torch.uint8
    assert all(plane.shape == (2, 32, 48) for plane in first[1:])
    assert first.codes.dtype == first.anomaly.dtype == torch.uint8
    assert first.weight.dtype == torch.float16
    assert all(torch.equal(*pair) for pair in zip(first, batch(3), strict=True))
    for other in (batch(4), batch(3, seed=1), batch(3, share=(2, 3))):
        assert not torch.equal(first.image, other.image)
    assert torch.equal(batch(3, share=(1,)).image[0], first.image[1])
