# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The command `mine` run again: files that have changed, failed, broken off or are gone."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
from archives import CHAIN, road, write_bag, write_video

pytest.importorskip('pyarrow', reason='needs the extra mine')

from road_anomaly_ros import cli
from road_anomaly_ros.fleet.index import Index


def test_a_file_that_has_changed_is_mined_anew(tmp_path):
    write_video(tmp_path / 'a.avi', 4)
    out = tmp_path / 'index'
    words = ['mine', str(tmp_path / 'a.avi'), '-o', str(out), '--jobs', '1', *CHAIN]
    assert cli.main(words) == 0
    (before,) = Index(out).done()
    write_video(tmp_path / 'a.avi', 6)
    assert cli.main(words) == 0
    (after,) = Index(out).done()
    assert (before.frames, after.frames) == (4, 6)


def test_a_failure_is_forgotten_with_its_file(tmp_path, capsys):
    """One broken video is replaced by a good one, another is taken away."""
    drives, out = tmp_path / 'drives', tmp_path / 'index'
    drives.mkdir()
    for name in ('a.avi', 'b.avi'):
        (drives / name).write_bytes(b'no video')
    words = ['mine', str(drives), '-o', str(out), '--jobs', '1', *CHAIN]
    assert cli.main(words) == 1
    assert {Path(item['file']).name for item in Index(out).failures().values()} == {
        'a.avi',
        'b.avi',
    }
    capsys.readouterr()
    write_video(drives / 'a.avi', 2)
    (drives / 'b.avi').unlink()
    assert cli.main(words) == 0
    assert Index(out).failures() == {} and 'failed:' not in capsys.readouterr().err


def test_a_failure_of_a_remote_file_is_forgotten_with_it(tmp_path, monkeypatch):
    """Whatever is mined next; where its server cannot be reached, it is kept."""
    import fsspec

    memory, out = fsspec.filesystem('memory'), tmp_path / 'index'
    memory.pipe('/broken/a.avi', b'no video')
    write_video(tmp_path / 'b.avi', 2)

    def failures(source):
        cli.main(['mine', source, '-o', str(out), '--jobs', '1', *CHAIN])
        return [item['file'] for item in Index(out).failures().values()]

    try:
        local, remote = str(tmp_path / 'b.avi'), ['memory:///broken/a.avi']
        assert failures('memory://broken') == failures(local) == remote
    finally:
        memory.rm('/broken', recursive=True)
    with monkeypatch.context() as patch:
        patch.setattr(type(memory), 'info', lambda *_: 1 / 0)
        assert failures(local) == remote
    assert failures(local) == []


def test_a_file_that_breaks_off_is_told_again_when_all_is_done(tmp_path, capsys):
    write_bag(tmp_path / 'drive')
    (storage,) = (tmp_path / 'drive').glob('*.mcap')
    storage.write_bytes(storage.read_bytes()[: storage.stat().st_size * 2 // 3])
    words = ['mine', str(tmp_path / 'drive'), '-o', str(tmp_path / 'index'), '--jobs', '1', *CHAIN]
    told = []
    for _ in range(2):
        assert cli.main(words) == 1
        told.append(capsys.readouterr().err)
    assert told[0] == told[1] and 'incomplete: ' in told[0]


def test_pictures_that_cannot_be_read_are_counted_each_time(tmp_path, capsys):
    (tmp_path / 'photos').mkdir()
    for index in range(3):
        picture = road(9 * index)[..., ::-1]
        cv2.imwrite(str(tmp_path / 'photos' / f'{index}.png'), picture)
    whole = (tmp_path / 'photos' / '0.png').read_bytes()
    (tmp_path / 'photos' / '1.png').write_bytes(whole[:300])
    words = ['mine', str(tmp_path / 'photos'), '-o', str(tmp_path / 'index'), '--jobs', '1']
    for _ in range(2):
        assert cli.main(words) == 0
        assert 'left out 1 pictures: ' in capsys.readouterr().err
