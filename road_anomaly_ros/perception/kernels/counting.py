# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Counts of scores between others, in one walk (importing this needs numba)."""

from __future__ import annotations

from road_anomaly_ros.perception.kernels.arithmetic import Array, jit


@jit(set())
def count_between(known: Array, values: Array, used: Array, found: Array) -> int:
    """Count ascending `known` [n] between ascending, distinct `values` [v]; returns places used.

    Writes the places to `used` and how many each holds to `found`, both int64 [n]: place 2 i is
    below value i and above value i - 1, place 2 i + 1 is at value i.
    """
    size, value, last = 0, 0, -1
    for score in known:
        while value < values.size and values[value] < score:
            value += 1
        place = 2 * value
        if value < values.size and values[value] == score:
            place += 1
        if place != last:
            used[size], found[size], last = place, 0, place
            size += 1
        found[size - 1] += 1
    return size
