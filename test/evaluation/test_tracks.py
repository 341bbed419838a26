# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Figures of tracks on maps that can be counted by hand."""

from __future__ import annotations

import json
import sys

import cv2
import numpy as np
import pytest

from road_anomaly_ros import cli
from road_anomaly_ros.evaluation import tracks

LEFT, RIGHT = (slice(0, 30), slice(0, 30)), (slice(0, 30), slice(60, 90))  # 900 px each


def plane(*areas):
    found = np.zeros((60, 120), np.int64)
    for area, number in areas:
        found[area] = number
    return found


def drive(*frames):
    account = tracks.Account()
    for ids, truth in frames:
        add(account, ids, truth)
    return account


def add(account, ids, truth, alone=()):
    account.add(plane(*ids), plane(*truth).astype(np.uint16), plane(*alone))


def test_two_things_followed_without_a_fault():
    pytest.importorskip('motmetrics')
    both = [(LEFT, 1), (RIGHT, 2)]
    found = drive(*[([(LEFT, 7), (RIGHT, 9)], both)] * 5).figures()
    assert (found['IDF1'], found['MOTA'], found['switches']) == (1.0, 1.0, 0)
    assert (found['obstacles'], found['tracks'], found['false_tracks']) == (2, 2, 0)
    assert found['frames_to_confirm'] == 1 and found['never_confirmed'] == 0


def test_a_switch_is_counted_and_halves_the_identity():
    pytest.importorskip('motmetrics')
    found = drive(*[([(LEFT, 7)], [(LEFT, 1)])] * 4, *[([(LEFT, 8)], [(LEFT, 1)])] * 4).figures()
    # Four frames of eight count for the one id that fits best: 2 * 4 / (8 + 8).
    assert (found['IDF1'], found['switches']) == (0.5, 1)
    assert found['false_tracks'] == 0


def test_what_was_never_there_is_false_and_what_was_missed_is_counted():
    pytest.importorskip('motmetrics')
    found = drive(
        ([], [(LEFT, 1)]), ([(RIGHT, 3)], [(LEFT, 1)]), ([(LEFT, 4), (RIGHT, 3)], [(LEFT, 1)])
    ).figures()
    assert (found['misses'], found['false_positives']) == (2, 2)
    assert found['MOTA'] == pytest.approx(1 - 4 / 3)
    assert (found['tracks'], found['false_tracks'], found['frames_to_confirm']) == (2, 1, 3)


def test_frames_count_that_show_an_obstacle_before_its_track_is_confirmed():
    pytest.importorskip('motmetrics')
    account, truth = tracks.Account(), [(LEFT, 1), (RIGHT, 2)]
    both = slice(0, 30), slice(0, 90)  # of 2700 px a third is the left one
    add(account, [], truth)
    add(account, [], truth, [(LEFT, 1)])
    add(account, [], truth, [((slice(0, 30), slice(20, 50)), 1), (RIGHT, 2)])  # beside the left
    add(account, [(LEFT, 7)], truth, [(both, 1)])
    assert account.figures()['clear_frames'] == 2  # of both things, the right one still waits
    add(account, [(LEFT, 7)], truth, [(LEFT, 1), (RIGHT, 2)])
    assert account.figures()['clear_frames'] == 3


def test_small_obstacles_are_neither_asked_for_nor_a_fault():
    small = (slice(0, 20), slice(0, 20))
    account = drive(([(small, 5)], [(small, 1)]))
    ((due, ids, distance),) = account.rows
    assert due == [] and ids == [] and distance.shape == (0, 0)


def test_a_track_beside_its_obstacle_is_not_on_it():
    account = drive(([((slice(0, 30), slice(20, 50)), 5)], [(LEFT, 1)]))
    ((_, _, distance),) = account.rows
    assert np.isnan(distance).all()  # 300 of 1500 pixels


def test_maps_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match='two maps of one size'):
        tracks.Account().add(np.zeros((2, 3), int), np.zeros((3, 2), int), np.zeros((2, 3), int))


def test_the_table_ends_with_sums_and_means():
    row = dict.fromkeys(tracks.COLUMNS[1:], 1.0)
    lines = tracks.table([{'drive': 'a', **row}, {'drive': 'b', **row, 'IDF1': 0.0}]).splitlines()
    assert lines[-1].startswith('| all 2 | 0.5 | 1 | 1 | 2 |')


