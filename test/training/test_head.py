# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Training of anomaly heads on tiny images with a tiny segmenter."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
from conftest import ROOT
from safetensors.torch import load_file

from road_anomaly_ros import cli
from road_anomaly_ros.perception import heads
from road_anomaly_ros.perception.pipeline import Pipeline
from road_anomaly_ros.perception.segmenters import SEGMENTERS
from road_anomaly_ros.training import head_features, head_trainer
from road_anomaly_ros.training.generator.options import GeneratorOptions
from road_anomaly_ros.training.generator.writer import Sources, synthesize
from road_anomaly_ros.training.options import HeadTrainOptions

sys.path.insert(0, str(Path(__file__).parent))
import scenes

OPTIONS = HeadTrainOptions(rate=1e-2, epochs=3, batch=2, pixels=200)


@pytest.fixture(scope='module')
def world(tmp_path_factory) -> Path:
    """A model, drawn images for training and for measuring."""
    root = tmp_path_factory.mktemp('world')
    tiny_models.mask2former(root / 'model')
    sources = Sources(scenes.camvid(root / 'camvid'), scenes.cutouts(root / 'cutouts'))
    for name, seed in (('synth', 0), ('val', 1)):
        synthesize(sources, GeneratorOptions(seed=seed, image_format='png'), 5, root / name)
    return root


def train(world: Path, out: Path, options: HeadTrainOptions = OPTIONS, **changes):
    settings = {
        'data': [world / 'synth'],
        'model': str(world / 'model'),
        'device': 'cpu',
        **changes,
    }
    return head_trainer.train(options, out=out, **settings)


@pytest.mark.parametrize('kind', ['head_v1', 'head_v2'])
def test_a_trained_head_runs_in_the_chain(world, tmp_path, kind):
    figures = train(world, tmp_path, dataclasses.replace(OPTIONS, kind=kind), val=world / 'val')
    assert set(figures) == {'AP', 'AUROC', 'FPR95', 'F1', 'threshold'}
    assert json.loads((tmp_path / 'results.json').read_text()) == figures
    pipeline = Pipeline.from_config(
        model=str(world / 'model'),
        scorer=kind,
        **{f'scorers.{kind}.checkpoint': str(tmp_path), 'objects.threshold': 0.5},
    )
    result = pipeline(np.zeros((*scenes.SIZE, 3), np.uint8))
    assert result.score.shape == scenes.SIZE
    assert bool(((result.score >= 0) & (result.score <= 1)).all())
    losses = [
        float(line.split(',')[1]) for line in (tmp_path / 'curve.csv').read_text().splitlines()[1:]
    ]
    assert len(losses) == 3
    assert kind == 'head_v1' or losses[-1] < losses[0]


def test_stored_weights_take_raw_features(world, tmp_path):
    """The trainer's logits on standardised features are those of the stored head on raw ones."""
    segmenter = SEGMENTERS['mask2former']
    frozen = segmenter.make(
        str(world / 'model'),
        device=torch.device('cpu'),
        precision=torch.float32,
        options=segmenter.options(),
    )
    cache = head_features.Cache(
        tmp_path / 'cache', data=world / 'synth', digest='x', features='pyramid'
    )
    cache.fill(frozen, torch.device('cpu'))
    cache = head_features.Joined([cache])
    trainer = head_trainer.Trainer(
        OPTIONS,
        cache,
        tmp_path / 'out',
        digest='x',
        features='pyramid',
        device=torch.device('cpu'),
    )
    trainer.run()
    trainer.save_head()
    trainer.head.eval()
    points = head_trainer.draw(cache[0], 0, np.random.default_rng(0))
    with torch.no_grad():
        want = trainer._logits(cache[0], points)
        from road_anomaly_ros.perception import scorers

        found = scorers.evaluate(
            cache[0].output, 'head_v2', {'checkpoint': str(tmp_path / 'out')}, extras=['logit']
        )
    torch.testing.assert_close(found.extras['logit'].flatten(), want, atol=2e-4, rtol=1e-4)


def test_resumed_equals_uninterrupted(world, tmp_path, monkeypatch):
    train(world, tmp_path / 'whole', cache=tmp_path / 'cache')
    step = head_trainer.Trainer._step

    def stop(self, number, batch):
        if number == 4:
            raise KeyboardInterrupt
        return step(self, number, batch)

    monkeypatch.setattr(head_trainer.Trainer, '_step', stop)
    with pytest.raises(KeyboardInterrupt):
        train(world, tmp_path / 'parts', cache=tmp_path / 'cache')
    monkeypatch.undo()
    assert torch.load(tmp_path / 'parts' / 'checkpoint.pt', weights_only=True)['epoch'] == 1
    train(world, tmp_path / 'parts', cache=tmp_path / 'cache', resume=True)
    for name in (heads.WEIGHTS, heads.INFO, 'curve.csv'):
        assert (tmp_path / 'parts' / name).read_bytes() == (
            tmp_path / 'whole' / name
        ).read_bytes(), name


