# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Several data sets in one call of `road-anomaly evaluate`, how they are named, and their mean."""

import json

import cv2
import numpy as np
import pytest
from tiny_scenes import CHAIN, command, write_scenes

from road_anomaly_ros.evaluation import results
from road_anomaly_ros.perception import Pipeline

METRICS = ('AP', 'AUROC', 'FPR95', 'sIoU', 'PPV', 'F1')


def passes(monkeypatch):
    """Count passes of the network."""
    seen, segment = [], Pipeline._segment
    monkeypatch.setattr(Pipeline, '_segment', lambda *a: seen.append(1) or segment(*a))
    return seen


@pytest.fixture
def roots(tmp_path, rng):
    """Two data sets as mirrors keep them: WebP beside PNG, and masks with 2 for anomaly."""
    first = write_scenes(tmp_path / 'RoadObsticle21', rng)
    second = write_scenes(tmp_path / 'RoadAnomaly', rng)
    for path in sorted((first / 'images').iterdir()):
        cv2.imwrite(str(path.with_suffix('.webp')), cv2.imread(str(path)),
                    (cv2.IMWRITE_WEBP_QUALITY, 101))
        path.unlink()
    for path in (second / 'labels_masks').iterdir():
        truth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.where(truth == 1, 2, 0).astype(np.uint8))
    return first, second


def test_several_data_sets_and_their_mean(roots, tmp_path, monkeypatch, capsys):
    out, loaded, seen = tmp_path / 'out', [], passes(monkeypatch)
    load = Pipeline.__init__
    monkeypatch.setattr(Pipeline, '__init__', lambda self, *a: loaded.append(1) or load(self, *a))
    assert command('evaluate', '-o', out, *CHAIN, '--methods', 'plain', '--dataset', roots[0],
                   '--dataset', f'animals=road_anomaly:{roots[1]}') == 0
    assert len(loaded) == 1 and len(seen) == 8
    document = json.loads((out / 'results.json').read_text())
    rows = {row['dataset']: row for row in document['results']}
    assert set(rows) == {'road_obstacle21', 'animals'}
    assert document['environment']['runs']['animals']['layout'] == 'road_anomaly'
    for name, row in rows.items():
        folder = roots[name == 'animals']
        layout = 'road_anomaly' if name == 'animals' else 'road_obstacle21'
        assert command('evaluate', folder, '-o', tmp_path / name, *CHAIN, '--layout', layout,
                       '--methods', 'plain') == 0
        (alone,) = results.read(tmp_path / name)['results']
        assert [row[metric] for metric in METRICS] == [alone[metric] for metric in METRICS]
    (mean,) = document['means']
    assert (mean['dataset'], mean['method'], mean['frames']) == ('mean of 2', 'plain', 8)
    assert mean['AP'] == pytest.approx((rows['animals']['AP'] + rows['road_obstacle21']['AP']) / 2)
    last = (out / 'table.md').read_text().splitlines()[-1]
    assert last.startswith(f'| mean of 2 | plain | {mean["AP"]:.2f} |')
    assert last in capsys.readouterr().out.splitlines()
    assert 'mean of' not in (out / 'table.csv').read_text()


def test_a_file_names_the_data_sets(roots, tmp_path):
    (tmp_path / 'roots.yaml').write_text(
        'RoadObsticle21: RoadObsticle21\nanimals: {layout: road_anomaly, folder: RoadAnomaly}\n')
    for name in ('one', 'two'):
        assert command('evaluate', tmp_path / 'roots.yaml', '-o', tmp_path / name, *CHAIN,
                       '--methods', 'plain', 'msp') == 0
    document = results.read(tmp_path / 'two')
    assert {(row['dataset'], row['method']) for row in document['results']} == {
        (name, method) for name in ('RoadObsticle21', 'animals') for method in ('plain', 'msp')}
    assert len(json.loads((tmp_path / 'two' / 'results.json').read_text())['means']) == 2


def test_a_bad_label_is_found_before_any_pass(roots, tmp_path, monkeypatch, capsys):
    seen = passes(monkeypatch)
    (roots[1] / 'labels_masks' / '2.png').unlink()
    assert command('evaluate', '-o', tmp_path / 'out', *CHAIN, '--dataset', roots[0],
                   '--dataset', roots[1]) == 2
    error = capsys.readouterr().err
    assert 'RoadAnomaly/labels_masks/2.png: expected a label' in error and not seen


@pytest.mark.parametrize(('text', 'words', 'line'), [
    (None, ['--dataset', 'road_anomaly:none'], 'none: expected the folder of a data set'),
    (None, ['--dataset', 'nowhere:none'], "unknown layout 'nowhere'; choose one of"),
    (None, ['--dataset', 'drive'], "'drive' tells no layout; name it, LAYOUT:drive with one of"),
    (None, ['--dataset', 'road_anomaly:'], 'expected a folder, [NAME=][LAYOUT:]DIR'),
    (None, ['--dataset', 'fs_static', '--dataset', 'fs_static'],
     "two data sets are called 'fishyscapes_static'; give each its own name"),
    (None, ['--dataset', 'fs_static', '--name', 'x'], '--name is for one data set'),
    (None, ['--dataset', 'fs_static', 'drive'], 'got both; add --dataset LAYOUT:drive'),
    ('', ['roots.yaml'], 'roots.yaml: expected NAME: DIR'),
    ('a: [', ['roots.yaml'], 'roots.yaml: expected YAML with NAME: DIR'),
    ('a: 3', ['roots.yaml'], 'roots.yaml, a: expected NAME: DIR'),
    ('a: {layout: folder}', ['roots.yaml'], 'roots.yaml, a: expected NAME: DIR'),
    ('fs_static: {layout: nowhere, folder: x}', ['roots.yaml'],
     "roots.yaml, fs_static: unknown layout 'nowhere'"),
    (None, ['none.yaml'], 'none.yaml: expected a file that names data sets'),
])
def test_data_sets_that_cannot_be_named_are_one_line(tmp_path, monkeypatch, capsys, text, words,
                                                     line):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / 'roots.yaml').write_text(text)
    assert command('evaluate', '-o', 'out', *words) == 2
    error = capsys.readouterr().err
    assert line in error and error.count('\n') == 1


def test_means_by_hand():
    def row(dataset, method, score, rate, frames=1):
        return {'dataset': dataset, 'method': method, 'AP': score, 'FPR95': rate,
                'frames': frames, 'seconds': 1.0}
    rows = [row('a', 'rba', 10.0, 4.0), row('b', 'rba', 40.0, 8.0, 9), row('a', 's2', 50.0, 1.0),
            row('b', 's2', 60.0, None), row('a', 'eam', 90.0, 1.0), row('c', 'eam', 90.0, 1.0),
            row('d', 'eam', None, None), row('a', 'msp', 1.0, 1.0)]
    found = results.means(rows)
    assert [(item['dataset'], item['method'], item['AP'], item['FPR95'], item['frames'])
            for item in found] == [('mean of 2 of 3', 'eam', 90.0, 1.0, 2),
                                   ('mean of 2 of 3', 's2', 55.0, None, 2),
                                   ('mean of 2 of 3', 'rba', 25.0, 6.0, 10)]
    assert results.means(rows[:1]) == []
