# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from torch.nn import functional
from torchvision.transforms.v2 import functional as vision

from road_anomaly_ros.perception.contract import MaskOutput, WindowedOutput
from road_anomaly_ros.perception.scorers import evaluate
from road_anomaly_ros.perception.windows import merge_windows, plan_windows


@pytest.mark.parametrize('case', ['wide', 'tall', 'exact2'])
def test_golden_windows(golden, case):
    vectors = golden('windowing')[case]
    image = torch.from_numpy(vectors['image'])
    plan = plan_windows(tuple(image.shape[1:]), tuple(vectors['img_size'].tolist()))
    assert plan.scaled_size == tuple(vectors['scaled_size'])
    assert [max(offset) for offset in plan.offsets] == vectors['origins'][:, 1].tolist()
    scaled = vision.resize(image[None], list(plan.scaled_size), antialias=True)
    difference = plan.cut(scaled).to(int) - torch.from_numpy(vectors['crops']).to(int)
    assert difference.abs().max() <= 1
    merged = merge_windows(
        torch.from_numpy(vectors['crop_logits']), plan.offsets, plan.scaled_size
    )
    merged = functional.interpolate(merged[None], size=tuple(image.shape[1:]), mode='bilinear')[0]
    np.testing.assert_allclose(merged, vectors['merged'], atol=1e-5)


def test_a_square_image_is_one_window():
    plan = plan_windows((50, 50), (20, 20))
    assert (plan.scaled_size, plan.offsets, plan.window) == ((20, 20), ((0, 0),), (20, 20))


@pytest.mark.parametrize('size', [(1, 1), (7, 5), (3, 40), (721, 1281)])
def test_windows_cover_every_pixel_within_the_image(size):
    plan = plan_windows(size, (32, 32))
    ones = [torch.ones(1, *plan.window)] * len(plan.offsets)
    assert merge_windows(ones, plan.offsets, plan.scaled_size).eq(1).all()
    assert all(
        top + plan.window[0] <= plan.scaled_size[0]
        and left + plan.window[1] <= plan.scaled_size[1]
        for top, left in plan.offsets
    )


def test_overlaps_are_averaged():
    # Two windows of width 2 on a row of 3 pixels: the middle one is seen by both.
    maps = [torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[4.0, 8.0]]])]
    merged = merge_windows(maps, [(0, 0), (0, 1)], (1, 3))
    assert merged.tolist() == [[[1.0, 3.0, 8.0]]]


def test_windows_outside_of_the_image_are_refused():
    window = MaskOutput(torch.zeros(1, 2), torch.zeros(1, 2, 2), (4, 4))
    WindowedOutput((window,), ((0, 2),), (4, 6), (9, 9))
    with pytest.raises(ValueError, match='outside'):
        WindowedOutput((window,), ((0, 3),), (4, 6), (9, 9))
    with pytest.raises(ValueError, match='one offset'):
        WindowedOutput((window,), (), (4, 6), (9, 9))


@pytest.mark.parametrize('name', ['plain', 'max_entropy', 's2'])
def test_without_repair_a_nan_in_a_window_stays_where_it_is(name):
    """A product along the row would carry it to every column."""
    torch.manual_seed(0)
    windows = [MaskOutput(torch.randn(5, 4), torch.randn(5, 8, 8), (16, 16)) for _ in range(2)]
    whole = WindowedOutput(tuple(windows), ((0, 0), (0, 16)), (16, 32), (32, 64))
    clean = evaluate(whole, name, sanitize=False).score
    windows[0].mask_logits[:, 0, 0] = torch.nan
    broken = evaluate(whole, name, sanitize=False).score
    assert broken[0, 0].isnan() and broken[8:].isfinite().all() and broken[:, 8:].isfinite().all()
    torch.testing.assert_close(broken[8:], clean[8:])
    assert int(evaluate(whole, name).sanitized) == 5
