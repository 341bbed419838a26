# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The node over real DDS: its life, changes while it runs, what it says of itself."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='no rclpy installed')

from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import GetParameters, SetParametersAtomically
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from ros_graph import Graph, image_message, obstacle_picture, scores, send_until, values, wait_for
from sensor_msgs.msg import Image

from road_anomaly_ros.perception import Pipeline, PipelineConfig
from road_anomaly_ros.ros.engine import Engine

SCORE = 'anomaly_node/anomaly/score'


@pytest.fixture
def graph():
    with Graph() as graph:
        yield graph


def test_a_model_is_built_warmed_up_and_asked_in_threads_that_end():
    """What they leave in OpenMP would slow the frames of the worker for ever."""
    threads = []

    class Noted(Pipeline):
        def __init__(self, config):
            threads.append(threading.current_thread())
            super().__init__(config)

        def warm_up(self, size=None):
            threads.append(threading.current_thread())

        def prepare(self, config):
            threads.append(threading.current_thread())

    engine = Engine(Noted)
    config = PipelineConfig(segmenter='synthetic')
    engine.load(config)
    engine.check(config)
    assert len(threads) == 3 and not any(thread.is_alive() for thread in threads)


class Gate(Pipeline):
    """A pipeline that holds a frame for as long as the test wants."""

    def __init__(self, config):
        super().__init__(config)
        self.entered, self.open = threading.Event(), threading.Event()
        self.open.set()
        self.sizes, self.cameras = [], []

    def batch(self, images, stamps, maps, cameras):
        self.sizes.append(len(images))
        self.cameras += cameras
        self.entered.set()
        assert self.open.wait(20)
        return super().batch(images, stamps, maps, cameras)


def call(graph, kind, name, request):
    client = graph.client.create_client(kind, f'{graph.namespace}/anomaly_node/{name}')
    assert client.wait_for_service(10.0)
    answer = client.call_async(request)
    wait_for(answer.done, f'an answer of {name}')
    return answer.result()


def state(graph):
    return call(graph, GetState, 'get_state', GetState.Request()).current_state.label


def change(graph, transition):
    request = ChangeState.Request(transition=Transition(id=transition))
    return call(graph, ChangeState, 'change_state', request).success


def set_parameters(graph, **changes):
    request = SetParametersAtomically.Request(
        parameters=[
            Parameter(name.replace('__', '.'), value=value).to_parameter_msg()
            for name, value in changes.items()
        ]
    )
    return call(graph, SetParametersAtomically, 'set_parameters_atomically', request).result


def test_it_starts_by_itself_and_finds_the_obstacle(graph):
    graph.anomaly_node(autostart=True, state='unconfigured')
    found = graph.collect(Image, SCORE)
    masks = graph.collect(Image, 'anomaly_node/obstacle/mask')
    publisher = graph.publisher(Image, 'image')
    send_until(
        publisher, lambda: image_message(obstacle_picture()), lambda: found and masks, 'a score'
    )
    score = scores(found)[-1]
    assert found[-1].encoding == '32FC1' and score.shape == (48, 64)
    assert score[32:36, 28:34].mean() > score[42:, :20].mean() + 0.1
    mask = np.frombuffer(masks[-1].data, np.uint8).reshape(48, 64)
    assert mask[33, 30] == 255 and mask[45, 5] == 0


