# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Folders of training runs: nobody's model is replaced, damaged checkpoints are one line."""

import pytest
import torch

from road_anomaly_ros import files
from road_anomaly_ros.perception import heads
from road_anomaly_ros.training import checkpoints, network, parallel

CPU = torch.device('cpu')


@pytest.mark.parametrize('name', [*network.FILES, heads.WEIGHTS, heads.INFO])
def test_a_model_of_no_run_is_left_alone(tmp_path, name):
    (tmp_path / name).write_bytes(b'downloaded')
    made = (*network.FILES, heads.WEIGHTS, heads.INFO)
    for resume in (False, True):
        with pytest.raises(ValueError, match=rf'{name} is of no run .* would be replaced'):
            checkpoints.check_folder(tmp_path, resume, made)
    (tmp_path / checkpoints.NAME).write_bytes(b'')
    checkpoints.check_folder(tmp_path, True, made)
    with pytest.raises(ValueError, match='holds a run already'):
        checkpoints.check_folder(tmp_path, False, made)


@pytest.mark.parametrize('content', [b'', b'PK\x03\x04 cut off', None, {'model': 1}, [1]])
def test_a_checkpoint_that_is_none_is_one_line(tmp_path, content):
    path = tmp_path / checkpoints.NAME
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ValueError, match='damaged or of something else') as raised:
        checkpoints.read(path, CPU, ('model', 'step'))
    assert '\n' not in str(raised.value) and str(path) in str(raised.value)


def test_a_checkpoint_comes_back(tmp_path):
    torch.save({'model': {'a': torch.ones(2)}, 'step': 3}, tmp_path / checkpoints.NAME)
    state = checkpoints.read(tmp_path / checkpoints.NAME, CPU, ('model', 'step'))
    assert state['step'] == 3 and state['model']['a'].tolist() == [1, 1]


def test_one_run_at_a_time_has_a_folder_but_for_its_members(tmp_path, monkeypatch):
    with files.alone(tmp_path), pytest.raises(ValueError, match='another run is writing there'):
        checkpoints.alone(tmp_path).__enter__()
    monkeypatch.setattr(parallel, 'by_torchrun', lambda: True)
    with checkpoints.alone(tmp_path / 'out'), checkpoints.alone(tmp_path / 'out'):
        assert (tmp_path / 'out').is_dir()
