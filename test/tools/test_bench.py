# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0

import json

import numpy as np
import pytest
import torch

from road_anomaly_ros import cli
from road_anomaly_ros.tools import bench
from road_anomaly_ros.tools.environment import by_stage, percentiles
from road_anomaly_ros.tools.memory import peak_of

CPU = torch.device('cpu')
SYNTHETIC = ['--set', 'segmenter=synthetic', '--scorer', 'plain']


def test_figures_per_size_stage_and_scorer_in_json_and_as_tables(tmp_path, capsys):
    out = tmp_path / 'figures' / 'bench.json'
    code = cli.main(['bench', *SYNTHETIC, '--size', '64x48', '40x30', '--frames', '3',
                     '--scorers', 'rba', '-o', str(out)])
    assert code == 0
    document = json.loads(out.read_text())
    assert [(row['size'], row['scorer']) for row in document['chain']] == [
        ([64, 48], 'plain'), ([64, 48], 'rba'), ([40, 30], 'plain'), ([40, 30], 'rba')]
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
    rows = list(bench.dense_rows([(64, 48)], CPU))
    assert [row['scorer'] for row in rows] == list(bench.DENSE_SCORERS)
    for row in rows:
        assert row['max_difference'] < 1e-3
        assert row['speedup'] == pytest.approx(
            row['reference']['p50'] / row['dense']['p50'], rel=0.01, abs=0.01)


def test_the_random_queries_are_neither_empty_nor_full():
    output = bench.random_output(80, 60, CPU)
    covered = (output.mask_logits > 0).float().mean(dim=(1, 2))
    assert output.mask_logits.shape == (bench.QUERIES, 15, 20)
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
        'a': {'p50': 2.0, 'p99': 2.98}, 'b': {'p50': 5.0, 'p99': 5.0}}


@pytest.mark.parametrize('options, words', [
    (['--scorers', 'enrgy'], 'unknown scorer'), (['--size', '12'], 'WIDTHxHEIGHT'),
    (['--frames', 'x'], 'at least 1')])
def test_wrong_options_are_one_line(capsys, options, words):
    assert cli.main(['bench', *SYNTHETIC, *options]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count('\n') == 1
