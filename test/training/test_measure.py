# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Pasting with exact truth, and figures of a score that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from road_anomaly_ros.perception.calibration import Calibration
from road_anomaly_ros.training import measure
from road_anomaly_ros.training.data import Frame


def test_pixel_curve_by_hand():
    score = np.array([.9, .8, .7, .6, .5, .4], np.float32)
    truth = np.array([1, 0, 1, 0, 0, 0], bool)
    curve = measure.pixel_curve(score, truth)
    assert curve.ap == pytest.approx(.5 * 1 + .5 * 2 / 3)
    assert curve.auroc == pytest.approx(7 / 8)
    assert curve.fpr95 == pytest.approx(1 / 4)
    assert curve.threshold == pytest.approx(.65)        # F2 .56, .5, .91, .83, ...
    assert curve.low_threshold <= curve.threshold
    assert curve.display == pytest.approx((.55, .8975))


def test_ties_count_as_one_threshold():
    curve = measure.pixel_curve(np.zeros(4, np.float32), np.array([1, 0, 0, 0], bool))
    assert (curve.ap, curve.auroc, curve.fpr95) == (.25, .5, 1.0)


def test_pasted_object_is_where_truth_says():
    labels = np.zeros((120, 160), np.uint8)
    labels[60:], labels[:5] = 3, 255
    frame = Frame(np.full((120, 160, 3), 50, np.uint8), labels)
    cutout = np.full((40, 30, 4), 255, np.uint8)
    for seed in range(10):
        image, truth = measure.paste(frame, cutout, (3,), np.random.default_rng(seed))
        assert set(np.unique(truth)) == {0, 1, 255} and (truth[:5] == 255).all()
        assert (image[truth == 1] > 150).all()
        assert ((image != 50).any(-1) & (truth != 1)).sum() < .5 * (truth == 1).sum()
    assert (frame.image == 50).all()


def test_nothing_is_pasted_without_ground():
    frame = Frame(np.zeros((40, 40, 3), np.uint8), np.zeros((40, 40), np.uint8))
    cutout = np.full((8, 8, 4), 255, np.uint8)
    _, truth = measure.paste(frame, cutout, (3,), np.random.default_rng(0))
    assert (truth == 0).all()


def test_calibration_is_read_back(tmp_path):
    curve = measure.pixel_curve(np.array([.1, .9, .3], np.float32), np.array([0, 1, 0], bool))
    curves = {('eam', ('none',)): curve, ('eam other', ('none',)): curve, ('rba', ()): curve}
    measure.write_calibration(tmp_path, curves, chain=('none',), source='by hand',
                              default={'scorer': 'eam'})
    found = Calibration.of_model(tmp_path)
    assert dict(found.default) == {'scorer': 'eam'} and list(found.scorers) == ['eam']
    assert found.scorers['eam'].threshold == pytest.approx(.6)
    assert found.scorers['eam'].display == pytest.approx((.2, .894))
    assert [path.name for path in tmp_path.iterdir()] == ['calibration.yaml']