def test_torchrun_gives_the_head_of_one_process(world, tmp_path):
    """But for rounding; five images in batches of two leave one member without any at last."""
    train(world, tmp_path / 'one')
    words = ['train', 'head', '--data', str(world / 'synth'), '--model', str(world / 'model')]
    words += ['-o', str(tmp_path / 'two'), '--rate', '1e-2', '--epochs', '3', '--batch', '2']
    words += ['--pixels', '200', '--device', 'cpu']
    start = ['--standalone', '--nproc-per-node', '2', '-m', 'road_anomaly_ros.cli']
    done = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', *start, *words],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count('head_v2 in ') == 1  # said and written by one of them
    one, two = (load_file(tmp_path / name / 'head.safetensors') for name in ('one', 'two'))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-2, atol=1e-3)


def test_several_folders_are_trained_on_together(world, tmp_path):
    both = [world / 'synth', world / 'val']
    train(world, tmp_path / 'both', data=both, cache=tmp_path / 'cache')
    info = json.loads((tmp_path / 'both' / heads.INFO).read_text())
    assert info['training']['frames'] == 10
    stored = sorted((tmp_path / 'cache').glob('*/*.safetensors'))
    assert len(stored) == 10
    times = [path.stat().st_mtime_ns for path in stored]
    train(world, tmp_path / 'one', cache=tmp_path / 'cache')
    assert [path.stat().st_mtime_ns for path in stored] == times
    assert (tmp_path / 'one' / heads.WEIGHTS).read_bytes() != (
        tmp_path / 'both' / heads.WEIGHTS
    ).read_bytes()
    with pytest.raises(ValueError, match='trained on other images'):
        train(world, tmp_path / 'one', data=both, cache=tmp_path / 'cache', resume=True)


