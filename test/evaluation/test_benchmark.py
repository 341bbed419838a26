# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The benchmark on tiny folders of the form of the real ones; its tables from given figures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_scenes import command, write_scenes

from road_anomaly_ros.evaluation import bench_sets, bench_tables, benchmark, report
from road_anomaly_ros.evaluation.material import trained
from road_anomaly_ros.evaluation.reference import Cell
from road_anomaly_ros.training.held_out import held_out

SIZE = (48, 64)


def roads(folder, sky, road, car, names=('a', 'b')):
    """Frames of sky and road with a car, in the ids given."""
    for part in ('images', 'labels'):
        (folder / part).mkdir(parents=True)
    for name in names:
        labels = np.full(SIZE, sky, np.uint8)
        labels[20:], labels[22:28, 4:10] = road, car
        picture = np.where(labels[..., None] == sky, 200, 90).repeat(3, 2).astype(np.uint8)
        cv2.imwrite(str(folder / 'images' / f'{name}.jpg'), picture)
        cv2.imwrite(str(folder / 'labels' / f'{name}.png'), labels)
    return folder


def cutout(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.full((24, 20, 4), (40, 200, 60, 255), np.uint8)
    picture[:3, :3, 3] = 0
    assert cv2.imwrite(str(path), picture)


@pytest.fixture
def data(tmp_path, rng):
    folder = tmp_path / 'data'
    roads(folder / 'camvid' / 'val', 0, 3, 8)
    roads(folder / 'idd_lite' / 'train', 6, 0, 3, ('9_1', '19_1', '190_1', '2_9'))
    roads(folder / 'cityscapes_samples', 10, 0, 13)
    cutout(folder / 'objects' / 'val' / 'swan_0.png')
    cutout(folder / 'objects_web' / 'val' / 'tiger' / '000.webp')
    for name in ('road_anomaly', 'fishyscapes_static'):
        write_scenes(folder / 'real_anomalies' / name, rng)
    for path in (folder / 'real_anomalies' / 'road_anomaly' / 'labels_masks').iterdir():
        truth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.where(truth == 1, 2, 0).astype(np.uint8))
    return folder


def test_all_of_it_on_tiny_folders(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report, 'write', lambda *_, **__: 'nowhere')  # has tests of its own
    page, out = tmp_path / 'accuracy.md', tmp_path / 'out'
    page.write_text(f'before\n{benchmark.BEGIN}\n{benchmark.END}\nafter\n')
    assert (
        command(
            'benchmark',
            '--data',
            data,
            '-o',
            out,
            '--page',
            page,
            '--frames',
            2,
            '--sweep-frames',
            1,
            '--scorers',
            'rba',
        )
        == 0
    )
    assert 'is not there' not in capsys.readouterr().out
    found = {
        name: json.loads((out / name / 'results.json').read_text())
        for name in ('real', 'web', 'classes')
    }
    assert {(row['dataset'], row['method']) for row in found['real']['results']} == {
        (name, method)
        for name in ('RoadAnomaly', 'Fishyscapes Static')
        for method in ('auto', 'rba', 'rba+variance_aware+road_prior')
    }
    assert {row['dataset'] for row in found['web']['results']} == {
        'on CamVid val',
        'on IDD-Lite (roads of the training)',
    }
    assert [row['dataset'] for row in found['classes']['results']] == [
        'CamVid val',
        'IDD-Lite (roads of the training)',
        'Cityscapes samples',
    ]
    text = page.read_text()
    assert text.startswith('before\n') and text.endswith('after\n')
    assert '| score | Fishyscapes Static: AP |' in text and '(default) |' in text
    assert 'EoMT, MaxEntropy' in text and 'On other roads its mIoU is' in text
    assert 'on IDD-Lite (roads of the training) (2)' in text
    assert (out / benchmark.TABLES).read_text() in text
    drawn = json.loads((out / 'web_idd_lite' / 'manifest.jsonl').read_text().splitlines()[0])
    assert drawn['objects'][0]['object'] == 'tiger/000'


def test_what_is_not_there_is_left_out_and_told(data, tmp_path, capsys):
    for name in ('real_anomalies', 'objects_web', 'idd_lite', 'cityscapes_samples'):
        shutil.rmtree(data / name)
    out = tmp_path / 'out'
    assert bench_sets.real(data, out, 9) == [] and bench_sets.web(data, out, 9) == []
    assert [job.name for job in bench_sets.classes(data, out, 9)] == ['CamVid val']
    said = capsys.readouterr().out
    for name in ('real_anomalies', 'objects_web/val', 'idd_lite/train', 'cityscapes_samples'):
        assert f'{data / name} is not there' in said


