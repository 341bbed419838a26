# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Metrics against golden vectors of the benchmarks' own code, and small tables by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from road_anomaly_ros.perception import curve
from road_anomaly_ros.perception.metrics import (
    ComponentMetrics,
    MeanIoU,
    PixelMetrics,
    component_metrics,
    miou,
    pixel_metrics,
)

PIXEL_CASES = ('smooth', 'fp16', 'ties', 'perfect', 'constant', 'rare', 'negative')
COMPONENT_CASES = (
    'perfect',
    'split',
    'merged',
    'tiny_false_positives',
    'tiny_false_positives_obstacle_cfg',
    'void_cuts',
    'small_gt_becomes_void',
    'nothing_predicted',
    'no_gt',
    'empty_both',
    'all_void',
    'diagonal_touch_is_one_component',
    'score_equal_threshold_is_negative',
    'multi_frame',
    'multi_frame_obstacle_cfg',
)
FRAME_NAMES = {
    'siou_gt': 'sIoU_gt',
    'siou_pred': 'sIoU_pred',
    'ppv': 'ppv',
    'size_gt': 'size_gt',
    'size_pred': 'size_pred',
    'tp': 'tp',
    'fn': 'fn',
    'fp': 'fp',
}


@pytest.mark.parametrize('case', PIXEL_CASES)
@pytest.mark.parametrize(
    'mode, key', [('ge', 'fpr95_first_ge'), ('gt', 'fpr95_first_gt'), ('interp', 'fpr95_interp')]
)
def test_pixel_metrics_match_the_published_code(golden, case, mode, key):
    data = golden('pixel_metrics')[case]
    found = pixel_metrics(data['scores'], data['labels'], fpr_mode=mode)
    assert found['ap'] == pytest.approx(float(data['ap']), abs=1e-9)
    assert found['auroc'] == pytest.approx(float(data['auroc']), abs=1e-9)
    assert found['fpr95'] == pytest.approx(float(data[key]), abs=1e-9)
    assert found['exact'] == 1


@pytest.mark.parametrize('case', [case for case in PIXEL_CASES if case != 'negative'])
def test_binned_metrics_match_the_benchmark(golden, case):
    data = golden('pixel_metrics')[case]
    found = pixel_metrics(data['scores'], data['labels'], smiyc_binned=True)
    for ours, theirs in (
        ('ap', 'ap'),
        ('auroc', 'auroc'),
        ('fpr95', 'fpr95'),
        ('best_f1', 'best_f1'),
        ('best_threshold', 'best_f1_threshold'),
    ):
        assert found[ours] == pytest.approx(float(data[f'smiyc_uni_{theirs}']), abs=1e-6)


@pytest.mark.parametrize('case', COMPONENT_CASES)
def test_component_metrics_match_the_benchmark(golden, case):
    data = golden('component_metrics')[case]
    metric = ComponentMetrics(
        float(data['threshold']), int(data['min_pred_size']), int(data['min_gt_size'])
    )
    for score, label in zip(data['scores'], data['labels'], strict=True):
        metric.update(score, label)
    for index, frame in enumerate(metric.frames):
        for ours, theirs in FRAME_NAMES.items():
            expected = data[f'frame{index}_{theirs}']
            np.testing.assert_allclose(getattr(frame, ours), expected, rtol=0, atol=1e-12)
    found = metric.compute()
    for ours, theirs in (
        ('sIoU', 'sIoU_gt'),
        ('sIoU_pred', 'sIoU_pred'),
        ('PPV', 'ppv'),
        ('F1', 'f1_mean'),
    ):
        np.testing.assert_allclose(found[ours], data[f'agg_{theirs}'], rtol=0, atol=1e-12)
    for index, name in ((0, 'f1_25'), (5, 'f1_50'), (10, 'f1_75')):
        np.testing.assert_allclose(
            found['f1_per_tau'][index], data[f'agg_{name}'], rtol=0, atol=1e-12
        )


