# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Where obstacles are: positions on the road in metres, the free road, the time to contact."""

from road_anomaly_ros.perception.geometry.camera import CameraModel, Mounting
from road_anomaly_ros.perception.geometry.closing import Closing, Histories, closing
from road_anomaly_ros.perception.geometry.ground import Spots, meet, spots
from road_anomaly_ros.perception.geometry.options import GeometryOptions
from road_anomaly_ros.perception.geometry.pitch import PitchEstimate
from road_anomaly_ros.perception.geometry.positions import Position, locate
from road_anomaly_ros.perception.geometry.road import FreeRoad, RoadGrid
from road_anomaly_ros.perception.geometry.survey import Located, Survey, Surveyor

__all__ = [
    'CameraModel',
    'Closing',
    'FreeRoad',
    'GeometryOptions',
    'Histories',
    'Located',
    'Mounting',
    'PitchEstimate',
    'Position',
    'RoadGrid',
    'Spots',
    'Survey',
    'Surveyor',
    'closing',
    'locate',
    'meet',
    'spots',
]
