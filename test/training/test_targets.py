# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Values of every term of the loss, small enough to check by hand."""

from __future__ import annotations

import math

import pytest
import torch

from road_anomaly_ros.training import targets

LN2, LN3 = math.log(2), math.log(3)


def entropy(share: float) -> float:
    return -share * math.log(share) - (1 - share) * math.log(1 - share)


def plane(first: int, second: int | None = None, share: int = 255) -> torch.Tensor:
    """Labels [1,3,1,1] of one pixel."""
    second = first if second is None else second
    return torch.tensor([first, second, share], dtype=torch.uint8).view(1, 3, 1, 1)


def terms(logits: list[float], labels: torch.Tensor, weights=(1.0, 1.0)) -> dict[str, float]:
    truth, hard = targets.blended_targets(labels, 2)
    found = targets.mask_losses(torch.tensor(logits).view(1, 2, 1, 1), truth, hard,
                                torch.tensor(weights))
    return {name: value.item() for name, value in found.items()}


@pytest.mark.parametrize('labels, truth, hard', [
    (plane(0), [1, 0], 0),
    (plane(1), [0, 1], 1),
    (plane(255), [0, 0], 255),
    (plane(0, 1, 102), [.16, .36], 255),
    (plane(1, 1, 102), [0, 1], 1),
    (plane(0, 255, 102), [0, 0], 255),
])
def test_blended_targets(labels, truth, hard):
    soft, hard_found = targets.blended_targets(labels, 2)
    assert soft.flatten().tolist() == pytest.approx(truth)
    assert hard_found.item() == hard


@pytest.mark.parametrize('logits, labels, expected', [
    # even logits: ln K, two logistic losses of ln 2, Dice 1 - (2 * .5 + 1) / (.5 + 1 + 1)
    ([0., 0.], plane(0), {'pixel': LN2, 'binary': 2 * LN2, 'dice': .2}),
    # certain and right, certain and wrong
    ([40., -40.], plane(0), {'pixel': 0, 'binary': 0, 'dice': 0}),
    ([-40., 40.], plane(0), {'pixel': 80, 'binary': 80, 'dice': .5}),
    # nothing known: nothing learned
    ([3., -1.], plane(255), {'pixel': 0, 'binary': 0, 'dice': 0}),
    # two fifths and three fifths: no hard label, targets .16 and .36, which these logits meet
    ([math.log(.16 / .84), math.log(.36 / .64)], plane(0, 1, 102),
     {'pixel': 0, 'binary': entropy(.16) + entropy(.36)}),
])
def test_mask_losses(logits, labels, expected):
    found = terms(logits, labels)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-4)


def test_class_weights_scale_the_pixel_term_only_relatively():
    labels = torch.cat([plane(0), plane(1)], 3)
    truth, hard = targets.blended_targets(labels, 2)
    logits = torch.tensor([[0., -40.], [0., 40.]]).view(1, 2, 1, 2)
    found = targets.mask_losses(logits, truth, hard, torch.tensor([3., 1.]))
    assert found['pixel'].item() == pytest.approx(3 * LN2 / 4)


def test_class_weights():
    assert targets.class_weights([.5, .5]).tolist() == [1, 1]
    assert targets.class_weights([.8, .2], power=.5).tolist() == pytest.approx([5 / 6, 5 / 3])
    assert torch.isfinite(targets.class_weights([1., 0.])).all()


def test_presence():
    labels = torch.tensor([[[0] * 4, [1] * 3 + [255]]])
    present = targets.present_classes(labels, 2)
    assert present.tolist() == [[True, False]]
    assert targets.presence_loss(torch.zeros(1, 2, 3), present).item() == pytest.approx(LN3)
    said = torch.tensor([[[40., 0, 0], [0, 0, 40.]]])
    assert targets.presence_loss(said, present).item() == pytest.approx(0, abs=1e-6)
    assert targets.presence_loss(said.flip(2), present).item() == pytest.approx(40)


def test_whole_loss_is_the_weighted_sum_and_counts_earlier_layers():
    labels = plane(0).expand(1, 3, 2, 2)
    output = torch.zeros(1, 2, 3), torch.zeros(1, 2, 1, 1)
    dice = 1 - (2 * 2 + 1) / (2 + 4 + 1)
    last = LN2 + 2 * LN2 + dice + .3 * LN3
    found = targets.segmentation_loss(*output, labels, torch.ones(2)).item()
    assert found == pytest.approx(last)
    layer = {'class_queries_logits': output[0], 'masks_queries_logits': output[1]}
    found = targets.segmentation_loss(*output, labels, torch.ones(2), auxiliary=[layer, layer])
    assert found.item() == pytest.approx(last + .4 * (3 * LN2 + .3 * LN3))
