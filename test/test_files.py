# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Files complete or not at all, JSON of odd values, hashes, and errors in one line."""

import hashlib
import json
import math

import pytest

from road_anomaly_ros import files
from road_anomaly_ros.remarks import one_line


@pytest.mark.parametrize(
    'content', ['tür', 'tür'.encode(), lambda file: file.write('tür'.encode())]
)
def test_a_file_is_written_whole_with_its_folders(tmp_path, content):
    path = tmp_path / 'a' / 'b' / 'name.txt'
    files.write(path, content)
    assert path.read_text(encoding='utf-8') == 'tür' and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize('error', [OSError(28, 'No space left on device'), KeyboardInterrupt()])
def test_what_was_there_stays_where_writing_fails(tmp_path, error):
    path = tmp_path / 'name.txt'
    files.write(path, 'before')

    def fail(file):
        file.write(b'half')
        raise error

    with pytest.raises(type(error)) as raised:
        files.write(path, fail)
    assert path.read_text() == 'before' and list(tmp_path.iterdir()) == [path]
    if isinstance(error, OSError):
        assert raised.value.filename == str(path) and raised.value.errno == 28


def test_json_knows_no_nan(tmp_path):
    files.write_json(tmp_path / 'a.json', {1: (math.nan, -math.inf, 2.5), 'b': [{'c': math.inf}]})
    text = (tmp_path / 'a.json').read_text()
    assert json.loads(text) == {'1': [None, None, 2.5], 'b': [{'c': None}]} and text[-1] == '\n'


def test_hashes_of_texts_bytes_and_files_are_those_of_all_in_a_row(tmp_path, monkeypatch):
    monkeypatch.setattr(files, '_BLOCK', 2)
    (tmp_path / 'a').write_bytes(b'abcde')
    want = hashlib.sha256('täabcdef'.encode()).hexdigest()
    assert files.sha256('tä', tmp_path / 'a', b'f') == want


@pytest.mark.parametrize(
    ('error', 'line'),
    [
        (ValueError('a\n  b\tc '), 'a b c'),
        (MemoryError(), 'MemoryError'),
        (KeyError(), 'KeyError'),
    ],
)
def test_errors_in_one_line(error, line):
    assert one_line(error) == line
