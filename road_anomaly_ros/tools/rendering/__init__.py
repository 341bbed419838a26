# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A rendered drive with exact ground truth: a camera for people without one."""

from road_anomaly_ros.tools.rendering.drive import Drive, DriveOptions, RenderedFrame

__all__ = ['Drive', 'DriveOptions', 'RenderedFrame']
