# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Road anomaly segmentation for ROS 2: obstacles that belong to no known class, seen by camera."""

__version__ = '0.1.0'
