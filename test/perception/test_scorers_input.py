# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Scores of degenerate, broken and wrong input: nothing ends the chain, nothing looks harmless."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from mask_outputs import BOTH_KINDS, FAR, MASKS_ONLY, one_hot_logits, options_for, two_queries

from road_anomaly_ros.perception.contract import LabelSet, MaskOutput, PixelOutput
from road_anomaly_ros.perception.registry import build_options, options_of
from road_anomaly_ros.perception.scorers import SCORERS, check, evaluate, score_map


@pytest.mark.parametrize('name', BOTH_KINDS + MASKS_ONLY)
@pytest.mark.parametrize(
    'queries, classes, grid, size',
    [
        (0, 3, (2, 3), (4, 6)),
        (1, 1, (1, 1), (1, 1)),
        (1, 1, (2, 2), (5, 7)),
        (3, 19, (4, 5), (1, 1)),
        (2, 4, (9, 11), (3, 4)),
    ],
)
def test_every_scorer_takes_degenerate_shapes(name, queries, classes, grid, size):
    output = MaskOutput(torch.randn(queries, classes + 1), torch.randn(queries, *grid), size)
    result = evaluate(output, name, options_for(name, classes))
    assert result.score.shape == result.labels.shape == size
    assert result.score.dtype == torch.float32 and result.labels.dtype == torch.uint8
    assert result.score.isfinite().all() and int(result.labels.max()) < classes


@pytest.mark.parametrize(
    'name, top',
    [
        ('plain', 1),
        ('msp', 2 / 3),
        ('max_logit', 0),
        ('max_entropy', 1),
        ('rba', 0),
        ('rba_s1', 0),
        ('nls', 0),
        ('energy', -math.log(3)),
        ('s2_reject', 1),
        ('s2', 0.6),
        ('eam', 1),
        ('maskomaly', 1),
        ('mask2anomaly', 1),
    ],
)
@pytest.mark.parametrize('queries', (0, 2))
def test_unexplained_pixels_have_the_highest_score(name, top, queries):
    void = one_hot_logits(*[3] * queries)
    score = score_map(name, void, torch.full((queries, 2, 2), FAR), **options_for(name, 3))
    assert score.flatten().tolist() == pytest.approx([top] * 4, abs=1e-6)


@pytest.mark.parametrize('name', BOTH_KINDS + MASKS_ONLY)
@pytest.mark.parametrize('where', ('class', 'mask', 'both'))
def test_broken_values_never_lower_a_score_and_are_counted(name, where):
    classes = one_hot_logits(0, 1)
    masks = torch.full((2, 4, 4), -FAR)
    masks[0, :2], masks[1, 2:] = FAR, FAR
    options = {**options_for(name, 3), **({'accept_fill': 1.0} if name == 's2' else {})}
    good = evaluate(MaskOutput(classes, masks, (4, 4)), name, options)
    bad_classes, bad_masks = classes.clone(), masks.clone()
    if where != 'mask':
        bad_classes[1, 2] = torch.nan
    if where != 'class':
        bad_masks[1, 3] = torch.nan
    bad = evaluate(MaskOutput(bad_classes, bad_masks, (4, 4)), name, options)
    assert int(good.sanitized) == 0
    assert int(bad.sanitized) == {'class': 1, 'mask': 4, 'both': 5}[where]
    assert bad.score.isfinite().all()
    assert (bad.score[3] > good.score[3]).all() and torch.equal(bad.score[:2], good.score[:2])


def test_infinite_values_are_repaired_as_specified():
    masks = torch.full((1, 1, 2), FAR)
    several = torch.tensor([[torch.inf, torch.inf, 0.0]])
    assert score_map('plain', several, masks)[0].tolist() == [1, 1]
    single = torch.tensor([[torch.inf, 0.0, -torch.inf]])
    assert score_map('plain', single, masks)[0].tolist() == [0, 0]
    half = torch.tensor([[[torch.inf, -torch.inf]]])
    assert score_map('plain', single, half)[0].tolist() == [0, 1]


def test_without_repair_nan_goes_through():
    classes, masks = one_hot_logits(0), torch.full((1, 1, 3), FAR)
    masks[0, 0, 0] = torch.nan
    score = score_map('plain', classes, masks, sanitize_inputs=False)
    assert score[0, 0].isnan() and score[0, 2] == 0


def test_broken_pixel_logits_count_as_no_evidence():
    logits = torch.zeros(3, 1, 2)
    logits[0] = 5.0
    logits[:, 0, 1] = torch.nan
    result = evaluate(PixelOutput(logits, (1, 2)), 'max_entropy')
    assert int(result.sanitized) == 3
    assert result.score[0, 1].item() == pytest.approx(1) and result.score[0, 0] < 0.1


@pytest.mark.parametrize('name', MASKS_ONLY)
def test_query_scorers_refuse_pixel_models_before_the_first_frame(name):
    labels = LabelSet(('a', 'b'), ((0, 0, 0), (1, 1, 1)))
    with pytest.raises(ValueError, match=f'{name}.*choose one of.*max_entropy'):
        check(name, SCORERS[name].options(), kind='pixel', labels=labels)
    with pytest.raises(ValueError, match='choose one of'):
        evaluate(PixelOutput(torch.zeros(2, 1, 1), (1, 1)), name)


@pytest.mark.parametrize('name', BOTH_KINDS)
def test_semantic_scorers_take_pixel_models(name):
    check(name, SCORERS[name].options(), kind='pixel', labels=LabelSet((), ()))
    result = evaluate(PixelOutput(torch.randn(5, 3, 4), (6, 8)), name)
    assert result.score.shape == (6, 8) and result.score.isfinite().all()


