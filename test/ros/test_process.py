# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Processes end cleanly at SIGINT, SIGTERM and SIGHUP in every state: code 0, no traceback."""

from __future__ import annotations

import itertools
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='no rclpy installed')
if not hasattr(os, 'fork'):
    pytest.skip('needs fork', allow_module_level=True)

from conftest import ROOT
from rclpy.utilities import get_rmw_implementation_identifier

from road_anomaly_ros.tools.flow import AS_ONE_S

DEADLINE_S = 60.0
LAUNCH_PATIENCE_S = 5.0  # after which launch complains and sends the next signal
FAST_DDS = get_rmw_implementation_identifier() == 'rmw_fastrtps_cpp'
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# Loading torch takes seconds, so one parent imports everything once and forks a process per case.
# Nothing of ROS is started before the fork: each child goes the way of the real executable.
PARENT = """
import faulthandler, os, sys, threading, time
import road_anomaly_ros.ros.node, road_anomaly_ros.perception.segmenters.synthetic
from road_anomaly_ros.ros import node, process
from road_anomaly_ros.ros.engine import Engine
from sensor_msgs.msg import Image


def announce(name, label):
    before = getattr(node.AnomalyNode, name)
    def after(self, state):
        result = before(self, state)
        if result == node.SUCCESS:
            os.write(1, f'{label}\\n'.encode())
        return result
    setattr(node.AnomalyNode, name, after)


class Stuck(Engine):
    def load(self, config, *, warm_up=True):
        if state == 'loading':
            os.write(1, b'loading\\n')
            threading.Event().wait()
        super().load(config, warm_up=warm_up)

    def run(self, *inputs):
        os.write(1, b'computing\\n')
        threading.Event().wait()


def activate_and_see(self, state):
    result = activate(self, state)
    self.cameras[''].on_image(Image(height=1, width=1, step=3, encoding='rgb8', data=bytes(3)))
    return result


activate = node.AnomalyNode.on_activate


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
        if state in ('loading', 'computing'):
            node.Engine = Stuck
            node.AnomalyNode.on_activate = activate_and_see
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
STATES = (
    'starting',
    'unconfigured',
    'configuring',
    'inactive',
    'active',
    'deactivated',
    'cleaned',
    'finalized',
)


@pytest.fixture(scope='module')
def parent():
    process = subprocess.Popen(
        [sys.executable, '-c', PARENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        cwd=ROOT,
    )
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


# The kernel gives a signal to any thread that does not block it: here to all but the main thread.
ELSEWHERE = """
import os, signal, sys
from road_anomaly_ros.ros import process


def make(stop):
    signal.pthread_sigmask(signal.SIG_UNBLOCK, process.SIGNALS)
    from rclpy.node import Node
    node = Node('ending')
    node.create_timer(0.01, lambda: os.kill(os.getpid(), int(sys.argv[1])))
    return node


signal.pthread_sigmask(signal.SIG_BLOCK, process.SIGNALS)
sys.exit(process.run(make, args=[]))
"""
# The second signal comes at every line that the main thread still runs after the first one.
SECOND = """
import os, signal, sys, threading
from road_anomaly_ros.ros import process

places, begun = set(), False


def trace(frame, event, argument):
    place = frame.f_code.co_filename, frame.f_lineno
    if place[0] not in (process.__file__, threading.__file__):
        return None
    if begun and event == 'line' and place not in places:
        places.add(place)
        signal.raise_signal(int(sys.argv[1]))
    return trace


def make(stop):
    from rclpy.node import Node

    class Ending(Node):
        def __init__(self):
            super().__init__('ending')
            self.create_timer(0.01, self.end)

        def end(self):
            global begun
            begun = True
            os.kill(os.getpid(), int(sys.argv[1]))

        def close(self):
            print('closed')
    return Ending()


sys.settrace(trace)
code = process.run(make, args=[])
assert len(places) > 10, places
sys.exit(code)
"""
# Both signals come when the import of a module begins.
IMPORTING = """
import os, sys
from road_anomaly_ros.ros import process


class Signals:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[2]:
            sys.meta_path.remove(self)
            os.write(1, b'importing')
            for _ in range(2):
                os.kill(os.getpid(), int(sys.argv[1]))
        return None


