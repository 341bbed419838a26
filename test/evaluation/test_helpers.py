# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Several processes measure what one measures."""

import json
import os
import signal

import pytest
from evaluating import METRICS, evaluate, rows_of
from tiny_scenes import write_scenes

from road_anomaly_ros.evaluation import helpers


@pytest.fixture
def data(tmp_path, rng):
    return write_scenes(tmp_path / 'data', rng)


def test_two_processes_give_the_figures_of_one(data, tmp_path):
    for jobs in ('1', '2'):
        assert evaluate(data, tmp_path / jobs, '--jobs', jobs) == 0
    one, two = (rows_of(tmp_path / jobs) for jobs in ('1', '2'))
    assert {name: [row[column] for column in METRICS] for name, row in one.items()} == {
        name: [row[column] for column in METRICS] for name, row in two.items()
    }
    assert all(row['frames'] == 4 and row['seconds'] > 0 for row in two.values())
    keys = [
        json.loads((tmp_path / jobs / 'results.json').read_text())['environment']['runs']
        for jobs in ('1', '2')
    ]
    assert (
        keys[0]['folder']['methods']['plain']['key']
        == keys[1]['folder']['methods']['plain']['key']
    )


def test_an_image_that_cannot_be_read_ends_all_in_one_line(data, tmp_path, capsys):
    broken = sorted((data / 'images').iterdir())[2]
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 8])
    assert evaluate(data, tmp_path / 'other', '--jobs', '2', methods=['plain']) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith('road-anomaly: ') and broken.name in line


def test_a_process_that_is_killed_is_told_and_the_rest_is_kept(
    data, tmp_path, capsys, monkeypatch
):
    heard = helpers._heard

    def kill(end, advance):
        monkeypatch.setattr(helpers, '_heard', heard)
        for child in helpers.multiprocessing.active_children():
            os.kill(child.pid, signal.SIGKILL)
        return heard(end, advance)

    monkeypatch.setattr(helpers, '_heard', kill)
    assert evaluate(data, tmp_path / 'out', '--jobs', '2', methods=['plain']) == 2
    assert 'the same command continues' in capsys.readouterr().err
    assert any((tmp_path / 'out' / 'scores').rglob('*.npz'))
    assert evaluate(data, tmp_path / 'out', methods=['plain']) == 0
    assert rows_of(tmp_path / 'out')['plain']['frames'] == 4
