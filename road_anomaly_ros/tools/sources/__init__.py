# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Where pictures come from: videos, images, folders, bags and the rendered drive, opened alike."""

from road_anomaly_ros.tools.sources.base import Frame, Source
from road_anomaly_ros.tools.sources.opening import open_source

__all__ = ['Frame', 'Source', 'open_source']
