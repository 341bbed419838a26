# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
import hashlib
import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import tiny_models
import torch
from safetensors.torch import load_file, save_file

from road_anomaly_ros.perception import devices, model_files, weights
from road_anomaly_ros.perception.contract import PipelineError
from road_anomaly_ros.perception.segmenters import mask2former

CPU = torch.device('cpu')


def load(folder):
    return mask2former.load(
        str(folder), device=CPU, precision=torch.float32, options=mask2former.Options()
    )


def refusal(action, *args):
    """The one line that a PipelineError says."""
    with pytest.raises(PipelineError) as caught:
        action(*args)
    assert '\n' not in str(caught.value)
    return str(caught.value)


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


@pytest.fixture
def folder(tmp_path):
    tiny_models.mask2former(tmp_path / 'model')
    return tmp_path / 'model'


def test_devices():
    assert devices.select_device('cpu') == CPU
    assert devices.select_device('auto').type == ('cuda' if torch.cuda.is_available() else 'cpu')
    for name in ('gpu', 'meta', 'cuda:x', ''):
        assert 'expected device' in refusal(devices.select_device, name)


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a CUDA device here')
def test_cuda_is_refused_where_there_is_none():
    assert "choose device 'cpu'" in refusal(devices.select_device, 'cuda')


def test_precisions():
    cuda = torch.device('cuda')
    assert devices.select_precision('auto', CPU) is torch.float32
    assert devices.select_precision('auto', cuda) is torch.float16
    assert devices.select_precision('bfloat16', CPU) is torch.bfloat16
    assert 'CUDA' in refusal(devices.select_precision, 'float16', CPU)
    assert 'int8' in refusal(devices.select_precision, 'int8', CPU)


def test_a_pickled_state_gives_the_same_outputs(folder, tmp_path):
    tiny_models.mask2former(tmp_path / 'pickled', safe=False)
    image = torch.arange(3 * 64 * 64).view(3, 64, 64).to(torch.uint8)
    first, second = load(folder)([image])[0], load(tmp_path / 'pickled')([image])[0]
    assert torch.equal(first.mask_logits, second.mask_logits)


def test_safetensors_are_preferred_to_pickles(folder, tmp_path):
    torch.save({'w': Bomb(tmp_path / 'exploded')}, folder / 'pytorch_model.bin')
    load(folder)
    assert not (tmp_path / 'exploded').exists()


def test_a_pickle_that_carries_code_is_refused(tmp_path):
    tiny_models.mask2former(tmp_path / 'model', safe=False)
    torch.save({'w': Bomb(tmp_path / 'exploded')}, tmp_path / 'model' / 'pytorch_model.bin')
    assert 'could not be loaded' in refusal(load, tmp_path / 'model')
    path = tmp_path / 'plain.pkl'
    path.write_bytes(pickle.dumps({'w': Bomb(tmp_path / 'exploded')}, protocol=2))
    assert 'could not be read' in refusal(weights.read_state, path)
    assert not (tmp_path / 'exploded').exists()


@pytest.mark.parametrize('kept', [0, 6, 500, -100])
def test_truncated_weights_are_refused(folder, kept):
    path = folder / 'model.safetensors'
    path.write_bytes(path.read_bytes()[:kept])
    assert 'could not be loaded' in refusal(load, folder)


def test_keys_that_do_not_match_are_named(folder):
    path = folder / 'model.safetensors'
    state = load_file(path)
    name = 'class_predictor.bias'
    renamed = {('odd.bias' if key == name else key): value for key, value in state.items()}
    save_file(renamed, path, metadata={'format': 'pt'})
    message = refusal(load, folder)
    assert f'1 missing ({name})' in message and '1 unexpected (odd.bias)' in message


def test_shapes_that_do_not_match_are_named(folder):
    path = folder / 'model.safetensors'
    state = load_file(path)
    state['class_predictor.bias'] = torch.zeros(9)
    save_file(state, path, metadata={'format': 'pt'})
    assert '1 of another shape (class_predictor.bias' in refusal(load, folder)


def test_incomplete_directories_say_what_is_missing(folder, tmp_path):
    (folder / 'preprocessor_config.json').unlink()
    assert 'preprocessor_config.json' in refusal(load, folder)
    (folder / 'preprocessor_config.json').write_text('{}')
    (folder / 'model.safetensors').unlink()
    assert 'no weights' in refusal(load, folder)
    (folder / 'model.safetensors').write_bytes(b'')
    assert 'could not be loaded' in refusal(load, folder)
    for text in ('{"model_type": "mask2former"', '[]', '{}'):
        (folder / 'config.json').write_text(text)
        assert 'no configuration' in refusal(load, folder)
    (folder / 'config.json').unlink()
    assert 'config.json' in refusal(load, folder)
    assert 'no model at' in refusal(load, tmp_path / 'nowhere')
    (tmp_path / 'file').write_text('')
    assert 'expected a directory' in refusal(load, tmp_path / 'file')


def test_a_model_of_another_kind_is_named(tmp_path):
    tiny_models.segformer(tmp_path)
    assert "kind 'segformer', expected 'mask2former'" in refusal(load, tmp_path)


def test_a_label_list_with_gaps_is_refused(folder):
    config = json.loads((folder / 'config.json').read_text())
    config['id2label'] = {'0': 'road', '2': 'car', '5': 'sky', '6': 'tree'}
    (folder / 'config.json').write_text(json.dumps(config))
    assert 'id2label' in refusal(load, folder)


def test_a_hub_name_offline_fails_at_once_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    message = refusal(load, 'somebody/some-model-that-is-not-cached')
    assert 'HF_HUB_OFFLINE' in message and 'into a directory' in message


