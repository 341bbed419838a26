# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Training from a folder of tiny images to a directory that transformers loads."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from transformers import Mask2FormerForUniversalSegmentation, Mask2FormerImageProcessor

from road_anomaly_ros import cli
from road_anomaly_ros.training import network, trainer
from road_anomaly_ros.training.segmenter import TrainOptions

CLASSES = ('sky', 'road', 'pole')
OPTIONS = TrainOptions(steps=4, batch=2, height=128, width=128, classes=CLASSES)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three 64x64 scenes per part: sky over road, a thin pole, a patch without label."""
    rng = np.random.default_rng(0)
    for part in ('train', 'val'):
        for name in ('images', 'labels'):
            (tmp_path / 'data' / part / name).mkdir(parents=True)
        for index in range(3):
            labels = np.ones((64, 64), np.uint8)
            labels[:30 + index] = 0
            labels[10:40, 20 + 9 * index:23 + 9 * index] = 2
            labels[50:56, 5:11] = 255
            image = np.array([[200, 90, 30], [60, 60, 70], [20, 160, 20]])[labels % 253 % 3]
            image = np.clip(image + rng.normal(0, 12, image.shape), 0, 255).astype(np.uint8)
            cv2.imwrite(str(tmp_path / 'data' / part / 'images' / f'{index}.png'), image)
            cv2.imwrite(str(tmp_path / 'data' / part / 'labels' / f'{index}.png'), labels)
    return tmp_path / 'data'


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    state = torch.load(folder / 'checkpoint.pt', weights_only=True)
    found = {f'model.{name}': value for name, value in state['model'].items()}
    found |= {f'average.{name}': value for name, value in state['average'].items()}
    return found


def train(data: Path, out: Path, **changes) -> None:
    trainer.train(OPTIONS, data=data, out=out, device='cpu', **changes)


def test_result_loads_through_transformers(data, tmp_path):
    out = tmp_path / 'out'
    train(data, out)
    model = Mask2FormerForUniversalSegmentation.from_pretrained(out, local_files_only=True).eval()
    processor = Mask2FormerImageProcessor.from_pretrained(out, local_files_only=True)
    assert model.config.id2label == dict(enumerate(CLASSES))
    assert model.config.label2id == {name: i for i, name in enumerate(CLASSES)}
    image = cv2.imread(str(data / 'val' / 'images' / '0.png'))[..., ::-1].copy()
    inputs = processor(image, return_tensors='pt')
    ours = network.normalise(torch.from_numpy(image.transpose(2, 0, 1)[None].copy()),
                             torch.device('cpu'))
    torch.testing.assert_close(inputs['pixel_values'], ours, rtol=0, atol=1e-5)
    with torch.inference_mode():
        output = model(inputs['pixel_values'])
    assert output.class_queries_logits.shape == (1, 3, 4)
    assert output.masks_queries_logits.shape == (1, 3, 16, 16)
    rows = list(csv.DictReader((out / 'curve.csv').open()))
    assert [row['step'] for row in rows] == ['4']
    assert list(rows[0])[5:] == list(CLASSES)
    frames = trainer.read_folder(data / 'val', classes=3)
    ious = trainer.evaluate(model, frames, torch.device('cpu'))
    assert np.nanmean(ious) == pytest.approx(float(rows[0]['mIoU']), abs=1e-4)


def test_interrupted_run_continues_to_the_bit(data, tmp_path):
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    train(data, whole)
    train(data, parts, minutes=0)
    assert torch.load(parts / 'checkpoint.pt', weights_only=True)['step'] == 1
    train(data, parts, resume=True)
    expected, found = weights_of(whole), weights_of(parts)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    start = network.build_model(CLASSES).state_dict()
    assert any(not torch.equal(expected[f'model.{name}'], start[name]) for name in start)


def test_two_processes_share_a_batch(data, tmp_path):
    train(data, tmp_path / 'a', processes=2)
    train(data, tmp_path / 'b', processes=2)
    first, second = weights_of(tmp_path / 'a'), weights_of(tmp_path / 'b')
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_seed_decides(data, tmp_path):
    frames = trainer.read_folder(data / 'train', classes=3)

    def first_loss(seed: int) -> float:
        options = dataclasses.replace(OPTIONS, seed=seed)
        run = trainer.Trainer(options, frames, frames, tmp_path, device=torch.device('cpu'))
        run.advance(*run.batches[0])
        return run.loss
    assert first_loss(1) == first_loss(1)
    assert first_loss(1) != first_loss(2)


def test_checkpoint_survives_a_failing_write(data, tmp_path, monkeypatch):
    out = tmp_path / 'out'
    train(data, out, minutes=0)
    before = (out / 'checkpoint.pt').read_bytes()

    def fail(state, path):
        Path(path).write_bytes(b'half')
        raise OSError(28, 'No space left on device')
    monkeypatch.setattr(torch, 'save', fail)
    with pytest.raises(OSError, match='No space'):
        train(data, out, resume=True, minutes=0)
    assert (out / 'checkpoint.pt').read_bytes() == before


def run_command(capsys, *words: str) -> tuple[int, str]:
    code = cli.main(['train', 'segmenter', *words])
    return code, capsys.readouterr().err


@pytest.mark.parametrize('break_it, words, said', [
    (lambda data: None, ['--data', 'nowhere'], 'images/ and labels/'),
    (lambda data: (data / 'val/labels/1.png').unlink(), [], '1.png'),
    (lambda data: (data / 'train/images/0.png').write_bytes(b'no image'), [], '0.png'),
    (lambda data: cv2.imwrite(str(data / 'train/labels/2.png'), np.full((64, 64), 9, np.uint8)),
     [], '[9]'),
    (lambda data: cv2.imwrite(str(data / 'train/labels/2.png'), np.ones((8, 8), np.uint8)),
     [], '(8, 8)'),
    (lambda data: None, ['--resume'], 'resume'),
    (lambda data: None, ['--steps', '0'], 'steps'),
    (lambda data: None, ['--processes', '0'], '--processes'),
])
def test_bad_input_is_one_line(data, tmp_path, capsys, break_it, words, said):
    break_it(data)
    given = ['--data', str(data), '-o', str(tmp_path / 'out'), '--classes', ','.join(CLASSES),
             '--device', 'cpu', *words]
    code, err = run_command(capsys, *given)
    assert code == 2
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / 'out' / 'checkpoint.pt').exists()


def test_a_run_is_not_overwritten(data, tmp_path, capsys):
    train(data, tmp_path / 'out', minutes=0)
    code, err = run_command(capsys, '--data', str(data), '-o', str(tmp_path / 'out'),
                            '--classes', ','.join(CLASSES))
    assert code == 2 and '--resume' in err
