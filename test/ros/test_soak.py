# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The short form of `make soak`: seconds of load, in which nothing may be gained or lost."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='no rclpy installed')

import soak
from ros_graph import Graph, wait_for


def test_under_changing_load_nothing_is_gained_or_lost():
    with Graph() as graph:
        figures, node, _ = soak.soak(graph, 4.0, rate=10.0, settle=3.0, samples=4)
        for camera in node.cameras.values():
            stats = camera.stats
            wait_for(
                lambda s=stats: s.received == s.processed + s.dropped + s.failed,
                'every image to be accounted for',
            )
            assert stats.processed > 0 and stats.failed == 0 and not stats.refused
        assert figures.threads[-1] <= figures.threads[0]
        assert figures.files[-1] <= figures.files[0]
        assert figures.line().count('|') == 6


def test_a_slope_is_told_from_noise():
    x, noise = np.linspace(0, 1, 60), np.random.default_rng(0).normal(0, 1, 60)
    slope, error = soak.slope_of(x, 100 + noise)
    assert abs(slope) < 3 * error
    slope, error = soak.slope_of(x, 100 + 30 * x + noise)
    assert slope == pytest.approx(30, abs=3 * error) and slope > 10 * error
