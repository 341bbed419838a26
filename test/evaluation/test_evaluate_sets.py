# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Several data sets in one call; results that know their data."""

import json

import cv2
import numpy as np
import pytest
from evaluating import METRICS, evaluate, passes, rows_of
from tiny_scenes import write_scenes

from road_anomaly_ros import cli
from road_anomaly_ros.evaluation import results
from road_anomaly_ros.evaluation.material import gather
from road_anomaly_ros.evaluation.store import file_hashes
from road_anomaly_ros.perception import Pipeline


@pytest.fixture
def data(tmp_path, rng):
    return write_scenes(tmp_path / 'data', rng)


@pytest.fixture
def roots(tmp_path, rng):
    """Two data sets as mirrors keep them: WebP beside PNG, and masks with 2 for anomaly."""
    first = write_scenes(tmp_path / 'RoadObsticle21', rng)
    second = write_scenes(tmp_path / 'RoadAnomaly', rng)
    for path in sorted((first / 'images').iterdir()):
        cv2.imwrite(
            str(path.with_suffix('.webp')), cv2.imread(str(path)), (cv2.IMWRITE_WEBP_QUALITY, 101)
        )
        path.unlink()
    for path in (second / 'labels_masks').iterdir():
        truth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.where(truth == 1, 2, 0).astype(np.uint8))
    return first, second


def test_several_data_sets_and_their_mean(roots, tmp_path, monkeypatch, capsys):
    out, loaded, seen = tmp_path / 'out', [], passes(monkeypatch)
    load = Pipeline.__init__
    monkeypatch.setattr(Pipeline, '__init__', lambda self, *a: loaded.append(1) or load(self, *a))
    words = [
        'evaluate',
        '-o',
        str(out),
        '--set',
        'segmenter=synthetic',
        '--methods',
        'plain',
        '--dataset',
        str(roots[0]),
        '--dataset',
        f'animals=road_anomaly:{roots[1]}',
    ]
    assert cli.main(words) == 0
    assert len(loaded) == 1 and len(seen) == 8
    document = json.loads((out / 'results.json').read_text())
    rows = {row['dataset']: row for row in document['results']}
    assert set(rows) == {'road_obstacle21', 'animals'}
    assert document['environment']['runs']['animals']['layout'] == 'road_anomaly'
    for name, row in rows.items():
        folder = roots[name == 'animals']
        layout = 'road_anomaly' if name == 'animals' else 'road_obstacle21'
        assert evaluate(folder, tmp_path / name, '--layout', layout, methods=['plain']) == 0
        alone = rows_of(tmp_path / name)['plain']
        assert [row[metric] for metric in METRICS] == [alone[metric] for metric in METRICS]
    (mean,) = document['means']
    assert (mean['dataset'], mean['method'], mean['frames']) == ('mean of 2', 'plain', 8)
    assert mean['AP'] == pytest.approx((rows['animals']['AP'] + rows['road_obstacle21']['AP']) / 2)
    *_, last, _, unit = (out / 'table.md').read_text().splitlines()
    assert 'percent' in unit
    assert last.startswith(f'| mean of 2 | plain | {mean["AP"]:.2f} |')
    assert last in capsys.readouterr().out.splitlines()
    assert 'mean of' not in (out / 'table.csv').read_text()


def test_a_file_names_the_data_sets(roots, tmp_path):
    (tmp_path / 'roots.yaml').write_text(
        'RoadObsticle21: RoadObsticle21\nanimals: {layout: road_anomaly, folder: RoadAnomaly}\n'
    )
    for name in ('one', 'two'):
        assert evaluate(tmp_path / 'roots.yaml', tmp_path / name, methods=['plain', 'msp']) == 0
    document = results.read(tmp_path / 'two')
    assert {(row['dataset'], row['method']) for row in document['results']} == {
        (name, method) for name in ('RoadObsticle21', 'animals') for method in ('plain', 'msp')
    }
    assert len(json.loads((tmp_path / 'two' / 'results.json').read_text())['means']) == 2


def test_a_bad_label_is_found_before_any_pass(roots, tmp_path, monkeypatch, capsys):
    seen = passes(monkeypatch)
    (roots[1] / 'labels_masks' / '2.png').unlink()
    assert (
        cli.main(
            [
                'evaluate',
                '-o',
                str(tmp_path / 'out'),
                '--set',
                'segmenter=synthetic',
                '--dataset',
                str(roots[0]),
                '--dataset',
                str(roots[1]),
            ]
        )
        == 2
    )
    error = capsys.readouterr().err
    assert 'RoadAnomaly/labels_masks/2.png: expected a label' in error and not seen


