# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Cameras, addresses, pipes and patterns as inputs."""

from __future__ import annotations

import io
import subprocess
import sys
import threading

import cv2
import numpy as np
import pytest
import servers
import videos
from runs import PATIENCE, SIZE, SYNTHETIC, rows, run, scene, summary, write_video

from road_anomaly_ros.remarks import Remark
from road_anomaly_ros.tools.flow import ReadAhead
from road_anomaly_ros.tools.sources import open_source
from road_anomaly_ros.tools.sources.stream import LiveSource, is_stream, without_secret


@pytest.mark.parametrize(
    ('text', 'stream'),
    [
        ('-', True),
        ('/dev/video0', True),
        ('rtsp://user:word@camera/1', True),
        ('http://camera/video', True),
        ('/dev/videos', False),
        ('rendered:7', False),
        ('video.mp4', False),
        ('http:/camera', False),
    ],
)
def test_what_is_a_stream_is_told_by_its_name(text, stream):
    assert is_stream(text) is stream


def test_a_camera_that_sends_mjpeg_goes_through_run(tmp_path):
    with servers.http_camera(lambda index: scene(index % 12)) as (address, _):
        assert run(address, tmp_path / 'out', '--max-frames', '4', '--no-video') == 0
    document = summary(tmp_path / 'out')
    assert document['frames'] == len(rows(tmp_path / 'out' / 'frames.csv')) == 4
    about = document['input']
    assert about['kind'] == 'stream' and about['live'] and about['gaps'] == 0
    assert 'secret' not in str(document) and about['path'].startswith('http://***@127.0.0.1')


def test_a_camera_that_speaks_rtsp_goes_through_run(tmp_path):
    packets = videos.packets(pictures=[scene(index) for index in range(12)])
    with servers.rtsp_camera(packets) as (address, connections):
        assert run(address, tmp_path / 'out', '--duration', '0.4') == 0
        assert connections.count == 1
    document = summary(tmp_path / 'out')
    stamps = [float(row['stamp']) for row in rows(tmp_path / 'out' / 'frames.csv')]
    assert document['frames'] == len(stamps) >= 1 and stamps == sorted(stamps)
    assert 'overlay.mp4' in document['outputs'] and document['objects'] >= 1


def test_a_connection_that_breaks_is_made_anew_and_counted():
    with servers.http_camera(videos.picture, breaks_after=5) as (address, connections):
        source = open_source(address)
        found = []
        with pytest.warns(Remark, match=r'broke off after 5 frames \(gap 1\)'):
            for frame in source:
                found.append(videos.number(frame.image))
                if len(found) == 8:
                    break
        assert connections.count == 2 and source.gaps == 1
    assert found == [0, 1, 2, 3, 4, 0, 1, 2]


class Capture:
    """A camera with a few pictures."""

    def __init__(self, pictures: int) -> None:
        self.left, self.released = pictures, False

    def get(self, _: int) -> float:
        return 20.0

    def read(self):
        self.left -= 1
        return self.left >= 0, np.zeros((*SIZE, 3), np.uint8)

    def release(self) -> None:
        self.released = True


def test_a_camera_that_stays_away_is_given_up(monkeypatch):
    monkeypatch.setattr('road_anomaly_ros.tools.sources.stream._FIRST_DELAY', 0.01)
    tried = []

    def connect(address):
        tried.append(address)
        raise ValueError('not there')

    capture = Capture(3)
    source = LiveSource('/dev/video7', capture, give_up_s=0.05, connect=connect)
    with pytest.warns(Remark, match='trying again'):
        assert len(list(source)) == 3
    assert source.problem == '/dev/video7 was given up, silent for 0.05 s' and source.incomplete
    assert 2 <= len(tried) <= 3 and capture.released  # 0.01, 0.02 and 0.04 s apart


def test_closing_ends_a_camera_that_waits(monkeypatch):
    monkeypatch.setattr('road_anomaly_ros.tools.sources.stream._FIRST_DELAY', 1e6)
    source = LiveSource('/dev/video7', Capture(0))
    timer = threading.Timer(0.05, source.close)
    timer.start()
    with pytest.warns(Remark):
        assert list(source) == []
    timer.join()
    assert source.problem is None


