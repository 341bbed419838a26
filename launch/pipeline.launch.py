# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Start anomaly_node and, when asked, a rendered camera or a replay of an input, and RViz."""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

PACKAGE, NODE, IMAGE = 'road_anomaly_ros', 'anomaly_node', 'image'
SHARE = Path(__file__).resolve().parent.parent
CONFIG = SHARE / 'config'
NAV2 = 'nav2_costmap.yaml'  # for another program, no preset
SWITCH, LEVELS = ('true', 'false'), ('debug', 'info', 'warn', 'error', 'fatal')
KEEP = 'empty keeps the value of params_file'
PRESET = 'Parameters of the node: a path, or a preset such as fast.yaml from config/.'
ARGUMENTS = (  # name, default, text, choices
    ('image', IMAGE, 'Topic of the camera; its camera_info is expected beside it.'),
    ('params_file', str(CONFIG / 'pipeline.yaml'), PRESET),
    ('model', '', f"'builtin', a directory or a hub name; {KEEP}."),
    ('scorer', '', f'Anomaly score, such as eam, rba or s2; {KEEP}.'),
    ('device', '', f"'auto', 'cpu', 'cuda' or 'cuda:N'; {KEEP}."),
    ('input', '', 'Video, bag, images, /dev/video0 or rtsp://... to replay as the camera.'),
    ('loop', 'false', 'Start the replay of the input again at its end.', *SWITCH),
    ('fake_camera', 'false', 'Start a rendered drive as the camera.', *SWITCH),
    ('rviz', 'false', 'Start RViz with camera, overlay, heatmap and mask.', *SWITCH),
    ('autostart', '', f'Configure and activate the node at start; {KEEP}.', '', *SWITCH),
    ('use_sim_time', 'false', 'Take the time from /clock; a replay then sends it.', *SWITCH),
    ('namespace', '', 'Namespace of the nodes; RViz shows the topics without one.'),
    ('log_level', 'info', 'Least severe messages that the nodes log.', *LEVELS),
)


def generate_launch_description():
    arguments = [
        DeclareLaunchArgument(name, default_value=value, description=text, choices=choices or None)
        for name, value, text, *choices in ARGUMENTS
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start)])


def start(context):
    """Return the nodes to start, from the texts of the arguments."""

    def text(name):
        return LaunchConfiguration(name).perform(context).strip()

    def switch(name):
        return text(name) == 'true'

    if text('input') and switch('fake_camera'):
        raise RuntimeError('expected one camera: give either input or fake_camera, not both')
    common = {
        'output': 'screen',
        'remappings': remappings(text('image')),
        'namespace': text('namespace'),
        'ros_arguments': ['--log-level', text('log_level')],
    }
    ours = {'package': PACKAGE, 'on_exit': end_on_failure, **common}
    time = {'use_sim_time': switch('use_sim_time')}
    changes = {name: text(name) for name in ('model', 'scorer', 'device') if text(name)}
    changes.update({'autostart': switch('autostart')} if text('autostart') else {})
    settings = [params_file(text('params_file')), {**changes, **time}]
    nodes = [Node(executable=NODE, name=NODE, parameters=settings, **ours)]
    if switch('fake_camera'):
        # A camera lives in real time: it has no part in the time of a bag.
        nodes.append(Node(executable='fake_camera', name='fake_camera', **ours))
    if text('input'):
        words = [found(text('input')), '--wait-for-node', NODE]
        words += ['--loop'] if switch('loop') else []
        words += ['--clock'] if switch('use_sim_time') else []
        nodes.append(Node(executable='replay', name='replay', arguments=words, **ours))
    if switch('rviz'):
        rviz = {'package': 'rviz2', 'executable': 'rviz2', 'name': 'rviz2', 'parameters': [time]}
        view = ['-d', str(SHARE / 'rviz' / 'pipeline.rviz')]
        nodes.append(Node(arguments=view, **rviz, **common))
    return nodes


def end_on_failure(event, _):
    """Return what to do when a node of ours has ended: all ends where that was a failure."""
    text = f'{event.process_name} failed with code {event.returncode}'
    return [Shutdown(reason=text)] if event.returncode > 0 else []  # else done, or by a signal


def remappings(image):
    """Return the rules for the topics of a camera; one of image does not touch the others."""
    if image == IMAGE:
        return []
    base, slash, _ = image.rpartition('/')
    return [
        (IMAGE, image),
        (f'{IMAGE}/compressed', f'{image}/compressed'),
        ('camera_info', f'{base}{slash}camera_info'),
    ]


def found(given):
    """Return the input to replay, '~' resolved; RuntimeError for a path that leads nowhere."""
    path = Path(given).expanduser()
    if given.startswith('rendered:') or '://' in given:
        return given
    if not path.exists() and not any(sign in path.name for sign in '*?%'):  # no pattern of names
        expected = 'a video, bag, folder, images, camera or address'
        raise RuntimeError(f'input: expected {expected}, found nothing at {path.absolute()}')
    return str(path)


def params_file(given):
    """Return the path of the parameters: as given where it exists, else among the presets."""
    for path in (Path(given).expanduser(), CONFIG / given):
        if path.is_file():
            return str(path)
    presets = sorted(path.name for path in CONFIG.glob('*.yaml') if path.name != NAV2)
    raise RuntimeError(
        f'expected a parameter file, found nothing at {given}; choose a path or one of {presets}'
    )