@pytest.mark.parametrize('case', ('miou_a', 'miou_b'))
def test_mean_iou_matches_the_published_code(golden, case):
    data = golden('pixel_metrics')[case]
    found = miou([data['pred']], [data['gt']], int(data['num_classes']))
    assert found['miou'] == pytest.approx(float(data['miou']), abs=1e-12)
    np.testing.assert_allclose(found['iou'], data['iou'], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(found['inter'], data['inter'])
    np.testing.assert_array_equal(found['union'], data['union'])


def test_six_pixels_by_hand():
    scores = np.array([[0.9, 0.8, 0.7, 0.6, 0.5, 0.1]])
    labels = np.array([[1, 0, 1, 0, 0, 255]])
    found = pixel_metrics([scores], [labels])
    assert found['ap'] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert found['auroc'] == pytest.approx(5 / 6)  # of 2 x 3 pairs one is wrong
    assert found['fpr95'] == pytest.approx(1 / 3)
    assert found['best_f1'] == pytest.approx(0.8)
    assert 0.6 < found['best_threshold'] < np.float32(0.7)


def test_ties_count_half_for_auroc_and_whole_for_thresholds():
    found = pixel_metrics([np.array([0.5, 0.5])], [np.array([1, 0])])
    assert found['auroc'] == 0.5 and found['ap'] == 0.5 and found['fpr95'] == 1
    interpolated = pixel_metrics([np.array([0.5, 0.5])], [np.array([1, 0])], fpr_mode='interp')
    assert interpolated['fpr95'] == pytest.approx(0.95)


@pytest.mark.parametrize('loop', (curve.counting, None), ids=('compiled', 'numpy'))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    data=st.data(),
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    levels=st.integers(1, 40),
)
def test_exact_metrics_equal_a_loop_over_all_thresholds(loop, monkeypatch, data, sizes, levels):
    monkeypatch.setattr(curve, 'counting', loop)
    seed = data.draw(st.integers(0, 10_000))
    random = np.random.default_rng(seed)
    scores = [random.integers(-levels, levels + 1, size).astype(np.float32) / 7 for size in sizes]
    labels = [random.choice([0, 1, 255], size) for size in sizes]
    labels[0][:1] = 1
    scores.append(np.zeros(1, np.float32))
    labels.append(np.zeros(1, int))
    found = pixel_metrics(scores, labels)
    all_scores, all_labels = np.concatenate(scores), np.concatenate(labels)
    positive, negative = all_scores[all_labels == 1], all_scores[all_labels == 0]
    ap, recall, fpr95, best = 0.0, 0.0, None, 0.0
    for threshold in np.unique(all_scores)[::-1]:
        tp, fp = (positive >= threshold).sum(), (negative >= threshold).sum()
        ap += (tp / positive.size - recall) * (tp / (tp + fp) if tp else 0)
        recall = tp / positive.size
        fpr95 = fp / negative.size if fpr95 is None and recall >= 0.95 else fpr95
        best = max(best, 2 * tp / (tp + fp + positive.size))
    pairs = np.sign(positive[:, None] - negative[None]) / 2 + 0.5
    assert found['ap'] == pytest.approx(ap) and found['fpr95'] == pytest.approx(fpr95)
    assert found['auroc'] == pytest.approx(pairs.mean()) and found['best_f1'] == pytest.approx(
        best
    )
    above = all_scores > found['best_threshold']
    tp, fp = (above & (all_labels == 1)).sum(), (above & (all_labels == 0)).sum()
    assert 2 * tp / (tp + fp + positive.size) == pytest.approx(best)


@pytest.mark.parametrize('scale', (1.0, 40.0))
def test_beyond_its_memory_it_goes_on_with_rounded_scores(rng, scale):
    scores = (rng.normal(size=(6, 20, 30)) * scale).astype(np.float32)
    labels = (rng.random((6, 20, 30)) < 0.2).astype(np.uint8)
    scores += labels * scale
    exact = pixel_metrics(scores, labels)
    metric = PixelMetrics(max_pixels=1500)
    for score, label in zip(scores, labels, strict=True):
        metric.update(score, label)
    found = metric.compute()
    assert found['exact'] == 0
    for name in ('ap', 'auroc', 'fpr95', 'best_f1'):
        assert found[name] == pytest.approx(exact[name], abs=2e-3)
    assert found['best_threshold'] == pytest.approx(exact['best_threshold'], rel=2e-4, abs=1e-3)


