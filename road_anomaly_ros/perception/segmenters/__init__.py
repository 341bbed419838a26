# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Networks: images to MaskOutput or PixelOutput. One file each; its name is its key."""

from road_anomaly_ros.perception.contract import ForeignMaps, Segmenter
from road_anomaly_ros.perception.registry import Room

SEGMENTERS: Room[Segmenter | ForeignMaps] = Room('segmenter', __name__)
