# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The truth is where the image changed: strange things, known things, small and cut-off ones."""

from __future__ import annotations

import numpy as np
import pytest

from road_anomaly_ros.training import label_sets, outliers
from road_anomaly_ros.training.roads import Frame, Source

ROAD, CAR, IGNORE = label_sets.CODES['road'], label_sets.CODES['car'], label_sets.IGNORE
SIZE = (96, 128)
GREEN, MAGENTA = (10, 220, 20), (200, 20, 210)


def canvas(size: tuple[int, int] = SIZE) -> outliers.Canvas:
    """Even grey over sky and road, at a size of which the truth has half."""
    half = (size[0] // 2, size[1] // 2)
    codes = np.full(half, label_sets.CODES['sky'], np.uint8)
    codes[half[0] // 3 :] = ROAD
    return outliers.Canvas(
        np.full((*size, 3), 120, np.uint8),
        codes,
        np.zeros(half, np.uint8),
        np.ones(half, np.float32),
    )


def cutout(colour, height: int = 40, width: int = 30):
    return np.full((height, width, 3), colour, np.uint8), np.ones((height, width), np.float32)


@pytest.fixture
def as_they_are(monkeypatch):
    """Cut-outs keep their colours and cast no shadows."""
    monkeypatch.setattr(outliers.blend, 'cast_shadow', lambda *_: None)
    for name in ('drawn', 'varied'):
        monkeypatch.setattr(outliers.variation, name, lambda rng, cutout, *_: cutout)


def change(before: outliers.Canvas, after: outliers.Canvas) -> np.ndarray:
    """Largest difference of any channel in every cell of 2x2 pixels."""
    difference = np.abs(after.image.astype(int) - before.image).max(-1)
    return difference.reshape(before.codes.shape[0], 2, -1, 2).max((1, 3))


def test_truth_is_where_the_image_changed(as_they_are):
    paster = outliers.Paster([[cutout(GREEN), cutout(MAGENTA)]], [])
    seen = 0
    for seed in range(40):
        before, after = canvas(), canvas()
        paster.outliers(np.random.default_rng(seed), after)
        changed, strange = change(before, after), after.anomaly == 1
        assert set(np.unique(after.anomaly)) <= {0, 1, IGNORE}
        assert not strange.any() or (changed[strange] > 8).mean() > 0.95
        assert (changed[after.anomaly == 0] < 80).all()
        # Things of no class have no code, and neither has their edge.
        assert ((after.codes == IGNORE) == (after.anomaly != 0)).all()
        assert (after.codes == before.codes)[after.anomaly == 0].all()
        assert (after.weight[after.anomaly == 0] == 1).all()
        assert ((after.weight[strange] >= 1) & (after.weight[strange] <= 6)).all()
        seen += strange.any() and (after.anomaly == IGNORE).any()
    assert seen > 30


def test_known_things_keep_their_codes_and_stay_normal(as_they_are):
    thing = outliers.Known(*cutout(GREEN, 24, 36), np.full((24, 36), CAR, np.uint8))
    paster, seen = outliers.Paster([], [thing]), 0
    for seed in range(40):
        before, after = canvas(), canvas()
        after.anomaly[:], after.weight[:] = 1, 5  # what lay there before is hidden
        paster.knowns(np.random.default_rng(seed), after)
        touched = after.anomaly != 1
        assert (after.anomaly[touched] == 0).all() and (after.weight[touched] == 1).all()
        assert (after.codes[touched] != before.codes[touched]).all()
        assert set(np.unique(after.codes[touched])) <= {CAR, IGNORE}
        assert (after.codes == before.codes)[~touched].all()
        assert (change(before, after)[after.codes == CAR] > 8).mean() > 0.95 or not touched.any()
        seen += (after.codes == CAR).any()
    assert seen > 30


def test_nothing_to_lay_leaves_the_crop_alone():
    before, after = canvas(), canvas()
    paster = outliers.Paster([[]], [])
    paster.outliers(np.random.default_rng(0), after)
    paster.knowns(np.random.default_rng(0), after)
    for name in ('image', 'codes', 'anomaly', 'weight'):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))


def marked(top: int, left: int, mask: np.ndarray, codes=None, size=(8, 8)) -> outliers.Canvas:
    found = canvas(size)
    box = outliers._Box(top, left, mask.shape, (*size, 3))
    outliers._mark(found, box, mask[box.source], None if codes is None else codes[box.source])
    return found


def test_marks_at_half_the_resolution_by_hand():
    """Four pixels square at (1, 1): one whole cell, four halves and four quarters."""
    found = marked(1, 1, np.ones((4, 4), np.float32))
    assert found.anomaly.tolist() == [
        [255, 255, 255, 0],
        [255, 1, 255, 0],
        [255, 255, 255, 0],
        [0, 0, 0, 0],
    ]
    assert found.weight[1, 1] == 6 and found.weight.sum() == 6 + 15
    even = marked(2, 4, np.ones((4, 2), np.float32))
    assert np.argwhere(even.anomaly == 1).tolist() == [[1, 2], [2, 2]]
    assert not (even.anomaly == IGNORE).any()


@pytest.mark.parametrize(
    ('top', 'left', 'cells'),
    [(-2, -2, [[0, 0]]), (6, 6, [[3, 3]]), (-3, 5, []), (-2, 6, [[0, 3]])],
)
def test_what_hangs_over_the_border_is_cut_off(top, left, cells):
    found = marked(top, left, np.ones((4, 4), np.float32))
    assert np.argwhere(found.anomaly == 1).tolist() == cells


def test_faint_pixels_are_ignored_and_the_faintest_left_alone():
    mask = np.zeros((8, 8), np.float32)
    mask[:2, :2], mask[:2, 2:4], mask[:2, 4:6] = 0.6, 0.4, 0.05
    assert marked(0, 0, mask).anomaly[0].tolist() == [1, IGNORE, 0, 0]


def test_small_things_count_more():
    weights = [
        marked(0, 0, np.ones((side, side), np.float32), size=(128, 128)).weight.max()
        for side in (4, 20, 40, 80)
    ]
    assert weights == [6, pytest.approx(2), 1, 1]


def test_a_known_thing_by_hand():
    codes = np.array([[CAR] * 4] * 4, np.uint8)
    found = marked(2, 2, np.ones((4, 4), np.float32), codes)
    assert np.argwhere(found.codes == CAR).tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]
    assert not found.anomaly.any()


def test_known_things_are_cut_out_of_labelled_frames():
    codes = np.full((120, 160), ROAD, np.uint8)
    codes[40:60, 20:50], codes[40:50, 100:140] = CAR, CAR  # the second one is too low
    codes[80:110, 60:70] = label_sets.CODES['person']
    image = np.repeat(codes[..., None], 3, 2) * np.uint8(5)
    found = outliers.known_things([Source('camvid', [Frame(image, codes)], 1.0, (1, 1))])
    assert sorted(thing.alpha.shape for thing in found) == [(20, 30), (30, 10)]
    for thing in found:
        assert (thing.alpha == 1).all() and len(np.unique(thing.codes)) == 1
        assert (thing.image == thing.codes[..., None] * 5).all()
    (one,) = outliers.known_things([Source('camvid', [Frame(image, codes)], 1.0, (1, 1))], most=1)
    assert one.alpha.any()