def test_whole_drives_are_held_out(data, tmp_path):
    assert [
        name
        for name in ('9_1', '19_204', '99_1', '90_9', '1_9')
        if held_out('idd_lite', Path(f'{name}.jpg'))
    ] == ['9_1', '19_204', '99_1']
    assert not held_out('camvid', Path('9_1.jpg'))
    for _ in range(2):
        folder = bench_sets.idd_lite(data, tmp_path / 'out')
        assert sorted(path.name for path in (folder / 'labels').iterdir()) == [
            '19_1.png',
            '9_1.png',
        ]


def figures(dataset, method, score, union=None):
    return {
        'dataset': dataset,
        'method': method,
        'AP': score,
        'FPR95': 2.0,
        'F1': None,
        'mIoU': union,
        'frames': 3,
        'seconds': 1.0,
    }


def results_of(*rows, layouts=('road_anomaly', 'fishyscapes_static')):
    options = {'options': {'scorer': 'head_v2', 'refinements': ['road_prior']}}
    names = dict.fromkeys(row['dataset'] for row in rows)
    runs = {
        name: {
            'layout': layout,
            'frames': 3,
            'methods': {'auto': options, 'plain': {'classes': ['a', 'b']}},
        }
        for name, layout in zip(names, layouts, strict=False)
    }
    return {'environment': {'runs': runs}, 'results': list(rows)}


def test_the_table_over_data_sets():
    found = results_of(
        figures('A', 'auto', 5.0),
        figures('B', 'auto', 9.0),
        figures('A', 'rba', 30.0),
        figures('B', 'rba', 10.0),
        figures('A', 'rba+mbp', 10.0),
        figures('B', 'rba+mbp', 40.0),
        figures('A', 'eam', 10.0),
        figures('B', 'eam', 40.0),
        figures('A', 's2', 1.0),
        figures('B', 's2', 2.0),
        figures('A', 'msp', None),
        figures('B', 'msp', 60.0),
    )
    cells = [
        Cell('p', 2, '', 'EoMT MaxEntropy', None, data, metric, value)
        for data in ('road_anomaly', 'fishyscapes_static')
        for metric, value in (('AP', 70.0), ('FPR95', 10.0))
    ]
    lines = bench_tables.across(found, cells, most=3).splitlines()
    assert lines == [
        '| score | A: AP | FPR95 | F1 | B: AP | FPR95 | F1 | mean: AP | FPR95 | F1 |',
        '| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |',
        '| `head_v2+road_prior` (default) | 5.0 | 2.0 |  | 9.0 | 2.0 |  | 7.0 | 2.0 |  |',
        '| `msp` |  |  |  | 60.0 | 2.0 |  |  |  |  |',
        '| `rba+mbp`, `eam` | 10.0 | 2.0 |  | 40.0 | 2.0 |  | 25.0 | 2.0 |  |',
        '| `s2` | 1.0 | 2.0 |  | 2.0 | 2.0 |  | 1.5 | 2.0 |  |',
        '| EoMT, MaxEntropy | 70.0 | 10.0 |  | 70.0 | 10.0 |  | 70.0 | 10.0 |  |',
    ]
    assert len(bench_tables.across(found, most=1).splitlines()) == 4
    one = bench_tables.across(results_of(figures('A', 'rba', 30.0)), cells)
    assert 'mean' not in one and '| EoMT, MaxEntropy | 70.0 | 10.0 |  |' in one
    assert bench_tables.across(results_of(figures('A', 'rba', None))) == ''


def test_publications_stand_only_beside_data_sets_that_they_know():
    cells = [Cell('p', 2, '', 'EoMT MaxEntropy', None, 'road_anomaly', 'AP', 70.0)]
    found = results_of(figures('A', 'rba', 30.0), figures('B', 'rba', 30.0))
    assert 'EoMT' not in bench_tables.across(found, cells)


def test_the_sentence_on_other_roads():
    found = results_of(figures('A', 'plain', None, 50.0), figures('B', 'plain', None, 44.44))
    assert bench_tables.elsewhere(found, without='A') == (
        'On other roads its mIoU is 44.4 on 3 frames of B (2 classes).\n'
    )
    assert bench_tables.elsewhere(results_of(figures('A', 'plain', None, 50.0)), without='A') == ''


def test_heads_that_the_model_lacks_are_not_asked_for(tmp_path):
    (tmp_path / 'heads' / 'head_v2').mkdir(parents=True)
    found = {folder: benchmark.scorers(folder) for folder in (None, tmp_path)}
    assert not any(map(trained, found[None])) and 'external' not in found[None]
    assert [name for name in found[tmp_path] if name not in found[None]] == ['head_v2']
    assert {'rba', 's2', 'energy'} <= set(found[None])