def test_joined_caches_keep_their_order(world, tmp_path):
    train(world, tmp_path / 'out', data=[world / 'val', world / 'synth'], cache=tmp_path / 'cache')
    parts = [
        head_features.Cache(
            tmp_path / 'cache' / head_features.cache_name(world / name),
            data=world / name,
            digest=json.loads((tmp_path / 'out' / heads.INFO).read_text())['segmenter'],
            features='pyramid',
        )
        for name in ('val', 'synth')
    ]
    for part in parts:
        part.fill(None, torch.device('cpu'))  # nothing is missing, so nobody is asked
    joined = head_features.Joined(parts)
    assert len(joined) == 10
    for number in (0, 4, 5, 9):
        want = parts[number // 5][number % 5]
        assert torch.equal(joined[number].mask, want.mask)
        assert torch.equal(next(joined.examples(number)).output.features, want.output.features)


def test_features_are_computed_once(world, tmp_path, monkeypatch):
    train(world, tmp_path / 'one', cache=tmp_path / 'cache')
    files = sorted((tmp_path / 'cache').glob('synth-*/*.safetensors'))
    assert len(files) == 5
    times = [path.stat().st_mtime_ns for path in files]
    files[0].unlink()
    train(world, tmp_path / 'two', cache=tmp_path / 'cache')
    assert [path.stat().st_mtime_ns for path in files][1:] == times[1:]
    assert (tmp_path / 'one' / heads.WEIGHTS).read_bytes() == (
        tmp_path / 'two' / heads.WEIGHTS
    ).read_bytes()


def test_a_segmenter_that_changes_is_noticed(world, tmp_path, monkeypatch):
    run = head_trainer.Trainer.run
    entry = SEGMENTERS['mask2former']
    made = []

    class Room:
        def __getitem__(self, name):
            return type('Entry', (), {'options': entry.options, 'make': staticmethod(make)})

    def make(*args, **kwargs):
        made.append(entry.make(*args, **kwargs))
        return made[-1]

    def meddle(self):
        run(self)
        with torch.no_grad():
            next(made[0]._network.parameters()).add_(1)

    monkeypatch.setattr(head_trainer, 'SEGMENTERS', Room())
    monkeypatch.setattr(head_trainer.Trainer, 'run', meddle)
    with pytest.raises(RuntimeError, match='frozen segmenter changed'):
        train(world, tmp_path)
    assert not (tmp_path / heads.WEIGHTS).exists()


def test_a_full_disk_keeps_the_features_that_are_complete(world, tmp_path, monkeypatch):
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if '000003' in path.name:
            raise OSError(errno.ENOSPC, 'No space left on device', str(path))
        return write(path, data)

    monkeypatch.setattr(Path, 'write_bytes', full)
    with pytest.raises(OSError, match='No space left'):
        train(world, tmp_path)
    monkeypatch.undo()
    assert sorted(path.name for path in (tmp_path / 'features').glob('synth-*/*')) == [
        '000000.safetensors',
        '000001.safetensors',
        '000002.safetensors',
        'cache.json',
    ]
    train(world, tmp_path)
    assert (tmp_path / heads.WEIGHTS).is_file()


def test_what_cannot_work_is_said_in_one_line(world, tmp_path, capsys):
    (tmp_path / 'empty').mkdir()
    words = [
        'train',
        'head',
        '--data',
        str(world / 'synth'),
        '--model',
        str(world / 'model'),
        '--device',
        'cpu',
        '--epochs',
        '1',
        '-o',
        str(tmp_path / 'out'),
    ]
    for extra, message in (
        (['--data', str(tmp_path / 'empty')], 'found none'),
        (['--features', 'soul'], "offers ['pixel_decoder'"),
        (['--hidden', '8'], 'two widths'),
        (['--kind', 'head_v3'], 'head_v3'),
    ):
        assert cli.main([*words, *extra]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert message in error, error
    assert cli.main(words) == 0
    assert cli.main(words) == 2
    assert 'holds a run already' in capsys.readouterr().err
    assert cli.main([*words, '--resume', '--rate', '0.5']) == 2
    assert 'was trained with rate' in capsys.readouterr().err
    assert cli.main([*words, '--resume', '--data', str(world / 'val')]) == 2
    assert 'trained on other images' in capsys.readouterr().err
    assert cli.main([*words, '--resume', '--features', 'encoder']) == 2
    assert 'another segmenter, other features' in capsys.readouterr().err


def test_ctrl_c_is_an_orderly_end(world, tmp_path, capsys, monkeypatch):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(head_trainer, 'train', interrupt)
    assert cli.main(['train', 'head', '--data', str(world / 'synth'), '-o', str(tmp_path)]) == 130
    assert '--resume continues' in capsys.readouterr().err


def test_published_settings_are_the_defaults():
    v1, v2 = HeadTrainOptions(kind='head_v1'), HeadTrainOptions()
    assert (v1.rate, v1.epochs, v2.rate, v2.epochs) == (1e-4, 5, 1e-6, 3)
    assert v2.positive_weight == 10 and v2.hidden == (64, 32) and v2.projection == 32


def test_points_equal_the_resized_planes(rng):
    planes = torch.from_numpy(rng.normal(size=(3, 5, 7)).astype(np.float32))
    whole = torch.nn.functional.interpolate(planes[None], size=(20, 21), mode='bilinear')[0]
    rows, columns = (torch.arange(420) // 21), (torch.arange(420) % 21)
    found = head_features.at_points(planes, rows, columns, (20, 21))
    torch.testing.assert_close(found, whole.flatten(1), atol=1e-5, rtol=1e-5)


def test_windows_become_examples_of_their_own():
    from road_anomaly_ros.perception.contract import MaskOutput, WindowedOutput

    part = MaskOutput(torch.zeros(2, 3), torch.zeros(2, 4, 4), (8, 8))
    mask = np.zeros((8, 16), np.uint8)
    mask[:, 8:] = 1
    output = WindowedOutput((part, part), ((0, 0), (0, 8)), (8, 16), (8, 16))
    found = list(head_features.examples_of(output, mask))
    assert [(piece.shape, int(piece.sum())) for _, piece in found] == [((8, 8), 0), ((8, 8), 64)]


class Scored(list):
    """A cache of examples whose output is their score already."""

    def examples(self, number: int):
        score, mask = self[number]
        yield head_features.Example(
            types.SimpleNamespace(score=torch.tensor([score])), torch.tensor([mask])
        )


def test_figures_by_hand(tmp_path, monkeypatch):
    """Two images of one row; 255 counts nowhere, and at a stride of 2 every second pixel only."""
    monkeypatch.setattr(
        head_trainer.scorers, 'evaluate', lambda output, kind, options, resources: output
    )
    cache = Scored([([0.9, 0.8, 0.7, 0.8], [1, 1, 255, 0]), ([0.3, 0.1], [1, 0])])
    score = np.array([0.9, 0.8, 0.8, 0.3, 0.1], np.float32)
    found = head_trainer.measure(tmp_path, 'head_v2', cache, stride=1)
    assert found['F1'] == pytest.approx(6 / 7)
    assert ((score > found['threshold']) == [True, True, True, True, False]).all()
    assert found['AP'] == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert found['FPR95'] == 0.5
    with pytest.warns(UserWarning, match='anomalies and known'):
        assert np.isnan(head_trainer.measure(tmp_path, 'head_v2', cache)['AP'])
