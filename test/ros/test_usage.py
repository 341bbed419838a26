# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""`--help` of the executables whose arguments are those of ROS."""

import subprocess
import sys

import pytest

pytest.importorskip('rclpy')

from road_anomaly_ros.perception.registry import options_of
from road_anomaly_ros.ros import usage
from road_anomaly_ros.ros.fake_camera import FakeCameraOptions, node_main
from road_anomaly_ros.ros.parameters import node_parameters


@pytest.mark.parametrize(
    ('args', 'found'),
    [
        (['--help'], True),
        (['-h', '--ros-args', '-p', 'fps:=3.0'], True),
        (['--ros-args', '-r', '__node:=--help'], False),
        ([], False),
    ],
)
def test_help_is_asked_for_before_the_arguments_of_ros(args, found):
    assert usage.asked(args) is found


def test_the_camera_tells_its_parameters(capsys):
    assert node_main(['--help']) == 0
    lines = capsys.readouterr().out.splitlines()
    for item in options_of(FakeCameraOptions):
        assert any(line.startswith(f'  {item.name} (') for line in lines)
    assert max(map(len, lines)) <= usage.WIDTH


def test_the_node_tells_its_parameters_and_ends():
    done = subprocess.run(
        [sys.executable, '-m', 'road_anomaly_ros.ros.process', '--help'],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    assert all(f'\n  {item.name} (' in done.stdout for item in node_parameters())
