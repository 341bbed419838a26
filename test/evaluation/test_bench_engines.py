# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""`bench --engines` on tiny networks: the figures of its JSON, its table, and AP of a data set."""

from __future__ import annotations

import json

import pytest
import tiny_models
import tiny_scenes
import torch

from road_anomaly_ros.evaluation import bench_engines
from road_anomaly_ros.perception.contract import PixelOutput
from road_anomaly_ros.perception.engines import graph
from road_anomaly_ros.perception.model_files import BUILTIN
from road_anomaly_ros.tools import engines

pytest.importorskip('onnx', reason='needs the extra export')
HERE = [
    name
    for name, runtime in graph.RUNTIMES.items()
    if 'cpu' in runtime.DEVICES and not runtime.missing()
]


def test_every_engine_is_measured_at_every_size_and_read_back(tmp_path, monkeypatch, capsys):
    tiny = ('mask2former', lambda: tiny_models.new_mask2former(tiny_models.new_backbone('swin')))
    monkeypatch.setitem(bench_engines.NETWORKS, 'tiny', tiny)
    out, sizes = tmp_path / 'engines.json', [[96, 64], [128, 96]]
    words = ['--network', 'tiny', '--size', '96x64', '--size', '128x96', '--rounds', 2, '-o', out]
    assert tiny_scenes.command('bench', '--engines', *words) == 0
    document = json.loads(out.read_text())
    assert {'cpu', 'cores', 'threads', 'torch'} <= set(document['environment'])
    rows = document['engines']
    order = ['torch', *HERE, 'transformers']
    assert [(row['size'], row['engine']) for row in rows] == [
        (size, engine) for size in sizes for engine in order
    ]
    for row in rows:
        assert row['network'] == 'tiny' and row['ms'] > 0 and row['AP'] is None
        assert (row['difference'] is None) == (row['engine'] in ('torch', 'transformers'))
    for name, most in (('onnxruntime', 1e-4), ('openvino', 0.1)):  # the latter has 8 bits
        found = [row['difference'] for row in rows if row['engine'] == name]
        assert all(0 < difference < most for difference in found)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith('| tiny |')]
    assert len(lines) == len(rows)
    assert lines[0] == f'| tiny | 96x64 | torch | {rows[0]["ms"]:.1f} | 1.00 |  |  |'


def test_AP_of_the_builtin_model_is_measured_for_each_engine_and_set(tmp_path, rng):
    sets = [tiny_scenes.write_scenes(tmp_path / name, rng) for name in ('one', 'other')]
    out = tmp_path / 'engines.json'
    words = ['--data', sets[0], '--data', sets[1], '--size', '96x64', '--rounds', 1, '-o', out]
    command = ['bench', '--engines', '--network', BUILTIN, '--max-frames', 2, *words]
    assert tiny_scenes.command(*command) == 0
    found = {row['engine']: row['AP'] for row in json.loads(out.read_text())['engines']}
    assert list(found) == ['torch', *HERE]
    for measured in found.values():
        assert list(measured) == ['one', 'other']
        assert all(0 < AP <= 100 for AP in measured.values())
    assert found['onnxruntime'] == pytest.approx(found['torch'], abs=0.1)


def row(network: str, size: tuple[int, int], engine: str, ms: float, **more) -> dict:
    figures = {'against_torch': 20 / ms, 'difference': None, 'AP': None, **more}
    return {'network': network, 'size': list(size), 'engine': engine, 'ms': ms, **figures}


def test_both_tables_by_hand():
    exact, near = {'a': 88.44, 'b': 91.0}, {'a': 88.31, 'b': 91.26}
    rows = [
        row('builtin', (480, 352), 'torch', 20.0, AP=exact),
        row('builtin', (480, 352), 'openvino', 8.0, difference=0.019, AP=near),
        row('SegFormer', (96, 64), 'torch', 4.04),
        row('SegFormer', (96, 64), 'openvino', 2.0, difference=0.0048),
        row('SegFormer', (96, 64), 'transformers', 5.0),
    ]
    assert engines.details(rows[:2]).splitlines()[2:] == [
        '| builtin | 480x352 | torch | 20.0 | 1.00 |  | 88.4, 91.0 |',
        '| builtin | 480x352 | openvino | 8.0 | 2.50 | 1.9e-02 | 88.3, 91.3 |',
    ]
    assert engines.summary(rows).splitlines() == [
        '| network | size | torch | openvino | transformers |',
        '| --- | --- | ---: | ---: | ---: |',
        '| builtin | 480x352 | 20 (1.0) | 8 (2.5) |  |',
        '| SegFormer | 96x64 | 4 (5.0) | 2 (10.0) | 5 (4.0) |',
        '| largest difference |  |  | 1.9e-02 |  |',
        '| AP, built-in, a |  | 88.4 | 88.3 |  |',
        '| AP, built-in, b |  | 91.0 | 91.3 |  |',
    ]


def test_what_is_measured_anew_takes_the_place_of_what_a_file_holds(tmp_path, monkeypatch):
    out = tmp_path / 'engines.json'
    made = iter((7.0, 5.0, 3.0))
    monkeypatch.setattr(
        bench_engines, 'rows', lambda name, size, *_: [row(name, size, 'torch', next(made))]
    )
    for name, size in (('SegFormer-B2', '96x64'), (BUILTIN, '96x64'), ('SegFormer-B2', '96x64')):
        words = ['--network', name, '--size', size, '--add', '-o', out]
        assert tiny_scenes.command('bench', '--engines', *words) == 0
    found = json.loads(out.read_text())['engines']
    assert [(row['network'], row['ms']) for row in found] == [
        (BUILTIN, 5.0),
        ('SegFormer-B2', 3.0),
    ]


def test_the_difference_is_relative_to_values_above_one():
    for top, wanted in ((0.5, 0.25), (10.0, 0.025)):
        exact = PixelOutput(torch.tensor([[[top, 0.0]], [[0.0, -top]]]), (1, 2))
        near = PixelOutput(exact.logits + torch.tensor([0.25, 0.0]), (1, 2))
        assert bench_engines._difference(near, exact) == wanted


@pytest.mark.parametrize(
    ('words', 'complaint'),
    [
        (['--network', 'swin'], "unknown network 'swin'; choose one of"),
        (['--add'], '--add: expected the file to be added to, got none; name it with -o'),
    ],
)
def test_wrong_options_are_one_line(capsys, words, complaint):
    assert tiny_scenes.command('bench', '--engines', *words) == 2
    error = capsys.readouterr().err
    assert complaint in error and error.count('\n') == 1
