# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Refinements against golden vectors, tables checked by hand and literal loops over pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import load_golden
from hypothesis import given, settings
from hypothesis import strategies as st

from road_anomaly_ros.perception.contract import LabelSet, Segments
from road_anomaly_ros.perception.refinements import (
    REFINEMENTS,
    RefineContext,
    check,
    filters,
    refine,
)
from road_anomaly_ros.perception.refinements import cover as cover_module

OASC_CASES = ('a', 'const', 'empty', 'full', 'resized_masks', 'tie')
S2_CASES = ('a', 'allvoid', 'tau0', 'tau_hi')
OVERLAPS = ('smallest_wins', 'largest_wins', 'average')

# vlm_points asks about images, see test_vlm.py.
OF_SCORES = set(REFINEMENTS.names()) - {'vlm_points'}


def unpacked(case):
    count, height, width = case['masks_shape']
    bits = np.unpackbits(case['masks'], axis=-1)[..., :width]
    return bits.reshape(count, height, width).astype(bool)


@pytest.mark.parametrize('name', OASC_CASES)
def test_objectomaly_stage_by_stage(name):
    case = load_golden('objectomaly')[name]
    masks = unpacked(case)
    filled = refine('oasc', case['anomaly_map'], masks)
    assert np.abs(filled - case['oasc']).max() <= 1e-6
    smallest = refine('oasc', case['anomaly_map'], masks, order='smallest_wins')
    assert np.abs(smallest - case['oasc_smallest_wins']).max() <= 1e-6
    edges = filters.laplacian(torch.from_numpy(case['oasc'])).numpy()
    assert (np.sign(edges) == np.sign(case['laplacian'])).all()
    sharp = refine('mbp', case['oasc'], gauss_ksize=1)
    assert np.abs(sharp - case['mbp_before_blur']).max() <= 1e-6
    assert np.abs(refine('gaussian', case['mbp_before_blur']) - case['final']).max() <= 1e-6
    assert np.abs(refine('mbp', filled) - case['final']).max() <= 2e-6


@pytest.mark.parametrize('name', S2_CASES)
@pytest.mark.parametrize('overlap', OVERLAPS)
@pytest.mark.parametrize(('dtype', 'tolerance'), [(np.float32, 1e-5), (np.float64, 1e-12)])
def test_variance_aware_as_in_the_paper(name, overlap, dtype, tolerance):
    case = load_golden('s2_zero_shot')[name]
    refined = refine(
        'variance_aware',
        case['s_fuse'].astype(dtype),
        case['segments'].astype(bool),
        beta=float(case['beta']),
        segment_overlap=overlap,
    )
    assert refined.dtype == dtype
    assert np.abs(refined - case[f'refined_{overlap}']).max() <= tolerance


def masks_of(*rows):
    """Masks [N, 1, w] from strings of marks."""
    return np.array([[[mark == '#' for mark in row]] for row in rows])


def refined_row(name, score, masks, **options):
    return refine(name, np.array([score], np.float64), masks, **options)[0].tolist()


def test_oasc_by_hand():
    masks = masks_of('###..', '.##..', '....#')
    score = [0.0, 0.3, 0.9, 0.5, 0.7]
    assert refined_row('oasc', score, masks) == pytest.approx([0.4, 0.4, 0.4, 0.5, 0.7])
    smallest = refined_row('oasc', score, masks, order='smallest_wins')
    assert smallest == pytest.approx([0.4, 0.6, 0.6, 0.5, 0.7])


def test_among_equal_masks_the_later_wins():
    masks = masks_of('##..', '.##.')
    for order in ('largest_wins', 'smallest_wins'):
        row = refined_row('oasc', [0.0, 0.2, 0.6, 1.0], masks, order=order)
        assert row == pytest.approx([0.1, 0.4, 0.4, 1.0])


def test_variance_aware_by_hand():
    masks = masks_of('##..')
    # mean .4, population variance .04: a = exp(-10 * .04)
    pull = math.exp(-0.4)
    row = refined_row('variance_aware', [0.2, 0.6, 0.9, 0.1], masks, beta=10.0)
    near = pull * 0.4 + (1 - pull) * np.array([0.2, 0.6])
    assert row == pytest.approx([*near, 0.9, 0.1])
    assert refined_row('variance_aware', [0.2, 0.6, 0.9, 0.1], masks, beta=0.0) == pytest.approx(
        [0.4, 0.4, 0.9, 0.1]
    )
    pull = math.exp(-5 * 0.04 / (0.24 + 1e-6))
    row = refined_row(
        'variance_aware', [0.2, 0.6, 0.9, 0.1], masks, beta=5.0, variance='normalised'
    )
    assert row[0] == pytest.approx(pull * 0.4 + (1 - pull) * 0.2)


