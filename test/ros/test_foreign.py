# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Anomaly maps of another node: matched with their images, read and turned into obstacles."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='no rclpy installed')

from ros_graph import Graph, header, image_message, values, wait_for
from sensor_msgs.msg import Image

from road_anomaly_ros.ros import images
from road_anomaly_ros.ros.pairing import Pairing


def test_pairs_are_the_nearest_in_time():
    pairing = Pairing(tolerance=10)
    assert pairing.add_image(100, 'a') == (None, 0)
    assert pairing.add_image(118, 'b') == (None, 0)
    assert pairing.add_map(111, 'm') == (('b', 'm'), 1)  # 7 away, a is 11 away and too old
    assert pairing.add_map(130, 'n') == (None, 0)
    assert pairing.add_image(141, 'c') == (None, 0)  # 11 away
    assert pairing.add_image(140, 'd') == (('d', 'n'), 0)  # c is newer and still waits
    assert pairing.add_map(141, 'o') == (('c', 'o'), 0)


def test_what_waits_is_bounded_and_counted():
    pairing = Pairing(tolerance=0)
    lost = [pairing.add_image(stamp, stamp)[1] for stamp in range(12)]
    assert lost == [0] * 8 + [1] * 4
    assert all(pairing.add_map(stamp, stamp) == (None, 0) for stamp in range(100, 112))
    assert pairing.add_map(11, 'm') == ((11, 'm'), 7)  # 4 .. 10 waited in vain


@pytest.mark.parametrize(('encoding', 'kind'), [('32FC1', 'f4'), ('16UC1', 'u2'), ('mono8', 'u1')])
@pytest.mark.parametrize('big', [False, True])
def test_maps_are_read_as_they_are(encoding, kind, big):
    expected = np.array([[0, 1, 2], [250, 4, 5]], kind)
    stored = expected.astype(np.dtype(kind).newbyteorder('>' if big else '<'))
    padded = np.zeros((2, stored.nbytes // 2 + 4), np.uint8)
    padded[:, :-4] = stored.view(np.uint8).reshape(2, -1)
    message = Image(height=2, width=3, encoding=encoding, step=padded.shape[1], is_bigendian=big)
    message.data = padded.tobytes()
    found = images.to_map(message)
    assert found.dtype == np.dtype(kind) and np.array_equal(found, expected)


@pytest.mark.parametrize(
    ('changes', 'reason'),
    [
        ({'encoding': 'rgb8'}, 'encoding'),
        ({'height': 0}, 'dimensions'),
        ({'width': 99}, 'step'),
        ({'height': 9}, 'size'),
    ],
)
def test_odd_maps_are_refused(changes, reason):
    message = Image(height=2, width=3, encoding='32FC1', step=12, data=bytes(24))
    for name, value in changes.items():
        setattr(message, name, value)
    with pytest.raises(images.ImageRefused) as caught:
        images.to_map(message)
    assert caught.value.reason == reason


class ForeignNode:
    """Another method: publishes a picture and, a moment later, its anomaly map."""

    def __init__(self, graph, encoding='32FC1'):
        self._camera = graph.publisher(Image, 'image')
        self._maps = graph.publisher(Image, 'anomaly_in')
        self._encoding = encoding
        self._stamps = itertools.count(1)

    def send(self, shift=0.0, anomaly=True):
        """Publish both with one stamp, or the map's moved by `shift` seconds."""
        stamp = float(next(self._stamps))
        top = {'32FC1': 1.0, '16UC1': 65535, 'mono8': 255}[self._encoding]
        score = np.zeros((24, 32), images.DTYPES[self._encoding])
        score[8:16, 10:20] = top
        self._camera.publish(image_message(seconds=stamp))
        if anomaly:
            self._maps.publish(images.to_message(score, self._encoding, header(stamp + shift)))


@pytest.mark.parametrize('encoding', ['32FC1', '16UC1', 'mono8'])
def test_a_foreign_map_becomes_score_and_obstacle(encoding):
    with Graph() as graph:
        graph.anomaly_node(segmenter='external')
        scores = graph.collect(Image, 'anomaly_node/anomaly/score')
        masks = graph.collect(Image, 'anomaly_node/obstacle/mask')
        foreign = ForeignNode(graph, encoding)

        def answered():
            foreign.send()
            return scores and masks

        wait_for(answered, 'a score and a mask')
        score = np.frombuffer(scores[-1].data, np.float32).reshape(48, 64)
        mask = np.frombuffer(masks[-1].data, np.uint8).reshape(48, 64)
        assert score[24, 30] == 1 and score[40, 60] == 0
        assert scores[-1].header.frame_id == 'camera'
        assert mask[24, 30] == 255 and mask[40, 60] == 0


def test_images_without_their_map_are_dropped_and_explained():
    with Graph() as graph:
        graph.anomaly_node(segmenter='external', anomaly_tolerance=0.2)
        rows = graph.diagnostics()
        scores = graph.collect(Image, 'anomaly_node/anomaly/score')
        foreign = ForeignNode(graph)

        def complained():
            foreign.send(shift=0.4)
            return [row for row in rows if 'anomaly_in' in f'{row.message} {values(row)}']

        wait_for(complained, 'a complaint')
        assert not scores

        def answered():
            foreign.send(shift=0.1)
            return scores

        wait_for(answered, 'a score')