@pytest.mark.parametrize('label', (0, 1, 255))
def test_one_kind_of_pixel_gives_nan_and_a_warning(label):
    with pytest.warns(UserWarning, match='need both'):
        found = pixel_metrics([np.zeros((2, 2))], [np.full((2, 2), label)])
    assert math.isnan(found['ap']) and math.isnan(found['auroc']) and math.isnan(found['fpr95'])


@pytest.mark.parametrize('bad', (np.nan, np.inf))
def test_scores_that_are_no_numbers_are_refused_unless_void(bad):
    scores, labels = np.array([[bad, 0.5, 0.2]]), np.array([[1, 0, 1]])
    with pytest.raises(ValueError, match='finite scores'):
        pixel_metrics([scores], [labels])
    labels[0, 0] = 255
    assert pixel_metrics([scores], [labels])['ap'] == pytest.approx(0.5)


@pytest.mark.parametrize(
    'call',
    [
        lambda: pixel_metrics([np.zeros((2, 2))], [np.zeros((2, 3))]),
        lambda: component_metrics([np.zeros((2, 2))], [np.zeros((3, 2))], 0.5),
        lambda: miou([np.zeros((2, 2))], [np.zeros((2, 3))], 2),
        lambda: PixelMetrics(fpr_mode='at'),
        lambda: MeanIoU(0),
    ],
)
def test_wrong_calls_say_what_was_expected(call):
    with pytest.raises(ValueError, match='expected'):
        call()


def test_one_obstacle_found_by_half_with_one_false_alarm():
    label = np.zeros((10, 20), np.uint8)
    label[2:4, 2:6] = 1  # 8 pixels
    score = np.zeros((10, 20))
    score[2:4, 2:4] = 1  # 4 of them
    score[8, 10:15] = 1  # a false alarm of 5
    found = component_metrics([score], [label], 0.5, min_pred_size=2, min_gt_size=2)
    assert found['sIoU'] == pytest.approx(0.5) and found['PPV'] == pytest.approx(0.5)
    assert found['tp'].tolist() == [1] * 6 + [0] * 5  # tau 0.25 .. 0.5, then missed
    assert found['fp'].tolist() == [1] * 11 and found['fn'].tolist() == [0] * 6 + [1] * 5
    assert found['F1'] == pytest.approx(6 * (2 / 3) / 11)


def test_two_obstacles_under_one_prediction_do_not_lower_each_other():
    label = np.zeros((6, 12), np.uint8)
    label[1:3, 1:4] = label[1:3, 5:8] = 1  # 6 pixels each
    score = np.zeros((6, 12))
    score[1:3, 1:8] = 1  # 14 pixels over both and the gap
    found = component_metrics([score], [label], 0.5, 1, 1)
    assert found['sIoU'] == pytest.approx(6 / 8)  # 14 + 6 - 6 - the other's 6
    assert found['PPV'] == pytest.approx(12 / 14)


def test_a_background_smaller_than_the_least_obstacle_is_void_too():
    label = np.ones((4, 4), np.uint8)
    label[0, 0] = 0
    score = np.ones((4, 4))
    found = component_metrics([score], [label], 0.5, min_pred_size=1, min_gt_size=2)
    assert found['PPV'] == 1 and found['sIoU'] == 1


def test_mean_iou_by_hand_leaves_out_void_and_absent_classes():
    metric = MeanIoU(4)
    metric.update(np.array([[0, 0, 1, 3]]), np.array([[0, 1, 1, 255]]))
    metric.update(np.array([[255, 1]]), np.array([[0, 1]]))  # 255 predicted is a miss
    found = metric.compute()
    assert found['inter'].tolist() == [1, 2, 0, 0] and found['union'].tolist() == [3, 3, 0, 0]
    assert found['miou'] == pytest.approx((1 / 3 + 2 / 3) / 2)
    assert math.isnan(MeanIoU(2).compute()['miou'])


def test_nothing_at_all_is_not_an_error():
    found = component_metrics([], [], 0.5)
    assert (
        math.isnan(found['sIoU']) and math.isnan(found['F1']) and found['tp'].tolist() == [0] * 11
    )
