# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Refinements that need no segments: blurs, boundaries and the road, by hand and by golden."""

from __future__ import annotations

import math

import numpy as np
import pytest
from conftest import load_golden
from hypothesis import given, settings
from hypothesis import strategies as st

from road_anomaly_ros.perception.refinements import filters, refine

OASC_CASES = ('a', 'const', 'empty', 'full', 'resized_masks', 'tie')
needs_numba = pytest.mark.skipif(filters.boundary is None, reason='numba is not installed')


def test_gaussian_spreads_an_impulse_as_its_weights_say():
    score = np.zeros((9, 9))
    score[4, 4] = 1.0
    weights = np.exp(-0.5 * np.arange(-3, 4) ** 2.0)
    weights /= weights.sum()
    expected = np.zeros((9, 9))
    expected[1:8, 1:8] = np.outer(weights, weights)
    assert refine('gaussian', score) == pytest.approx(expected)
    assert (refine('gaussian', score, sigma=0.0) == score).all()


@pytest.mark.parametrize('size', [(1, 1), (1, 9), (2, 3), (4, 50)])
def test_blurs_reflect_at_the_border_however_near(size):
    import cv2

    score = np.random.default_rng(5).random(size)
    padded = (
        np.pad(score, 12, mode='reflect')
        if min(size) > 1
        else np.pad(score, [(12, 12) if n == 1 else (0, 0) for n in size], mode='edge')
    )
    if min(size) == 1 < max(size):
        padded = np.pad(padded, [(0, 0) if n == 1 else (12, 12) for n in size], mode='reflect')
    expected = cv2.GaussianBlur(padded, (13, 13), 2.0)[12 : 12 + size[0], 12 : 12 + size[1]]
    assert refine('gaussian', score, sigma=2.0) == pytest.approx(expected, abs=1e-6)


def test_mbp_fills_a_dark_hole_from_the_flat_region_around_it():
    score = np.full((5, 5), 0.8, np.float32)
    score[2, 2] = 0.1
    # the hole's edge is 4 * .8 - 4 * .1 > 0, its diagonal neighbours are exactly flat
    assert refine('mbp', score, gauss_ksize=1) == pytest.approx(np.full((5, 5), 0.8))
    bright = np.full((5, 5), 0.1, np.float32)
    bright[2, 2] = 0.8
    # a peak has a negative edge and stays; its dark neighbours take the flat .1 that they have
    assert (refine('mbp', bright, gauss_ksize=1) == bright).all()


@needs_numba
@pytest.mark.parametrize('name', OASC_CASES)
def test_mbp_in_torch_is_the_same_function_as_the_compiled_loop(monkeypatch, name):
    case = load_golden('objectomaly')[name]
    compiled = refine('mbp', case['oasc'], gauss_ksize=1)
    monkeypatch.setattr(filters, 'boundary', None)
    in_torch = refine('mbp', case['oasc'], gauss_ksize=1)
    assert np.abs(in_torch - case['mbp_before_blur']).max() <= 1e-6
    assert ((in_torch != case['oasc']) == (compiled != case['oasc'])).all()


@needs_numba
@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 9),
    st.integers(1, 70),
    st.sampled_from((np.float32, np.float64)),
)
def test_mbp_forms_agree_on_steps_with_holes(seed, height, width, dtype):
    rng = np.random.default_rng(seed)
    score = rng.choice((0.1, 0.3, 0.7), (height, width)).astype(dtype)
    score[rng.random(score.shape) < 0.05] = np.nan
    score[rng.random(score.shape) < 0.05] = np.inf
    compiled = refine('mbp', score[:, ::2], gauss_ksize=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filters, 'boundary', None)
        in_torch = refine('mbp', score[:, ::2], gauss_ksize=1)
    assert compiled.dtype == dtype
    assert compiled == pytest.approx(in_torch, abs=1e-6, nan_ok=True)


def test_mbp_leaves_the_rim_of_the_image_alone():
    score = np.full((5, 5), 0.8, np.float32)
    score[0, 2] = 0.1
    assert refine('mbp', score, gauss_ksize=1)[0, 2] == np.float32(0.1)


def test_road_prior_by_hand():
    score = np.full((1, 5), 0.8)
    labels = np.array([[1, 0, 0, 0, 255]], np.uint8)
    refined = refine(
        'road_prior', score, labels=labels, drivable=(1,), reach=2.0, floor=0.5, base=0.0
    )
    distance = np.arange(5)
    weight = 0.5 + 0.5 * np.exp(-0.5 * (distance / 2.0) ** 2)
    assert refined[0] == pytest.approx(0.8 * weight, abs=1e-6)


def test_road_prior_measures_city_blocks():
    labels = np.zeros((4, 4), np.uint8)
    labels[0, 0] = labels[3, 1] = 1
    score = np.ones((4, 4))
    refined = refine(
        'road_prior', score, labels=labels, drivable=(1,), reach=1.0, floor=0.0, base=0.0
    )
    distance = np.sqrt(-2 * np.log(refined)) * 4
    ys, xs = np.mgrid[:4, :4]
    expected = np.minimum(ys + xs, abs(ys - 3) + abs(xs - 1))
    assert distance == pytest.approx(expected, abs=1e-3)


def test_road_prior_only_ever_lowers_and_spares_negative_scores():
    rng = np.random.default_rng(6)
    score = rng.normal(-5, 2, (12, 16))
    labels = np.zeros((12, 16), np.uint8)
    labels[9:] = 1
    for base in (math.nan, -3.0):
        refined = refine('road_prior', score, labels=labels, drivable=(1,), base=base)
        assert (refined <= score + 1e-6).all()
        assert refined[9:] == pytest.approx(score[9:]) and (refined[0] < score[0]).any()
    assert refined.min() >= score.min() - 1e-6


def test_a_road_out_of_sight_silences_nobody():
    score = np.random.default_rng(7).random((6, 8))
    labels = np.zeros((6, 8), np.uint8)
    assert refine('road_prior', score, labels=labels, drivable=(1,)) == pytest.approx(score)


def test_road_prior_on_large_images_is_close_to_the_exact_one(monkeypatch):
    rng = np.random.default_rng(8)
    labels = np.zeros((300, 400), np.uint8)
    labels[200:, 50:350] = 1
    score = rng.random((300, 400))
    reduced = refine('road_prior', score, labels=labels, drivable=(1,))
    monkeypatch.setattr(filters, '_DISTANCE_SIDE', 1000)
    exact = refine('road_prior', score, labels=labels, drivable=(1,))
    assert np.abs(reduced - exact).max() < 0.05