def test_without_the_library_the_command_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'motmetrics', None)
    assert cli.main(['evaluate', 'rendered:1?frames=1', '--tracks']) == 2
    error = capsys.readouterr().err
    assert "install 'road_anomaly_ros[tracks]'" in error and error.count('\n') == 1


def test_without_a_drive_the_command_says_what_it_takes(capsys):
    assert cli.main(['evaluate', '--tracks']) == 2
    assert "expected a drive such as 'rendered:1" in capsys.readouterr().err


def write_clip(folder, frames, masks, numbers, void):
    """Eight frames of a road with two boxes of 1600 px; `numbers(index)` are those of the boxes.

    A third one is strange in the picture and void in the mask.
    """
    for index in range(8):
        picture = np.full((120, 200, 3), 110, np.uint8)
        mask = np.zeros((120, 200), np.uint16 if max(void, *numbers(index)) > 255 else np.uint8)
        for left, number in zip((10 + index, 70 + index), numbers(index), strict=True):
            box = slice(60, 100), slice(left, left + 40)
            picture[box], mask[box] = (200, 20, 230), number
        aside = slice(60, 100), slice(140, 180)
        picture[aside], mask[aside] = (200, 20, 230), void
        for name, pixels in ((frames, picture), (masks, mask)):
            path = folder / name / 'clip' / f'{index:06d}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), pixels)


@pytest.mark.parametrize(
    ('frames', 'masks', 'numbers', 'void', 'switches'),
    [
        ('images', 'instances', lambda _: (2001, 1001), 10_000, 0),
        ('JPEGImages', 'Annotations', lambda _: (1, 2), 255, 0),
        ('images', 'instances', lambda index: (2001, 2002)[:: 1 if index < 4 else -1], 10_000, 2),
    ],
)
def test_folders_of_masks_are_measured_from_end_to_end(
    tmp_path, frames, masks, numbers, void, switches
):
    pytest.importorskip('motmetrics')
    write_clip(tmp_path / 'set', frames, masks, numbers, void)
    words = ['evaluate', str(tmp_path / 'set'), '--tracks', '-o', str(tmp_path)]
    words += ['--set', 'segmenter=synthetic', '--scorer', 'plain']
    # Its segmenter finds the horizon strange, 400 px of it.
    words += ['--set', 'objects.min_area=800', '--set', 'objects.reference_area=0']
    assert cli.main(words) == 0
    (found,) = json.loads((tmp_path / tracks.NAME).read_text())['videos']
    assert found['drive'] == str(tmp_path / 'set' / frames / 'clip')
    # Both are confirmed with the second frame: 14 of 16 appearances, nothing besides. What is
    # void is no fault. Where the names change places, 3 + 4 frames of each keep one, not 7.
    assert (found['obstacles'], found['false_tracks'], found['switches']) == (2, 0, switches)
    assert (found['misses'], found['false_positives']) == (2, 0)
    assert found['frames_to_confirm'] == 2 and found['recall'] == 14 / 16
    assert found['IDF1'] == pytest.approx(2 * (8 if switches else 14) / (16 + 14))


def test_what_lies_mostly_in_void_is_no_fault_and_else_what_stands_out():
    ids, void = np.array([[1, 1, 1, 2, 2, 2, 0]]), np.array([[1, 1, 0, 1, 0, 0, 0]], bool)
    assert tracks._judged(ids, void).tolist() == [[0, 0, 0, 0, 2, 2, 0]]


def test_a_drive_is_measured_from_end_to_end(tmp_path, capsys):
    pytest.importorskip('motmetrics')
    assert (
        cli.main(
            [
                'evaluate',
                'rendered:1?frames=3&width=64&height=48',
                '--tracks',
                '-o',
                str(tmp_path),
                '--set',
                'segmenter=synthetic',
                '--scorer',
                'plain',
            ]
        )
        == 0
    )
    assert '| rendered:1?frames=3&width=64&height=48 |' in capsys.readouterr().out
    assert (tmp_path / tracks.NAME).is_file()
