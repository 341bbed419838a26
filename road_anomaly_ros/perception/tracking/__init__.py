# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Trackers: what is the same thing from frame to frame. One file each; its name is its key."""

from road_anomaly_ros.perception.contract import Tracker
from road_anomaly_ros.perception.registry import Room

TRACKERS: Room[Tracker | None] = Room('tracker', __name__)
