# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Values of every term of the loss, small enough to check by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from road_anomaly_ros.training import label_sets, targets

LN2, LN19, LN20 = math.log(2), math.log(19), math.log(20)
IGNORE = label_sets.IGNORE
STRUCTURE = label_sets.CODES['structure']  # building (2) or wall (3)


def loss(weights=None) -> targets.SegmentationLoss:
    return targets.SegmentationLoss(torch.ones(19) if weights is None else weights)


def logits(**certain: float) -> torch.Tensor:
    """Mask logits [1,19,1,1]: 0, or -40 beside those that are named, as in c3=40."""
    values = torch.full((19,), -40.0 if certain else 0.0)
    for name, value in certain.items():
        values[int(name[1:])] = value
    return values.view(1, 19, 1, 1)


def terms(values: torch.Tensor, code: int, unknown: bool = False) -> dict[str, float]:
    plane = torch.full((1, 1, 1), code)
    found = loss()._mask_losses(values, plane, torch.full((1, 1, 1), unknown), dice=True)
    return {name: value.item() for name, value in found.items()}


@pytest.mark.parametrize(
    ('values', 'code', 'unknown', 'expected'),
    [
        # even logits: ln K, K logistic losses of ln 2, Dice 1 - (2 * .5 + 1) / (.5 + 1 + 1)
        (logits(), 0, False, {'pixel': LN19, 'binary': 19 * LN2, 'dice': 0.2}),
        # certain and right, certain and wrong
        (logits(c0=40.0), 0, False, {'pixel': 0, 'binary': 0, 'dice': 0}),
        (logits(c1=40.0), 0, False, {'pixel': 80, 'binary': 80, 'dice': 0.5}),
        # nothing known: nothing learned
        (logits(c1=3.0), IGNORE, False, {'pixel': 0, 'binary': 0, 'dice': 0}),
        # known to be of no class: every query is to stay away
        (logits(), IGNORE, True, {'pixel': 0, 'binary': 19 * LN2, 'dice': 0}),
        (logits(c7=40.0), IGNORE, True, {'pixel': 0, 'binary': 40, 'dice': 0}),
        # one of two classes: their sum is learned, neither of the two is judged alone
        (logits(), STRUCTURE, False, {'pixel': LN19 - LN2, 'binary': 17 * LN2, 'dice': 0}),
        (logits(c2=40.0), STRUCTURE, False, {'pixel': 0, 'binary': 0, 'dice': 0}),
        (logits(c3=40.0), STRUCTURE, False, {'pixel': 0, 'binary': 0, 'dice': 0}),
        (logits(c0=40.0), STRUCTURE, False, {'pixel': 80 - LN2, 'binary': 40, 'dice': 0}),
    ],
)
def test_mask_losses(values, code, unknown, expected):
    assert terms(values, code, unknown) == pytest.approx(expected, abs=1e-4)


def test_class_weights_scale_the_pixel_term_only_relatively():
    weights = torch.ones(19)
    weights[0] = 3
    values = torch.cat([logits(), logits(c1=40.0)], 3)
    codes = torch.tensor([[[0, 1]]])
    assert loss(weights)._pixel(values, codes).item() == pytest.approx(3 * LN19 / 4)
    # A pixel of several classes counts as one.
    codes = torch.tensor([[[0, STRUCTURE]]])
    found = loss(weights)._pixel(torch.cat([logits(), logits(c2=40.0)], 3), codes).item()
    assert found == pytest.approx(3 * LN19 / 4)


def test_class_weights():
    assert targets.class_weights([0.5, 0.5]).tolist() == [1, 1]
    assert targets.class_weights([0.8, 0.2], power=0.5).tolist() == pytest.approx([5 / 6, 5 / 3])
    assert torch.isfinite(targets.class_weights([1.0, 0.0])).all()


def test_presence():
    codes = torch.tensor([[[0] * 4, [1] * 3 + [IGNORE]]])
    present = loss()._present(codes)
    assert present.tolist() == [[True] + [False] * 18]
    assert targets._presence_loss(torch.zeros(1, 19, 20), present).item() == pytest.approx(LN20)
    said = torch.zeros(1, 19, 20)
    said[0, 0, 0] = 40
    said[0, 1:, 19] = 40
    assert targets._presence_loss(said, present).item() == pytest.approx(0, abs=1e-6)
    assert targets._presence_loss(said.roll(1, 2), present).item() == pytest.approx(40, abs=1e-4)


def test_whole_loss_is_the_weighted_sum_and_counts_earlier_layers():
    codes, unknown = torch.zeros(1, 2, 2, dtype=torch.int64), torch.zeros(1, 2, 2, dtype=bool)
    output = torch.zeros(1, 19, 20), torch.zeros(1, 19, 1, 1)
    dice = 1 - (2 * 2 + 1) / (2 + 4 + 1)
    last = LN19 + 19 * LN2 + dice + 0.3 * LN20
    assert loss()(*output, codes, unknown).item() == pytest.approx(last)
    layer = {'class_queries_logits': output[0], 'masks_queries_logits': output[1]}
    found = loss()(*output, codes, unknown, auxiliary=[layer, layer])
    assert found.item() == pytest.approx(last + 0.3 * (LN19 + 19 * LN2 + 0.3 * LN20))


def anomaly(values, truth, weights=None) -> float:
    truth = torch.tensor([truth], dtype=torch.uint8)
    weights = torch.ones(truth.shape) if weights is None else torch.tensor([weights])
    return targets.anomaly_loss(torch.tensor([values]), truth, weights.half()).item()


@pytest.mark.parametrize(
    ('values', 'truth', 'weights', 'expected'),
    [
        # strange pixels count three times; the worst normal one counts 0.3 once more
        ([[0.0, 0.0], [0.0, 0.0]], [[0, 0], [0, 1]], None, (3 + 3) * LN2 / 4 + 0.3 * LN2),
        (
            [[0.0, 0.0], [0.0, 0.0]],
            [[0, 0], [0, 1]],
            [[1.0, 1.0], [1.0, 2.0]],
            (3 + 6) * LN2 / 4 + 0.3 * LN2,
        ),
        (
            [[-40.0, -40.0], [-40.0, 5.0]],
            [[0, 0], [0, 0]],
            None,
            (1 / 4 + 0.3) * math.log1p(math.exp(5)),
        ),
        ([[-40.0, 40.0]], [[0, 1]], None, 0),
        ([[0.0, 9.0]], [[0, IGNORE]], None, 1.3 * LN2),
        ([[0.0, 0.0]], [[1, 1]], None, 3 * LN2),
        ([[3.0, 3.0]], [[IGNORE, IGNORE]], None, 0),
    ],
)
def test_anomaly_loss(values, truth, weights, expected):
    assert anomaly(values, truth, weights) == pytest.approx(expected, abs=1e-4)


def test_the_logit_is_judged_at_the_size_of_the_truth():
    assert anomaly([[40.0]], [[1, 1], [1, 1]]) == pytest.approx(0, abs=1e-6)
    assert anomaly([[-40.0, 40.0]], [[0, 0, 1, 1]] * 2) == pytest.approx(0, abs=1e-3)


def test_loss_of_heads_as_in_the_published_code(golden):
    case = golden('anomaly_heads')['a']
    parts = [
        torch.from_numpy(np.asarray(case[f'loss_{name}'])) for name in ('logit', 'target', 'valid')
    ]
    for ignore, name in ((True, 'loss_v2_valid_pixels'), (False, 'loss_v1_all_pixels')):
        found = targets.head_loss(*parts, ignore_void=ignore)
        assert float(found) == pytest.approx(float(case[name]), rel=1e-5)
