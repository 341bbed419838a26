# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What differs between roads changes the image, not the truth; a bonnet hides what it covers."""

from __future__ import annotations

import numpy as np
import pytest

from road_anomaly_ros.training import label_sets, surroundings
from road_anomaly_ros.training.outliers import Canvas

IGNORE = label_sets.IGNORE
SEEDS = range(30)


def canvas() -> Canvas:
    """Noise over sky and road, with a strange thing on the road."""
    rng = np.random.default_rng(0)
    codes = np.full((32, 48), label_sets.CODES['sky'], np.uint8)
    codes[12:] = label_sets.CODES['road']
    anomaly = np.zeros((32, 48), np.uint8)
    codes[24:28, 20:26], anomaly[24:28, 20:26] = IGNORE, 1
    weight = np.where(anomaly == 1, 4, 1).astype(np.float32)
    return Canvas(rng.integers(60, 180, (64, 96, 3), np.uint8), codes, anomaly, weight)


def same_truth(first: Canvas, second: Canvas) -> bool:
    return all(
        np.array_equal(getattr(first, name), getattr(second, name))
        for name in ('codes', 'anomaly', 'weight')
    )


def test_marks_change_the_ground_only():
    changed = 0
    for seed in SEEDS:
        before, after = canvas(), canvas()
        surroundings.mark_ground(np.random.default_rng(seed), after)
        assert same_truth(before, after)
        difference = (after.image != before.image).any(-1)
        assert not difference[:20].any()  # the ground begins in row 24
        assert not difference[50:54, 42:50].any()  # nor is anything drawn over the thing
        changed += difference.any()
    assert changed > 25


@pytest.mark.parametrize('index', range(len(surroundings._MARKS)))
def test_every_kind_of_mark_is_seen(index):
    draw, look = surroundings._MARKS[index]
    seen = 0
    for seed in SEEDS:
        rng, mask = np.random.default_rng(seed), np.zeros((64, 96), np.float32)
        draw(rng, mask, 48.0, 40.0, 24.0)
        assert mask.min() >= 0 and mask.max() <= 1
        image = canvas().image
        before = image.copy()
        surroundings._colour(rng, image, mask, (0, 0, 96, 64), look)
        assert not (image != before).any(-1)[mask == 0].any()
        seen += (image != before).any()
    assert seen > 20


def test_no_marks_without_ground():
    before, after = canvas(), canvas()
    before.codes[:], after.codes[:] = IGNORE, IGNORE
    surroundings.mark_ground(np.random.default_rng(0), after)
    np.testing.assert_array_equal(after.image, before.image)


def test_shadows_darken_a_part():
    image = canvas().image
    for seed in SEEDS:
        before = image.copy()
        shaded = surroundings.shade(np.random.default_rng(seed), image)
        assert (image == before).all() and shaded.dtype == np.uint8
        assert (shaded <= image).all() and (shaded < image).any()


@pytest.mark.parametrize('name', ['_glare', '_drops', '_haze', '_dusk', 'tone', 'lens', 'weather'])
def test_light_and_lenses_depend_on_the_generator_alone(name):
    image, changed = canvas().image, 0
    for seed in SEEDS:
        before = image.copy()
        found, again = (
            getattr(surroundings, name)(np.random.default_rng(seed), image) for _ in range(2)
        )
        assert found.shape == image.shape and found.dtype == np.uint8
        assert (image == before).all() and (found == again).all()
        changed += (found != image).any()
    assert changed > 15


def test_a_bonnet_hides_what_is_below_it():
    for seed in SEEDS:
        before, after = canvas(), canvas()
        before.anomaly[28:], after.anomaly[28:] = 1, 1
        surroundings.bonnet(np.random.default_rng(seed), after)
        hidden = (after.codes != before.codes) | (after.anomaly != before.anomaly)
        assert hidden[-1].any() and not hidden[:16].any()
        assert (after.codes[hidden] == IGNORE).all() and (after.weight[hidden] == 1).all()
        assert (after.anomaly[hidden] == 0).all()
        kept = ~hidden
        assert same_truth(
            *(
                Canvas(part.image, part.codes[kept], part.anomaly[kept], part.weight[kept])
                for part in (before, after)
            )
        )
        difference = (after.image != before.image).any(-1)
        assert difference[::2, ::2][hidden].mean() > 0.9 and not difference[:16].any()
