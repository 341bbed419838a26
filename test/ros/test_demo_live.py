# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The demo with the real node in processes of its own, and the parts it is made of."""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT

from road_anomaly_ros import cli
from road_anomaly_ros.commands import demo

pytest.importorskip('rclpy', reason='needs the extra ros')

from road_anomaly_ros.perception.objects import ObjectOptions, find
from road_anomaly_ros.ros import transport
from road_anomaly_ros.ros.collector import describe
from road_anomaly_ros.tools.bags import COMPRESSED, IMAGE, BagReader

SMALL = 'rendered:3?frames=5&width=96&height=64'
FAST = ('--set', 'segmenter=synthetic', '--set', 'objects.min_area=0', '--no-video')
METRES = (
    'sensor_msgs/msg/PointCloud2',
    'sensor_msgs/msg/LaserScan',
    'visualization_msgs/msg/MarkerArray',
)
DEADLINE_S = 280.0


def start(*words):
    return subprocess.Popen(
        [sys.executable, '-m', 'road_anomaly_ros.cli', *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process):
    try:
        return process.communicate(timeout=DEADLINE_S)[0]
    finally:
        process.kill()


def maps(folder):
    """The stored pictures by topic, those of one frame after another."""
    reader = BagReader(folder)
    try:
        found = {}
        for record in reader.records(reader.topics((IMAGE, COMPRESSED))):
            found.setdefault(record.topic, []).append(bytes(reader.decode(record).data))
        return found
    finally:
        reader.close()


def metres(folder):
    """What is told in metres, without its time, by topic."""
    reader, found = BagReader(folder), {}
    try:
        for record in reader.records(reader.topics(METRES)):
            message = reader.decode(record)
            if 'PointCloud2' in record.kind:
                told = bytes(message.data)
            elif 'LaserScan' in record.kind:
                told = np.asarray(message.ranges).tobytes()
            else:
                told = tuple(marker.text for marker in message.markers)
            found.setdefault(record.topic, []).append(told)
        return found
    finally:
        reader.close()


def table(path):
    with path.open(encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))


def numbered(rows):
    """Rows with their tracks counted from 1: the node has seen pictures before."""
    numbers = {}
    for row in rows:
        row['track'] = numbers.setdefault(row.get('track_id'), len(numbers) + 1)
    return rows


def test_the_live_demo_gives_what_the_offline_chain_gives(tmp_path):
    words = ('--bag', *FAST)
    process = start('demo', SMALL, '-o', str(tmp_path / 'live'), *words)
    assert cli.main(['demo', SMALL, '-o', str(tmp_path / 'offline'), '--offline', *words]) == 0
    said = finish(process)
    assert process.returncode == 0, said
    summary, expected = (
        json.loads((tmp_path / name / 'summary.json').read_text()) for name in ('live', 'offline')
    )
    assert summary['outputs'] == expected['outputs']
    assert summary['truth'] == expected['truth']
    assert summary['frames'] == expected['frames'] == 5
    assert summary['live'].items() >= {'published': 5, 'collected': 5, 'without_result': 0}.items()
    assert summary['live']['node']['processed'] >= 5
    assert summary['live']['node']['dropped'] == 0
    assert {'segment', 'score', 'total'} <= set(summary['stages_ms'])
    assert (summary['scorer'], summary['device']) == (expected['scorer'], expected['device'])
    live, right = maps(tmp_path / 'live' / 'bag'), maps(tmp_path / 'offline' / 'bag')
    right.pop('/anomaly_node/overlay/compressed')
    for topic, values in right.items():
        assert live[topic] == values, f'{topic} differs'
    told, known = metres(tmp_path / 'live' / 'bag'), metres(tmp_path / 'offline' / 'bag')
    assert set(told) == set(known) and len(known) >= 2
    for topic, values in told.items():
        assert set(values) <= set(known[topic]), f'{topic} differs'
    for file, columns in (
        ('frames.csv', ('objects', 'width', 'height', 'max_score')),
        ('objects.csv', ('frame', 'id', *'xywh', 'area', 'label')),
        ('tracks.csv', ('frame', 'track', 'confirmed', 'age_s', 'id', *'xywh')),
    ):
        here, there = (numbered(table(tmp_path / name / file)) for name in ('live', 'offline'))
        assert [[row[column] for column in columns] for row in here] == [
            [row[column] for column in columns] for row in there
        ], file
    assert any(float(row['age_s']) > 0 for row in here)
    for column in ('velocity_x', 'velocity_y', 'score'):
        ours, theirs = ([float(row[column] or 'nan') for row in rows] for rows in (here, there))
        assert ours == pytest.approx(theirs, rel=1e-4, abs=0.02, nan_ok=True)
    assert {row['sanitized'] for row in table(tmp_path / 'live' / 'frames.csv')} == {''}


def test_a_model_that_is_missing_is_one_line(tmp_path):
    process = start('demo', SMALL, '-o', str(tmp_path / 'out'), '--model', '/nowhere/model')
    said = finish(process)
    assert process.returncode == 2, said
    assert '/nowhere/model' in said.splitlines()[-1]
    assert 'Traceback' not in said
    assert not (tmp_path / 'out').exists()


def children(pid):
    """The processes that a process has started."""
    found = []
    for entry in os.listdir('/proc'):
        try:
            if entry.isdigit() and int(status(entry)[1]) == pid:
                found.append(int(entry))
        except OSError:
            continue
    return found


def status(pid):
    """State and parent of a process, and what follows."""
    return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()


def gone(pid):
    try:
        return status(pid)[0] == 'Z'
    except OSError:
        return True


