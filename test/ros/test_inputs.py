# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the node asks of a camera, follows it, notices what is lost, and says so."""

from __future__ import annotations

import os

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='no rclpy installed')

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.qos import QoSProfile, ReliabilityPolicy
from ros_graph import Graph, header, image_message, send_until, values, wait_for
from sensor_msgs.msg import CompressedImage, Image

from road_anomaly_ros.ros import loss

RELIABLE = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


@pytest.fixture
def graph():
    with Graph() as graph:
        yield graph


def asked(graph, topic='image'):
    """What the subscriptions of a topic ask for, as the graph tells."""
    found = graph.client.get_subscriptions_info_by_topic(f'{graph.namespace}/{topic}')
    return [item.qos_profile.reliability.name for item in found]


@pytest.mark.parametrize(
    ('offered', 'expected'),
    [
        ([RELIABLE], 'RELIABLE'),
        ([BEST_EFFORT], 'BEST_EFFORT'),
        ([RELIABLE, BEST_EFFORT], 'BEST_EFFORT'),
    ],
)
def test_a_camera_is_asked_for_what_it_offers(graph, offered, expected):
    publishers = [graph.publisher(Image, 'image', qos, readers=0) for qos in offered]
    node = graph.anomaly_node(state='inactive')
    wait_for(lambda: node.count_publishers(f'{graph.namespace}/image') == len(offered), 'cameras')
    assert node.trigger_activate().name == 'SUCCESS'
    wait_for(lambda: asked(graph) == [expected], expected)
    send_until(publishers[-1], image_message, lambda: node.cameras[''].stats.processed, 'a result')


def test_a_camera_that_comes_later_with_less_is_heard_and_nobody_complains(graph, capfd):
    node = graph.anomaly_node()
    wait_for(lambda: asked(graph) == ['RELIABLE'], 'the first subscription')
    publisher = graph.publisher(Image, 'image', BEST_EFFORT, readers=0)
    send_until(publisher, image_message, lambda: node.cameras[''].stats.processed, 'a result')
    assert asked(graph) == ['BEST_EFFORT']
    assert 'offers less' not in capfd.readouterr().err
    graph.client.destroy_publisher(publisher)
    graph.publisher(Image, 'image', RELIABLE, readers=0)
    wait_for(lambda: asked(graph) == ['RELIABLE'], 'the camera that offers more')


@pytest.mark.parametrize(
    ('reliability', 'expected'), [('reliable', 'RELIABLE'), ('best_effort', 'BEST_EFFORT')]
)
def test_what_the_user_chose_stands(graph, reliability, expected):
    for qos in (RELIABLE, BEST_EFFORT):
        graph.publisher(Image, 'image', qos, readers=0)
    node = graph.anomaly_node(reliability=reliability)
    node.cameras[''].review()
    wait_for(lambda: asked(graph) == [expected], expected)


def test_an_override_of_the_user_stands(graph):
    topic = f'qos_overrides.{graph.namespace}/image.subscription.reliability'
    graph.publisher(Image, 'image', RELIABLE, readers=0)
    node = graph.anomaly_node(**{topic: 'best_effort'})
    node.cameras[''].review()
    wait_for(lambda: asked(graph) == ['BEST_EFFORT'], 'the override')
    assert node.get_parameter(topic).value == 'best_effort'


@pytest.mark.parametrize(
    'rules',
    [
        ['image:=cam/image_raw'],
        ['image:=other', 'image/compressed:=cam/image_raw/compressed'],
        ['image:=cam/image_raw/compressed'],
    ],
)
def test_the_compressed_topic_follows_a_remapped_image(graph, rules):
    node = graph.anomaly_node(image_transport='compressed', remap=rules)
    wait_for(lambda: asked(graph, 'cam/image_raw/compressed'), 'a subscription')
    assert node.cameras[''].listens.startswith(f'{graph.namespace}/cam/image_raw/compressed (')


def test_the_compressed_outputs_follow_a_remapped_overlay(graph):
    node = graph.anomaly_node(state='inactive', remap=['~/overlay:=seen'])
    names = {publisher.topic_name for publisher in node.publishers}
    assert {f'{graph.namespace}/seen', f'{graph.namespace}/seen/compressed'} <= names


