# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The head that is trained with its segmenter: running form, score, what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import tiny_models
import torch

from road_anomaly_ros.perception import heads, model_files, scorers
from road_anomaly_ros.perception.contract import MaskOutput, PipelineError, Pyramid
from road_anomaly_ros.perception.heads import GridHead, HeadInfo
from road_anomaly_ros.perception.pipeline import Pipeline


def new_head(channels: int = 6, hidden: tuple[int, int] = (10, 5)) -> GridHead:
    torch.manual_seed(0)
    return tiny_models.roughen(GridHead(channels, hidden))


def store(folder: Path, head: GridHead, **changes) -> Path:
    info = HeadInfo('head_v3', '', 'pixel_decoder', head.channels, 0, (10, 5))
    heads.save_head(folder, dataclasses.replace(info, **changes), head)
    return folder


def output(features) -> MaskOutput:
    generator = torch.Generator().manual_seed(1)
    classes, masks = (torch.randn(shape, generator=generator) for shape in ((4, 6), (4, 8, 12)))
    return MaskOutput(classes, masks, (30, 47), features)


def planes(channels: int = 6, size: tuple[int, int] = (8, 12)) -> torch.Tensor:
    return torch.randn(channels, *size, generator=torch.Generator().manual_seed(2))


@pytest.fixture(params=['loops', 'torch'], autouse=True)
def way(request, monkeypatch):
    if request.param == 'torch':
        monkeypatch.setattr(heads, 'loops', None)
    elif heads.loops is None:
        pytest.skip('the compiled loops need numba')


@pytest.mark.parametrize('size', [(8, 12), (41, 53)], ids=['one thread', 'several'])
@pytest.mark.parametrize('innermost', [True, False], ids=['channels', 'columns'])
def test_running_form_equals_the_module(tmp_path, innermost, size):
    head, features = new_head(), planes(size=size)
    running = heads.load_head(store(tmp_path, head))
    assert isinstance(running, heads.RunningGridHead)
    given = features.permute(1, 2, 0).contiguous().permute(2, 0, 1) if innermost else features
    with torch.no_grad():
        expected = head(features[None])[0]
    torch.testing.assert_close(running.visual(given), expected, rtol=1e-5, atol=1e-5)
    assert expected.shape == (1, *size) and float(expected.std()) > 1e-3


@pytest.mark.parametrize('broken', [float('nan'), float('inf'), -float('inf')])
def test_a_cell_that_is_not_finite_is_strange(tmp_path, broken):
    running, features = heads.load_head(store(tmp_path, new_head())), planes()
    whole = running.visual(features)
    features[:, 3, 5] = broken
    features[0, 3, 5] = float('nan')
    found = running.visual(features)
    assert found[0, 3, 5] == 1e4
    found[0, 3, 5] = whole[0, 3, 5]
    assert torch.equal(found, whole)
    score = scorers.evaluate(output(features), 'head_v3', {'checkpoint': str(tmp_path)}).score
    assert bool(torch.isfinite(score).all()) and float(score[13, 21]) > 0.99


def test_score_is_the_sigmoid_of_the_resized_logit(tmp_path):
    head, features = new_head(), planes()
    store(tmp_path, head)
    found = scorers.evaluate(
        output(features), 'head_v3', {'checkpoint': str(tmp_path)}, extras=['logit']
    )
    with torch.no_grad():
        logit = torch.nn.functional.interpolate(
            head(features[None]), size=(30, 47), mode='bilinear', align_corners=False
        )[0, 0]
    torch.testing.assert_close(found.extras['logit'], logit, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.score, logit.sigmoid(), rtol=1e-4, atol=1e-5)
    plain = scorers.evaluate(output(features), 'plain')
    assert torch.equal(found.labels, plain.labels)


def test_of_two_scales_it_lies_between_mean_and_maximum(tmp_path):
    head, fine = new_head(), planes()
    running = heads.load_head(store(tmp_path, head))
    coarse = fine[:, ::2, ::2] * 2 - 0.1
    with torch.no_grad():
        first = head(fine[None])[0]
        second = torch.nn.functional.interpolate(
            head(coarse[None]), size=(8, 12), mode='bilinear', align_corners=False
        )[0]
    high, low = torch.maximum(first, second), torch.minimum(first, second)
    found = running.visual(Pyramid((fine, coarse), (8, 12)))
    torch.testing.assert_close(found, 0.75 * high + 0.25 * low, rtol=1e-4, atol=1e-4)
    assert float((high - low).abs().max()) > 1e-3


def test_a_block_without_features_is_refused(tmp_path):
    running = heads.load_head(store(tmp_path, new_head()))
    with pytest.raises(ValueError, match="reads the features 'pixel_decoder'"):
        running.logits(torch.zeros(1, 30, 47))


@pytest.mark.parametrize(
    ('features', 'message'),
    [
        (None, "reads the features 'pixel_decoder', but the segmenter gave none"),
        (planes(5), 'expected features of 6 channels, got 5'),
        (Pyramid((planes(), planes(4)), (8, 12)), 'expected features of 6 channels, got 4'),
    ],
)
def test_other_features_are_refused(tmp_path, features, message):
    with pytest.raises(ValueError, match=message) as caught:
        scorers.evaluate(
            output(features), 'head_v3', {'checkpoint': str(store(tmp_path, new_head()))}
        )
    assert '\n' not in str(caught.value)


def test_damaged_heads_give_one_line(tmp_path):
    store(tmp_path / 'a', new_head(), hidden=(8, 8))
    with pytest.raises(PipelineError, match='do not fit'):
        heads.load_head(tmp_path / 'a')
    store(tmp_path / 'b', new_head())
    tree = json.loads((tmp_path / 'b' / heads.INFO).read_text())
    (tmp_path / 'b' / heads.INFO).write_text(json.dumps({**tree, 'channels': 0}))
    with pytest.raises(PipelineError, match='describes no anomaly head'):
        heads.load_head(tmp_path / 'b')


def test_the_head_beside_the_model_runs_in_the_chain(tmp_path, image):
    tiny_models.mask2former(tmp_path)
    head = new_head(32)
    store(
        tmp_path / heads.FOLDER / 'head_v3', head, segmenter=model_files.weights_digest(tmp_path)
    )
    found = Pipeline.from_config(model=str(tmp_path), scorer='head_v3', device='cpu')(image)
    assert found.threshold == 0.5 and found.score.shape == image.shape[:2]
    assert bool(((found.score >= 0) & (found.score <= 1)).all()) and float(found.score.std()) > 0


def test_a_head_on_another_device_leaves_the_one_on_the_cpu_alone(tmp_path):
    head, features = heads.load_head(store(tmp_path, new_head())), planes()
    before = head.visual(features)
    assert head.to(torch.device('meta')).visual(features.to('meta')).device.type == 'meta'
    assert head.to(torch.device('cpu')) is head
    assert torch.equal(head.visual(features), before)
