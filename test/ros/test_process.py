# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Processes end cleanly at SIGINT and SIGTERM in every state: code 0, no traceback."""

from __future__ import annotations

import itertools
import os
import select
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip('rclpy', reason='no rclpy installed')
if not hasattr(os, 'fork'):
    pytest.skip('needs fork', allow_module_level=True)

from conftest import ROOT

DEADLINE_S = 60.0
SIGNALS = (signal.SIGINT, signal.SIGTERM)

# Loading torch takes seconds, so one parent imports everything once and forks a process per case.
# Nothing of ROS is started before the fork: each child goes the way of the real executable.
PARENT = """
import faulthandler, os, sys, time
import road_anomaly_ros.ros.node, road_anomaly_ros.perception.segmenters.synthetic
from road_anomaly_ros.ros import node, process
from road_anomaly_ros.ros.engine import Engine


def announce(name, label):
    before = getattr(node.AnomalyNode, name)
    def after(self, state):
        result = before(self, state)
        if result == node.SUCCESS:
            os.write(1, f'{label}\\n'.encode())
        return result
    setattr(node.AnomalyNode, name, after)


class Slow(Engine):
    def load(self, config, *, warm_up=True):
        os.write(1, b'configuring\\n')
        time.sleep(0.5)
        super().load(config, warm_up=warm_up)


announce('on_configure', 'inactive')
announce('on_activate', 'active')
announce('on_deactivate', 'deactivated')
announce('on_cleanup', 'cleaned')
os.write(1, b'ready\\n')
for line in sys.stdin:
    state, errors = line.split()
    child = os.fork()
    if child == 0:
        handle = os.open(errors, os.O_WRONLY | os.O_CREAT)
        os.dup2(handle, 2)
        faulthandler.enable()
        if state == 'configuring':
            node.Engine = Slow
        if state == 'inactive':
            node.AnomalyNode._autostart = lambda self: self.trigger_configure()
        if state in ('deactivated', 'cleaned'):
            def life(self):
                self.trigger_configure(), self.trigger_activate(), self.trigger_deactivate()
                if state == 'cleaned':
                    self.trigger_cleanup()
            node.AnomalyNode._autostart = life
        if state == 'finalized':
            node.AnomalyNode._autostart = lambda self: (
                self.trigger_configure(), self.trigger_shutdown(), os.write(1, b'finalized\\n'))
        if state == 'unconfigured':
            node.AnomalyNode._autostart = lambda self: os.write(1, b'unconfigured\\n')
        arguments = ['--ros-args', '-p', 'segmenter:=synthetic']
        os.write(1, f'pid {os.getpid()}\\n'.encode())
        process.anomaly_node(['anomaly_node', *arguments])
    _, status = os.waitpid(child, 0)
    os.write(1, f'exit {os.waitstatus_to_exitcode(status)}\\n'.encode())
"""
STATES = ('starting', 'unconfigured', 'configuring', 'inactive', 'active', 'deactivated',
          'cleaned', 'finalized')


@pytest.fixture(scope='module')
def parent():
    process = subprocess.Popen(
        [sys.executable, '-c', PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        bufsize=0, cwd=ROOT)
    assert read_line(process) == 'ready'
    yield process
    process.stdin.close()
    assert process.wait(DEADLINE_S) == 0


def read_until(process, wanted, errors):
    """Return the first line that starts with `wanted`; fails with `errors` after a deadline."""
    end = time.monotonic() + DEADLINE_S
    lines = []
    while select.select([process.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
        lines.append(read_line(process))
        if lines[-1].startswith(wanted):
            return lines[-1]
    said = errors.read_text() if errors.exists() else ''
    raise AssertionError(f'waited in vain for {wanted!r} after {lines}: {said}')


def read_line(process):
    """Read to the end of a line, no byte further: select sees nothing of what Python buffers."""
    line = b''
    while not line.endswith(b'\n'):
        piece = os.read(process.stdout.fileno(), 1)
        assert piece, f'ended after {line!r}'
        line += piece
    return line.decode().strip()


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize(('turn', 'state', 'number'),
                         list(itertools.product(range(2), STATES, SIGNALS)))
def test_a_signal_in_every_state_ends_the_process_cleanly(parent, tmp_path, turn, state, number):
    errors = tmp_path / 'stderr'
    parent.stdin.write(f'{state} {errors}\n'.encode())
    pid = int(read_until(parent, 'pid', errors).split()[1])
    if state != 'starting':
        read_until(parent, state, errors)
    else:
        time.sleep(0.02 + 0.1 * turn)               # no state to wait for: anywhere in the start
    os.kill(pid, number)
    assert read_until(parent, 'exit', errors) == 'exit 0', errors.read_text()
    said = errors.read_text()
    assert 'Traceback' not in said and 'never retrieved' not in said, said
    assert gone(pid)


@pytest.mark.parametrize('number', SIGNALS)
def test_the_executable_itself(number):
    process = subprocess.Popen(
        [sys.executable, '-m', 'road_anomaly_ros.ros.process', '--ros-args', '-p',
         'segmenter:=synthetic'], stderr=subprocess.PIPE, text=True, cwd=ROOT)
    said = ''
    for line in process.stderr:
        said += line
        if 'scorer plain' in line:
            break
    process.send_signal(number)
    process.send_signal(number)                     # launch and the terminal both send one
    said += process.communicate(timeout=DEADLINE_S)[1]
    assert process.returncode == 0, said
    assert 'Traceback' not in said


def test_a_wrong_parameter_at_start_is_one_line():
    done = subprocess.run(
        [sys.executable, '-m', 'road_anomaly_ros.ros.process', '--ros-args', '-p',
         'scorer:=nonsense'], capture_output=True, text=True, timeout=DEADLINE_S, cwd=ROOT)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line]
    assert len(lines) == 1 and "unknown scorer 'nonsense'" in lines[0]
