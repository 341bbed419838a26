# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
import csv
import json

import cv2
import numpy as np
import pytest

from road_anomaly_ros import cli
from road_anomaly_ros.tools.sources import open_source
from road_anomaly_ros.tools.sources.foreign import WithAnomalyMaps


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / 'pictures'
    folder.mkdir()
    for index in (1, 2, 10):
        cv2.imwrite(str(folder / f'frame_{index}.png'), np.full((48, 64, 3), 90, np.uint8))
    return folder


def write_maps(folder, names, kind='.png'):
    """Maps of half the size with a square of 8 x 8 that moves by the position in `names`."""
    folder.mkdir()
    for index, name in enumerate(names):
        values = np.zeros((24, 32), np.uint16)
        values[8:16, 4 + index : 12 + index] = 60000
        if kind == '.png':
            cv2.imwrite(str(folder / f'{name}.png'), values)
        else:
            np.save(folder / f'{name}.npy', values.astype(np.float32) / 65535)
    return folder


def maps_of(pictures, folder):
    with open_source(str(pictures)) as source:
        source = WithAnomalyMaps(source, folder)
        return source, [(frame.name, int(frame.anomaly.any(0).argmax())) for frame in source]


def test_maps_are_found_by_the_name_of_the_picture(pictures, tmp_path):
    source, found = maps_of(pictures, write_maps(tmp_path / 'maps', ['frame_10', 'frame_2']))
    assert found == [('frame_2.png', 5), ('frame_10.png', 4)]
    assert dict(source.refused) == {'without an anomaly map': 1}


def test_maps_of_other_names_are_taken_in_order(pictures, tmp_path):
    folder = write_maps(tmp_path / 'maps', ['100', '9', '10'], '.npy')
    source, found = maps_of(pictures, folder)
    assert found == [('frame_1.png', 5), ('frame_2.png', 6), ('frame_10.png', 4)]
    assert not source.refused


def test_unreadable_maps_are_counted(pictures, tmp_path):
    folder = write_maps(tmp_path / 'maps', ['frame_1', 'frame_2', 'frame_10'])
    (folder / 'frame_2.png').write_bytes(b'no picture')
    source, found = maps_of(pictures, folder)
    assert len(found) == 2
    assert dict(source.refused) == {'with an unreadable anomaly map': 1}


@pytest.mark.parametrize('kind', ['.png', '.npy'])
def test_run_turns_foreign_maps_into_obstacles(pictures, tmp_path, kind):
    folder = write_maps(tmp_path / 'maps', ['frame_1', 'frame_2', 'frame_10'], kind)
    out = tmp_path / 'out'
    assert cli.main(['run', str(pictures), '-o', str(out), '--anomaly-maps', str(folder)]) == 0
    told = json.loads((out / 'summary.json').read_text())
    assert (told['frames'], told['segmenter'], told['scorer']) == (3, 'external', 'external')
    with (out / 'objects.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    # The square of 8 x 8 on a map of half the size: 16 x 16 pixels of the picture.
    assert [(int(row['x']), int(row['y']), int(row['w']), int(row['h'])) for row in rows] == [
        (8, 16, 16, 16),
        (10, 16, 16, 16),
        (12, 16, 16, 16),
    ]


def test_errors_are_one_line(pictures, tmp_path, capsys):
    command = ['run', str(pictures), '-o', str(tmp_path / 'out')]
    assert cli.main([*command, '--set', 'segmenter=external']) == 2
    assert '--anomaly-maps DIR' in capsys.readouterr().err
    assert cli.main([*command, '--anomaly-maps', str(tmp_path / 'nowhere')]) == 2
    told = capsys.readouterr().err
    assert 'expected a folder with anomaly maps' in told and told.count('\n') == 1
