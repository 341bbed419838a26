# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Start anomaly_node and, when asked, a rendered camera or a replay of an input, and RViz."""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

PACKAGE = 'road_anomaly_ros'
SHARE = Path(__file__).resolve().parent.parent
CONFIG = SHARE / 'config'
IMAGE = 'image'
SWITCH = ['true', 'false']
KEEP = 'empty keeps the value of params_file'


def argument(name, default, text, choices=None):
    return DeclareLaunchArgument(
        name, default_value=default, description=text, choices=choices)


def generate_launch_description():
    return LaunchDescription([
        argument('image', IMAGE, 'Topic of the camera; its camera_info is expected beside it.'),
        argument('params_file', str(CONFIG / 'pipeline.yaml'),
                 'Parameters of the node: a path, or a preset such as fast.yaml from config/.'),
        argument('model', '', f"'builtin', a directory or a hub name; {KEEP}."),
        argument('scorer', '', f'Anomaly score, such as eam, rba or s2; {KEEP}.'),
        argument('device', '', f"'auto', 'cpu', 'cuda' or 'cuda:N'; {KEEP}."),
        argument('input', '', 'Video, bag or folder of images to replay as the camera.'),
        argument('fake_camera', 'false', 'Start a rendered drive as the camera.', SWITCH),
        argument('rviz', 'false', 'Start RViz with camera, overlay, heatmap and mask.', SWITCH),
        argument('autostart', '', f'Configure and activate the node at start; {KEEP}.',
                 ['', *SWITCH]),
        argument('use_sim_time', 'false', 'Take the time from /clock; a replay then sends it.',
                 SWITCH),
        OpaqueFunction(function=start)])


def start(context):
    """Return the nodes to start, from the texts of the arguments."""
    def text(name):
        return LaunchConfiguration(name).perform(context).strip()

    def switch(name):
        return text(name) == 'true'

    if text('input') and switch('fake_camera'):
        raise RuntimeError('expected one camera: give either input or fake_camera, not both')
    common = {'output': 'screen', 'remappings': remappings(text('image'))}
    time = {'use_sim_time': switch('use_sim_time')}
    changes = {name: text(name) for name in ('model', 'scorer', 'device') if text(name)}
    if text('autostart'):
        changes['autostart'] = switch('autostart')
    nodes = [Node(package=PACKAGE, executable='anomaly_node', name='anomaly_node',
                  parameters=[params_file(text('params_file')), {**changes, **time}], **common)]
    if switch('fake_camera'):
        # A camera lives in real time: it has no part in the time of a bag.
        nodes.append(Node(package=PACKAGE, executable='fake_camera', name='fake_camera', **common))
    if text('input'):
        words = [text('input'), '--wait-for-subscribers', '1']
        words += ['--clock'] if switch('use_sim_time') else []
        nodes.append(Node(package=PACKAGE, executable='replay', name='replay', arguments=words,
                          **common))
    if switch('rviz'):
        nodes.append(Node(package='rviz2', executable='rviz2', name='rviz2', parameters=[time],
                          arguments=['-d', str(SHARE / 'rviz' / 'pipeline.rviz')], **common))
    return nodes


def remappings(image):
    """Return the rules for the topics of a camera; one of image does not touch the others."""
    if image == IMAGE:
        return []
    base, slash, _ = image.rpartition('/')
    return [(IMAGE, image), (f'{IMAGE}/compressed', f'{image}/compressed'),
            ('camera_info', f'{base}{slash}camera_info')]


def params_file(given):
    """Return the path of the parameters: as given where it exists, else among the presets."""
    for path in (Path(given), CONFIG / given):
        if path.is_file():
            return str(path)
    presets = sorted(path.name for path in CONFIG.glob('*.yaml'))
    raise RuntimeError(f'expected a parameter file, found nothing at {given}; '
                       f'choose a path or one of {presets}')