@pytest.mark.parametrize(
    ('text', 'words', 'line'),
    [
        (None, ['--dataset', 'road_anomaly:none'], 'none: expected the folder of a data set'),
        (None, ['--dataset', 'nowhere:none'], "unknown layout 'nowhere'; choose one of"),
        (
            None,
            ['--dataset', 'drive'],
            "'drive' tells no layout; name it, LAYOUT:drive with one of",
        ),
        (None, ['--dataset', 'road_anomaly:'], 'expected a folder, [NAME=][LAYOUT:]DIR'),
        (
            None,
            ['--dataset', 'fs_static', '--dataset', 'fs_static'],
            "two data sets are called 'fishyscapes_static'; give each its own name",
        ),
        (None, ['--dataset', 'fs_static', '--name', 'x'], '--name is for one data set'),
        (None, ['--dataset', 'fs_static', 'drive'], 'got both; add --dataset LAYOUT:drive'),
        ('', ['roots.yaml'], 'roots.yaml: expected NAME: DIR'),
        ('a: [', ['roots.yaml'], 'roots.yaml: expected YAML with NAME: DIR'),
        ('a: 3', ['roots.yaml'], 'roots.yaml, a: expected NAME: DIR'),
        ('a: {layout: folder}', ['roots.yaml'], 'roots.yaml, a: expected NAME: DIR'),
        (
            'fs_static: {layout: nowhere, folder: x}',
            ['roots.yaml'],
            "roots.yaml, fs_static: unknown layout 'nowhere'",
        ),
        (None, ['none.yaml'], 'none.yaml: expected a file that names data sets'),
    ],
)
def test_data_sets_that_cannot_be_named_are_one_line(
    tmp_path, monkeypatch, capsys, text, words, line
):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / 'roots.yaml').write_text(text)
    assert cli.main(['evaluate', '-o', 'out', *words]) == 2
    error = capsys.readouterr().err
    assert line in error and error.count('\n') == 1


def test_means_by_hand():
    def row(dataset, method, score, rate, frames=1):
        return {
            'dataset': dataset,
            'method': method,
            'AP': score,
            'FPR95': rate,
            'frames': frames,
            'seconds': 1.0,
        }

    rows = [
        row('a', 'rba', 10.0, 4.0),
        row('b', 'rba', 40.0, 8.0, 9),
        row('a', 's2', 50.0, 1.0),
        row('b', 's2', 60.0, None),
        row('a', 'eam', 90.0, 1.0),
        row('c', 'eam', 90.0, 1.0),
        row('d', 'eam', None, None),
        row('a', 'msp', 1.0, 1.0),
    ]
    found = results.means(rows)
    assert [
        (item['dataset'], item['method'], item['AP'], item['FPR95'], item['frames'])
        for item in found
    ] == [
        ('mean of 2 of 3', 'eam', 90.0, 1.0, 2),
        ('mean of 2 of 3', 's2', 55.0, None, 2),
        ('mean of 2 of 3', 'rba', 25.0, 6.0, 10),
    ]
    assert results.means(rows[:1]) == []


# --- results know their data ---------------------------------------------------------------------


def test_two_folders_never_share_a_name(data, tmp_path, rng, capsys):
    out, other = tmp_path / 'out', write_scenes(tmp_path / 'other', rng)
    assert evaluate(data, out, methods=['plain']) == 0
    before = (out / 'results.json').read_text()
    run = json.loads(before)['environment']['runs']['folder']
    assert run['folder'] == str(data) and len(run['fingerprint']) == 16
    assert evaluate(other, out, methods=['msp']) == 2
    error = capsys.readouterr().err
    assert f"holds results of 'folder' from {data}" in error and '--name' in error
    assert (out / 'results.json').read_text() == before
    assert evaluate(other, out, '--name', 'other', methods=['plain']) == 0
    rows = json.loads((out / 'results.json').read_text())['results']
    assert [row['dataset'] for row in rows] == ['folder', 'other']


def test_a_folder_that_was_moved_is_the_same_data(data, tmp_path, capsys):
    out = tmp_path / 'out'
    assert evaluate(data, out, methods=['plain']) == 0
    moved = data.rename(tmp_path / 'moved')
    assert evaluate(moved, out, methods=['msp']) == 0
    assert set(rows_of(out)) == {'plain', 'msp'}


