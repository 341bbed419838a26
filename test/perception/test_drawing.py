# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures: colours that mean what they say, at every size; the eye judges the rest."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from road_anomaly_ros.perception import drawing, objects
from road_anomaly_ros.perception.contract import FrameResult, LabelSet
from road_anomaly_ros.perception.drawing import DrawingOptions

LABELS = LabelSet(('road', 'sky'), ((128, 64, 128), (70, 130, 180)), (0,))
PLAIN = DrawingOptions(
    class_opacity=0.0, heat_opacity=0.0, dim=0.0, contours=False, boxes=False, legend=False
)


def frame(height, width, score=None, threshold=0.5, **more):
    score = torch.zeros(height, width) if score is None else torch.as_tensor(score).float()
    mask, instances, found = objects.find(
        score, threshold=threshold, options=objects.ObjectOptions(min_area=0)
    )
    labels = torch.zeros(height, width, dtype=torch.uint8)
    labels[: height // 2] = 1
    given = {
        'image': torch.full((3, height, width), 100, dtype=torch.uint8),
        'labels': labels,
        'score': score,
        'mask': mask,
        'instances': instances,
        'objects': found,
        'label_set': LABELS,
        'scorer': 'plain',
        'threshold': threshold,
        'threshold_source': 'option',
        'display_range': (0.0, 1.0),
        'timings': {'total': 12.3},
    }
    return FrameResult(**{**given, **more})


def scene(height=360, width=480):
    score = np.zeros((height, width), np.float32)
    score[height // 2 : height // 2 + 40, width // 3 : width // 3 + 60] = 0.9
    return frame(height, width, score)


def lightness(picture):
    return picture.astype(float) @ (0.299, 0.587, 0.114)


def test_heat_rises_from_dark_to_bright_and_is_cut_at_the_range():
    picture = drawing.heatmap(torch.linspace(0, 1, 64)[None], (0.2, 0.8))
    assert picture.shape == (1, 64, 3) and picture.dtype == np.uint8
    levels = lightness(picture[0])
    assert (np.diff(levels) >= -1.0).all() and levels[0] < 5 and levels[-1] > 200
    assert (picture[0, :12] == picture[0, 0]).all() and (picture[0, -12:] == picture[0, -1]).all()


def test_heat_of_what_is_no_number():
    odd = drawing.heatmap(torch.tensor([[math.nan, math.inf, -math.inf, 0.0, 1.0]]))[0].tolist()
    assert odd[0] == odd[1] == odd[4] and odd[2] == odd[3] != odd[4]


@pytest.mark.parametrize('display_range', [(0.5, 0.5), (1.0, 0.0), (-math.inf, math.inf)])
def test_an_empty_range_draws_without_complaint(display_range):
    assert drawing.heatmap(torch.rand(3, 4), display_range).shape == (3, 4, 3)


def test_arrays_draw_like_tensors():
    score = np.random.default_rng(0).random((5, 7), dtype=np.float32)
    assert (drawing.heatmap(score) == drawing.heatmap(torch.from_numpy(score))).all()


def test_classes_in_their_colours_and_the_unknown_black():
    picture = drawing.color_labels(np.array([[0, 1, 255, 9]], np.uint8), LABELS)
    assert picture.tolist() == [[[128, 64, 128], [70, 130, 180], [0, 0, 0], [0, 0, 0]]]


def test_with_everything_off_the_overlay_is_the_image():
    result = dataclasses.replace(scene(), image=torch.randint(0, 256, (3, 360, 480)).byte())
    assert (drawing.overlay(result, PLAIN) == result.image.permute(1, 2, 0).numpy()).all()


def test_the_overlay_never_writes_into_the_frame():
    result = scene()
    before = result.image.clone(), result.labels.clone()
    drawing.overlay(result)
    assert (result.image == before[0]).all() and (result.labels == before[1]).all()


def test_class_colours_are_mixed_by_their_opacity():
    options = dataclasses.replace(PLAIN, class_opacity=0.5)
    picture = drawing.overlay(frame(8, 8), options)
    assert picture[7, 7].tolist() == [114, 82, 114] and picture[0, 0].tolist() == [85, 115, 140]


def test_heat_shows_on_the_anomaly_and_nowhere_else():
    options = dataclasses.replace(PLAIN, heat_opacity=1.0)
    result = scene()
    picture = drawing.overlay(result, options)
    marked = result.mask.numpy()
    assert (picture[~marked] == 100).all()
    assert (picture[marked] == drawing.heatmap(result.score)[marked]).all()


def test_heat_leaves_what_is_far_below_the_threshold_alone():
    options = dataclasses.replace(PLAIN, heat_opacity=1.0)
    assert (drawing.overlay(frame(8, 8, torch.full((8, 8), 0.24)), options) == 100).all()
    assert (drawing.overlay(frame(8, 8, torch.full((8, 8), 0.4)), options) != 100).any()


def test_outlines_and_boxes_lie_around_the_obstacle():
    contours = drawing.overlay(scene(), dataclasses.replace(PLAIN, contours=True))
    changed = (contours != 100).any(axis=2)
    assert changed[180, 170] and not changed[200, 190] and not changed[:170].any()
    boxes = drawing.overlay(scene(), dataclasses.replace(PLAIN, boxes=True))
    changed = (boxes != 100).any(axis=2)
    assert changed.any() and not changed[185:215, 165:215].any()


def test_the_plate_grows_by_the_distance_where_it_is_known():
    def plate(**known):
        result = scene()
        items = tuple(dataclasses.replace(item, **known) for item in result.objects)
        drawn = drawing.overlay(
            dataclasses.replace(result, objects=items), dataclasses.replace(PLAIN, boxes=True)
        )
        return np.ptp(np.flatnonzero((drawn != 100).any((0, 2))))

    assert plate(distance=23.4) > plate()
    assert plate(distance=23.4) == plate(distance=23.44)


def test_the_legend_names_what_is_in_the_picture():
    options = dataclasses.replace(PLAIN, legend=True)
    result = scene()
    both = drawing.overlay(result, options)
    assert (both[-200:] == 100).all() and (both[:20] != 100).any()
    for color in LABELS.colors:
        assert (both.reshape(-1, 3) == color).all(axis=1).any()
    result = dataclasses.replace(result, labels=torch.zeros(360, 480).byte())
    only = drawing.overlay(result, options)
    assert not (only.reshape(-1, 3) == LABELS.colors[1]).all(axis=1).any()


def test_the_legend_stays_away_where_it_would_hide_a_third():
    small = frame(40, 60)
    assert (drawing.overlay(small, dataclasses.replace(PLAIN, legend=True)) == 100).all()


@pytest.mark.parametrize('size', [(1, 1), (1, 40), (40, 1), (3, 5), (64, 64), (2160, 3840)])
@pytest.mark.parametrize('value', [0.0, 0.9, math.nan])
def test_any_size_and_any_score(size, value):
    picture = drawing.overlay(frame(*size, torch.full(size, value)))
    assert picture.shape == (*size, 3) and picture.dtype == np.uint8


@pytest.mark.parametrize(
    'change',
    [
        {'threshold': math.inf},
        {'display_range': (0.5, 0.5)},
        {'display_range': (-9.0, -1.0)},
        {'stamp': 1.7e9},
        {'stamp': 12.0},
        {'timings': {}},
        {'scorer': 'a' * 200},
        {'labels': torch.full((360, 480), 255, dtype=torch.uint8)},
        {'label_set': LabelSet(tuple(f'class number {k}' for k in range(60)), ((9, 9, 9),) * 60)},
    ],
)
def test_frames_that_say_little_or_much(change):
    assert drawing.overlay(dataclasses.replace(scene(), **change)).shape == (360, 480, 3)


def test_many_obstacles_are_drawn():
    score = np.zeros((360, 480), np.float32)
    score[100::12, ::12] = 0.9
    assert drawing.overlay(frame(360, 480, score)).shape == (360, 480, 3)


def test_letters_grow_with_the_picture_and_the_option():
    options = dataclasses.replace(PLAIN, legend=True)

    def height(result, chosen):
        return int((drawing.overlay(result, chosen) != 100).any(axis=(1, 2)).sum())

    small, large = height(scene(), options), height(scene(2160, 3840), options)
    assert large > 3 * small
    assert height(scene(), dataclasses.replace(options, scale=2.0)) > 1.5 * small
