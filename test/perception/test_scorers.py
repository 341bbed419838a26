# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Scores against golden vectors of the original code, and tables by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from mask_outputs import FAR, one_hot_logits, two_queries

from road_anomaly_ros.perception.contract import MaskOutput
from road_anomaly_ros.perception.dense import MaskSource
from road_anomaly_ros.perception.labels import CAMVID, CITYSCAPES
from road_anomaly_ros.perception.registry import build_options
from road_anomaly_ros.perception.scorers import evaluate, mask2anomaly, score_map
from road_anomaly_ros.perception.scorers.s2 import S2Options, query_uncertainty

IMAGE_CASES = ('a', 'b', 'allvoid', 'nomask')
M2A_CASES = ('kept3', 'kept1', 'kept0')
S2_CASES = ('a', 'tau_hi', 'allvoid', 'nomask', 'half', 'tau0')


def inputs(case):
    return case['class_logits'], case['mask_logits'], tuple(int(n) for n in case['out_size'])


def close(actual, expected, tolerance):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)


# ---- golden vectors -----------------------------------------------------------------------------


@pytest.mark.parametrize('case', IMAGE_CASES)
@pytest.mark.parametrize('temperature', ('0.5', '1', '8'))
def test_tempered_scores_match_the_published_code(golden, case, temperature):
    data = golden('mask_model_scores')[case]
    t = float(temperature)
    close(score_map('msp', *inputs(data), temperature=t), data[f'msp_T{temperature}'], 1e-5)
    close(
        score_map('max_logit', *inputs(data), temperature=t),
        data[f'maxlogit_T{temperature}'],
        1e-5,
    )
    close(score_map('rba_s1', *inputs(data), temperature=t), data[f'rba_s1_T{temperature}'], 1e-5)
    entropy = score_map('max_entropy', *inputs(data), temperature=t, normalize_entropy=False)
    close(entropy, data[f'entropy_T{temperature}'], 5e-5)
    normalised = score_map('max_entropy', *inputs(data), temperature=t)
    close(normalised, data[f'entropy_T{temperature}'] / math.log(19), 2e-5)


