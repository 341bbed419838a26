# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Words of a command line that ROS would pass over or refuse in words of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='no rclpy installed')

from conftest import ROOT

from road_anomaly_ros.ros import arguments, fake_camera

MODULES = {'anomaly_node': 'process', 'fake_camera': 'fake_camera'}


def call(name, *words):
    return subprocess.run(
        [sys.executable, '-m', f'road_anomaly_ros.ros.{MODULES[name]}', *words],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )


def test_words_are_split_as_ros_does_it():
    words = ['a', '--ros-args', '-p', 'b:=1', '--', 'c', '--ros-args', '--params-file', 'd.yaml']
    assert arguments.split(words) == (['a', 'c'], ['-p', 'b:=1', '--params-file', 'd.yaml'])
    assert arguments.params_files(words) == [Path('d.yaml')]
    assert arguments.params_files(['--params-file', 'not_for_ros.yaml']) == []


@pytest.mark.parametrize(
    ('words', 'says'),
    [
        (['--scorer', 'rba'], "unexpected argument '--scorer': .*-p scorer:=rba"),
        (['--scorer=rba'], '-p scorer:=rba'),
        (['-p', 'fps:=3'], '-p p:=fps:=3'),
        (['rba'], '-p NAME:=VALUE'),
        (['--ros-args', '-p', 'a:=1', '--', '--debug'], '-p debug:='),
    ],
)
def test_words_that_are_not_for_ros_are_refused_with_the_form_that_is(words, says):
    with pytest.raises(ValueError, match=says):
        arguments.refuse_stray('anomaly_node', words)


@pytest.mark.parametrize(
    'words',
    [
        [],
        ['anomaly_node'],
        ['--ros-args', '-p', 'scorer:=rba'],
        ['anomaly_node', '--ros-args', '-r', 'image:=/a', '--'],
    ],
)
def test_words_for_ros_are_taken(words):
    arguments.refuse_stray('anomaly_node', words)


@pytest.mark.parametrize('name', MODULES)
def test_the_executables_refuse_them(name):
    done = call(name, '--scorer', 'rba')
    assert done.returncode == 2
    assert done.stderr.startswith(f"{name}: unexpected argument '--scorer'")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ('words', 'says'),
    [
        (['-p', 'foo'], "cannot read the parameter override rule: '-p foo'; expected words"),
        (['-r', 'foo'], "cannot read the remap rule: '-r foo'; expected words"),
        (['--params-file'], 'cannot read the trailing --params-file flag; expected words'),
        (['--log-level', 'x'], "cannot read the log level: '--log-level x'; expected words"),
        (['foo'], "unknown ['foo']; expected words"),
    ],
)
def test_what_ros_cannot_read_is_one_line_of_ours(words, says):
    done = call('fake_camera', '--ros-args', *words)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f'ValueError: {says}')
    assert '/src/' not in done.stderr


@pytest.mark.parametrize(
    ('text', 'says'),
    [
        (None, 'expected a configuration file, found nothing at'),
        ('scorer: rba\n', "expected parameters of nodes ('/**:'"),
        ('/**:\n  ros__parameters:\n\tscorer: rba\n', 'is no YAML'),
        (
            '/**:\n  ros__parameters:\n    refinements: [1, gaussian]\n',
            'refinements: expected a value or a list of one kind',
        ),
        ('/**:\n  ros__parameters:\n    scorer:\n', 'scorer: expected a value'),
    ],
)
def test_files_that_ros_cannot_read_are_told_with_the_reason(tmp_path, text, says):
    path = tmp_path / 'given.yaml'
    if text is not None:
        path.write_text(text)
    done = call('fake_camera', '--ros-args', '--params-file', str(path))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert says in done.stderr and str(path) in done.stderr


def test_a_file_for_other_nodes_is_told(tmp_path):
    path = tmp_path / 'given.yaml'
    path.write_text('/**/camera_driver:\n  ros__parameters:\n    fps: 1.0\n')
    done = call(
        'fake_camera',
        '--ros-args',
        '--params-file',
        str(path),
        '-p',
        'loop:=false',
        '-p',
        'frames:=2',
        '-r',
        '__ns:=/front',
    )
    assert done.returncode == 0
    assert (
        f'{path} has no effect: it is for /**/camera_driver, this node is '
        f"/front/fake_camera; write '/**:' there for every node"
    ) in done.stderr
    path.write_text('/**:\n  ros__parameters:\n    frames: 2\n    loop: false\n')
    assert 'no effect' not in call('fake_camera', '--ros-args', '--params-file', path).stderr


def test_the_camera_takes_the_words_of_ros_only(capsys):
    assert fake_camera.node_main(['--fps', '3']) == 2
    assert '-p fps:=3' in capsys.readouterr().err


def test_no_log_file_where_its_folder_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / 'file').touch()  # below it nobody makes a folder, root included
    monkeypatch.delenv('ROS_LOG_DIR', raising=False)
    monkeypatch.setenv('ROS_HOME', str(tmp_path / 'file'))
    assert arguments.without_log_file() == ['--ros-args', '--disable-external-lib-logs', '--']
    monkeypatch.setenv('ROS_LOG_DIR', str(tmp_path / 'log'))
    assert arguments.without_log_file() == [] and (tmp_path / 'log').is_dir()


def test_a_node_starts_without_a_home(tmp_path):
    (tmp_path / 'file').touch()
    code = (
        'from road_anomaly_ros.ros import process\n'
        'def make(stop):\n'
        '    from rclpy.node import Node\n'
        '    stop.set()\n'
        '    return Node("homeless")\n'
        'process.leave(process.run(make, args=[]))\n'
    )
    home = {'HOME': str(tmp_path / 'file'), 'ROS_HOME': '', 'ROS_LOG_DIR': ''}
    done = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={**os.environ, **home},
    )
    said = 'no log file: its folder cannot be written; set ROS_LOG_DIR\n'
    assert (done.returncode, done.stderr) == (0, said)
