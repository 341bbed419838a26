# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0

import csv
import json
import xml.etree.ElementTree as ElementTree

import pytest
from tiny_scenes import CHAIN, command, write_scenes

from road_anomaly_ros.evaluation import benchmark, variants
from road_anomaly_ros.perception.chain import Chain
from road_anomaly_ros.perception.config import PipelineConfig

VARY = (
    '--method',
    's2',
    '--vary',
    'scorers.s2.lam=0.2,0.6,1',
    '--vary',
    'refinements=none,variance_aware,variance_aware+road_prior',
)


@pytest.fixture
def data(tmp_path, rng):
    return write_scenes(tmp_path / 'data', rng)


def sweep(data, out, *options):
    return command('sweep', data, '-o', out, *CHAIN, *(options or VARY))


def test_a_sweep_measures_what_evaluate_measures(data, tmp_path):
    out = tmp_path / 'out'
    assert sweep(data, out) == 0
    found = json.loads((out / 'sweep.json').read_text())
    assert {'machine', 'versions', 'seeds', 'checkpoints'} <= set(found['environment'])
    assert [axis['name'] for axis in found['axes']] == ['scorers.s2.lam', 'refinements']
    lam, chains = (axis['points'] for axis in found['axes'])
    assert [(point['value'], point['base']) for point in lam] == [
        (0.2, False),
        (0.6, True),
        (1.0, False),
    ]
    assert [point['base'] for point in chains] == [True, False, False]
    assert (
        command(
            'evaluate',
            data,
            '-o',
            tmp_path / 'alone',
            *CHAIN,
            '--methods',
            's2',
            's2+variance_aware+road_prior',
            '--set',
            'scorers.s2.lam=0.2',
        )
        == 0
    )
    rows = {
        row['method']: row
        for row in json.loads((tmp_path / 'alone' / 'results.json').read_text())['results']
    }
    assert lam[0]['AP'] == pytest.approx(rows['s2']['AP'], abs=1e-9)
    assert lam[1]['AP'] == chains[0]['AP'] and lam[0]['AP'] != lam[2]['AP']
    table = list(csv.DictReader((out / 'sweep.csv').open()))
    assert len(table) == 6 and float(table[0]['AP']) == lam[0]['AP']
    assert f'| 0.6 (base) | {lam[1]["AP"]:.2f} |' in (out / 'sweep.md').read_text()
    picture = ElementTree.parse(out / 'curves' / 'scorers.s2.lam.svg').getroot()
    assert picture.tag.endswith('svg')
    assert len(picture.findall('{*}circle')) == 9


def test_a_sweep_is_continued_and_added_to(data, tmp_path, monkeypatch):
    out, seen, segment = tmp_path / 'out', [], Chain.segment

    def counted(self, *arguments):
        seen.append(1)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return segment(self, *arguments)

    monkeypatch.setattr(Chain, 'segment', counted)
    assert sweep(data, out) == 130 and not (out / 'sweep.json').exists()
    assert sweep(data, out) == 0 and len(seen) == 5
    assert sweep(data, out) == 0 and len(seen) == 5
    assert sweep(data, out, '--method', 's2', '--vary', 'scorers.s2.tau=0,0.5') == 0
    assert len(seen) == 9
    found = json.loads((out / 'sweep.json').read_text())
    assert [axis['name'] for axis in found['axes']] == [
        'scorers.s2.lam',
        'refinements',
        'scorers.s2.tau',
    ]


@pytest.mark.parametrize('name', sorted(variants.PRESETS))
def test_presets_hold_their_base_and_only_known_values(name):
    preset = variants.PRESETS[name]
    scorer, *refinements = preset.method.split('+')
    base = PipelineConfig().replace({'scorer': scorer, 'refinements': tuple(refinements)})
    configs, names = variants.variant_configs(preset.method, base, preset.axes)
    assert all(preset.method in row for row in names)
    assert len(configs) == 1 + sum(len(axis.variants) - 1 for axis in preset.axes)
    assert [len(row) for row in names] == [len(axis.variants) for axis in preset.axes]


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        (('--method', 's2'), 'expected something to vary'),
        (('--vary', 'scorers.s2.tau=0.1'), 'at least two values'),
        (('--vary', 'scorers.s2.tau=0.1,7'), 'scorers.s2.tau'),
        (('--vary', 'scorers.s2.tua=0.1,0.2'), "unknown option 'scorers.s2.tua'"),
        (('--vary', 'refinements=none,nonsense'), "unknown refinement 'nonsense'"),
        (('--preset', 'nonsense'), 'choose one of'),
        (('--preset', 's2', '--vary', 'scorers.s2.tau=0,1'), 'is there twice'),
        (('--layout', 'camvid', *VARY), 'choose --layout folder'),
    ],
)
def test_refusals_are_one_line(data, tmp_path, capsys, options, expected):
    assert sweep(data, tmp_path / 'out', *options) == 2
    error = capsys.readouterr().err
    assert expected in error and error.count('\n') == 1


def test_the_accuracy_table_goes_between_its_markers(tmp_path):
    def row(method, score):
        return {
            'method': method,
            'dataset': 'd',
            'AP': score,
            'FPR95': 3.0,
            'F1': 4.0,
            'mIoU': 66.94,
            'frames': 2,
        }

    drawn = {
        'environment': {
            'runs': {'d': {'frames': 2, 'pixels': {'inlier': 96, 'anomaly': 4, 'ignored': 0}}}
        },
        'results': [
            row('plain', 10.0),
            row('plain+road_prior', 20.04),
            row('head_v2', 80.0),
            row('s2', 10.04),
            row('s2+road_prior', 20.0),
        ],
    }
    page = tmp_path / 'accuracy.md'
    page.write_text(f'before\n{benchmark.BEGIN}\nold\n{benchmark.END}\nafter\n')
    benchmark.renew(page, benchmark.accuracy(drawn, {'results': [row('plain', None)]}))
    lines = page.read_text().splitlines()
    assert lines[:2] == ['before', benchmark.BEGIN] and lines[-2:] == [benchmark.END, 'after']
    assert lines[4] == '| `head_v2` (trained) | **80.0** |  |  |  | 3.0 | 4.0 |'
    assert lines[5] == '| `plain`, `s2` | 10.0 |  | **20.0** |  | 3.0 | 4.0 |'
    assert 'the AP of chance is 4.0' in lines[7] and 'mIoU 66.9' in lines[7]
    with pytest.raises(ValueError, match='add them where it shall stand'):
        benchmark.split(_plain(tmp_path))


def _plain(folder):
    path = folder / 'plain.md'
    path.write_text('no markers')
    return path