@pytest.mark.parametrize(
    ('transport', 'kind', 'published', 'says'),
    [
        ('raw', CompressedImage, 'cam/image/compressed', "image_transport to 'compressed'"),
        ('compressed', Image, 'cam/image', "image_transport to 'raw'"),
    ],
)
def test_a_camera_with_the_other_transport_is_named(graph, transport, kind, published, says):
    rows = graph.diagnostics()
    graph.publisher(kind, published, readers=0)
    graph.anomaly_node(stale_after=0.2, image_transport=transport, remap=['image:=cam/image'])
    found = wait_for(lambda: [row.message for row in rows if says in row.message], says)
    assert f'but the camera publishes {graph.namespace}/{published}: set' in found[0]


@pytest.mark.parametrize(
    ('steps', 'share'),
    [
        ([33] * 40, 0.0),
        ([33, 66, 33, 99, 33, 33, 66, 33] * 5, 0.33),
        ([33, 330, 297, 363, 33, 429, 264, 33] * 5, 0.85),
        ([33] * 20 + [66] * 20, 0.0),  # another rate
        ([20, 47, 31, 70, 26, 55, 38, 61] * 5, 0.0),  # no period at all
        ([33, 66] * 5, 0.0),
        ([0] * 40, 0.0),
        ([500] * 8 + [3_600_000] + [500] * 8, 0.0),  # a clock that was set
        ([500] * 4 + [4000] + [500] * 12, 0.0),  # a pause
    ],
)
def test_gaps_in_stamps(steps, share):
    assert loss.gaps(np.array(steps)) == pytest.approx(share, abs=0.02)


def arrive(camera, height, width):
    """Let every third of a camera's images arrive, and one pair side by side."""
    for number in sorted({*range(0, 90, 3), *range(1, 90, 9)}):
        camera.on_image(
            Image(
                header=header(1 + number / 30),
                height=height,
                width=width,
                encoding='rgb8',
                step=3 * width,
                data=bytes(3 * height * width),
            )
        )


@pytest.mark.parametrize(('size', 'remedies'), [((480, 640), True), ((48, 64), False)])
def test_images_that_never_arrive_are_noticed(graph, size, remedies):
    node = graph.anomaly_node(reliability='best_effort')
    rows = graph.diagnostics()
    arrive(node.cameras[''], *size)
    found = wait_for(lambda: [row for row in rows if 'never arrive' in row.message], 'the loss')
    assert found[0].level == DiagnosticStatus.WARN
    for word in (
        'FASTDDS_DEFAULT_PROFILES_FILE',
        'FASTRTPS_DEFAULT_PROFILES_FILE',
        'road_anomaly_ros.ros.transport',
        'reliability',
    ):
        assert (word in found[0].message) == remedies
    for word in ('best effort', 'MiB', f'on {len(os.sched_getaffinity(0))} cores'):
        assert word in found[0].message


def test_images_that_come_while_nobody_listens_are_not_missing(graph):
    node = graph.anomaly_node(state='inactive')
    camera = node.cameras['']
    camera._loss.add_lost(7)
    for start in (0, 60, 120):
        assert node.trigger_activate().name == 'SUCCESS'
        for number in range(10):
            camera.on_image(image_message(seconds=1 + (start + number) / 30))
        camera.review()
        assert not any('never arrive' in text for text in camera.stats.recent().values())
        assert node.trigger_deactivate().name == 'SUCCESS'
    assert camera.stats.lost == 7


def test_what_the_middleware_lost_is_counted(graph):
    node = graph.anomaly_node()
    rows = graph.diagnostics()
    camera = node.cameras['']
    camera._loss.add_lost(7)
    camera._loss.add(1, 10)
    wait_for(lambda: any(values(row).get('lost') == '7' for row in rows), 'the count')
    wait_for(
        lambda: any('88% of the images never arrive' in row.message for row in rows), 'the share'
    )


def test_loading_and_listening_are_said(graph, capfd):
    node = graph.anomaly_node()
    node.trigger_deactivate()
    said = capfd.readouterr().err
    name = graph.namespace
    assert 'loading model builtin (synthetic)' in said
    assert (
        f'active: listens to {name}/image (reliable), {name}/camera_info; see '
        f'{name}/anomaly_node/overlay and /diagnostics'
    ) in said
    assert 'inactive: listens to nothing' in said
    assert said.index('loading') < said.index('active: listens') < said.index('inactive: ')
