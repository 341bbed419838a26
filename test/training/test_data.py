# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Crops keep image and labels together; mixing shows known pixels only."""

from __future__ import annotations

import numpy as np
import pytest

from road_anomaly_ros.training import data, mixing

COLOURS = np.array([[10, 20, 30], [120, 130, 140], [230, 220, 210]], np.uint8)


def frame(seed: int = 0) -> data.Frame:
    """A scene whose colour tells the label; class 2 is rare, a corner is unlabelled."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((96, 128), np.uint8)
    labels[48:] = 1
    row, column = rng.integers(0, 88), rng.integers(0, 120)
    labels[row:row + 8, column:column + 8] = 2
    image = COLOURS[labels]
    labels[:6, :6] = 255
    return data.Frame(image, labels)


@pytest.fixture
def plain_colours(monkeypatch):
    monkeypatch.setattr(data, 'colour_jitter', lambda rng, image: image)


def agreement(image: np.ndarray, labels: np.ndarray) -> float:
    """Share of labelled pixels whose nearest colour is that of their label."""
    half = image.reshape(labels.shape[0], 2, labels.shape[1], 2, 3).mean((1, 3))
    nearest = np.abs(half[:, :, None] - COLOURS).sum(-1).argmin(-1)
    known = labels != 255
    return float((nearest == labels)[known].mean())


def test_crop_moves_image_and_labels_alike(plain_colours):
    sampler = data.CropSampler([frame()], classes=3, rare_below=.05)
    spec = data.CropSpec((64, 96), 1, (.5, 2.0))
    for seed in range(20):
        image, labels = sampler.draw(np.random.default_rng(seed), spec)
        assert image.shape == (64, 96, 3) and labels.shape == (3, 32, 48)
        assert agreement(image, labels[0]) > .93
        assert (labels[0] == labels[1]).all() and (labels[2] == 255).all()


def test_rare_classes_are_sought():
    spec = data.CropSpec((32, 32), 1, (1.0, 1.0))
    frames = [frame(seed) for seed in range(4)]

    def seen(share: float) -> int:
        sampler = data.CropSampler(frames, classes=3, rare_share=share, rare_below=.05)
        crops = (sampler.draw(np.random.default_rng(seed), spec)[1] for seed in range(60))
        return sum((labels == 2).any() for labels in crops)
    assert seen(1.0) > 2 * seen(0.0)


def test_batches_depend_on_seed_step_and_rank_only():
    sampler = data.CropSampler([frame()], classes=3, mix_share=.5)

    def batch(step: int, *, seed: int = 0, rank: int = 0):
        batches = data.StepBatches(sampler, lambda _: data.CropSpec((64, 64), 2, (.5, 2.0)),
                                   seed=seed, rank=rank)
        return batches[step][0]
    assert batch(3).shape == (2, 3, 64, 64)
    assert (batch(3) == batch(3)).all()
    assert not (batch(3) == batch(4)).all()
    assert not (batch(3) == batch(3, seed=1)).all()
    assert not (batch(3) == batch(3, rank=1)).all()


def test_mixing_shows_the_donor_where_its_label_is(plain_colours):
    crop = np.full((64, 64, 3), COLOURS[0]), np.zeros((32, 32), np.uint8)
    donor = np.full((64, 64, 3), COLOURS[2]), np.full((32, 32), 2, np.uint8)
    touched = 0
    for seed in range(30):
        image, labels = mixing.mix(np.random.default_rng(seed), crop, donor, ghosts=0.0)
        assert set(np.unique(labels[0])) <= {0, 2} and (labels[2] == 255).all()
        assert agreement(image, labels[0]) > .97
        touched += (labels[0] == 2).any()
    assert touched > 20
    assert (crop[1] == 0).all() and (crop[0] == COLOURS[0]).all()


def test_ghosts_blend_image_and_target_alike():
    crop = np.full((64, 64, 3), 100, np.uint8), np.zeros((32, 32), np.uint8)
    donor = np.full((64, 64, 3), 200, np.uint8), np.ones((32, 32), np.uint8)
    rng = np.random.default_rng(1)
    image, labels = mixing.mix(rng, crop, donor, most=1, ghosts=1.0)
    mixed = labels[0] != labels[1]
    assert mixed.sum() > 9
    share = labels[2][mixed] / 255
    assert share.min() > .34 and share.max() < .66
    rows, columns = (2 * index for index in np.nonzero(mixed))
    expected = 100 * share + 200 * (1 - share)
    assert np.median(np.abs(image[rows, columns, 0] - expected)) < 2
