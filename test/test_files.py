# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Files complete or not at all, JSON of odd values, hashes, and errors in one line."""

import errno
import hashlib
import json
import math
import os
from pathlib import Path

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


def test_names_that_are_no_utf_8_keep_their_bytes(tmp_path):
    name = os.fsdecode(b'Stra\xdfe.jpg')
    files.write(tmp_path / 'a.txt', name)
    assert (tmp_path / 'a.txt').read_bytes() == b'Stra\xdfe.jpg'
    assert files.sha256(name) == hashlib.sha256(b'Stra\xdfe.jpg').hexdigest()


def test_one_run_at_a_time_has_a_folder(tmp_path):
    folder = tmp_path / 'a' / 'b'
    with files.alone(folder), pytest.raises(ValueError, match='another run is writing there'):
        files.lock(folder)
    os.close(files.lock(folder))
    (tmp_path / 'file').write_text('')
    with pytest.raises(ValueError, match='expected a folder'), files.alone(tmp_path / 'file'):
        pass


def test_a_file_system_without_locks_is_written_to_all_the_same(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr(files.fcntl, 'flock', refuse)
    os.close(files.lock(tmp_path))


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('a: 1\nb: 2\na: 3\n', 'a is there twice'),
        ('top:\n  - {scorer: rba, scorer: s2}\n', 'scorer is there twice'),
        ('a: [', 'is no YAML'),
        (b'\xff\xfe\x00'.decode('latin-1'), 'is no YAML'),
    ],
)
def test_yaml_is_read_strictly_in_one_line(tmp_path, text, expected):
    path = tmp_path / 'a.yaml'
    path.write_text(text, encoding='latin-1')
    with pytest.raises(ValueError, match=expected) as raised:
        files.read_yaml(path)
    assert '\n' not in str(raised.value) and str(path) in str(raised.value)


def test_yaml_with_aliases_is_no_doubled_name(tmp_path):
    path = tmp_path / 'a.yaml'
    path.write_text('a: &x {b: 1}\nc: {<<: *x, d: 2}\ne: *x\n')
    assert files.read_yaml(path) == {'a': {'b': 1}, 'c': {'b': 1, 'd': 2}, 'e': {'b': 1}}


def test_a_tilde_before_nobody_is_the_name_of_a_file(monkeypatch):
    monkeypatch.setenv('HOME', '/home/me')
    assert files.home('~/a') == Path('/home/me/a') and files.home('a~') == Path('a~')
    assert files.home('~$drive.mp4') == Path('~$drive.mp4')
