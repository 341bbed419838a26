# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Damaged anomaly maps and odd parameters are used, or refused with a reason that is counted."""

from __future__ import annotations

import array
import time

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='no rclpy installed')

from fuzzing import count, damage
from rclpy.parameter import Parameter
from ros_graph import Graph, header, image_message

from road_anomaly_ros.ros import images
from road_anomaly_ros.ros.parameters import node_parameters
from road_anomaly_ros.ros.worker import Frame

MAPS, PARAMETERS = count(300), count(150)
LIMIT = 1 << 16  # pixels; keeps what the mutations claim affordable
KINDS = {'32FC1': np.float32, 'mono8': np.uint8, '16UC1': np.uint16}
LABELS = (*KINDS, '64FC1', 'rgb8', '', '32FC2', '99UC9', '\x00')
VALUES = (0.0, 1.0, -3.5, 255.0, 65535.0, 1e38, np.nan, np.inf, -np.inf)
ODD = (
    True,
    0,
    -1,
    7,
    2**62,
    0.0,
    0.5,
    -1e308,
    float('nan'),
    float('inf'),
    '',
    'none',
    'auto',
    'plain',
    'rba',
    '../x',
    'ü' * 99,
    '\n',
    ['a', 'b'],
    ['gaussian'],
    [1, 2],
    [0.5],
    [b'\x00'],
    None,
)


@pytest.fixture
def graph():
    with Graph() as graph:
        yield graph


def mutated_map(rng):
    encoding = list(KINDS)[rng.integers(len(KINDS))]
    values = rng.choice(VALUES, rng.integers(1, 9, 2))
    with np.errstate(invalid='ignore', over='ignore'):
        message = images.to_message(values.astype(KINDS[encoding]), encoding, header())
    match rng.integers(8):
        case 0:
            message.data = array.array('B', bytes(damage(rng, message.data)))
        case 1:
            message.encoding = LABELS[rng.integers(len(LABELS))]
        case 2:
            message.step = int(rng.choice([0, 1, 3, 4, 64, 2**31, 2**32 - 1]))
        case 3:
            message.height = int(rng.choice([0, 1, 2, 4096, 2**32 - 1]))
        case 4:
            message.width = int(rng.choice([0, 1, 2, 4096, 2**32 - 1]))
    return message


def test_mutated_anomaly_maps_are_used_or_refused(graph, rng):
    node = graph.anomaly_node(segmenter='external', state='inactive', max_pixels=LIMIT)
    stats = node.cameras[''].stats
    for _ in range(MAPS):
        node._process([Frame('', image_message(), time.monotonic(), mutated_map(rng))])
    assert stats.processed + sum(stats.refused.values()) == MAPS and stats.failed == 0
    assert stats.processed > MAPS // 10 and sum(stats.refused.values()) > MAPS // 10


def test_mutated_parameters_are_in_force_or_refused_with_a_reason(graph, rng):
    node = graph.anomaly_node(state='inactive')
    names = [item.name for item in node_parameters('synthetic')]
    known = {name: node.get_parameter(name).value for name in names}
    refused = 0
    for _ in range(PARAMETERS):
        name = names[rng.integers(len(names))]
        (answer,) = node.set_parameters([Parameter(name, value=ODD[rng.integers(len(ODD))])])
        if answer.successful:
            known[name] = node.get_parameter(name).value
        else:
            refused += 1
            assert answer.reason and '\n' not in answer.reason
        assert repr(node.get_parameter(name).value) == repr(known[name])
    assert PARAMETERS // 10 < refused < PARAMETERS
    stats = node.cameras[''].stats
    node._process([Frame('', image_message(), time.monotonic())])
    assert stats.processed + stats.failed + sum(stats.refused.values()) == 1
