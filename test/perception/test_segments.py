# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Segments without weights: partitions that follow the contours of things."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from scipy import ndimage

from road_anomaly_ros.perception.registry import build_options
from road_anomaly_ros.perception.segments import SEGMENTS

EMBEDDED = ('watershed', 'felzenszwalb')


def source(name, **options):
    entry = SEGMENTS[name]
    return entry.make(device=torch.device('cpu'), options=build_options(entry.options, options))


def to_tensor(picture):
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)


def index_of(name, picture, **options):
    segments = source(name, **options)(to_tensor(picture))
    assert segments.masks is None and segments.index.dtype == torch.int32
    return segments.index.numpy()


def scene():
    """A grey road under a blue sky with noise, and a red box on the road."""
    rng = np.random.default_rng(0)
    picture = np.empty((120, 160, 3), np.float64)
    picture[:50], picture[50:] = (120, 160, 230), (110, 110, 110)
    box = np.zeros((120, 160), bool)
    box[70:100, 60:100] = True
    picture[box] = (200, 40, 40)
    return np.clip(picture + rng.normal(0, 3, picture.shape), 0, 255).astype(np.uint8), box


@pytest.mark.parametrize('name', EMBEDDED)
def test_segments_end_where_things_end(name):
    picture, box = scene()
    index = index_of(name, picture)
    assert index.shape == (120, 160)
    inside = np.bincount(index[box], minlength=index.max() + 1)
    total = np.bincount(index.ravel())
    mostly = inside > 0.5 * total
    union = box.sum() + total[mostly].sum() - inside[mostly].sum()
    assert inside[mostly].sum() / union > 0.95
    assert index.max() < 60  # and the noise does not fall to pieces


@pytest.mark.parametrize('name', EMBEDDED)
def test_numbers_are_dense_segments_connected_and_large_enough(name):
    picture, _ = scene()
    picture = cv2.add(picture, np.random.default_rng(1).integers(0, 60, picture.shape, np.uint8))
    index = index_of(name, picture, min_size=12, scale=1.0)
    sizes = np.bincount(index.ravel())
    assert index.min() == 0 and (sizes >= 12).all()
    parts = [ndimage.label(index == number, np.ones((3, 3)))[1] for number in range(len(sizes))]
    assert parts == [1] * len(sizes)


@pytest.mark.parametrize('name', EMBEDDED)
def test_the_same_image_gives_the_same_segments(name):
    picture, _ = scene()
    assert (index_of(name, picture) == index_of(name, picture)).all()


@pytest.mark.parametrize('name', EMBEDDED)
def test_a_higher_scale_gives_fewer_segments(name):
    picture, _ = scene()
    picture = cv2.add(picture, np.random.default_rng(1).integers(0, 60, picture.shape, np.uint8))
    assert index_of(name, picture, scale=1.0).max() > index_of(name, picture, scale=500.0).max()


@pytest.mark.parametrize('name', EMBEDDED)
@pytest.mark.parametrize(
    ('size', 'reduced'),
    [
        ((1, 1), (1, 1)),
        ((1, 7), (1, 7)),
        ((2, 2), (2, 2)),
        ((2, 4000), (1, 64)),
        ((64, 48), (64, 48)),
        ((2160, 3840), (36, 64)),
    ],
)
def test_any_size_of_image_at_most_max_side(name, size, reduced):
    index = index_of(name, np.zeros((*size, 3), np.uint8), max_side=64)
    assert index.shape == reduced and (index == 0).all()


@pytest.mark.parametrize('name', EMBEDDED)
@pytest.mark.parametrize(
    'image',
    [torch.zeros(4, 5, 3, dtype=torch.uint8), torch.zeros(3, 4, 5), torch.zeros(3, 0, 5).byte()],
)
def test_what_is_no_image_is_refused(name, image):
    with pytest.raises(ValueError, match='expected an RGB image'):
        source(name)(image)


def test_objects_in_real_scenes_are_made_of_segments(shared):
    folder = shared / 'data'
    images = sorted((folder / 'camvid/val/images').iterdir())[::25]
    cutouts = sorted((folder / 'objects/val').iterdir())[::7]
    overlaps = [
        _overlap(cv2.imread(str(image))[..., ::-1], cv2.imread(str(cutout), -1))
        for image, cutout in zip(images, cutouts, strict=False)
    ]
    assert len(overlaps) >= 3 and np.mean(overlaps) > 0.75


def _overlap(picture, cutout):
    """Best intersection over union of a pasted object with a union of segments."""
    picture = picture.copy()
    height = 100
    cutout = cv2.resize(
        cutout, (height * cutout.shape[1] // cutout.shape[0], height), interpolation=cv2.INTER_AREA
    )
    alpha = cutout[..., 3:] / 255.0
    place = np.s_[220 : 220 + height, 120 : 120 + cutout.shape[1]]
    picture[place] = picture[place] * (1 - alpha) + cutout[..., 2::-1] * alpha
    truth = np.zeros(picture.shape[:2], bool)
    truth[place] = alpha[..., 0] > 0.5
    index = index_of('watershed', picture).astype(np.float32)
    index = cv2.resize(index, picture.shape[1::-1], interpolation=cv2.INTER_NEAREST).astype(int)
    total = np.bincount(index.ravel())
    inside = np.bincount(index[truth], minlength=len(total))
    mostly = inside > 0.5 * total
    return inside[mostly].sum() / (truth.sum() + (total - inside)[mostly].sum())