def test_small_variances_survive_a_large_offset():
    score = np.float64(1000) + np.array([[0.0, 1e-3, 2e-3, 3e-3]])
    refined = refine('variance_aware', score, masks_of('####'), beta=1e6)
    pull = math.exp(-1e6 * 1.25e-6)
    assert (refined - 1000) == pytest.approx(pull * 1.5e-3 + (1 - pull) * (score - 1000), abs=1e-9)


@pytest.mark.parametrize('name', ['oasc', 'variance_aware'])
def test_a_partition_is_as_good_as_its_masks(name):
    rng = np.random.default_rng(0)
    score = rng.random((12, 18), dtype=np.float32)
    index = np.repeat(np.repeat(rng.integers(-1, 5, (4, 6)), 3, 0), 3, 1).astype(np.int32)
    masks = index[None] == np.arange(5)[:, None, None]
    expected = refine(name, score, masks)
    for given_index in (index, index[::3, ::3], Segments(index=torch.from_numpy(index))):
        assert refine(name, score, given_index) == pytest.approx(expected, abs=1e-6)
    assert (expected[index < 0] == score[index < 0]).all()
    assert not np.allclose(expected, score)


def opencv_nearest(masks, height, width):
    import cv2

    return np.array(
        [
            cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
            for mask in masks
        ]
    ).astype(bool)


@pytest.mark.parametrize(
    ('size', 'given_size'),
    [
        ((30, 40), (15, 20)),
        ((30, 40), (7, 13)),
        ((30, 40), (64, 90)),
        ((30, 40), (64, 11)),
        ((31, 41), (30, 40)),
        ((5, 5), (1, 1)),
    ],
)
@pytest.mark.parametrize('overlap', OVERLAPS)
def test_masks_of_another_size_are_resized_as_opencv_does(size, given_size, overlap):
    rng = np.random.default_rng(1)
    score = rng.random(size)
    masks = rng.random((4, *given_size)) < 0.4
    areas = masks.sum((1, 2))
    expected = literal_variance_aware(score, opencv_nearest(masks, *size), areas, 50.0, overlap)
    refined = refine('variance_aware', score, masks, segment_overlap=overlap)
    assert refined == pytest.approx(expected, abs=1e-12)


def literal_order(areas, smallest_last):
    ranked = sorted(range(len(areas)), key=lambda k: -areas[k] if smallest_last else areas[k])
    return ranked


def literal_variance_aware(score, masks, areas, beta, overlap):
    """Equation 12, mask by mask and pixel by pixel."""
    refined, sums, count = score.copy(), np.zeros(score.shape), np.zeros(score.shape)
    for k in literal_order(areas, overlap != 'largest_wins'):
        pixels = list(zip(*np.nonzero(masks[k]), strict=True))
        if not pixels:
            continue
        mean = sum(score[p] for p in pixels) / len(pixels)
        variance = sum((score[p] - mean) ** 2 for p in pixels) / len(pixels)
        pull = math.exp(-beta * variance)
        for p in pixels:
            refined[p] = pull * mean + (1 - pull) * score[p]
            sums[p] += refined[p]
            count[p] += 1
    if overlap == 'average':
        return np.where(count > 0, sums / np.maximum(count, 1), score)
    return refined


def literal_oasc(score, masks, order):
    filled = score.copy()
    areas = [int(mask.sum()) for mask in masks]
    for k in literal_order(areas, order == 'smallest_wins'):
        pixels = list(zip(*np.nonzero(masks[k]), strict=True))
        mean = sum(float(score[p]) for p in pixels) / max(1, len(pixels))
        for p in pixels:
            filled[p] = mean
    return filled


def literal_mbp(score):
    """The raster loop: sharpened in place, edges computed once."""
    edges = filters.laplacian(torch.from_numpy(score)).numpy()
    result = score.copy()
    for y in range(1, score.shape[0] - 1):
        for x in range(1, score.shape[1] - 1):
            if edges[y, x] > 0:
                flat = [
                    result[v, u]
                    for v in (y - 1, y, y + 1)
                    for u in (x - 1, x, x + 1)
                    if edges[v, u] == 0
                ]
                if flat:
                    result[y, x] = np.mean(np.array(flat, np.float64))
    return result


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(0, 6),
    st.floats(0.0, 1.0),
)
def test_as_the_literal_loops_say(seed, height, width, count, share):
    rng = np.random.default_rng(seed)
    score = rng.random((height, width))
    masks = rng.random((count, height, width)) < share
    areas = masks.sum((1, 2))
    for overlap in OVERLAPS:
        expected = literal_variance_aware(score, masks, areas, 50.0, overlap)
        refined = refine('variance_aware', score, masks, segment_overlap=overlap)
        assert refined == pytest.approx(expected, abs=1e-12)
    for order in ('largest_wins', 'smallest_wins'):
        assert refine('oasc', score, masks, order=order) == pytest.approx(
            literal_oasc(score, masks, order), abs=1e-12
        )
    steps = refine('oasc', score.astype(np.float32), masks)
    assert refine('mbp', steps, gauss_ksize=1) == pytest.approx(literal_mbp(steps), abs=1e-6)