def test_of_a_live_source_the_newest_is_taken():
    came = threading.Event()

    def items():
        yield 'old'
        yield 'older than the newest'
        yield 'newest'
        came.set()

    reader = ReadAhead(items(), newest=True)
    assert came.wait(PATIENCE)
    assert [timed.item for timed in reader] == ['newest'] and reader.skipped == 2


def test_waiting_for_a_picture_ends_when_asked():
    released, asked = threading.Event(), []

    def items():
        released.wait(PATIENCE)
        yield 1

    def until():
        asked.append(True)
        return len(asked) > 2

    reader = ReadAhead(items(), until=until)
    assert list(reader) == []
    released.set()
    reader.close()


@pytest.mark.parametrize('address', ['rtsp://me:secret@127.0.0.1:1/x', 'http://127.0.0.1:1/x'])
def test_nobody_there_is_one_line(address, capfd):
    with pytest.raises(ValueError, match='expected a video stream, none comes') as caught:
        open_source(address)
    assert '\n' not in str(caught.value) and 'secret' not in str(caught.value)
    captured = capfd.readouterr()  # FFmpeg may speak where another test has opened it before
    assert captured.out == '' and 'secret' not in captured.err


def test_a_missing_camera_is_one_line(capfd):
    with pytest.raises(ValueError, match='/dev/video63: expected a camera, none answers'):
        open_source('/dev/video63')
    assert capfd.readouterr().err == ''


def test_a_pipe_is_read_to_its_end(tmp_path):
    words = ['-m', 'road_anomaly_ros.cli', 'run', '-', '-o', str(tmp_path / 'out'), *SYNTHETIC]
    with write_video(tmp_path / 'in.avi').open('rb') as file:
        done = subprocess.run(
            [sys.executable, *words], stdin=file, capture_output=True, timeout=PATIENCE
        )
    assert done.returncode == 0, done.stderr
    document = summary(tmp_path / 'out')
    assert document['frames'] == 12 and document['input']['kind'] == 'pipe'
    assert document['input']['path'] == 'standard input' and not document['input']['live']


def test_a_pipe_of_something_else_is_one_line(tmp_path):
    words = ['-m', 'road_anomaly_ros.cli', 'run', '-', '-o', str(tmp_path / 'out')]
    done = subprocess.run(
        [sys.executable, *words], input=b'no video', capture_output=True, timeout=PATIENCE
    )
    [line] = done.stderr.decode().splitlines()
    assert done.returncode == 2 and 'standard input: expected a video, such as' in line


def test_a_terminal_is_no_pipe(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, 'stdin', Terminal())
    with pytest.raises(ValueError, match='nothing is piped into this command'):
        open_source('-')


def test_patterns_name_pictures_in_the_order_of_their_numbers(tmp_path):
    for name in ('im10.png', 'im9.png', 'im007.png', 'other.png', 'im8.txt', 'im11a.png'):
        cv2.imwrite(str(tmp_path / 'x.png'), scene(1))
        (tmp_path / 'x.png').rename(tmp_path / name)
    numbered = open_source(tmp_path / 'im%04d.png')
    assert [frame.name for frame in numbered] == ['im007.png', 'im9.png', 'im10.png']
    assert (numbered.kind, numbered.count) == ('folder', 3)
    named = [frame.name for frame in open_source(tmp_path / 'im*.png')]
    assert named == ['im007.png', 'im9.png', 'im10.png', 'im11a.png']
    with pytest.raises(ValueError, match='found nothing at'):
        open_source(tmp_path / 'of%04d.png')


def test_a_duration_ends_a_file_by_its_own_time(tmp_path):
    assert run(write_video(tmp_path / 'in.avi'), tmp_path / 'out', '--duration', '0.2') == 0
    assert [row['frame'] for row in rows(tmp_path / 'out' / 'frames.csv')] == ['0', '1', '2', '3']


@pytest.mark.parametrize(
    ('address', 'shown'),
    [
        ('rtsp://user:secret@camera/stream', 'rtsp://***@camera/stream'),
        ('rtsp://user:se@cret@camera/a@b', 'rtsp://***@camera/a@b'),
        ('http://camera/a@b', 'http://camera/a@b'),
        ('drive@home.mp4', 'drive@home.mp4'),
    ],
)
def test_passwords_are_never_shown(address, shown):
    assert without_secret(address) == shown
