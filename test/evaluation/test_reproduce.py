# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Ours beside the printed cells, on a small data set under a publisher's name."""

import json

import pytest
from conftest import ROOT
from evaluating import rows_of
from tiny_scenes import write_scenes

from road_anomaly_ros import cli
from road_anomaly_ros.evaluation import reference, reproduce


@pytest.fixture
def data(tmp_path, rng):
    write_scenes(tmp_path / 'data' / 'smiyc' / 'mine', rng)
    return tmp_path / 'data'


def run(table, data, out, *more):
    words = ['reproduce', table, '--data', str(data), '--models', str(data / 'models')]
    words += ['--dataset', f'road_anomaly=folder:{data}/smiyc/mine', '-o', str(out)]
    return cli.main([*words, '--model', 'builtin', '--segmenter', 'synthetic', *more])


def test_cells_stand_beside_what_evaluate_measures(data, tmp_path, capsys):
    out = tmp_path / 'out'
    assert run('query-5', data, out, '--set', 'segments=watershed') == 0
    printed = capsys.readouterr()
    rows = rows_of(out)
    assert set(rows) == {
        's2+variance_aware',
        's2+variance_aware scorers.s2.tau=0.0',
        's2+variance_aware scorers.s2.tau=0.02',
        's2+variance_aware scorers.s2.tau=0.05',
    }
    lines = (out / 'reproduce.md').read_text()
    assert lines == printed.out[-len(lines) :]
    for row, name, value in (
        ('0.0', 's2+variance_aware scorers.s2.tau=0.0', 81.2),
        ('0.01', 's2+variance_aware', 82.5),
    ):
        ours = rows[name]['AP']
        cells = f'{value:g} | {ours:.2f} | {ours - value:+.2f}'
        assert f'| {row} | road_anomaly | AP | {cells} |' in lines
    runs = json.loads((out / 'results.json').read_text())['environment']['runs']
    options = runs['road_anomaly']['methods']['s2+variance_aware scorers.s2.tau=0.05']['options']
    assert options['scorers.s2.tau'] == 0.05 and options['segments'] == 'watershed'


def test_what_is_missing_is_left_out_and_named(data, tmp_path, capsys):
    assert run('query-2', data, tmp_path / 'out', '--max-frames', '1') == 0
    told = capsys.readouterr()
    assert 'left out: no data set fishyscapes_static' in told.err
    assert 'sam_vit_h_4b8939.pth is missing' in told.err and 'molmo is missing' in told.err
    assert '| Proposed method | road_anomaly | AP | 82.5 | - | - |' in told.out


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        (['query-9', '-o', 'out'], "unknown table 'query-9'; choose one of"),
        (['query-2'], 'expected TABLE and -o OUT, or --list'),
        (['query-2', '-o', 'out', '--data', 'nowhere'], 'expected one of the data sets'),
        (['query-2', '-o', 'out'], 'fetch facebook/mask2former-swin-large-cityscapes-semantic'),
    ],
)
def test_what_cannot_work_is_one_line(words, said, data, capsys, monkeypatch):
    monkeypatch.chdir(data.parent)
    (data / 'road_anomaly').mkdir()
    assert cli.main(['reproduce', *words]) == 2
    line = capsys.readouterr().err.strip()
    assert said in line and '\n' not in line


def test_the_page_is_up_to_date():
    page = (ROOT / 'docs' / 'reproduce.md').read_text(encoding='utf-8')
    assert page == reproduce.renewed(page), 'run: python -m road_anomaly_ros.evaluation.reproduce'


def test_every_table_and_figure_has_its_command():
    names = set(reproduce.tables())
    assert {f'heads-{n}' for n in range(1, 5)} <= names
    assert {f'query-{n}' for n in range(1, 7)} <= names
    assert {f'objectomaly-{n}' for n in range(1, 5)} <= names
    figures = {figure.name for figure in reference.figures()}
    assert {f'query-figure-{n}' for n in (3, 4, 5, 6)} <= figures


def test_varied_rows_do_not_pass_for_the_method_itself():
    cells = reference.load()
    values = {
        cell.value
        for cell in reference.published(cells, 'road_anomaly', 's2+variance_aware', 'AP')
    }
    assert values == {82.5}
