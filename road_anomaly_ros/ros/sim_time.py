# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Simulated time that has not begun: stamps would be zero and nobody would know why."""

from __future__ import annotations

from typing import Any


def missing(node: Any) -> str:
    """Return in one line why a node knows no time; empty where it does."""
    clock = node.get_clock()
    if not clock.ros_time_is_active or clock.now().nanoseconds:
        return ''
    return (
        'use_sim_time is set, but nothing has come on /clock: start what publishes it, such as '
        "'replay --clock', or set use_sim_time to false"
    )
