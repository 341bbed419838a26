# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""`bench --gpu` with tiny networks on the CPU, and what it says without a device."""

from __future__ import annotations

import json

import pytest
import tiny_models
import tiny_scenes
import torch

from road_anomaly_ros.evaluation import bench_gpu


def test_every_chain_is_measured_on_every_network(tmp_path, monkeypatch, capsys):
    def swin():
        return tiny_models.new_mask2former(tiny_models.new_backbone('swin'))

    tiny = {'tiny Mask2Former': ('mask2former', swin)}
    tiny['tiny EoMT'] = ('eomt', lambda: tiny_models.eomt(tmp_path / 'eomt'))
    monkeypatch.setattr(bench_gpu, 'NETWORKS', tiny)
    words = ['--device', 'cpu', '--size', '96x64', '--frames', 1, '-o', tmp_path / 'gpu.json']
    assert tiny_scenes.command('bench', '--gpu', *words) == 0
    document = json.loads((tmp_path / 'gpu.json').read_text())
    found = [
        (row['network'], row['cuda_graphs'], row['scorer'], *row['refinements'])
        for row in document['chains']
    ]
    chains = [('plain',), ('s2',), ('head_v2',), ('plain', 'variance_aware', 'oasc')]
    kinds = ('off', 'auto')
    assert found == [(name, kind, *chain) for name in tiny for chain in chains for kind in kinds]
    assert all(row['faults'] == {} for row in document['chains'])
    assert all(row['stages']['total']['p50'] > 0 for row in document['chains'])
    assert {row['scorer'] for row in document['dense']} == {'plain', 'eam', 's2'}
    told = capsys.readouterr().out
    for kind in kinds:
        assert f'| tiny EoMT | plain + variance_aware + oasc | {kind} |' in told


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a device')
def test_without_a_device_it_is_one_line(capsys):
    assert tiny_scenes.command('bench', '--gpu') == 2
    error = capsys.readouterr().err
    assert "device 'cuda' was asked for, but torch finds no CUDA here" in error
    assert error.count('\n') == 1
