# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Faults that come to a running node: what they cost, what is said of them, how it goes on."""

from __future__ import annotations

import copy
import dataclasses
import gc
import threading
import time
import weakref

import numpy as np
import pytest
import torch

pytest.importorskip('rclpy', reason='no rclpy installed')

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.parameter import Parameter
from ros_graph import Graph, image_message, send_until, values, wait_for
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from road_anomaly_ros.perception import Pipeline
from road_anomaly_ros.perception.segmenters.synthetic import SyntheticSegmenter
from road_anomaly_ros.ros.engine import Engine
from road_anomaly_ros.ros.worker import Frame


@pytest.fixture
def graph():
    with Graph() as graph:
        yield graph


def test_refusals_are_explained_and_throttled(graph, capfd):
    node = graph.anomaly_node(state='inactive')
    bad = image_message()
    bad.step = 5
    for _ in range(200):
        node._process([Frame('', copy.copy(bad), time.monotonic())])
    lines = [line for line in capfd.readouterr().err.splitlines() if 'refused (step)' in line]
    assert len(lines) == 1 and 'expected a step of at least 192 bytes' in lines[0]
    assert node.cameras[''].stats.refused == {'step': 200}


def test_time_may_run_backwards(graph, capfd):
    node = graph.anomaly_node()
    masks = graph.collect(Image, 'anomaly_node/obstacle/mask')
    publisher = graph.publisher(Image, 'image')
    stats = node.cameras[''].stats
    send_until(publisher, lambda: image_message(seconds=500.0), lambda: stats.processed, 'a frame')
    send_until(
        publisher,
        lambda: image_message(seconds=3.0),
        lambda: [m for m in masks if m.header.stamp.sec == 3],
        'the second round',
    )
    assert stats.backwards == 1
    assert 'stamps ran backwards' in capfd.readouterr().err


DEPTH = np.full((48, 64), 1500, np.uint16)


@pytest.mark.parametrize(
    ('topic', 'encoding', 'usable'),
    [
        ('image', '16UC1', False),
        ('image', '32FC1', False),
        ('camera/depth/image_rect', 'mono16', False),
        ('thermal/image', 'mono16', True),
    ],
)
def test_depth_is_refused_and_the_topic_to_choose_is_named(graph, topic, encoding, usable, capfd):
    node = graph.anomaly_node(remap=[f'image:={topic}'])
    other, publisher = graph.publisher(Image, 'color', readers=0), graph.publisher(Image, topic)
    wait_for(lambda: node.count_publishers(other.topic_name), 'the colour camera')
    floats = encoding == '32FC1'
    picture = DEPTH.astype(np.float32) if floats else DEPTH
    depth = image_message(picture, encoding='32FC1' if floats else '16UC1')
    depth.encoding, stats = encoding, node.cameras[''].stats
    if usable:
        send_until(publisher, lambda: depth, lambda: stats.processed, 'a frame')
        assert not stats.refused
        return
    send_until(publisher, lambda: depth, lambda: stats.refused['encoding'] > 2, 'refusals')
    lines = [line for line in capfd.readouterr().err.splitlines() if 'refused' in line]
    assert len(lines) == 1 and 'expected a photograph' in lines[0] and encoding in lines[0]
    assert f'images are published on {other.topic_name}' in lines[0] and stats.processed == 0
    send_until(publisher, image_message, lambda: stats.processed, 'a frame after all')


