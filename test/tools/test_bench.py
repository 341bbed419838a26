# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0

import json

import numpy as np
import pytest
import torch
from conftest import ROOT

from road_anomaly_ros import cli
from road_anomaly_ros.perception import Pipeline
from road_anomaly_ros.perception.config import METHODS
from road_anomaly_ros.tools import methods, timing
from road_anomaly_ros.tools.environment import by_stage, percentiles
from road_anomaly_ros.tools.memory import peak_of

CPU = torch.device('cpu')
SYNTHETIC = ['--set', 'segmenter=synthetic', '--scorer', 'plain']


def test_figures_per_size_stage_and_scorer_in_json_and_as_tables(tmp_path, capsys):
    out = tmp_path / 'figures' / 'bench.json'
    code = cli.main(
        [
            'bench',
            *SYNTHETIC,
            '--size',
            '64x48',
            '40x30',
            '--frames',
            '3',
            '--scorers',
            'rba',
            '-o',
            str(out),
        ]
    )
    assert code == 0
    document = json.loads(out.read_text())
    assert [(row['size'], row['scorer']) for row in document['chain']] == [
        ([64, 48], 'plain'),
        ([64, 48], 'rba'),
        ([40, 30], 'plain'),
        ([40, 30], 'rba'),
    ]
    for row in document['chain']:
        assert {'upload', 'segment', 'score', 'objects', 'total', 'draw'} <= set(row['stages'])
        for stage in row['stages'].values():
            assert 0 <= stage['p50'] <= stage['p99']
        assert row['fps'] == pytest.approx(1e3 / row['stages']['total']['p50'], rel=1e-2)
    assert {'cpu', 'cores', 'threads', 'torch', 'python'} <= set(document['environment'])
    assert [path.name for path in out.parent.iterdir()] == ['bench.json']
    printed = capsys.readouterr().out
    assert printed.count('| stage | p50 ms | p99 ms | peak MiB |') == 4
    assert '64x48, plain' in printed and '| size | scorer | dense ms |' in printed


def test_the_dense_pass_is_compared_with_the_reference_value_by_value():
    rows = list(timing.dense_rows([(64, 48)], CPU))
    assert [row['scorer'] for row in rows] == list(timing.DENSE_SCORERS)
    for row in rows:
        assert row['max_difference'] < 1e-5
        assert row['speedup'] == pytest.approx(
            row['reference']['p50'] / row['dense']['p50'], rel=0.01, abs=0.01
        )


def test_the_random_queries_are_neither_empty_nor_full():
    output = timing.random_output(80, 60, CPU)
    covered = (output.mask_logits > 0).float().mean(dim=(1, 2))
    assert output.mask_logits.shape == (timing.QUERIES, 15, 20)
    assert 0.02 < float(covered.mean()) < 0.6
    assert float(output.class_logits.softmax(-1).amax(-1).median()) > 0.6


def test_peak_memory_sees_what_is_freed_again():
    def work():
        block = np.ones(40 * 2**20, np.uint8)
        return int(block[::4096].sum())

    result, peak = peak_of(work, CPU)
    assert result == 40 * 2**20 // 4096
    if peak is None:
        pytest.skip('this system does not tell the peak of resident memory')
    assert 35 < peak < 80


def test_percentiles_by_hand():
    assert percentiles([1.0, 2.0, 3.0]) == {'p50': 2.0, 'p99': 2.98}
    assert percentiles([]) == {}
    assert by_stage([{'a': 1.0}, {'a': 3.0, 'b': 5.0}]) == {
        'a': {'p50': 2.0, 'p99': 2.98},
        'b': {'p50': 5.0, 'p99': 5.0},
    }


@pytest.mark.parametrize(
    'options, words',
    [
        (['--scorers', 'enrgy'], 'unknown scorer'),
        (['--size', '12'], 'WIDTHxHEIGHT'),
        (['--frames', 'x'], 'at least 1'),
    ],
)
def test_wrong_options_are_one_line(capsys, options, words):
    assert cli.main(['bench', *SYNTHETIC, *options]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count('\n') == 1


def test_every_method_that_works_without_files_is_measured(tmp_path, capsys):
    out = tmp_path / 'methods.json'
    assert (
        cli.main(
            ['bench', '--methods', *SYNTHETIC, '--size', '64x48', '--frames', '1', '-o', str(out)]
        )
        == 0
    )
    document = json.loads(out.read_text())
    assert document['size'] == [64, 48]
    found = {(row['kind'], row['name']): row for row in document['methods']}
    able = {
        (method.kind, method.name)
        for method in methods.methods()
        if (method.kind == 'refinement' and 'model' not in method.needs)
        or method.needs == methods.NO_WEIGHTS
        or (
            method.kind == 'scorer'
            and method.needs.startswith('queries')
            and 'head' not in method.needs
        )
    }
    assert set(found) == able
    assert all(row['p50'] > 0 for row in found.values())
    assert '| refinement | mbp |' in capsys.readouterr().out


@pytest.mark.parametrize('size', [(64, 48), (97, 61), (480, 360)])
def test_a_tracker_is_measured_with_twenty_clear_obstacles(size):
    pipeline = Pipeline.from_config(segmenter='synthetic', scorer='plain')
    (picture,) = timing.rendered(*size, 1)
    found = methods._crowded(pipeline(picture), pipeline.prepared)
    assert len(found.objects) == 20 and found.mask.sum() == sum(it.area for it in found.objects)


def test_the_table_lists_every_method_with_its_source():
    figures = [{'kind': 'scorer', 'name': 'rba', 'p50': 12.34, 'peak_mb': 2.2}]
    rows = {(row[0], row[1].strip('`')): row[2:] for row in methods.cells(figures)}
    assert set(rows) == {(kind, name) for kind, room in METHODS.items() for name in room.names()}
    assert rows['scorer', 'rba'] == (
        'RbA, Nayal et al. 2023',
        'queries or pixel logits',
        '12.3',
        '2',
    )
    assert rows['segments', 'sam'][2:] == ('', '')
    assert all(source and needs for source, needs, *_ in rows.values())


def test_the_stored_figures_are_of_methods_that_exist():
    stored = json.loads((ROOT / 'docs' / 'methods.json').read_text())
    known = {(method.kind, method.name) for method in methods.methods()}
    assert {(row['kind'], row['name']) for row in stored['methods']} <= known
