# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Learning rate, averaged weights and the orthogonal updates."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from road_anomaly_ros.training import optimizer, schedule


@pytest.mark.parametrize(
    ('step', 'rate'),
    [(0, 0.005), (99, 0.5), (199, 1), (799, 1), (800, 1), (900, 0.505), (999, 0.01 + 0.99 / 200)],
)
def test_rate(step, rate):
    assert schedule.rate_at(step, 1000, peak=1.0, fall=200, floor=0.01) == pytest.approx(rate)


def test_rate_does_not_know_the_end_before_the_fall():
    short, long = (
        [schedule.rate_at(step, steps, peak=0.002, fall=100) for step in range(1000)]
        for steps in (600, 1000)
    )
    assert short[:501] == long[:501]
    assert short[501] < long[501]


def test_average():
    model, average = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    with torch.no_grad():
        model.weight.fill_(3.0)
    model.running_mean.fill_(10.0)
    schedule.average_into(average, model, 0, decay=0.9)
    assert average.weight.item() == pytest.approx(0.1 * 1 + 0.9 * 3)  # (1 + 0) / (10 + 0) kept
    schedule.average_into(average, model, 10**6, decay=0.5)
    assert average.weight.item() == pytest.approx((2.8 + 3) / 2)
    assert average.running_mean.item() == pytest.approx(9.5)


@pytest.mark.parametrize('shape', [(4, 9), (9, 4), (1, 6)])
def test_orthogonal_updates(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(optimizer.orthogonalise(matrix))
    assert values.min() > 0.5 and values.max() < 1.4
    assert torch.linalg.svdvals(matrix).max() > 1.4


def test_update_has_the_size_of_an_adam_step():
    kernel = nn.Parameter(torch.zeros(8, 4, 3, 3))
    kernel.grad = torch.randn(kernel.shape, generator=torch.Generator().manual_seed(0)) * 1e-4
    optimizer.Muon([kernel], lr=1.0).step()
    assert kernel.detach().square().mean().sqrt().item() == pytest.approx(0.2, rel=0.3)


def test_every_weight_is_optimised_once():
    model = nn.ModuleDict(
        {
            '_backbone': nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),
            'decoder': nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1)),
            'queries': nn.Embedding(2, 4),
            'level_embed': nn.Embedding(3, 4),
        }
    )
    parts = optimizer.make_optimizers(model, rate=0.1, decay=0.5)
    groups = [group for part in parts for group in part.param_groups]
    owned = [weight for group in groups for weight in group['params']]
    assert sorted(map(id, owned)) == sorted(map(id, model.parameters()))
    settings = {
        id(weight): (group['weight_decay'], group['share'])
        for group in groups
        for weight in group['params']
    }
    found = {name: settings[id(weight)] for name, weight in model.named_parameters()}
    assert found == {
        '_backbone.0.weight': (0.5, 0.2),
        '_backbone.0.bias': (0, 0.2),
        '_backbone.1.weight': (0, 0.2),
        '_backbone.1.bias': (0, 0.2),
        'decoder.0.weight': (0.5, 2),
        'decoder.0.bias': (0, 1),
        'decoder.1.weight': (0.5, 1),
        'decoder.1.bias': (0, 1),
        'queries.weight': (0, 1),
        'level_embed.weight': (0, 1),
    }
    assert [type(part).__name__ for part in parts] == ['Muon', 'AdamW']
    assert parts[0].param_groups[0]['params'] == [model['decoder'][0].weight]
    optimizer.set_rate(parts, 0.01)
    assert [group['lr'] for group in groups] == pytest.approx([0.02, 0.01, 0.002, 0.002, 0.01])
