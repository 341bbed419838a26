# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What `calibrate` writes, replaces and refuses."""

import pytest

from road_anomaly_ros.cli import main
from road_anomaly_ros.evaluation import footage


def test_nothing_but_a_calibration_is_replaced(tmp_path, capsys):
    """Somebody types the name of the footage twice."""
    precious = tmp_path / 'commute.mp4'
    precious.write_bytes(b'hours of driving')
    words = ['calibrate', str(precious), '-o', str(precious), '--set', 'segmenter=synthetic']
    assert main(words) == 2
    assert 'is no calibration and would be replaced' in capsys.readouterr().err
    assert precious.read_bytes() == b'hours of driving'


def test_two_runs_do_not_share_a_journal(tmp_path):
    with (
        footage.Journal(tmp_path / 'j', 'key') as first,
        pytest.raises(ValueError, match='another run is writing there'),
    ):
        first.add({'a': 1})
        footage.Journal(tmp_path / 'j', 'key').__enter__()
    with footage.Journal(tmp_path / 'j', 'key') as again:
        assert again.done == [{'a': 1}]


@pytest.mark.parametrize('content', [b'\0\0\0\n', b'\xff\xfe\n', b'"key"\n{"a"\n'])
def test_a_damaged_journal_is_begun_anew(tmp_path, content):
    (tmp_path / 'j').write_bytes(content)
    with footage.Journal(tmp_path / 'j', 'key') as journal:
        assert journal.done == []


@pytest.mark.parametrize('option', ['--rate', '--topic', '--areas', '--block'])
def test_options_without_effect_on_labels_are_refused(tmp_path, capsys, option):
    words = ['calibrate', str(tmp_path), '-o', str(tmp_path / 'mine.yaml')]
    assert main([*words, '--labels', 'folder', option, '7']) == 2
    assert f'{option} has no effect with --labels' in capsys.readouterr().err
