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


def test_maps_in_order_keep_their_places_beside_a_damaged_picture(pictures, tmp_path):
    (pictures / 'frame_2.png').write_bytes(b'no picture')
    _, found = maps_of(pictures, write_maps(tmp_path / 'maps', ['a', 'b', 'c']))
    assert found == [('frame_1.png', 4), ('frame_10.png', 6)]


def test_two_maps_of_one_name_are_refused(pictures, tmp_path):
    folder = write_maps(tmp_path / 'maps', ['frame_1', 'frame_2', 'frame_10'])
    np.save(folder / 'frame_2.npy', np.zeros((24, 32), np.float32))
    with pytest.raises(ValueError, match=r'got frame_2\.(npy|png) and frame_2\.(npy|png)'):
        maps_of(pictures, folder)


def test_a_map_is_not_taken_for_two_pictures(pictures, tmp_path):
    cv2.imwrite(str(pictures / 'frame_2.jpg'), np.full((48, 64, 3), 90, np.uint8))
    source, found = maps_of(pictures, write_maps(tmp_path / 'maps', ['frame_1', 'frame_2']))
    assert [name for name, _ in found] == ['frame_1.png', 'frame_2.jpg']
    assert source.left_out == {
        'with the anomaly map of another picture': ['frame_2.png'],
        'without an anomaly map': ['frame_10.png'],
    }


def test_score_maps_of_run_are_read_with_their_scale(pictures, tmp_path):
    folder = write_maps(tmp_path / 'maps', ['000000', '000001', '000002'])
    ends = {f'00000{index}.png': {'low': -2.0 * index, 'high': 8.0} for index in range(3)}
    (folder / 'scale.json').write_text(json.dumps({'formula': '', 'maps': ends}))
    with open_source(str(pictures)) as source:
        maps = [frame.anomaly for frame in WithAnomalyMaps(source, folder)]
    for index, found in enumerate(maps):
        low = -2.0 * index
        assert np.nanmax(found) == pytest.approx(low + 59999 / 65534 * (8 - low), abs=1e-4)
        assert np.isnan(found[0, 0])
    (folder / 'scale.json').write_text('{')
    with pytest.raises(ValueError, match=r'scale\.json: expected the scale'):
        maps_of(pictures, folder)


def test_of_several_arrays_the_score_is_the_map(pictures, tmp_path):
    folder, wanted = tmp_path / 'maps', np.zeros((24, 32), np.float32)
    folder.mkdir()
    wanted[8:16, 4:12] = 1
    np.savez(folder / 'frame_1.npz', logits=np.ones((24, 32), np.float32), score=wanted)
    np.savez(folder / 'frame_2.NPZ', stamp=1.5, anything=wanted)
    (folder / 'frame_2.NPZ.npz').rename(folder / 'frame_2.NPZ')
    np.savez(folder / 'frame_10.npz', one=wanted, two=wanted)
    source, found = maps_of(pictures, folder)
    assert found == [('frame_1.png', 4), ('frame_2.png', 4)]
    assert source.refused == {'with an unreadable anomaly map': 1}
