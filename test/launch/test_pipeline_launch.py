# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The launch file: its arguments, nodes and parameter files, and its run where launch is there."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import types

import pytest
import yaml
from conftest import ROOT

FILE = ROOT / 'launch' / 'pipeline.launch.py'
CONFIG = ROOT / 'config'
DEFAULTS = {
    'image': 'image',
    'params_file': str(CONFIG / 'pipeline.yaml'),
    'model': '',
    'scorer': '',
    'device': '',
    'input': '',
    'loop': 'false',
    'fake_camera': 'false',
    'rviz': 'false',
    'autostart': '',
    'use_sim_time': 'false',
    'namespace': '',
    'log_level': 'info',
}


class Call:
    """Notes how it was made; stands for every class of launch."""

    def __init__(self, *positional, **named):
        self.positional, self.named = positional, named

    def perform(self, context):
        return context[self.positional[0]]


@pytest.fixture
def file(monkeypatch):
    """The names of the launch file, run against stand-ins of launch."""
    for name, members in (
        ('launch', ['LaunchDescription']),
        ('launch.actions', ['DeclareLaunchArgument', 'OpaqueFunction', 'Shutdown']),
        ('launch.substitutions', ['LaunchConfiguration']),
        ('launch_ros', []),
        ('launch_ros.actions', ['Node']),
    ):
        module = types.ModuleType(name)
        for member in members:
            setattr(module, member, type(member, (Call,), {}))
        monkeypatch.setitem(sys.modules, name, module)
    return runpy.run_path(str(FILE))


def start(file, **texts):
    """The nodes that these arguments start, by executable."""
    nodes = file['start']({**DEFAULTS, **texts})
    return {node.named['executable']: node.named for node in nodes}


def test_every_argument_is_declared_at_the_top_and_described(file):
    actions = file['generate_launch_description']().positional[0]
    declared = [action for action in actions if type(action).__name__ == 'DeclareLaunchArgument']
    assert {action.positional[0]: action.named['default_value'] for action in declared} == DEFAULTS
    assert all(len(action.named['description']) > 20 for action in declared)
    closed = {action.positional[0] for action in declared if action.named['choices']}
    assert closed == {'fake_camera', 'rviz', 'autostart', 'use_sim_time', 'loop', 'log_level'}
    for action in declared:
        assert action.named['default_value'] in (
            action.named['choices'] or [action.named['default_value']]
        )


def test_without_words_the_node_alone_starts_with_the_defaults(file):
    nodes = start(file)
    assert list(nodes) == ['anomaly_node']
    node = nodes['anomaly_node']
    assert (node['package'], node['name']) == ('road_anomaly_ros', 'anomaly_node')
    assert node['parameters'] == [str(CONFIG / 'pipeline.yaml'), {'use_sim_time': False}]
    assert node['remappings'] == []


def test_what_is_given_wins_over_the_file_and_what_is_empty_does_not(file):
    node = start(file, scorer='rba', device='cpu', autostart='false')['anomaly_node']
    assert node['parameters'][1] == {
        'scorer': 'rba',
        'device': 'cpu',
        'autostart': False,
        'use_sim_time': False,
    }


@pytest.mark.parametrize(
    ('image', 'info'), [('/front/image_raw', '/front/camera_info'), ('picture', 'camera_info')]
)
def test_all_nodes_share_the_topics_of_the_camera(file, image, info):
    nodes = start(file, image=image, input='rendered:1', rviz='true')
    for node in nodes.values():
        assert node['remappings'] == [
            ('image', image),
            ('image/compressed', f'{image}/compressed'),
            ('camera_info', info),
        ]


def test_cameras_and_rviz_start_when_asked(file):
    assert set(start(file, fake_camera='true')) == {'anomaly_node', 'fake_camera'}
    nodes = start(file, input='rendered:1', rviz='true', use_sim_time='true', loop='true')
    assert set(nodes) == {'anomaly_node', 'replay', 'rviz2'}
    assert nodes['replay']['arguments'] == [
        'rendered:1',
        '--wait-for-node',
        'anomaly_node',
        '--loop',
        '--clock',
    ]
    assert nodes['rviz2']['arguments'] == ['-d', str(ROOT / 'rviz' / 'pipeline.rviz')]
    with pytest.raises(RuntimeError, match='one camera'):
        start(file, input='a.mp4', fake_camera='true')