@pytest.mark.parametrize(
    'scorer, options, kind, words',
    [
        ('msp', {'temperature_target': 'class_logits'}, 'pixel', 'scorers.msp.temperature_target'),
        ('msp', {'temperature_target': 'pixel_logits'}, 'mask', 'scorers.msp.temperature_target'),
        ('mask2anomaly', {}, 'mask', 'give the ids of its own classes'),
        ('mask2anomaly', {'refine_class_ids': (7,)}, 'mask', 'expected ids below 2'),
        (
            'mask2anomaly',
            {'refine_mode': 'paper', 'score_includes_kept': False},
            'mask',
            'paper_class_ids',
        ),
    ],
)
def test_options_that_cannot_work_are_refused_with_the_remedy(scorer, options, kind, words):
    labels = LabelSet(('a', 'b'), ((0, 0, 0), (1, 1, 1)))
    with pytest.raises(ValueError, match=words):
        check(scorer, build_options(SCORERS[scorer].options, options), kind=kind, labels=labels)


@pytest.mark.parametrize(
    'call, words',
    [
        (lambda: score_map('nonsense', torch.zeros(1, 2), torch.zeros(1, 1, 1)), 'choose one of'),
        (
            lambda: score_map('msp', torch.zeros(1, 2), torch.zeros(1, 1, 1), temperature=0.0),
            'temperature',
        ),
        (
            lambda: score_map('msp', torch.zeros(1, 2), torch.zeros(1, 1, 1), tau=0.1),
            "unknown option 'scorers.msp.tau'",
        ),
        (
            lambda: score_map('s2', torch.zeros(1, 2), torch.zeros(1, 1, 1), accept_fill='twist'),
            'accept_fill',
        ),
        (
            lambda: score_map('plain', torch.zeros(2, 2), torch.zeros(1, 1, 1)),
            r'class_logits \[Q,K\+1\]',
        ),
        (
            lambda: score_map('plain', torch.zeros(1, 2), torch.zeros(1, 1, 1), upsample='score'),
            'upsample',
        ),
        (
            lambda: score_map(
                'maskomaly', torch.zeros(1, 2), torch.zeros(1, 1, 1), accept_query_ids=(4,)
            ),
            'ids below 1',
        ),
        (
            lambda: evaluate(
                MaskOutput(torch.zeros(1, 2), torch.zeros(1, 1, 1), (1, 1)),
                'plain',
                extras=('what',),
            ),
            "no map 'what'; choose one of",
        ),
    ],
)
def test_wrong_calls_say_what_was_expected(call, words):
    with pytest.raises((ValueError, TypeError), match=words):
        call()


def test_ids_may_come_as_text():
    options = build_options(SCORERS['maskomaly'].options, {'accept_query_ids': '3, 4'})
    assert options.accept_query_ids == (3, 4)
    with pytest.raises(TypeError, match='accept_query_ids: expected int'):
        build_options(SCORERS['maskomaly'].options, {'accept_query_ids': ('x',)})


@pytest.mark.parametrize(
    'change',
    [
        lambda a: a[..., ::-1][..., ::-1],
        lambda a: np.asfortranarray(a),
        lambda a: a.astype(np.float64),
        lambda a: a.tolist(),
    ],
)
def test_arrays_of_any_layout_are_taken(change):
    classes, masks = (part.numpy() for part in two_queries())
    expected = score_map('rba', classes, masks, (3, 8))
    found = score_map('rba', change(classes), change(masks), np.array([3, 8]))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.filterwarnings('error')
def test_read_only_arrays_and_tensors_with_gradients_are_taken():
    classes, masks = (part.numpy() for part in two_queries())
    classes.flags.writeable = masks.flags.writeable = False
    expected = score_map('s2', classes, masks)
    tracked = [torch.tensor(part, requires_grad=True) for part in (classes, masks)]
    score = score_map('s2', *tracked)
    assert not score.requires_grad
    score += 1  # an ordinary tensor, free to be used
    np.testing.assert_allclose(score - 1, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize('size', [(0, 4), (3,), (4, 4, 4)])
def test_sizes_that_are_none_are_refused(size):
    with pytest.raises(ValueError, match='image_size'):
        score_map('plain', *two_queries(), size)


def test_arrays_give_arrays_and_tensors_give_tensors():
    classes, masks = two_queries()
    as_array = score_map('plain', classes.numpy(), masks.numpy())
    assert isinstance(as_array, np.ndarray) and as_array.dtype == np.float32
    np.testing.assert_array_equal(as_array, score_map('plain', classes, masks).numpy())


def test_defaults_are_those_of_the_specification():
    defaults = {
        f'{name}.{item.name}': item.default
        for name in SCORERS.names()
        for item in options_of(SCORERS[name].options)
    }
    published = {
        'msp.temperature': 1.0,
        'msp.temperature_target': 'semantic',
        'max_entropy.normalize_entropy': True,
        'msp.include_void_channel': True,
        's2.tau': 0.01,
        's2.temperature': 1.0,
        's2.lam': 0.6,
        's2.eps': 1e-8,
        's2.accept_fill': 0.0,
        's2.drop_void_queries': False,
        'mask2anomaly.refine_mode': 'code',
        'mask2anomaly.refine_min_kept': 2,
        'mask2anomaly.refine_conf': 0.95,
        'mask2anomaly.refine_mask_thresh': 0.5,
        'mask2anomaly.refine_class_ids': tuple(range(2, 11)),
        'mask2anomaly.score_includes_kept': True,
        'maskomaly.conf': 0.7,
        'maskomaly.border_thresh': 0.1,
        'maskomaly.lam': 0.6,
        'maskomaly.accept_query_ids': (),
        'maskomaly.ground_query_ids': (),
        'maskomaly.strict': False,
        'eam.clip_unit': False,
    }
    assert published.items() <= defaults.items()