@pytest.mark.skipif(not os.path.isdir('/proc'), reason='needs /proc')
def test_ctrl_c_keeps_what_is_done_and_leaves_no_process(tmp_path):
    out = tmp_path / 'out'
    process = start('demo', 'rendered:3?frames=100000&width=96&height=64', '-o', str(out), *FAST)
    rows = out / '.partial' / 'frames.csv'
    end = time.monotonic() + DEADLINE_S
    while not (rows.exists() and rows.read_bytes().count(b'\n') > 3):
        assert process.poll() is None and time.monotonic() < end, process.stdout.read()
        time.sleep(0.02)
    started = children(process.pid)
    assert len(started) == 2
    process.send_signal(signal.SIGINT)
    said = finish(process)
    assert process.returncode == 130, said
    assert json.loads((out / 'summary.json').read_text())['interrupted']
    assert 'Traceback' not in said
    assert all(map(gone, started))


def test_without_rclpy_the_chain_runs_offline(monkeypatch, capsys):
    monkeypatch.setattr(demo.importlib.util, 'find_spec', lambda name: None)
    monkeypatch.setattr(demo.run, 'main', lambda arguments: 7)
    given = argparse.Namespace(offline=False, anomaly_maps=None, config=None, set=[])
    assert demo.main(given) == 7 and given.set == ['tracker=kalman']
    assert capsys.readouterr().err == 'rclpy is not installed: the chain runs without ROS\n'


def test_obstacles_are_described_as_by_the_chain(rng):
    score = torch.from_numpy(rng.random((40, 60), np.float32))
    score[5:15, 5:20] += 2
    score[25:35, 40:50] += 3
    _, instances, objects = find(
        score, threshold=1.5, low_threshold=1.5, options=ObjectOptions(min_area=0)
    )
    found = describe(instances.numpy(), score.numpy())
    assert len(found) == len(objects) == 2
    for ours, theirs in zip(found, objects, strict=True):
        assert (ours.id, ours.box, ours.area) == (theirs.id, theirs.box, theirs.area)
        assert ours.centroid == pytest.approx(theirs.centroid)
        assert (ours.score, ours.score_max, ours.score_p95) == pytest.approx(
            (theirs.score, theirs.score_max, theirs.score_p95)
        )


@pytest.fixture
def untouched(monkeypatch, tmp_path):
    """No choice of the user's, and room in shared memory."""
    for name in transport._CHOICES:
        monkeypatch.setenv(name, '')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(transport, 'SHARED_MEMORY', str(tmp_path))
    return monkeypatch


def test_fast_dds_gets_room_for_pictures(untouched):
    transport.make_room()
    assert [os.environ[name] for name in transport._known()] == [str(transport.PROFILE)]
    assert transport.PROFILE.is_file()


NEW, OLD = 'FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE'


@pytest.mark.parametrize(
    ('release', 'names'),
    [('3.3.16', [OLD]), ('7.1.6', [OLD]), ('9.1.2', [NEW]), ('none', [NEW, OLD])],
)
def test_the_profile_is_named_as_the_distribution_knows_it(untouched, release, names):
    untouched.setattr(transport, 'version', lambda _: release)
    transport.make_room()
    assert [name for name in (NEW, OLD) if os.environ[name]] == names


def test_the_profile_of_the_user_is_found_under_the_name_that_is_known(untouched):
    untouched.setattr(transport, 'version', lambda _: '7.1.6')
    untouched.setenv(NEW, 'mine')
    transport.make_room()
    assert os.environ[OLD] == 'mine'


@pytest.mark.parametrize(
    ('release', 'expected'),
    [
        ('3.3.16', {'ROS_LOCALHOST_ONLY': '1'}),
        ('7.1.6', {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}),
        ('9.1.2', {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}),
    ],
)
def test_the_graph_stays_on_this_machine_as_the_distribution_knows_it(
    monkeypatch, release, expected
):
    names = ('ROS_LOCALHOST_ONLY', 'ROS_AUTOMATIC_DISCOVERY_RANGE')
    for name in names:
        monkeypatch.setenv(name, '')
    monkeypatch.setattr(transport, 'version', lambda _: release)
    transport.stay_local()
    assert {name: os.environ[name] for name in names if os.environ[name]} == expected
    transport.stay_local()
    for name in names:
        monkeypatch.setenv(name, 'SUBNET')
    transport.stay_local()
    assert [os.environ[name] for name in names] == ['SUBNET', 'SUBNET']


def test_texts_name_the_profile_as_every_distribution_knows_it():
    for path in (
        'docs/ros.md',
        'road_anomaly_ros/ros/transport.py',
        'road_anomaly_ros/ros/loss.py',
    ):
        text = (ROOT / path).read_text(encoding='utf-8')
        assert (OLD in text and NEW in text) or 'VARIABLES' in text, path


@pytest.mark.parametrize('name', transport._CHOICES)
def test_the_choice_of_the_user_stands(untouched, name):
    untouched.setenv(name, 'mine')
    transport.make_room()
    assert os.environ[name] == 'mine'
    assert str(transport.PROFILE) not in [os.environ[key] for key in transport._CHOICES]


def test_without_shared_memory_nothing_is_changed(untouched):
    untouched.setattr(transport, 'SHARED_MEMORY', '/nowhere')
    transport.make_room()
    assert not os.environ[NEW] and not os.environ[OLD]


def test_where_shared_memory_is_full_nothing_is_changed(untouched):
    """A profile that asks for more than there is would end every node at its start."""
    untouched.setattr(os, 'statvfs', lambda path: types.SimpleNamespace(f_bavail=9, f_frsize=4096))
    transport.make_room()
    assert not os.environ[NEW] and not os.environ[OLD]