def test_data_that_changed_are_not_mixed_with_what_they_were(data, tmp_path, capsys):
    out = tmp_path / 'out'
    assert evaluate(data, out, methods=['plain', 'msp']) == 0
    before = (out / 'results.json').read_text()
    (data / 'labels_masks' / '0.png').write_bytes((data / 'labels_masks' / '3.png').read_bytes())
    assert evaluate(data, out, methods=['plain']) == 0
    assert 'kept as results.json.earlier' in capsys.readouterr().err
    assert set(rows_of(out)) == {'plain'}
    assert (out / 'results.json.earlier').read_text() == before
    assert evaluate(data, out, '--max-frames', '2', methods=['plain']) == 0
    assert (out / 'results.json.earlier').read_text() == before
    assert rows_of(out)['plain']['frames'] == 2 and (out / 'results.json.earlier.1').exists()
    assert cli.main(['evaluate', '--compare', str(out / 'results.json.earlier'), str(out)]) == 0
    assert 'folder is not the same data in both' in capsys.readouterr().err


def test_images_of_every_format_count_and_the_rest_is_named(data, tmp_path, capsys):
    picture = cv2.imread(str(data / 'images' / '1.png'))
    cv2.imwrite(str(data / 'images' / '1.tiff'), picture)
    (data / 'images' / '1.png').unlink()
    (data / 'images' / 'readme.txt').write_text('no picture')
    assert evaluate(data, tmp_path / 'out', methods=['plain']) == 0
    assert rows_of(tmp_path / 'out')['plain']['frames'] == 4
    error = capsys.readouterr().err
    assert f'1 files beside the images of {data} are left out: readme.txt' in error
    table = (tmp_path / 'out' / 'table.md').read_text()
    assert 'percent' in table


@pytest.mark.parametrize(
    ('words', 'option'),
    [
        (['data', '--methods', 'plain', '--scorer', 's2'], '--scorer'),
        (['data', '--latency', '20'], '--latency'),
        (['data', '--fps', '5'], '--fps'),
        (['rendered:1', '--tracks', '--methods', 'rba', 's2'], '--methods'),
        (['rendered:1', '--video', '--max-frames', '3'], '--max-frames'),
        (['rendered:1', '--tracks', '--latency', '20'], '--latency'),
    ],
)
def test_options_without_effect_are_refused(tmp_path, capsys, words, option):
    assert cli.main(['evaluate', *words, '-o', str(tmp_path / 'out')]) == 2
    error = capsys.readouterr().err
    assert f'{option} has no effect' in error and error.count('\n') == 1
    assert not (tmp_path / 'out').exists()


def test_a_report_keeps_equal_methods_of_two_folders_apart(data, tmp_path):
    for name, area in (('first', '2'), ('second', '3')):
        out = tmp_path / name
        assert evaluate(data, out, '--min-gt-size', area, methods=['plain']) == 0
    (group,) = gather([tmp_path / 'first', tmp_path / 'second']).groups
    assert {row.label for row in group.rows} == {
        f'plain in {tmp_path / name}' for name in ('first', 'second')
    }
    assert [row.label for row in gather([tmp_path / 'first'] * 2).groups[0].rows] == ['plain']


def test_a_report_does_not_set_different_data_side_by_side(data, tmp_path):
    assert evaluate(data, tmp_path / 'first', methods=['plain']) == 0
    for path in (data / 'images').iterdir():
        picture = cv2.imread(str(path))
        cv2.imwrite(str(path), picture[:, ::-1])
    assert evaluate(data, tmp_path / 'second', methods=['plain']) == 0
    assert len(gather([tmp_path / 'first', tmp_path / 'second']).groups) == 2


@pytest.mark.parametrize('name', ['model.onnx', 'config.json', 'preprocessor_config.json'])
def test_what_a_model_consists_of_is_part_of_what_was_measured(tmp_path, name):
    (tmp_path / 'model.safetensors').write_bytes(b'weights')
    before = file_hashes(tmp_path)
    (tmp_path / name).write_bytes(b'other')
    assert file_hashes(tmp_path) != before
    (tmp_path / 'results.json').write_text('{}')
    assert set(file_hashes(tmp_path)) == {'model.safetensors', name}
