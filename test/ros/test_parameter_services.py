# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The services behind `ros2 param`: what is listed, what any name answers, files loaded live."""

from __future__ import annotations

import random

import pytest

pytest.importorskip('rclpy', reason='no rclpy installed')

import yaml
from conftest import ROOT
from rcl_interfaces.srv import (
    DescribeParameters,
    GetParameters,
    GetParameterTypes,
    ListParameters,
    SetParameters,
)
from rclpy.parameter import Parameter
from ros_graph import Graph, wait_for
from sensor_msgs.msg import LaserScan

from road_anomaly_ros.ros import tables

PRESETS = sorted(
    path for path in (ROOT / 'config').glob('*.yaml') if path.name not in tables.NOT_PRESETS
)
SCREEN = 60


@pytest.fixture
def graph():
    with Graph() as graph:
        yield graph


def call(graph, kind, name, **request):
    client = graph.client.create_client(kind, f'{graph.namespace}/anomaly_node/{name}')
    assert client.wait_for_service(10.0)
    answer = client.call_async(kind.Request(**request))
    wait_for(answer.done, f'an answer of {name}')
    return answer.result()


def listed(graph):
    return call(graph, ListParameters, 'list_parameters').result.names


def set_each(graph, values):
    """Set values in one request, each for itself as `ros2 param load` has it; returns refusals."""
    messages = [Parameter(name, value=value).to_parameter_msg() for name, value in values]
    results = call(graph, SetParameters, 'set_parameters', parameters=messages).results
    return [result.reason for result in results if not result.successful]


def test_the_list_of_an_active_node_fits_on_a_screen_and_grows_by_what_is_chosen(graph):
    graph.anomaly_node()
    before = set(listed(graph))
    assert len(before) <= SCREEN and not any(name.startswith('qos_overrides') for name in before)
    assert 'scorers.plain.clip_unit' in before  # what 'auto' turned out to be
    assert set_each(graph, [('scorer', 's2')]) == []
    new = set(listed(graph)) - before
    assert 'scorers.s2.tau' in new and {name.rpartition('.')[0] for name in new} == {'scorers.s2'}


def test_a_name_that_is_not_listed_answers_and_is_listed_then(graph, capfd):
    graph.anomaly_node()
    names = ['scorers.s2.tau', 'geometry.camera_height', 'segmenters.eomt.window_batch']
    assert not set(names) & set(listed(graph))
    for name, (kind, service, read) in zip(
        names,
        (
            (GetParameters, 'get_parameters', lambda answer: answer.values),
            (DescribeParameters, 'describe_parameters', lambda answer: answer.descriptors),
            (GetParameterTypes, 'get_parameter_types', lambda answer: answer.types),
        ),
        strict=True,
    ):
        assert len(read(call(graph, kind, service, names=[name]))) == 1
        assert name in listed(graph)
    assert set_each(graph, [('refinement.oasc.order', 'largest_wins')]) == []
    assert len(set_each(graph, [('scorers.s2.taw', 0.1)])) == 1
    assert 'scorers.s2.taw is unknown' in capfd.readouterr().err


@pytest.mark.parametrize('path', PRESETS, ids=lambda path: path.stem)
def test_a_preset_is_loaded_live_in_any_order(graph, path):
    graph.anomaly_node()
    values = yaml.safe_load(path.read_text(encoding='utf-8'))[tables.NODE_KEY]['ros__parameters']
    for seed in range(3):
        names = sorted(values)
        random.Random(seed).shuffle(names)
        assert set_each(graph, [(name, values[name]) for name in names]) == []
        found = call(graph, GetParameters, 'get_parameters', names=names).values
        stored = [Parameter.from_parameter_msg(_named(value)).value for value in found]
        assert [list(one) if isinstance(one, tuple) else one for one in stored] == [
            values[name] for name in names
        ]


def _named(value):
    from rcl_interfaces.msg import Parameter as Message

    return Message(name='any', value=value)


def test_the_whole_list_is_loaded_in_any_order_while_unconfigured(graph):
    graph.anomaly_node(state='unconfigured')
    path = ROOT / 'config' / tables.PIPELINE
    values = yaml.safe_load(path.read_text(encoding='utf-8'))[tables.NODE_KEY]['ros__parameters']
    names = list(values)
    random.Random(1).shuffle(names)
    assert set_each(graph, [(name, values[name]) for name in names]) == []
    assert set(values) <= set(listed(graph))


def test_who_listens_to_metres_sees_the_options_of_the_geometry(graph):
    graph.anomaly_node()
    assert 'geometry.camera_height' not in listed(graph)
    graph.collect(LaserScan, 'anomaly_node/obstacle/scan')
    wait_for(lambda: 'geometry.camera_height' in listed(graph), 'the options of the geometry')
