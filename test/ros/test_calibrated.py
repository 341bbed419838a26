# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""From footage to the running node: its promise, and the drift of live scores, over DDS."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='no rclpy installed')

from diagnostic_msgs.msg import DiagnosticStatus
from ros_graph import Graph, image_message, send_until, values
from sensor_msgs.msg import Image

from road_anomaly_ros.cli import main

BLOCKS = 30  # of live driving without a false alarm
DRIFTS = 'drift from what was calibrated on'


@pytest.fixture
def graph():
    with Graph() as graph:
        yield graph


def street(rng, tint=0):
    """A grey road under a blue sky, both a little different each time; `tint` makes it strange."""
    picture = np.full((48, 64, 3), 90, np.int16)
    picture[:20] = (120, 170, 220)
    picture += rng.integers(-6, 7, 3, np.int16) + rng.integers(-2, 3, picture.shape, np.int16)
    picture[20:, :, 0] += tint
    return picture.clip(0, 255).astype(np.uint8)


def calibrated(folder, rng, frames):
    """Calibrate on so many pictures; returns the file."""
    (folder / 'drive').mkdir()
    for index in range(frames):
        cv2.imwrite(
            str(folder / 'drive' / f'{index}.png'), cv2.cvtColor(street(rng), cv2.COLOR_RGB2BGR)
        )
    out = folder / 'mine.yaml'
    assert (
        main(
            [
                'calibrate',
                str(folder / 'drive'),
                '-o',
                str(out),
                '--set',
                'segmenter=synthetic',
                '--scorer',
                'plain',
                '--rate',
                '0.5',
            ]
        )
        == 0
    )
    return out


def chain_rows(rows):
    return [row for row in rows if row.name.endswith(': chain')]


def test_the_node_shows_the_promise_and_warns_of_drift(graph, tmp_path, rng):
    out = calibrated(tmp_path, rng, 160)
    graph.anomaly_node(calibration=str(out))
    rows = graph.diagnostics()
    publisher = graph.publisher(Image, 'image')
    seconds = itertools.count(100)

    def blocks():
        shown = [values(row).get('drift', '') for row in chain_rows(rows)]
        return int(shown[-1].split()[-2]) if shown and shown[-1].endswith('blocks') else 0

    send_until(
        publisher,
        lambda: image_message(street(rng), float(next(seconds))),
        lambda: blocks() >= BLOCKS,
        'blocks of driving as calibrated',
        period=0.02,
    )
    found = values(chain_rows(rows)[-1])
    assert found['calibration'] == str(out)
    assert found['threshold'].endswith('(promise)')
    assert found['promise'].startswith('false obstacles under 0.5 per frame at 95 % confidence')
    assert not [row.message for row in chain_rows(rows) if row.level != DiagnosticStatus.OK]
    send_until(
        publisher,
        lambda: image_message(street(rng, tint=30), float(next(seconds))),
        lambda: [row for row in chain_rows(rows) if DRIFTS in row.message],
        'the warning of drift',
        period=0.02,
    )
    warned = next(row for row in chain_rows(rows) if DRIFTS in row.message)
    assert warned.level == DiagnosticStatus.WARN
    assert 'drive' in warned.message and '\n' not in warned.message


def test_the_node_says_that_it_watches_no_drift(graph, tmp_path, rng):
    out = calibrated(tmp_path, rng, 12)
    graph.anomaly_node(calibration=str(out))
    rows = graph.diagnostics()
    publisher = graph.publisher(Image, 'image')
    send_until(
        publisher,
        lambda: image_message(street(rng)),
        lambda: [row for row in chain_rows(rows) if 'drift' in values(row)],
        'a report',
    )
    found = values(chain_rows(rows)[-1])
    assert found['threshold'].endswith('(promise)')
    assert found['drift'].startswith('off: it takes 10 blocks of footage, the calibration has ')


def test_without_a_promise_no_drift_is_watched(graph):
    graph.anomaly_node()
    rows = graph.diagnostics()
    publisher = graph.publisher(Image, 'image')
    send_until(
        publisher,
        image_message,
        lambda: [row for row in chain_rows(rows) if 'drift' in values(row)],
        'a report',
    )
    assert values(chain_rows(rows)[-1])['drift'] == 'off: nothing is promised'