def test_a_network_of_nan_is_an_error_and_never_an_obstacle(graph, monkeypatch, capfd):
    node = graph.anomaly_node()
    masks, rows = graph.collect(Image, 'anomaly_node/obstacle/mask'), graph.diagnostics()
    publisher, stats = graph.publisher(Image, 'image'), node.cameras[''].stats
    send_until(publisher, image_message, lambda: masks, 'a mask')
    with monkeypatch.context() as patch:
        patch.setattr(
            SyntheticSegmenter,
            '_mask_logits',
            lambda self, batch: torch.full((len(batch), len(self.labels), 12, 16), torch.nan),
        )
        send_until(publisher, image_message, lambda: stats.failed > 2, 'failures')
        wait_for(lambda: [row for row in rows if row.level == DiagnosticStatus.ERROR], 'an error')
        before = len(masks), stats.processed
        send_until(publisher, image_message, lambda: stats.failed > 5, 'more failures')
        assert (len(masks), stats.processed) == before
    said = [line for line in capfd.readouterr().err.splitlines() if 'means nothing' in line]
    assert 1 <= len(said) <= 2 and "set precision to 'float32'" in said[0]
    error = next(row for row in rows if row.level == DiagnosticStatus.ERROR)
    assert 'expected finite numbers in the mask_logits' in error.message
    send_until(publisher, image_message, lambda: len(masks) > before[0], 'a mask again')


class Sick(Pipeline):
    """A pipeline that raises what `faults` holds, one per call."""

    faults: list

    def batch(self, pictures, *others):
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            raise fault
        return super().batch(pictures, *others)


@pytest.fixture
def sick(graph):
    kind = type('Case', (Sick,), {'faults': []})
    engine = Engine(kind)
    return kind, engine


def test_a_chain_that_fails_costs_one_frame(graph, sick):
    kind, engine = sick
    node = graph.anomaly_node(engine=engine)
    rows = graph.diagnostics()
    publisher = graph.publisher(Image, 'image')
    stats = node.cameras[''].stats
    kind.faults[:] = [RuntimeError('singular matrix'), ValueError('shape')]
    send_until(publisher, image_message, lambda: stats.processed >= 2, 'the next good frames')
    assert stats.failed == 2
    wait_for(lambda: [row for row in rows if 'frame failed: shape' in row.message], 'a report')


def test_out_of_memory_ends_in_a_clear_state_and_not_in_a_loop(graph, sick, capfd):
    kind, engine = sick
    node = graph.anomaly_node(engine=engine)
    rows = graph.diagnostics()
    publisher = graph.publisher(Image, 'image')
    kind.faults[:] = [torch.cuda.OutOfMemoryError('CUDA out of memory')] * 2
    send_until(publisher, image_message, lambda: not engine.loaded, 'the release')
    row = wait_for(
        lambda: [
            row
            for row in rows
            if row.level == DiagnosticStatus.ERROR and values(row).get('state') == 'unconfigured'
        ],
        'the clear state',
    )[-1]
    assert 'no memory for one image' in row.message
    assert capfd.readouterr().err.count('no memory for one image') == 1
    assert node.trigger_configure().name == 'SUCCESS'
    assert node.trigger_activate().name == 'SUCCESS'
    stats = node.cameras[''].stats
    send_until(publisher, image_message, lambda: stats.processed, 'frames as before')


def test_out_of_memory_while_loading_is_a_refusal(graph):
    class TooBig(Pipeline):
        def warm_up(self, *size):
            raise torch.cuda.OutOfMemoryError('CUDA out of memory')

    engine = Engine(TooBig)
    node = graph.anomaly_node(engine=engine, state='unconfigured')
    assert node.trigger_configure().name == 'FAILURE'
    assert not engine.loaded


def test_a_refinement_that_throws_is_named(graph):
    class Noted(Pipeline):
        def batch(self, pictures, *others):
            note = 'refinement gaussian skipped: no room'
            return [
                dataclasses.replace(result, notes=(note,))
                for result in super().batch(pictures, *others)
            ]

    node = graph.anomaly_node(engine=Engine(Noted))
    rows = graph.diagnostics()
    publisher = graph.publisher(Image, 'image')
    stats = node.cameras[''].stats
    send_until(
        publisher,
        image_message,
        lambda: [
            row
            for row in rows
            if row.level == DiagnosticStatus.WARN
            and 'refinement gaussian skipped: no room' in row.message
        ],
        'the name of the refinement',
    )
    assert stats.processed > 0 and stats.failed == 0


