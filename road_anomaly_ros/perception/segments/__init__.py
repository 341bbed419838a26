# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Sources of class-agnostic segments. One file each; its name is its key."""

from road_anomaly_ros.perception.contract import SegmentSource
from road_anomaly_ros.perception.registry import Room

SEGMENTS: Room[SegmentSource] = Room('segment source', __name__)