def test_a_hub_out_of_reach_fails_with_the_remedy(tmp_path):
    code = (
        'from road_anomaly_ros.perception import model_files\n'
        'try:\n    model_files.model_directory("somebody/some-model")\n'
        'except model_files.PipelineError as error:\n    print(error)\n'
    )
    environment = {
        **os.environ,
        'HF_HUB_OFFLINE': '0',
        'HF_HOME': str(tmp_path),
        'HF_ENDPOINT': 'http://127.0.0.1:9',
    }  # nothing listens on this port
    done = subprocess.run(
        [sys.executable, '-c', code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    assert 'could not be fetched' in done.stdout and 'into a directory' in done.stdout
    assert done.stdout.count('\n') == 1


def test_a_hub_name_finds_what_was_downloaded_before(folder, tmp_path, monkeypatch):
    cached = tmp_path / 'hub' / 'models--me--mine'
    snapshot = cached / 'snapshots' / ('0' * 40)
    snapshot.parent.mkdir(parents=True)
    folder.rename(snapshot)
    (cached / 'refs').mkdir()
    (cached / 'refs' / 'main').write_text('0' * 40)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path / 'hub'))
    assert model_files.model_directory('me/mine') == snapshot


@pytest.mark.parametrize('level', ['state_dict', 'model', None])
def test_state_files_of_every_layout(tmp_path, level):
    state = {'a.weight': torch.ones(2)}
    torch.save({level: state, 'epoch': 3} if level else state, tmp_path / 'net.pth')
    assert torch.equal(weights.read_state(tmp_path / 'net.pth')['a.weight'], torch.ones(2))


def test_state_files_without_tensors_are_refused(tmp_path):
    torch.save({'epoch': 3}, tmp_path / 'net.pth')
    assert 'holds no tensors' in refusal(weights.read_state, tmp_path / 'net.pth')
    assert 'found nothing' in refusal(weights.read_state, tmp_path / 'other.pth')


def test_load_state_is_strict():
    network = torch.nn.Linear(2, 1)
    weights.load_state(network, {'weight': torch.ones(1, 2), 'bias': torch.ones(1)}, 'x')
    assert network.weight.sum() == 2
    state = {'weight': torch.ones(3), 'c': torch.ones(1)}
    message = refusal(weights.load_state, network, state, 'x')
    assert '1 missing (bias)' in message and '1 unexpected (c)' in message
    assert 'weight (3,) for (1, 2)' in message
    weights.load_state(
        network,
        {'weight': torch.ones(1, 2), 'bias': torch.ones(1), 'c': torch.ones(1)},
        'x',
        ignore='^c$',
    )


def test_a_pinned_digest_is_checked(folder):
    path = folder / 'model.safetensors'
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    pinned = folder / 'model.safetensors.sha256'
    pinned.write_text(f'{digest.upper()}  model.safetensors\n')
    load(folder)
    pinned.write_text('0' * 64)
    assert f'sha256 {digest[:16]}' in refusal(load, folder)
    assert 'sha256' in refusal(weights.read_state, path)
    pinned.write_text('')
    assert 'sha256' in refusal(weights.read_state, path)


# --- what stands for weights, and what makes every result meaningless ----------------------------

POINTER = (
    b'version https://git-lfs.github.com/spec/v1\n'
    b'oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n'
    b'size 1\n'
)


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (POINTER, "pointer of Git LFS, expected the weights themselves; fetch them with 'git lfs"),
        (b'<!DOCTYPE html><html>404</html>', 'web page'),
        (b'', 'is empty'),
        (b'nothing of the kind' * 9, 'fetch it again'),
    ],
)
@pytest.mark.parametrize('name', ['net.safetensors', 'net.pth', 'net.pkl'])
def test_what_only_stands_for_weights_says_what_it_is(tmp_path, content, words, name):
    (tmp_path / name).write_bytes(content)
    assert words in refusal(weights.read_state, tmp_path / name)


def test_a_pointer_in_a_models_folder_says_what_it_is(folder):
    (folder / 'model.safetensors').write_bytes(POINTER)
    assert 'git lfs pull' in refusal(load, folder)


@pytest.mark.parametrize('protocol', [2, 4])
def test_a_pickle_of_detectron2_names_the_way_to_convert_it(tmp_path, protocol):
    path = tmp_path / 'model_final.pkl'
    path.write_bytes(
        pickle.dumps(
            {'model': {'w': np.ones(3, np.float32)}, '__author__': 'x'}, protocol=protocol
        )
    )
    said = refusal(weights.read_state, path)
    assert 'NumPy arrays, as detectron2' in said
    command = said.partition('python -c "')[2].rpartition('"')[0]
    done = subprocess.run(
        [sys.executable, '-c', command], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert torch.equal(weights.read_state(tmp_path / 'model.pth')['w'], torch.ones(3))


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_weights_that_are_not_finite_are_refused(folder, value):
    path = folder / 'model.safetensors'
    state = load_file(path)
    state['class_predictor.bias'][0] = value
    save_file(state, path, metadata={'format': 'pt'})
    said = refusal(load, folder)
    assert '1 of ' in said and 'NaN or infinity (class_predictor.bias)' in said
    broken = {'weight': torch.full((1, 2), value), 'bias': torch.ones(1)}
    assert 'NaN or infinity (weight)' in refusal(
        weights.load_state, torch.nn.Linear(2, 1), broken, 'x'
    )


def test_weights_that_are_all_zero_are_refused():
    zero = {'weight': torch.zeros(1, 2), 'bias': torch.zeros(1)}
    assert 'all weights are zero' in refusal(weights.load_state, torch.nn.Linear(2, 1), zero, 'x')
