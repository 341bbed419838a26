# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Every example of every --help and every command line of the pages is one that works."""

from __future__ import annotations

import importlib
import re
import shlex
import threading
import time

import cv2
import numpy as np
import pytest
from conftest import ROOT

from road_anomaly_ros import cli
from road_anomaly_ros.evaluation import reference

PAGES = '\n'.join(
    page.read_text(encoding='utf-8')
    for page in [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]
)
OWN = ('anomaly_node', 'fake_camera', 'replay')
# What these name lies on no test machine.
ELSEWHERE = ('mine.yaml', 'runs/head', 'rtsp://')


def lines_of(text):
    """The command lines of a text, each as words; lines that end with a backslash are joined."""
    joined = re.sub(r'\\\n\s*', '', text)
    found = [re.sub(r'\s+#.*', '', line.strip()) for line in joined.splitlines()]
    names = (cli.PROGRAM, *OWN, 'make', 'ros2')
    return [shlex.split(line) for line in found if line.split(' ', 1)[0] in names]


def helps():
    for command in cli.available():
        yield from lines_of(importlib.import_module(command.module).EXAMPLES)
    for name in ('process', 'fake_camera'):
        pytest.importorskip('rclpy', reason='needs the extra ros')
        yield from lines_of(importlib.import_module(f'road_anomaly_ros.ros.{name}').EXAMPLES)


def pages():
    for block in re.findall(r'```sh\n(.*?)```', PAGES, re.DOTALL):
        yield from lines_of(block)
    for code in re.findall(r'`([^`\n]+)`', re.sub(r'```.*?```', '', PAGES, flags=re.DOTALL)):
        # One word of a program, two of ours with commands, are a name in a sentence.
        names = {cli.PROGRAM: 2, 'replay': 1}
        yield from (words for words in lines_of(code) if len(words) > names.get(words[0], 0))


ALL = sorted({tuple(words) for words in (*helps(), *pages())})
# Those that make a paper's figures name weights that are on no test machine.
FIGURES = [tuple(lines_of(figure.command)[0]) for figure in reference.figures()]


def parsed(words):
    command, rest = cli.select(words[1:], cli.available())
    module = importlib.import_module(command.module)
    return module, cli.command_parser(command, module).parse_args(rest)


@pytest.mark.parametrize('words', [*ALL, *FIGURES], ids=' '.join)
def test_words_are_those_of_the_program(words):
    if words[0] == cli.PROGRAM:
        parsed(words)
    elif words[0] == 'make':
        targets = set(re.findall(r'^([a-z-]+):', (ROOT / 'Makefile').read_text(), re.MULTILINE))
        assert all(word in targets or re.fullmatch(r'[A-Z]+=\S+', word) for word in words[1:])
    elif words[:2] == ('ros2', 'launch'):
        text = (ROOT / 'launch' / words[3]).read_text(encoding='utf-8')
        declared = re.findall(r"^    \('(\w+)',", text, re.MULTILINE)
        assert {word.partition(':=')[0] for word in words[4:]} <= set(declared)
    elif words[0] == 'replay':
        from road_anomaly_ros.ros import replay

        parser = cli.Parser('replay', '')
        replay.add_arguments(parser)
        parser.parse_args(words[1:])
    elif words[0] in OWN:
        takes_ros_arguments(words)


def takes_ros_arguments(words):
    """Parameters exist and take the value, files are there; nothing else stands beside them."""
    from road_anomaly_ros.perception.parameter_file import check
    from road_anomaly_ros.perception.registry import options_of
    from road_anomaly_ros.ros import arguments
    from road_anomaly_ros.ros.fake_camera import FakeCameraOptions
    from road_anomaly_ros.ros.parameters import from_ros, node_parameters

    arguments.refuse_stray(words[0], words[1:])
    options = node_parameters() if words[0] == OWN[0] else options_of(FakeCameraOptions)
    known = {item.name: item for item in options}
    for word in words:
        name, sign, value = word.partition(':=')
        if sign and words[words.index(word) - 1] == '-p':
            from_ros(known[name], value)
    for path in arguments.params_files(words):
        check(ROOT / path)