sys.meta_path.insert(0, Signals())
process.anomaly_node(['anomaly_node', '--ros-args', '-p', 'segmenter:=synthetic'])
"""


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize(
    ('turn', 'state', 'number'), list(itertools.product(range(2), STATES, SIGNALS))
)
def test_a_signal_in_every_state_ends_the_process_cleanly(parent, tmp_path, turn, state, number):
    errors = tmp_path / 'stderr'
    parent.stdin.write(f'{state} {errors}\n'.encode())
    pid = int(read_until(parent, 'pid', errors).split()[1])
    if state != 'starting':
        read_until(parent, state, errors)
    else:
        time.sleep(0.02 + 0.1 * turn)  # no state to wait for: anywhere in the start
    os.kill(pid, number)
    assert read_until(parent, 'exit', errors) == 'exit 0', errors.read_text()
    said = errors.read_text()
    assert 'Traceback' not in said and 'never retrieved' not in said, said
    assert gone(pid)


@pytest.mark.parametrize(
    ('state', 'number'), [('loading', signal.SIGINT), ('computing', signal.SIGTERM)]
)
def test_what_takes_too_long_does_not_hold_the_process(parent, tmp_path, state, number):
    errors = tmp_path / 'stderr'
    parent.stdin.write(f'{state} {errors}\n'.encode())
    pid = int(read_until(parent, 'pid', errors).split()[1])
    read_until(parent, state, errors)
    segments, begin = shared_memory_of(pid), time.monotonic()
    os.kill(pid, number)
    assert read_until(parent, 'exit', errors) == 'exit 0', errors.read_text()
    assert time.monotonic() - begin < LAUNCH_PATIENCE_S
    assert 'Traceback' not in errors.read_text()
    assert_removed(segments)


@pytest.mark.parametrize('second', SIGNALS)
def test_a_later_second_signal_ends_at_once(parent, tmp_path, second):
    errors = tmp_path / 'stderr'
    parent.stdin.write(f'computing {errors}\n'.encode())
    pid = int(read_until(parent, 'pid', errors).split()[1])
    read_until(parent, 'computing', errors)
    os.kill(pid, signal.SIGINT)
    time.sleep(2 * AS_ONE_S)  # sooner it would be the same one, passed on
    os.kill(pid, second)
    assert read_until(parent, 'exit', errors) == f'exit {128 + second}', errors.read_text()
    assert 'Traceback' not in errors.read_text()


def test_a_hangup_that_nohup_has_had_ignored_stays_ignored():
    """With nohup a node outlives its terminal."""
    code = (
        'import os, signal\n'
        'signal.signal(signal.SIGHUP, signal.SIG_IGN)\n'
        'from road_anomaly_ros.ros.process import Stop\n'
        'stop = Stop()\n'
        'stop.listen()\n'
        'os.kill(os.getpid(), signal.SIGHUP), os.kill(os.getpid(), signal.SIGTERM)\n'
        'stop.wait_listening()\n'
        'print(signal.getsignal(signal.SIGHUP).name)\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, timeout=DEADLINE_S, cwd=ROOT
    )
    assert done.stdout == 'SIG_IGN\n', done.stderr


@pytest.mark.parametrize('number', SIGNALS)
def test_a_second_signal_at_every_step_of_the_way_out(number):
    done = subprocess.run(
        [sys.executable, '-c', SECOND, str(int(number))],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        cwd=ROOT,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, 'closed\n', '')


@pytest.mark.parametrize('number', SIGNALS)
def test_a_signal_that_another_thread_takes(number):
    done = subprocess.run(
        [sys.executable, '-c', ELSEWHERE, str(int(number))],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        cwd=ROOT,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')


@pytest.mark.parametrize(
    ('module', 'number'),
    [
        ('rclpy', signal.SIGINT),
        ('rclpy', signal.SIGTERM),
        ('road_anomaly_ros.ros.node', signal.SIGINT),
        ('torch', signal.SIGTERM),
    ],
)
def test_signals_during_an_import(module, number):
    done = subprocess.run(
        [sys.executable, '-c', IMPORTING, str(int(number)), module],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        cwd=ROOT,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, 'importing', '')


PIPED = {'stderr': subprocess.PIPE, 'text': True, 'cwd': ROOT}


def executable(parameter):
    """Words that start the node as a process with one parameter."""
    module = [sys.executable, '-m', 'road_anomaly_ros.ros.process']
    return [*module, '--ros-args', '-p', parameter]


@pytest.mark.parametrize('number', SIGNALS)
def test_the_executable_itself(number):
    process = subprocess.Popen(executable('segmenter:=synthetic'), **PIPED)
    said = ''
    for line in process.stderr:
        said += line
        if 'scorer plain' in line:
            break
    process.send_signal(number)
    process.send_signal(number)  # launch and the terminal both send one
    said += process.communicate(timeout=DEADLINE_S)[1]
    assert process.returncode == 0, said
    assert 'Traceback' not in said


@pytest.mark.skipif(not FAST_DDS, reason='the shared memory of Fast DDS')
def test_no_shared_memory_outlives_the_executable():
    process = subprocess.Popen(executable('segmenter:=synthetic'), **PIPED)
    for line in process.stderr:
        if 'active: ' in line:
            break
    segments = shared_memory_of(process.pid)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
    assert_removed(segments)


def shared_memory_of(process):
    """The segments of Fast DDS that a process, given by number or folder, has opened."""
    try:
        maps = Path('/proc', str(process), 'maps').read_text(encoding='utf-8')
    except OSError:  # ended meanwhile
        return set()
    return {Path(name) for name in re.findall(r'/dev/shm/fast(?:dds|rtps)_[0-9a-f]+(?=\n)', maps)}


def assert_removed(segments):
    """Fail where shared memory of a process that has ended is left."""
    assert bool(segments) == FAST_DDS
    # Segments of others that sent something to it are theirs to remove.
    owned = set().union(*map(shared_memory_of, Path('/proc').glob('[0-9]*')))
    assert not [segment for segment in segments - owned if segment.exists()]


def test_a_wrong_parameter_at_start_is_one_line():
    done = subprocess.run(
        executable('scorer:=nonsense'), **PIPED, stdout=subprocess.PIPE, timeout=DEADLINE_S
    )
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line]
    assert len(lines) == 1 and "unknown scorer 'nonsense'" in lines[0]
