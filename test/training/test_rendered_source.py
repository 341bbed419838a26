# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Rendered scenes in a training run: exact classes, and obstacles of none."""

from __future__ import annotations

import numpy as np

from road_anomaly_ros.training import roads
from road_anomaly_ros.training.generator.rendered import render


def test_rendered_scenes_teach_the_class_that_was_drawn():
    """Train ids are codes of their own; what is unknown has none."""
    source = roads.rendered_source(2, first_seed=3, weight=1.0, size=(72, 96))
    for seed, frame in zip((3, 4), source.frames, strict=True):
        scene = render(seed, (72, 96), obstacles=True)
        np.testing.assert_array_equal(frame.codes, scene.labels)
        np.testing.assert_array_equal(frame.unknown, scene.instances > 0)
        assert (frame.codes[frame.unknown] == 255).all() and (frame.codes == 10).any()