def test_frames_after_the_device_gave_up_are_counted_and_say_nothing_of_their_own(
    graph, sick, capfd, monkeypatch
):
    kind, engine = sick
    node = graph.anomaly_node(engine=engine)
    monkeypatch.setattr(node, '_soon', lambda action: None)  # what would end this state
    kind.faults[:] = [torch.cuda.OutOfMemoryError('CUDA out of memory')] * 2
    for _ in range(5):
        node._process([Frame('', image_message(), time.monotonic())])
    stats = node.cameras[''].stats
    assert (stats.processed, stats.failed, stats.dropped) == (0, 1, 4)
    lines = capfd.readouterr().err
    assert 'NoneType' not in lines and lines.count('no memory for one image') == 1


def test_of_several_cameras_what_is_finished_is_sent_before_the_device_gives_up(
    graph, sick, monkeypatch
):
    kind, engine = sick
    node = graph.anomaly_node(engine=engine, cameras=['a', 'b', 'c'])
    monkeypatch.setattr(node, '_soon', lambda action: None)
    fault = torch.cuda.OutOfMemoryError('CUDA out of memory')
    kind.faults[:] = [fault, None, fault]
    refused = image_message()
    refused.step = 5
    frames = [
        Frame(name, message, time.monotonic())
        for name, message in (('a', image_message()), ('b', refused), ('c', image_message()))
    ]
    node._process(frames)
    counts = {
        name: (camera.stats.processed, camera.stats.failed, sum(camera.stats.refused.values()))
        for name, camera in node.cameras.items()
    }
    assert counts == {'a': (1, 0, 0), 'b': (0, 0, 1), 'c': (0, 1, 0)}


@pytest.mark.parametrize(('scorer', 'code'), [('msp', 'SUCCESS'), ('external', 'FAILURE')])
def test_a_parameter_that_is_set_while_the_model_loads_counts(graph, scorer, code, capfd):
    """Nothing is there yet that could refuse it; afterwards it is in force or the reason told."""
    nodes = []

    class Slow(Pipeline):
        def warm_up(self, *size):
            (answer,) = nodes[0].set_parameters([Parameter('scorer', value=scorer)])
            assert answer.successful
            super().warm_up(*size)

    engine = Engine(Slow)
    nodes.append(graph.anomaly_node(engine=engine, state='unconfigured', scorer='rba'))
    assert nodes[0].trigger_configure().name == code
    if code == 'FAILURE':
        assert not engine.loaded
        assert "cannot configure: scorer 'external' needs" in capfd.readouterr().err
        return
    nodes[0]._process([Frame('', image_message(), time.monotonic())])
    assert engine.pipeline.chain.scorer == scorer


def test_a_device_fault_is_shown_in_the_diagnostics(graph):
    engine = Engine()
    graph.anomaly_node(engine=engine, state='inactive')
    engine.pipeline.resources.fail('accumulate', RuntimeError('no C compiler'))
    rows = graph.diagnostics()
    row = wait_for(lambda: [row for row in rows if 'device_faults' in values(row)], 'a report')[-1]
    assert values(row)['device_faults'] == 'accumulate: no C compiler'


def test_a_device_that_gives_up_while_the_node_is_deactivated_leaves_it_unconfigured(
    graph, sick, monkeypatch, capfd
):
    """Deactivating waits for the frame in flight; what that asks for comes afterwards."""
    kind, engine = sick
    node, later = graph.anomaly_node(engine=engine), []
    monkeypatch.setattr(node, '_soon', later.append)
    kind.faults[:] = [torch.cuda.OutOfMemoryError('CUDA out of memory')] * 2
    node._process([Frame('', image_message(), time.monotonic())])
    assert node.trigger_deactivate().name == 'SUCCESS'
    for action in later:
        action()
    assert 'the model stays loaded' not in capfd.readouterr().err
    assert node.trigger_configure().name == 'SUCCESS'
    for action in later:  # late: there is another model by now
        action()
    assert engine.loaded and node.trigger_activate().name == 'SUCCESS'