def test_the_whole_life_over_services(graph):
    graph.anomaly_node(state='unconfigured')
    assert state(graph) == 'unconfigured'
    for _ in range(2):
        for transition, expected in (
            (Transition.TRANSITION_CONFIGURE, 'inactive'),
            (Transition.TRANSITION_ACTIVATE, 'active'),
            (Transition.TRANSITION_DEACTIVATE, 'inactive'),
            (Transition.TRANSITION_CLEANUP, 'unconfigured'),
        ):
            assert change(graph, transition)
            assert state(graph) == expected
    assert graph.client.count_publishers(SCORE) == 0
    assert change(graph, Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
    assert state(graph) == 'finalized'


def test_nothing_is_processed_while_inactive(graph):
    node = graph.anomaly_node(state='inactive')
    found = graph.collect(Image, SCORE)
    assert graph.client.count_subscribers('image') == 0
    assert node.trigger_activate().name == 'SUCCESS'
    publisher = graph.publisher(Image, 'image')
    send_until(publisher, image_message, lambda: found, 'a score')
    assert node.trigger_deactivate().name == 'SUCCESS'
    count = len(found)
    for _ in range(20):
        publisher.publish(image_message())
    assert state(graph) == 'inactive'  # a round trip later nothing has come
    assert len(found) <= count + 1


def test_a_missing_model_is_one_line_and_can_be_mended(graph, tmp_path, capfd):
    node = graph.anomaly_node(
        state='unconfigured', segmenter='mask2former', model=str(tmp_path / 'absent')
    )
    rows = graph.diagnostics()
    assert node.trigger_configure().name == 'FAILURE'
    assert state(graph) == 'unconfigured'
    lines = [line for line in capfd.readouterr().err.splitlines() if 'cannot configure' in line]
    assert len(lines) == 1 and 'absent' in lines[0]
    row = wait_for(lambda: [row for row in rows if row.level == DiagnosticStatus.ERROR], 'a row')
    assert 'absent' in row[-1].message
    assert set_parameters(graph, segmenter='synthetic', model='builtin').successful
    assert node.trigger_configure().name == 'SUCCESS'
    rows.clear()
    wait_for(
        lambda: [
            row for row in rows if row.name.endswith('chain') and row.level == DiagnosticStatus.OK
        ],
        'a healthy node',
    )


def test_an_unexpected_error_releases_everything_and_may_be_retried(graph):
    class Broken(Pipeline):
        fail = True

        def warm_up(self, *size):
            if Broken.fail:
                raise RuntimeError('weights of another planet')

    engine = Engine(Broken)
    node = graph.anomaly_node(engine=engine, state='unconfigured')
    assert node.trigger_configure().name == 'ERROR'
    assert state(graph) == 'unconfigured' and not engine.loaded
    Broken.fail = False
    assert node.trigger_configure().name == 'SUCCESS'


def test_a_qos_override_that_does_not_exist_is_named(graph, capfd):
    topic = f'qos_overrides.{graph.namespace}/image.subscription.reliability'
    node = graph.anomaly_node(state='inactive', **{topic: 'somehow'})
    assert node.trigger_activate().name == 'ERROR'
    assert state(graph) == 'unconfigured'
    assert 'cannot activate' in capfd.readouterr().err
    assert node.trigger_configure().name == 'SUCCESS'


def test_outputs_that_cannot_be_made_leave_none_behind(graph):
    name = f'{graph.namespace}/anomaly_node/right/obstacle/rle'
    topic = f'qos_overrides.{name}.publisher.reliability'
    node = graph.anomaly_node(
        state='unconfigured', cameras=['left', 'right'], **{topic: 'somehow'}
    )
    before = sorted(publisher.topic_name for publisher in node.publishers)
    for _ in range(2):
        assert node.trigger_configure().name != 'SUCCESS'
        assert sorted(publisher.topic_name for publisher in node.publishers) == before


def test_deactivate_waits_for_the_frame_in_flight(graph):
    engine = Engine(Gate)
    node = graph.anomaly_node(engine=engine)
    found = graph.collect(Image, SCORE)
    publisher = graph.publisher(Image, 'image')
    gate = engine.pipeline
    gate.entered.clear()
    gate.open.clear()
    send_until(publisher, image_message, gate.entered.is_set, 'a frame in flight')
    before = node.cameras[''].stats.processed
    threading.Timer(0.2, gate.open.set).start()
    assert node.trigger_deactivate().name == 'SUCCESS'
    assert node.cameras[''].stats.processed == before + 1
    wait_for(lambda: found, 'the result of the frame in flight')


def test_parameters_and_diagnostics_answer_while_a_frame_is_computed(graph):
    engine = Engine(Gate)
    graph.anomaly_node(engine=engine)
    publisher = graph.publisher(Image, 'image')
    gate = engine.pipeline
    gate.entered.clear()
    gate.open.clear()
    send_until(publisher, image_message, gate.entered.is_set, 'a frame in flight')
    assert set_parameters(graph, jpeg_quality=40).successful
    answer = call(
        graph, GetParameters, 'get_parameters', GetParameters.Request(names=['jpeg_quality'])
    )
    assert answer.values[0].integer_value == 40
    assert state(graph) == 'active'
    rows = graph.diagnostics()
    wait_for(lambda: rows, 'diagnostics')
    gate.open.set()


def test_newest_frames_of_all_cameras_go_through_the_model_together(graph):
    engine = Engine(Gate)
    node = graph.anomaly_node(engine=engine, cameras=['a', 'b', 'c'], max_batch=2)
    publishers = [graph.publisher(Image, f'{name}/image') for name in node.cameras]
    gate = engine.pipeline
    gate.entered.clear()
    gate.open.clear()
    send_until(publishers[0], image_message, gate.entered.is_set, 'a frame in flight')
    gate.sizes.clear()
    gate.cameras.clear()
    for name, publisher in zip(node.cameras, publishers, strict=True):
        before = node.cameras[name].stats.received
        send_until(
            publisher,
            image_message,
            lambda n=name, b=before: node.cameras[n].stats.received > b,
            'a waiting frame',
        )
    gate.open.set()
    wait_for(lambda: sum(camera.stats.processed for camera in node.cameras.values()) >= 4, 'all')
    assert sorted(gate.cameras) == ['a', 'b', 'c']
    assert gate.sizes == [2, 1]  # three waiting frames, at most two at once
    assert all(camera.stats.processed for camera in node.cameras.values())


@pytest.mark.parametrize('names', [['a/b'], ['9lives'], ['front', 'front'], ['front view']])
def test_camera_names_that_make_no_topics_are_refused(graph, names):
    node = graph.anomaly_node(state='unconfigured', cameras=names)
    assert node.trigger_configure().name == 'FAILURE'
    assert set_parameters(graph, cameras=['front']).successful
    assert node.trigger_configure().name == 'SUCCESS'


def test_changes_under_load_never_mix_two_configurations(graph):
    """Each score must be that of one whole configuration; the two differ in scorer and option."""
    picture = obstacle_picture()

    def score_of(**choice):
        pipeline = Pipeline.from_config(segmenter='synthetic', device='cpu', **choice)
        return pipeline(picture).score.numpy()

    choices = (
        {'scorer': 'msp', 'upsample': 'logits'},
        {'scorer': 'max_entropy', 'upsample': 'semantic'},
    )
    expected = [score_of(**choice) for choice in choices]
    mixed = [
        score_of(scorer=choices[i]['scorer'], upsample=choices[1 - i]['upsample']) for i in (0, 1)
    ]
    assert all(np.abs(a - b).max() > 1e-3 for a, b in itertools.combinations(expected + mixed, 2))
    node = graph.anomaly_node(**choices[0])
    found = graph.collect(Image, SCORE)
    publisher = graph.publisher(Image, 'image')
    turns = itertools.cycle(choices)

    def step():
        parameters = [Parameter(name, value=value) for name, value in next(turns).items()]
        assert node.set_parameters_atomically(parameters).successful
        return image_message(picture)

    send_until(publisher, step, lambda: len(found) >= 60, 'scores', period=0.01)
    seen = set()
    for score in scores(found):
        index = min(range(2), key=lambda i: np.abs(score - expected[i]).max())
        np.testing.assert_allclose(score, expected[index], atol=1e-5)
        seen.add(index)
    assert seen == {0, 1}
    assert node.cameras[''].stats.failed == 0


def test_every_frame_is_processed_or_counted_as_dropped(graph):
    node = graph.anomaly_node()
    sent = itertools.count(1)
    found = graph.collect(
        Image,
        'anomaly_node/obstacle/mask',
        QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE),
    )
    publisher = graph.publisher(Image, 'image')
    stats = node.cameras[''].stats
    send_until(
        publisher,
        lambda: image_message(seconds=next(sent)),
        lambda: stats.received >= 150,
        'frames',
        period=0.002,
    )
    wait_for(lambda: stats.processed + stats.dropped == stats.received, 'the last frame')
    stamps = [message.header.stamp.sec for message in found]
    assert stamps == sorted(set(stamps)) and 0 < len(stamps) <= stats.processed
    assert stats.failed == 0 and not stats.refused


def test_diagnostics_name_stages_counts_and_memory(graph):
    node = graph.anomaly_node()
    rows = graph.diagnostics()
    publisher = graph.publisher(Image, 'image')
    send_until(publisher, image_message, lambda: node.cameras[''].stats.processed > 3, 'frames')
    rows.clear()
    wait_for(lambda: len(rows) >= 2, 'rows')
    chain = values(next(row for row in rows if row.name.endswith('anomaly_node: chain')))
    assert chain['state'] == 'active' and chain['device'] == 'cpu'
    assert set(chain) >= {
        'segment_p50_ms',
        'segment_p99_ms',
        'score_p50_ms',
        'total_p99_ms',
        'resident_mib',
    }
    camera = values(next(row for row in rows if row.name.endswith(': camera')))
    assert int(camera['processed']) > 3 and camera['refused'] == '0'
    assert float(camera['latency_p99_ms']) >= float(camera['latency_p50_ms']) > 0
