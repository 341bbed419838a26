# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Networks laid out for a device: half precision without a conversion per image."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_models
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from road_anomaly_ros.perception import devices
from road_anomaly_ros.perception.segmenters import SEGMENTERS, erfnet

CPU, CUDA = torch.device('cpu'), torch.device('cuda')


def write(kind, folder):
    if kind == 'erfnet':
        torch.manual_seed(0)
        torch.save(tiny_models.roughen(erfnet.ERFNet(20)).state_dict(), folder / 'erfnet.pth')
    elif kind == 'swin':
        tiny_models.mask2former(folder, backbone='swin')
    else:
        getattr(tiny_models, kind)(folder)
    return 'mask2former' if kind == 'swin' else kind


def outputs(segmenter):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 96), np.uint8)
    (found,) = segmenter([torch.from_numpy(pixels)])
    return [
        values
        for part in getattr(found, 'windows', [found])
        for values in vars(part).values()
        if isinstance(values, torch.Tensor)
    ]


class Conversions(TorchDispatchMode):
    """Counts the weights that are turned into another arithmetic."""

    def __init__(self, weights):
        super().__init__()
        self.places, self.count = {weight.data_ptr() for weight in weights}, 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        found = function(*arguments, **(keywords or {}))
        name = function._schema.name.partition('::')[2]
        if name in ('to', '_to_copy') and found.dtype != arguments[0].dtype:
            self.count += arguments[0].data_ptr() in self.places
        return found


@pytest.mark.parametrize('kind', ['mask2former', 'swin', 'eomt', 'segformer', 'erfnet'])
def test_weights_are_turned_into_half_once_at_equal_results(kind, tmp_path, monkeypatch):
    entry = SEGMENTERS[write(kind, tmp_path)]
    given = {'device': CPU, 'precision': torch.bfloat16, 'options': entry.options()}
    once = entry.make(str(tmp_path), **given)
    with monkeypatch.context() as patch:
        patch.setattr(devices, '_PRODUCTS', ())
        every_time = entry.make(str(tmp_path), **given)
    for mine, own in zip(outputs(once), outputs(every_time), strict=True):
        assert mine.dtype == own.dtype and torch.equal(mine, own)
    counts = []
    for segmenter in (once, every_time):
        with Conversions(list(segmenter._network.parameters())) as conversions:
            outputs(segmenter)
        counts.append(conversions.count)
    assert counts[0] * 5 < counts[1]


def test_weights_stay_as_they_are_in_full_precision():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.LayerNorm(4))
    placed = devices.placed(network, CPU, torch.float32, torch.contiguous_format)
    assert {value.dtype for value in placed.parameters()} == {torch.float32}
    placed = devices.placed(network, CPU, torch.bfloat16, torch.channels_last)
    assert placed[0].weight.dtype == torch.bfloat16 and placed[1].weight.dtype == torch.float32
    assert placed[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert not any(value.requires_grad for value in placed.parameters())


def test_channels_lie_last_where_tensor_cores_read_them():
    assert devices.layout(CUDA, torch.float16) == torch.channels_last
    for device, precision in ((CUDA, torch.float32), (CPU, torch.float32), (CPU, torch.bfloat16)):
        assert devices.layout(device, precision) == torch.contiguous_format