def test_more_masks_than_a_byte_counts():
    rng = np.random.default_rng(2)
    score = rng.random((6, 7))
    masks = rng.random((300, 6, 7)) < 0.3
    for order in ('largest_wins', 'smallest_wins'):
        assert refine('oasc', score, masks, order=order) == pytest.approx(
            literal_oasc(score, masks, order), abs=1e-12
        )


def test_blocks_of_pixels_join_without_a_seam(monkeypatch):
    from road_anomaly_ros.perception.refinements import cover

    rng = np.random.default_rng(3)
    score, masks = rng.random((9, 11)), rng.random((4, 9, 11)) < 0.5
    whole = [refine('variance_aware', score, masks, segment_overlap=name) for name in OVERLAPS]
    monkeypatch.setitem(cover._BLOCK, 'cpu', 64)
    for name, expected in zip(OVERLAPS, whole, strict=True):
        refined = refine('variance_aware', score, masks, segment_overlap=name)
        assert refined == pytest.approx(expected, abs=1e-14)


def test_smooth_and_noisy_masks_in_rows_of_eights():
    rng = np.random.default_rng(10)
    score = rng.random((16, 40))
    masks = np.zeros((6, 16, 40), bool)
    masks[0, 2:9, 3:29] = masks[1, :, 8:16] = masks[2, 15, 39] = masks[3] = True
    masks[4] = np.arange(40) % 8 < 3  # equal groups of eight that are not whole
    for stack in (masks, masks | (rng.random(masks.shape) < 0.3)):
        areas = stack.sum((1, 2))
        for overlap in OVERLAPS:
            expected = literal_variance_aware(score, stack, areas, 50.0, overlap)
            refined = refine('variance_aware', score, stack, segment_overlap=overlap)
            assert refined == pytest.approx(expected, abs=1e-12)


def test_statistics_are_those_of_the_input_only():
    masks = masks_of('####', '##..')
    row = refined_row('variance_aware', [0.0, 1.0, 1.0, 1.0], masks, beta=0.0)
    assert row == pytest.approx([0.5, 0.5, 0.75, 0.75])


@pytest.mark.parametrize('name', ['oasc', 'variance_aware'])
def test_no_number_stays_where_it_is_and_out_of_the_means(name):
    nan, inf = math.nan, math.inf
    options = {'beta': 0.0} if name == 'variance_aware' else {}
    masks = masks_of('####..', '.....#')
    row = refined_row(name, [nan, 0.2, 0.4, inf, 0.9, nan], masks, **options)
    assert row == pytest.approx([nan, 0.3, 0.3, inf, 0.9, nan], nan_ok=True)
    everything = refined_row(name, [nan, nan], masks_of('##'), **options)
    assert everything == pytest.approx([nan, nan], nan_ok=True)


@pytest.mark.parametrize('name', sorted(OF_SCORES))
@pytest.mark.parametrize('size', [(1, 1), (1, 6), (6, 1), (2, 2), (3, 3), (5, 64)])
def test_constants_stay_whatever_the_size(name, size):
    score = np.full(size, 0.25, np.float32)
    masks = np.zeros((2, *size), bool)
    masks[0] = True
    refined = refine(name, score, masks, labels=np.zeros(size, np.uint8), drivable=(0,))
    assert refined.dtype == np.float32 and refined == pytest.approx(score, abs=1e-7)


@pytest.mark.parametrize(
    'masks', [np.zeros((0, 4, 5), bool), np.zeros((3, 4, 5), bool), np.full((4, 5), -1, np.int32)]
)
@pytest.mark.parametrize('name', ['oasc', 'variance_aware'])
def test_without_segments_nothing_changes(name, masks):
    score = np.random.default_rng(4).random((4, 5), dtype=np.float32)
    assert (refine(name, score, masks) == score).all()


def test_tensors_arrays_and_half_precision():
    score, masks = np.float32([[0.2, 0.4]]), masks_of('##')
    assert isinstance(refine('oasc', score, masks), np.ndarray)
    tensor = refine('oasc', torch.from_numpy(score), torch.from_numpy(masks))
    assert isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float32
    half = refine('oasc', torch.from_numpy(score).half(), masks)
    assert half.dtype == torch.float32 and half[0].tolist() == pytest.approx([0.3, 0.3], abs=1e-3)
    for kind in (np.uint8, np.int64, np.float32):
        assert refine('oasc', score, masks.astype(kind)) == pytest.approx(np.float32([[0.3, 0.3]]))