def test_notes_that_differ_by_numbers_are_of_one_kind(graph, capfd):
    class Noted(Pipeline):
        count = 0

        def batch(self, pictures, *others):
            type(self).count += 1
            note = f'{self.count} of {2 * self.count} obstacles are not tracked: max_tracks'
            return [
                dataclasses.replace(result, notes=(note,))
                for result in super().batch(pictures, *others)
            ]

    node = graph.anomaly_node(engine=Engine(Noted), state='inactive')
    for _ in range(20):
        node._process([Frame('', image_message(), time.monotonic())])
    assert node._stages.values()['N of N obstacles are not tracked'] == '20'
    assert capfd.readouterr().err.count('not tracked') == 1


def test_simulated_time_that_never_begins_is_told(graph, capfd):
    node = graph.anomaly_node(use_sim_time=True)
    rows = graph.diagnostics()
    row = wait_for(lambda: [row for row in rows if '/clock' in row.message], 'a warning')[-1]
    assert row.level == DiagnosticStatus.WARN and 'use_sim_time to false' in row.message
    node._process([Frame('', image_message(), time.monotonic())])
    stats = node.cameras[''].stats
    assert stats.processed == 1 and stats.stamp_age.age() == float('inf')
    clock = graph.publisher(Clock, '/clock', readers=0)
    ticks = Clock(clock=Time(sec=5))
    send_until(clock, lambda: ticks, lambda: node.get_clock().now().nanoseconds, 'the clock')
    rows.clear()
    wait_for(lambda: [row for row in rows if row.message == 'active'], 'no warning any more')
    assert 'nothing has come on /clock' in capfd.readouterr().err


def test_whoever_composes_the_node_ends_it_by_destroying_it(graph):
    node = graph.anomaly_node()
    engine, thread = node._engine, node._worker._thread
    graph.executor.remove_node(node)
    graph._nodes.remove(node)
    node.destroy_node()
    assert not engine.loaded and not thread.is_alive()


@pytest.mark.parametrize('where', ['chain', 'topics', 'picture'])
def test_a_frame_that_fails_is_let_go_of_at_once(graph, sick, where, monkeypatch):
    """Its message is megabytes, which a cycle through the error would keep for a while."""
    kind, engine = sick
    node = graph.anomaly_node(engine=engine, state='inactive')
    stats = node.cameras[''].stats

    def broken(*_):
        raise ValueError('no room')

    message = image_message()
    if where == 'chain':
        kind.faults[:] = [ValueError('no room')]
    elif where == 'topics':
        monkeypatch.setattr(node.cameras[''], 'publish', broken)
    else:
        message.step = 5
    gc.collect()
    gc.disable()
    try:
        frame = Frame('', message, time.monotonic())
        held = weakref.ref(frame)
        node._process([frame])
        del frame
        assert held() is None
    finally:
        gc.enable()
    assert stats.failed + sum(stats.refused.values()) == 1


def test_the_diagnostics_say_that_a_model_loads_and_not_what_failed_before(graph):
    opened, entered = threading.Event(), threading.Event()

    class Slow(Pipeline):
        fail = True

        def warm_up(self, *size):
            if Slow.fail:
                raise ValueError('weights of another planet')
            entered.set()
            assert opened.wait(20)

    node = graph.anomaly_node(engine=Engine(Slow), state='unconfigured')
    rows = graph.diagnostics()

    def told(message):
        return [row for row in rows if row.name.endswith(': chain') and row.message == message]

    assert node.trigger_configure().name == 'FAILURE'
    wait_for(lambda: told('weights of another planet'), 'the fault')
    Slow.fail = False
    thread = threading.Thread(target=node.trigger_configure)
    thread.start()
    assert entered.wait(20)
    rows.clear()
    row = wait_for(lambda: rows, 'a report while the model loads')[0]
    opened.set()
    thread.join()
    assert (row.level, row.message, values(row)['state']) == (row.OK, 'loading', 'loading')