def test_the_words_of_the_launch_file_are_those_of_replay(file):
    import argparse

    from road_anomaly_ros.ros import replay

    parser = argparse.ArgumentParser(exit_on_error=False)
    replay.add_arguments(parser)
    node = start(file, input='rendered:1', use_sim_time='true', loop='true')
    found = parser.parse_args(node['replay']['arguments'])
    assert (found.input, found.wait_for_node, found.clock, found.loop) == (
        'rendered:1',
        node['anomaly_node']['name'],
        40.0,
        True,
    )


def test_a_namespace_and_a_log_level_are_those_of_every_node(file):
    nodes = start(file, input='rendered:1', namespace='front', log_level='warn')
    for node in nodes.values():
        assert node['namespace'] == 'front'
        assert node['ros_arguments'] == ['--log-level', 'warn']


def test_an_input_is_looked_for_before_anything_starts(file, tmp_path, monkeypatch):
    with pytest.raises(RuntimeError, match=f'input: expected .*nothing at {tmp_path}/no.mp4'):
        start(file, input=str(tmp_path / 'no.mp4'))
    monkeypatch.setenv('HOME', str(tmp_path))
    (tmp_path / 'drive').mkdir()
    assert start(file, input='~/drive')['replay']['arguments'][0] == str(tmp_path / 'drive')
    assert start(file, input='~/a/*.png')['replay']['arguments'][0] == f'{tmp_path}/a/*.png'


@pytest.mark.parametrize(
    'given', ['rtsp://camera:554/1', 'http://host/a.mjpg', 'image%04d.png', 'drive/**/*.jpg']
)
def test_what_replay_opens_is_handed_to_it(file, given):
    assert start(file, input=given)['replay']['arguments'][0] == given


@pytest.mark.parametrize(('code', 'ends'), [(0, False), (-2, False), (1, True), (2, True)])
def test_all_ends_when_a_node_of_ours_fails(file, code, ends):
    event = types.SimpleNamespace(returncode=code, process_name='replay-2')
    nodes = start(file, input='rendered:1', rviz='true')
    for name in ('anomaly_node', 'replay'):
        actions = nodes[name]['on_exit'](event, None)
        assert [type(action).__name__ for action in actions] == ['Shutdown'] * ends
        assert not ends or f'replay-2 failed with code {code}' in actions[0].named['reason']
    assert 'on_exit' not in nodes['rviz2']


def test_presets_are_found_by_name_and_what_is_missing_is_named(file):
    node = start(file, params_file='fast.yaml')['anomaly_node']
    assert node['parameters'][0] == str(CONFIG / 'fast.yaml')
    with pytest.raises(RuntimeError, match=r"nothing at nope\.yaml; .*'zero_shot\.yaml'"):
        start(file, params_file='nope.yaml')


def test_executables_are_those_that_are_installed(file):
    installed = set(
        re.findall(
            r"'(\w+) = road_anomaly_ros\.ros", (ROOT / 'setup.py').read_text(encoding='utf-8')
        )
    )
    nodes = {**start(file, fake_camera='true'), **start(file, input='rendered:1')}
    assert set(nodes) == installed


def test_the_file_stays_thin_and_evaluates_nothing():
    text = FILE.read_text(encoding='utf-8')
    assert len(text.splitlines()) < 120
    assert not re.search(r'\beval\(|\bexec\(|PythonExpression|subprocess|http', text)


PICTURE = 'rviz_default_plugins/Image'