def test_settings_of_the_pages_are_taken():
    pytest.importorskip('rclpy', reason='needs the extra ros')
    from road_anomaly_ros.perception.config import PipelineConfig

    found = re.findall(
        r'`(?:ros2 param set /anomaly_node|…) ([\w.]+) "?\[?(\w[\w.]*)\]?"?`', PAGES
    )
    assert len(found) >= 3
    for name, value in found:
        config = PipelineConfig().replace({name: value})
        assert config.get(name) in (value, (value,), float(value) if value[0].isdigit() else '')


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A folder with what the examples name, small."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(3)
    picture = rng.integers(0, 256, (48, 64, 3), np.uint8)
    video = cv2.VideoWriter('dashcam.mp4', cv2.VideoWriter_fourcc(*'mp4v'), 30.0, (64, 48))
    for _ in range(121):
        video.write(picture)
    video.release()
    for folder in ('photos', 'maps_of_another_method'):
        (tmp_path / folder).mkdir()
        shown = picture if folder == 'photos' else picture[..., 0]
        for index in range(2):
            cv2.imwrite(f'{folder}/{index}.png', shown)
    for name in ('frame.jpg', 'image.jpg'):
        cv2.imwrite(name, picture)
    for name in ('drive_bag', 'bag_of_one_file'):
        make_bag(tmp_path / name, picture)
    next((tmp_path / 'bag_of_one_file').glob('*.mcap')).rename('drive.mcap')
    return tmp_path


def make_bag(path, picture):
    from road_anomaly_ros.tools import bags

    writer = bags.BagWriter(path)
    types = bags.type_store().types
    for index in range(1, 4):
        stamp = index * 10**8
        writer.write(
            '/front/image_raw',
            bags.IMAGE,
            bags.image_message(picture, 'rgb8', stamp_ns=stamp, frame_id='front'),
            stamp,
        )
        writer.write(
            '/front/imu',
            'std_msgs/msg/Header',
            types['std_msgs/msg/Header'](types['builtin_interfaces/msg/Time'](index, 0), 'imu'),
            stamp,
        )
    writer.close()


def runnable(*names):
    return [
        words
        for words in ALL
        if words[:1] == (cli.PROGRAM,)
        and words[1] in names
        and words not in FIGURES
        and not any(part in word for part in ELSEWHERE for word in words)
    ]


@pytest.mark.parametrize('words', runnable('run', 'explain'), ids=' '.join)
def test_offline_examples_run(world, words, capsys):
    limit = ('--max-frames', '2') if words[1] == 'run' else ()
    device = () if '--device' in words else ('--device', 'cpu')
    assert cli.main([*words[1:], *limit, *device]) == 0, capsys.readouterr().err


@pytest.mark.ros
@pytest.mark.parametrize('words', runnable('replay', 'record'), ids=' '.join)
def test_examples_with_a_graph_run(world, monkeypatch, words):
    pytest.importorskip('rclpy', reason='needs the extra ros')
    from road_anomaly_ros.ros import process

    nodes = []
    monkeypatch.setattr(process, 'run', lambda make, args: spin_a_while(make, args, nodes))
    assert cli.main(words[1:]) == 0
    assert len(nodes) == 1
    if plays(nodes[0]):
        assert nodes[0]._player.pictures + nodes[0]._player.others > 0
        assert nodes[0].exit_code == 0


def plays(node):
    """Tell whether a node is a replay that waits for nobody."""
    return hasattr(node, 'controls') and not node.controls._wait_for


def spin_a_while(make, args, nodes):
    """Stand in for process.run, which takes over the signals of its process."""
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    stop = threading.Event()
    try:
        node = make(stop)
        nodes.append(node)
        end = time.monotonic() + 30.0
        while (
            time.monotonic() < end
            and not stop.is_set()
            and plays(node)
            and not (node._player.pictures + node._player.others)
        ):
            rclpy.spin_once(node, timeout_sec=0.1)
        node.close()
        node.destroy_node()
    finally:
        rclpy.try_shutdown()
    return 0
