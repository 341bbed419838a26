# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0

import json

import cv2
import numpy as np
import pytest

from road_anomaly_ros import cli
from road_anomaly_ros.commands import demo
from road_anomaly_ros.rendering import Drive, DriveOptions
from road_anomaly_ros.tools.sources import open_source

SYNTHETIC = ['--set', 'segmenter=synthetic', '--scorer', 'plain']


def test_rendered_source_is_the_drive_with_stamps_and_truth():
    source = open_source('rendered:5?frames=3&width=64&height=48&fps=8')
    frames = list(source)
    drive = Drive(DriveOptions(seed=5, frames=3, width=64, height=48, fps=8.0))
    assert (source.kind, source.count, source.fps) == ('rendered', 3, 8.0)
    for frame, view in zip(frames, drive, strict=True):
        np.testing.assert_array_equal(frame.image, view.image)
        np.testing.assert_array_equal(frame.truth, view.instances)
        assert frame.stamp == pytest.approx(view.stamp)


@pytest.mark.parametrize(
    'text, words',
    [
        ('rendered:x', 'seed'),
        ('rendered:1?size=3', 'unknown option'),
        ('rendered:1?width=2', r'\[16, 8192\]'),
        ('rendered:1?frames=0', 'frames'),
    ],
)
def test_a_wrong_drive_is_refused_in_one_line(text, words):
    with pytest.raises((ValueError, TypeError), match=words):
        open_source(text)


def test_the_demo_counts_against_the_truth_and_says_where_to_look(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, 'DRIVE', 'rendered:1?frames=4&width=160&height=120')
    assert cli.main(['demo', '-o', str(tmp_path / 'out'), *SYNTHETIC]) == 0
    document = json.loads((tmp_path / 'out' / 'summary.json').read_text())
    assert document['frames'] == 4
    assert {'recall', 'false_alarms_per_frame', 'rule'} <= set(document['truth'])
    printed = capsys.readouterr().out
    assert 'against the ground truth' in printed and 'overlay.mp4' in printed
    assert 'make demo INPUT=' in printed
    assert (tmp_path / 'out' / 'overlay.mp4').exists()


def test_the_demo_takes_ones_own_footage(tmp_path, capsys):
    cv2.imwrite(str(tmp_path / 'photo.png'), np.full((48, 64, 3), 110, np.uint8))
    code = cli.main(['demo', str(tmp_path / 'photo.png'), '-o', str(tmp_path / 'out'), *SYNTHETIC])
    assert code == 0
    document = json.loads((tmp_path / 'out' / 'summary.json').read_text())
    assert document['frames'] == 1 and 'truth' not in document
    assert 'make demo INPUT=' not in capsys.readouterr().out


def test_the_drive_of_the_demo_is_long_enough_to_hold_obstacles_that_are_due():
    drive = Drive(open_source(demo.DRIVE).options)
    areas = np.array(
        [
            np.bincount(drive[index].instances.reshape(-1), minlength=2)[1:].max()
            for index in range(0, len(drive), 10)
        ]
    )
    assert (areas > 600).sum() >= 4