def test_the_input_is_never_written():
    score, masks = np.random.default_rng(9).random((8, 8)), np.ones((1, 8, 8), bool)
    before = score.copy()
    for name in OF_SCORES:
        refine(name, score, masks, labels=np.zeros((8, 8), np.uint8), drivable=(0,))
    assert (score == before).all()


@pytest.mark.parametrize(
    ('call', 'words'),
    [
        (lambda s: refine('oascc', s, s > 0), 'choose one of'),
        (lambda s: refine('oasc', s), 'expected class-agnostic segments'),
        (lambda s: refine('oasc', s, (s > 0)[None], order='first'), 'smallest_wins'),
        (lambda s: refine('oasc', s, (s > 0)[None], beta=3.0), 'unknown option'),
        (lambda s: refine('mbp', s, gauss_ksize=4), 'gauss_ksize'),
        (lambda s: refine('variance_aware', s, (s > 0)[None], beta=-1.0), 'beta'),
        (lambda s: refine('oasc', s[0], (s > 0)[None]), 'score'),
        (lambda s: refine('oasc', s, s > 0), 'masks'),
        (lambda s: refine('road_prior', s), 'drivable'),
        (lambda s: refine('road_prior', s, labels=np.zeros((3, 4), np.uint8)), 'drivable'),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(call, words):
    with pytest.raises((ValueError, TypeError), match=words) as error:
        call(np.ones((3, 4), np.float32))
    assert '\n' not in str(error.value)


def test_labels_are_asked_for_when_the_chain_is_built():
    with pytest.raises(ValueError, match='road_prior'):
        check('road_prior', LabelSet(('sky',), ((0, 0, 0),)))
    check('road_prior', LabelSet(('road',), ((0, 0, 0),), (0,)))
    check('oasc', LabelSet(('sky',), ((0, 0, 0),)))
    needs = {name for name in REFINEMENTS.names() if REFINEMENTS[name].make.needs_segments}
    assert needs == {'oasc', 'variance_aware', 'vlm_points'}


def test_what_asks_about_images_says_so_without_one():
    with pytest.raises(ValueError, match='vlm_points asks about images'):
        refine('vlm_points', np.zeros((3, 4), np.float32))


def test_segments_are_made_once_and_only_when_asked_for():
    calls = []

    def source(image):
        calls.append(image.shape)
        return Segments(index=torch.zeros(2, 2, dtype=torch.int32))

    context = RefineContext(image=torch.zeros(3, 4, 4).byte(), source=source)
    score = torch.rand(4, 4)
    for name in ('gaussian', 'oasc', 'variance_aware', 'mbp'):
        entry = REFINEMENTS[name]
        score = entry.make(score, context, entry.options())
        assert len(calls) == (0 if name == 'gaussian' else 1)


@pytest.mark.parametrize('name', ['oasc', 'variance_aware'])
def test_segments_numbered_beyond_the_pixels_are_refused_in_one_line(name):
    """As those of panoptic maps are; a GPU would end the process."""
    score = torch.rand(2, 3)
    index = torch.tensor([[0, 1, 1], [26001, 26001, -1]])
    words = r'0 \.\. N-1, so below 6 .* got (26001|65535)'
    for ids in (index, index.numpy(), index.numpy().astype(np.uint16), Segments(index=index)):
        with pytest.raises(ValueError, match=words) as error:
            refine(name, score, ids)
        assert '\n' not in str(error.value)
    with pytest.raises(ValueError, match='below 6'):
        refine(name, score, index.clamp_max(6))
    assert refine(name, score, index.clamp_max(5)).shape == score.shape


def test_on_a_gpu_a_wrong_number_is_in_no_segment():
    """There nobody may look: the answer would have to be waited for."""
    index = torch.tensor([[0, 0], [0, 99]])
    cover = cover_module._Partition(index, (2, 2))
    counts = cover.sums(torch.ones(2, 2), torch.zeros(()))[0]
    assert counts.tolist() == [3, 0, 0, 0, 0]


def test_views_that_run_backwards_are_refined_and_nothing_is_shared(rng):
    score = rng.random((6, 8))
    masks = rng.random((3, 6, 8)) > 0.5
    for view in (score[::-1], score[:, ::-1], score.astype('>f8')):
        plain = np.ascontiguousarray(view.astype('=f8'))
        expected = refine('oasc', plain, masks[..., ::-1].copy())
        assert refine('oasc', view, masks[..., ::-1]) == pytest.approx(expected)
    before = score.copy()
    for values in (score, torch.from_numpy(score)):
        found = refine('oasc', values, np.zeros((0, 6, 8), bool))
        found[:] = 7
        assert (score == before).all()
