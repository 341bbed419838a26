# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Learning rate, curriculum, averaged weights and the orthogonal updates."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from road_anomaly_ros.training import optimizer, schedule


@pytest.mark.parametrize('step, rate', [
    (0, .25), (3, 1.0), (51, .505), (99, .01),
])
def test_rate(step, rate):
    assert schedule.rate_at(step, 100, peak=1.0, warm=.04, floor=.01) == pytest.approx(rate)


def test_curriculum_grows_to_the_frame():
    curriculum = schedule.stages((352, 480), 8)
    sizes = [schedule.spec_at(curriculum, step, 100).size for step in (0, 39, 40, 74, 75, 99)]
    assert sizes == [(192, 256)] * 2 + [(256, 352)] * 2 + [(320, 448)] * 2
    assert [stage.spec.share(2).batch for stage in curriculum] == [6, 4, 3]
    assert curriculum[-1].spec.share(100).batch == 1


def test_average():
    model, average = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    with torch.no_grad():
        model.weight.fill_(3.0)
    model.running_mean.fill_(10.0)
    schedule.average_into(average, model, 0, decay=.9)
    assert average.weight.item() == pytest.approx(.1 * 1 + .9 * 3)      # (1 + 0) / (10 + 0) kept
    schedule.average_into(average, model, 10 ** 6, decay=.5)
    assert average.weight.item() == pytest.approx((2.8 + 3) / 2)
    assert average.running_mean.item() == pytest.approx(9.5)


@pytest.mark.parametrize('shape', [(4, 9), (9, 4), (1, 6)])
def test_orthogonal_updates(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(optimizer.orthogonalise(matrix))
    assert values.min() > .5 and values.max() < 1.4
    assert torch.linalg.svdvals(matrix).max() > 1.4


def test_update_has_the_size_of_an_adam_step():
    kernel = nn.Parameter(torch.zeros(8, 4, 3, 3))
    kernel.grad = torch.randn(kernel.shape, generator=torch.Generator().manual_seed(0)) * 1e-4
    optimizer.Muon([kernel], lr=1.0).step()
    assert kernel.detach().square().mean().sqrt().item() == pytest.approx(.2, rel=.3)


def test_every_weight_is_optimised_once():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1))
    parts = optimizer.make_optimizers(model, rate=.1, decay=.5)
    groups = [group for part in parts for group in part.param_groups]
    owned = [weight for group in groups for weight in group['params']]
    assert sorted(map(id, owned)) == sorted(map(id, model.parameters()))
    assert [group['weight_decay'] for group in groups] == [.5, .5, 0]
    optimizer.set_rate(parts, .01)
    assert [group['lr'] for group in groups] == [.02, .01, .01]