@pytest.mark.parametrize('case', IMAGE_CASES)
def test_rba_and_eam_match_the_published_code(golden, case):
    data = golden('mask_model_scores')[case]
    np.testing.assert_allclose(score_map('rba', *inputs(data)), data['rba'], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(score_map('eam', *inputs(data)), data['eam'], rtol=1e-5, atol=1e-5)


def test_maskomaly_matches_the_published_code(golden):
    data = golden('mask_model_scores')['b']
    score = score_map(
        'maskomaly',
        data['class_logits'],
        data['mask_logits'],
        accept_query_ids=(49, 31, 83, 32),
        ground_query_ids=(19, 24),
    )
    close(score, data['maskomaly_lowres'], 1e-5)


@pytest.mark.parametrize('case', ('erfnet20', 'erfnet19'))
def test_pixel_models_match_the_published_code(golden, case):
    data = golden('pixel_model_scores')[case]
    close(score_map('msp', None, data['logits']), data['msp'], 1e-6)
    close(score_map('max_logit', None, data['logits']), data['maxlogit'], 0)
    close(score_map('max_entropy', None, data['logits']), data['entropy_normalised'], 1e-5)


@pytest.mark.parametrize('case', M2A_CASES)
def test_mask2anomaly_matches_the_published_code(golden, case):
    data = golden('mask2anomaly')[case]
    classes, masks, size = inputs(data)
    plain = score_map(
        'mask2anomaly', classes, masks, size, refine_mode='none', score_includes_kept=False
    )
    close(plain, data['score_plain'], 1e-5)
    close(score_map('plain', classes, masks, size), data['score_plain'], 1e-5)
    kept = score_map('mask2anomaly', classes, masks, size, refine_mode='none')
    close(kept, data['score_with_kept'], 1e-5)
    close(score_map('mask2anomaly', classes, masks, size), data['score_refined'], 1e-5)


@pytest.mark.parametrize('case', M2A_CASES)
def test_flip_averaging_matches_the_published_code(golden, case):
    data = golden('mask2anomaly')[case]
    classes, masks, size = inputs(data)
    mirrored = data['class_logits_flip'], data['mask_logits_flip'], size
    back = score_map('mask2anomaly', *mirrored)[:, ::-1]
    close(back, data['score_refined_flip_restored'], 1e-5)
    close(
        (score_map('mask2anomaly', classes, masks, size) + back) / 2,
        data['score_refined_flip_avg'],
        1e-5,
    )
    options = {'refine_mode': 'none'}
    average = (
        score_map('mask2anomaly', classes, masks, size, **options)
        + score_map('mask2anomaly', *mirrored, **options)[:, ::-1]
    ) / 2
    close(average, data['score_flip_avg_no_refine'], 1e-5)


def s2_options(data):
    return {
        name: float(data[name]) for name in ('tau', 'temperature', 'lam', 'eps', 'accept_fill')
    }


@pytest.mark.parametrize('case', S2_CASES)
@pytest.mark.parametrize('stage', ('reject', 'accept', 'fuse'))
def test_s2_stages_match_the_equations(golden, case, stage):
    data = golden('s2_zero_shot')[case]
    score = score_map(
        's2', data['class_logits'], data['mask_logits'], stage=stage, **s2_options(data)
    )
    close(score, data[f's_{stage}'], 2e-6)


@pytest.mark.parametrize('case', S2_CASES)
def test_s2_query_values_and_maps_match_the_equations(golden, case):
    data = golden('s2_zero_shot')[case]
    size = data['mask_logits'].shape[1:]
    output = MaskOutput(
        torch.tensor(data['class_logits']), torch.tensor(data['mask_logits']), size
    )
    options = build_options(S2Options, s2_options(data))
    found = query_uncertainty(MaskSource(output, size), options)
    close(found.p_fg, data['p_fg'], 1e-6)
    close(found.s_init, data['s_init'], 2e-6)
    close(found.overlap, data['overlap'], 2e-6)
    close(found.s_adj, data['s_adj'], 2e-6)
    result = evaluate(output, 's2', options, extras=('covered', 's_reject', 's_accept', 's_fuse'))
    np.testing.assert_array_equal(result.extras['covered'], data['covered'].astype(bool))
    for name in ('s_reject', 's_accept', 's_fuse'):
        close(result.extras[name], data[name], 2e-6)


# ---- tables for the head ------------------------------------------------------------------------


@pytest.mark.parametrize(
    'name, expected',
    [
        ('plain', [0, 0, 0, 1]),
        ('max_logit', [-1, -1, -1, 0]),
        ('rba', [-math.tanh(1)] * 3 + [0]),
        ('nls', [-1, -1, -1, 0]),
        ('energy', [-math.log(math.e + 2)] * 3 + [-math.log(3)]),
        ('msp', [1 - math.e / (math.e + 2)] * 3 + [2 / 3]),
        ('s2_reject', [0, 0, 0, 1]),
        ('eam', [0, 0, 0, 1]),
        ('maskomaly', [0, 0, 0, 1]),
        ('s2', [0, 0, 0, 0.6]),
    ],
)
def test_a_row_of_four_pixels(name, expected):
    classes, masks = two_queries()
    assert score_map(name, classes, masks)[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_labels_are_the_class_with_most_mass_and_ties_go_to_the_lowest():
    classes, masks = two_queries()
    assert evaluate(MaskOutput(classes, masks, (1, 4)), 'plain').labels.tolist() == [[0, 0, 2, 0]]
    tie = torch.zeros(1, 4)
    tied = MaskOutput(tie, torch.zeros(1, 1, 1), (1, 1))
    assert evaluate(tied, 'plain').labels.tolist() == [[0]]


def test_two_masks_of_one_class_overlap_below_zero_unless_clipped():
    classes = one_hot_logits(1, 1)
    masks = torch.full((2, 1, 1), FAR)
    assert score_map('plain', classes, masks).item() == pytest.approx(-1)
    assert score_map('eam', classes, masks).item() == pytest.approx(-1)
    assert score_map('s2_reject', classes, masks).item() == pytest.approx(0)
    for name in ('plain', 'eam'):
        assert score_map(name, classes, masks, clip_unit=True).item() == 0


@pytest.mark.parametrize(
    'name, raw', [('rba', -math.tanh(0.5)), ('rba_s1', -math.tanh(0.5)), ('nls', -0.5)]
)
def test_unit_range_maps_the_top_to_one(name, raw):
    classes, masks = one_hot_logits(1), torch.zeros(1, 1, 1)
    assert score_map(name, classes, masks).item() == pytest.approx(raw)
    assert score_map(name, classes, masks, unit_range=True).item() == pytest.approx(1 + raw)


def test_the_temperature_sits_where_it_is_told_to():
    classes, masks = torch.tensor([[2.0, 0.0, 0.0]]), torch.full((1, 1, 1), FAR)
    p = torch.tensor([2.0, 0.0, 0.0]).softmax(0)[:2]
    on_semantic = 1 - (p / 4).softmax(0).max()
    on_classes = 1 - (torch.tensor([0.5, 0.0, 0.0]).softmax(0)[:2]).softmax(0).max()
    assert score_map('msp', classes, masks, temperature=4.0).item() == pytest.approx(
        on_semantic.item()
    )
    assert score_map(
        'msp', classes, masks, temperature=4.0, temperature_target='class_logits'
    ).item() == pytest.approx(on_classes.item())


def test_the_void_channel_of_a_pixel_model_can_be_left_out():
    logits = torch.tensor([1.0, 0.0, 9.0]).view(3, 1, 1)
    assert score_map('max_logit', None, logits).item() == -9
    assert score_map('max_logit', None, logits, include_void_channel=False).item() == -1
    expected = 1 - math.e / (math.e + 1)
    assert score_map('msp', None, logits, include_void_channel=False).item() == pytest.approx(
        expected
    )


def test_negative_objectness_counts_the_outlier_class_against_the_known_ones():
    classes = torch.log(
        torch.tensor([[0.5, 0.2, 0.2, 0.1], [0.1, 0.1, 0.7, 0.1]])
    )  # 2 known, outlier, void
    masks = torch.tensor([[[FAR, -FAR]], [[-FAR, FAR]]])
    score = score_map('eam', classes, masks, negative_objectness=True)
    assert score[0].tolist() == pytest.approx([-0.3, 0.6], abs=1e-6)


def paint(*spans, width=4):
    """Masks over one row: FAR inside each half-open span, -FAR outside."""
    masks = torch.full((len(spans), 1, width), -FAR)
    for mask, (start, stop) in zip(masks, spans, strict=True):
        mask[0, start:stop] = FAR
    return masks


@pytest.mark.parametrize(
    'options, expected',
    [
        ({}, [0, 0, 1, 1]),  # borders between the two masks are silent
        ({'ground_query_ids': (1,)}, [0, 0, 0, 0.6]),
        (
            {'accept_query_ids': (2,)},
            [0, 0, 0.6 + 0.4, 0.6],
        ),  # query 2 is void: accepted nevertheless
        ({'strict': True}, [0, 0, 0.6, 0.6]),
        ({'lam': 1.0, 'accept_query_ids': (2,)}, [0, 0, 1, 1]),
    ],
)
def test_maskomaly_by_hand(options, expected):
    classes = one_hot_logits(0, 1, 3)
    masks = (
        paint((0, 2), (1, 2), (2, 3))
        if 'ground_query_ids' not in options
        else paint((0, 2), (1, 3), (2, 3))
    )
    assert score_map('maskomaly', classes, masks, **options)[0].tolist() == pytest.approx(
        expected, abs=1e-6
    )


def test_maskomaly_zeroes_the_border_of_two_doubtful_masks():
    doubtful = torch.log(
        torch.tensor([[0.6, 0.2, 0.1, 0.1]] * 2)
    )  # below conf: they do not reject alone
    assert score_map('maskomaly', doubtful, paint((0, 2), (1, 3)))[0].tolist() == [1, 0, 1, 1]


@pytest.mark.parametrize(
    'mode, queries, expected',
    [
        ('none', (0, 1), [0.01, 0.5, 1, 1]),
        ('code', (0, 1), [0.01, 0.5, 1, 1]),  # one kept query only: the code does not refine
        ('code_any', (0, 1), [0, 0.5, 1, 1]),
        ('code', (0, 0), [0, 0, 1, 1]),
        ('paper', (0, 2), [0, 0.02, 0, 0]),  # keeps the score only inside confident road or things
    ],
)
def test_mask2anomaly_refinements_by_hand(mode, queries, expected):
    rows = torch.log(
        torch.tensor(
            [
                [0.99, 0.004, 0.003, 0.003],  # confident stuff
                [0.5, 0.2, 0.2, 0.1],  # doubtful
                [0.006, 0.007, 0.98, 0.007],
            ]
        )
    )  # confident road
    score = score_map(
        'mask2anomaly',
        rows[list(queries)],
        paint((0, 1), (1, 2)),
        refine_mode=mode,
        refine_class_ids=(0,),
        paper_class_ids=(2,),
    )
    assert score[0].tolist() == pytest.approx(expected, abs=1e-2 if queries == (0, 0) else 1e-6)


@pytest.mark.parametrize(
    'names, stuff, others',
    [
        (CITYSCAPES, tuple(range(2, 11)), (0, *range(11, 19))),  # the published ids
        (CAMVID, (0, 1, 2, 5, 6, 7), (3, 8, 9, 10)),  # sky, building, ...; road, car, people
        (('gorilla', 'road', 'bus'), (), (1, 2)),
    ],
)
def test_mask2anomaly_class_ids_by_name(names, stuff, others):
    assert mask2anomaly.class_ids(names) == {'refine_class_ids': stuff, 'paper_class_ids': others}


def s2_scene():
    """Pixel 0: a sure query; 1: sure and doubtful ones; 2: two doubtful ones; 3: none."""
    rows = torch.log(
        torch.tensor([[0.9997, 1e-4, 1e-4, 1e-4], [0.3, 0.3, 0.3, 0.1], [0.6, 0.2, 0.1, 0.1]])
    )
    return rows, paint((0, 2), (1, 3), (2, 3))


def s2_entropy(row):
    p = row.exp()[:-1]
    p = p / p.sum()
    return float(-(p * p.log()).sum() / math.log(3))


def test_s2_selection_by_hand():
    rows, masks = s2_scene()
    sure, flat, slanted = (s2_entropy(row) for row in rows)
    assert sure < 0.01 < slanted < flat == pytest.approx(1)
    adjusted = [0.0, flat / 2, slanted]  # half of the flat query lies on the sure one
    two = np.exp([adjusted[0], adjusted[1]])
    three = np.exp([adjusted[1], adjusted[2]])
    expected = [0, two @ adjusted[:2] / two.sum(), three @ adjusted[1:] / three.sum(), 0]
    accept = score_map('s2', rows, masks, stage='accept')
    assert accept[0].tolist() == pytest.approx(expected, abs=1e-5)
    sharp = score_map('s2', rows, masks, stage='accept', temperature=1e-3)
    assert sharp[0].tolist() == pytest.approx([0, adjusted[1], max(adjusted[1:]), 0], abs=1e-5)


@pytest.mark.parametrize('fill, expected', [(0.0, 0.0), (1.0, 1.0), ('reject', 1.0), (0.3, 0.3)])
def test_s2_fills_pixels_that_no_query_covers(fill, expected):
    accept = score_map('s2', *s2_scene(), stage='accept', accept_fill=fill)
    assert accept[0, 3].item() == pytest.approx(expected)


def test_s2_drops_void_queries_from_the_selection_only():
    rows = torch.log(torch.tensor([[0.1, 0.1, 0.1, 0.7], [0.6, 0.2, 0.1, 0.1]]))
    masks = paint((0, 2), (1, 3))
    literal = score_map('s2', rows, masks, stage='accept')[0]
    dropped = score_map('s2', rows, masks, stage='accept', drop_void_queries=True)[0]
    own = s2_entropy(rows[1])
    assert literal[0].item() == pytest.approx(1) and dropped[0].item() == 0
    assert dropped[1:].tolist() == pytest.approx([own, own, 0], abs=1e-5)
    reject = score_map('s2', rows, masks, stage='reject', drop_void_queries=True)[0]
    assert reject.tolist() == pytest.approx([0.9, 0.4, 0.4, 1], abs=1e-5)


def test_s2_weighs_entropy_by_objectness():
    rows = torch.log(torch.tensor([[0.1, 0.1, 0.1, 0.7]]))
    score = score_map('s2', rows, paint((0, 1)), stage='accept', weight_by_objectness=True)
    assert score[0, 0].item() == pytest.approx(0.3, abs=1e-5)


def test_s2_rejection_can_be_rba():
    rows, masks = s2_scene()
    score = score_map('s2', rows, masks, stage='reject', rejection='rba')
    raw = score_map('rba', rows, masks)
    torch.testing.assert_close(score, 1 + raw.clamp(-1, 0))


def test_s2_overlap_may_be_counted_on_the_mask_grid():
    rows, masks = s2_scene()
    at_output = score_map('s2', rows, masks, (3, 13), overlap_resolution='output')
    native = score_map('s2', rows, masks, (3, 13), overlap_resolution='native')
    assert not torch.equal(at_output, native)
    torch.testing.assert_close(native, at_output, rtol=0, atol=0.05)
    same = [
        score_map('s2', rows, masks, overlap_resolution=where) for where in ('output', 'native')
    ]
    torch.testing.assert_close(*same)
