# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Where a camera is fixed: by angles, by a transform, and what is refused as neither."""

from __future__ import annotations

import math

import numpy as np
import pytest

from road_anomaly_ros.perception.geometry import Mounting


def test_a_transform_says_the_same_as_angles():
    # An optical frame that looks ahead, of a camera at (2, 0.5, 1.5): REP 103's usual quaternion.
    found = Mounting.from_transform((2.0, 0.5, 1.5), (-0.5, 0.5, -0.5, 0.5))
    assert (found.height, found.forward, found.left) == (1.5, 2.0, 0.5)
    np.testing.assert_allclose((found.pitch, found.roll, found.yaw), 0.0, atol=1e-12)
    np.testing.assert_allclose(np.abs(Mounting(1.5).quaternion), 0.5)
    given = Mounting(1.2, pitch=0.3, roll=-0.2, yaw=2.5)
    back = Mounting.from_transform(given.position, given.quaternion)
    np.testing.assert_allclose((back.pitch, back.roll, back.yaw), (0.3, -0.2, 2.5), atol=1e-9)


@pytest.mark.parametrize(
    ('left', 'turn'), [(0.0, (0.0,) * 4), (0.0, (math.nan, 0, 0, 1)), (math.nan, (0, 0, 0, 1))]
)
def test_what_is_no_transform_is_no_mounting(left, turn):
    with pytest.raises(ValueError, match='correct the transform'):
        Mounting.from_transform((0.0, left, 1.5), turn)


@pytest.mark.parametrize(
    ('mounting', 'word'),
    [
        ({'height': 0.0}, 'above the road'),
        ({'height': -1.5}, 'above the road'),
        ({'height': math.inf}, 'above the road'),
        ({'height': math.nan}, 'above the road'),
        ({'height': 1.5, 'roll': math.pi}, 'upright'),
    ],
)
def test_a_mounting_that_cannot_be_is_refused(mounting, word):
    with pytest.raises(ValueError, match=word):
        Mounting(**mounting)