def test_rviz_shows_what_is_published_with_the_qos_of_its_publishers():
    pytest.importorskip('rclpy', reason='needs the extra ros')
    from road_anomaly_ros.perception.geometry import Survey
    from road_anomaly_ros.ros.outputs import qos, topics
    from road_anomaly_ros.tools.results import OUTPUTS

    view = yaml.safe_load((ROOT / 'rviz' / 'pipeline.rviz').read_text(encoding='utf-8'))
    displays = view['Visualization Manager']['Displays']
    found = {item['Name']: item['Topic'] for item in displays if item['Class'] == PICTURE}
    assert set(found) == {'Camera', 'Overlay', 'Heatmap', 'Obstacle mask'}
    camera = found.pop('Camera')
    assert (camera['Value'], camera['Reliability Policy']) == ('/image', 'Best Effort')
    published = {name.replace('~', '/anomaly_node', 1): kind for name, kind in topics().items()}
    offered = qos()
    for topic in found.values():
        assert published[topic['Value']] == 'sensor_msgs/msg/Image'
        assert topic['Reliability Policy'].replace(' ', '_').upper() == offered.reliability.name
        assert topic['Durability Policy'].upper() == offered.durability.name
    metres = {item['Topic']['Value'] for item in displays if item['Class'] != PICTURE}
    assert metres - {'/fake_camera/truth/markers'} == {
        f'/anomaly_node/{output.topic}'
        for output in OUTPUTS
        if output.source is Survey and output.package != 'vision_msgs'
    }
    assert view['Visualization Manager']['Global Options']['Fixed Frame'] == 'base_link'


def test_foxglove_shows_the_same_as_rviz():
    pytest.importorskip('rclpy', reason='needs the extra ros')
    from road_anomaly_ros.ros.health import TOPIC

    layout = json.loads((ROOT / 'rviz' / 'foxglove.json').read_text(encoding='utf-8'))
    panels = layout['configById'].values()
    shown = {
        panel['foxglovePanelTitle']: panel['imageMode']['imageTopic']
        for panel in panels
        if 'imageMode' in panel
    }
    view = yaml.safe_load((ROOT / 'rviz' / 'pipeline.rviz').read_text(encoding='utf-8'))
    displays = view['Visualization Manager']['Displays']
    assert shown == {
        item['Name']: item['Topic']['Value'] for item in displays if item['Class'] == PICTURE
    }
    (space,) = (panel['topics'] for panel in panels if 'topics' in panel)
    assert set(space) == {item['Topic']['Value'] for item in displays if item['Class'] != PICTURE}
    assert {panel['topicToRender'] for panel in panels if 'topicToRender' in panel} == {TOPIC}
    selected = [
        (panel['selectedHardwareId'], panel['selectedName'])
        for panel in panels
        if 'selectedName' in panel
    ]
    assert selected == [('image', '/anomaly_node: camera')]
    for name in layout['configById']:
        assert json.dumps(layout['layout']).count(f'"{name}"') == 1


def test_it_runs_with_the_launch_system(tmp_path):
    """The node of the launch file starts, says that it is configured, and ends at Ctrl-C."""
    for name in ('launch_ros', 'ament_index_python', 'rclpy'):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f'{name} is not installed; it comes with a ROS distribution')
    from ament_index_python.packages import PackageNotFoundError, get_package_prefix

    try:
        get_package_prefix('road_anomaly_ros')
    except (PackageNotFoundError, OSError):
        pytest.skip('road_anomaly_ros is in no sourced workspace')
    params = tmp_path / 'params.yaml'
    params.write_text('/**:\n  ros__parameters:\n    segmenter: synthetic\n')
    code = (
        'import sys\n'
        'from launch import LaunchDescription, LaunchService\n'
        'from launch.actions import IncludeLaunchDescription\n'
        'from launch.launch_description_sources import PythonLaunchDescriptionSource\n'
        'service = LaunchService()\n'
        'service.include_launch_description(LaunchDescription([IncludeLaunchDescription(\n'
        f'    PythonLaunchDescriptionSource({str(FILE)!r}),\n'
        f'    launch_arguments=[("params_file", {str(params)!r}),\n'
        '                      ("fake_camera", "true")])]))\n'
        'sys.exit(service.run())\n'
    )
    process = subprocess.Popen(
        [sys.executable, '-c', code],
        cwd=tmp_path,
        text=True,
        env={**os.environ, 'ROS_LOG_DIR': str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    seen = []
    try:
        for line in process.stdout:
            seen.append(line)
            if 'scorer' in line:
                break
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=40)
    finally:
        process.kill()
    said = ''.join([*seen, rest])
    assert 'model builtin' in said or 'scorer' in said, said
    assert 'Traceback' not in said
    assert said.count('process has finished cleanly') == 2, said
