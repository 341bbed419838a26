# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Signals and full disks while `run` works."""

import fcntl
import os
import pty
import resource
import select
import signal
import subprocess
import sys
import termios
import threading
import time

import pytest
from conftest import ROOT
from runs import PATIENCE, SYNTHETIC, count_frames, rows, summary

from road_anomaly_ros.tools.flow import AS_ONE_S


def start(tmp_path, frames, *options, limit=None):
    """Start `road-anomaly run` on the rendered drive as a process of its own."""
    command = [
        sys.executable,
        '-m',
        'road_anomaly_ros.cli',
        'run',
        f'rendered:3?frames={frames}&width=64&height=48',
        '-o',
        str(tmp_path / 'out'),
        *SYNTHETIC,
        *options,
    ]
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    before = (
        None
        if limit is None
        else lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    )
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        preexec_fn=before,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_keeps_what_is_done_and_says_so(tmp_path, number):
    process = start(tmp_path, 100_000)
    table = tmp_path / 'out' / '.partial' / 'frames.csv'
    deadline = time.monotonic() + PATIENCE
    while not table.exists() or table.read_text().count('\n') <= 5:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, 'no frame was done in time'
        threading.Event().wait(0.05)
    process.send_signal(number)
    _, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number
    document = summary(tmp_path / 'out')
    assert document['interrupted'] is True and 5 <= document['frames'] < 100_000
    assert f'the first {document["frames"]} frames are done and kept' in error
    assert 'Traceback' not in error
    assert count_frames(tmp_path / 'out' / 'overlay.mp4') == document['frames']
    assert len(rows(tmp_path / 'out' / 'frames.csv')) == document['frames']
    assert not table.parent.exists()


def test_a_terminal_that_is_closed_loses_nothing(tmp_path):
    """As when an ssh session breaks: SIGHUP comes, and every word to the terminal fails."""
    master, slave = pty.openpty()
    command = [
        sys.executable,
        '-m',
        'road_anomaly_ros.cli',
        'run',
        'rendered:3?frames=100000&width=64&height=48',
        '-o',
        str(tmp_path / 'out'),
        *SYNTHETIC,
    ]
    process = subprocess.Popen(
        command,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'},
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(slave)
    table = tmp_path / 'out' / '.partial' / 'frames.csv'
    deadline = time.monotonic() + PATIENCE
    while not table.exists() or table.read_text().count('\n') <= 5:
        assert process.poll() is None and time.monotonic() < deadline
        select.select([master], [], [], 0.05)[0] and os.read(master, 1 << 16)
    os.close(master)
    assert process.wait(PATIENCE) == 128 + signal.SIGHUP
    document = summary(tmp_path / 'out')
    assert document['interrupted'] is True and document['problem'] is None
    assert count_frames(tmp_path / 'out' / 'overlay.mp4') == document['frames'] >= 5


# Nothing in Python can interrupt this main thread: it is in a library.
STUCK = """
import hashlib, sys
from road_anomaly_ros.tools.flow import StopOnSignal
with StopOnSignal(interrupt=sys.argv[1] == 'interrupt'):
    print('in', flush=True)
    hashlib.pbkdf2_hmac('sha256', b'a', b'b', 10**9)
"""


@pytest.mark.parametrize('mode', ['interrupt', 'note'])
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_second_signal_ends_at_once(number, mode):
    process = subprocess.Popen(
        [sys.executable, '-c', STUCK, mode],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == 'in\n'
    time.sleep(0.3)  # between the line and the library it can be interrupted
    process.send_signal(signal.SIGINT)
    time.sleep(2 * AS_ONE_S)  # sooner it would be the same one, passed on
    process.send_signal(number)
    _, said = process.communicate(timeout=PATIENCE)
    assert (process.returncode, said) == (128 + number, '')


TOGETHER = """
import signal
from road_anomaly_ros.tools.flow import StopOnSignal
with StopOnSignal() as stop:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.raise_signal(number)
print(int(stop.signal))
"""


def test_signals_that_come_together_are_one():
    done = subprocess.run(
        [sys.executable, '-c', TOGETHER],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.stdout.strip(), done.returncode) == (str(int(signal.SIGTERM)), 0)


def test_an_output_that_outgrows_the_disk_is_dropped_and_named(tmp_path):
    process = start(tmp_path, 60, '--set', 'drawing.legend=false', limit=12_000)
    _, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2 and 'Traceback' not in error
    document = summary(tmp_path / 'out')
    assert document['problem'] and 'overlay.mp4' not in document['outputs']
    assert not (tmp_path / 'out' / 'overlay.mp4').exists()
    assert len(rows(tmp_path / 'out' / 'frames.csv')) == document['frames'] > 0


# --- pieces ------------------------------------------------------------------------------------
