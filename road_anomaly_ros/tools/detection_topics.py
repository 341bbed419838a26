# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What messages of detections hold, as vision_msgs 4 has it from Humble on.

A bag is written and read with these where the package is not installed; fields travel in this
order and without their names.
"""

from __future__ import annotations

_PACKAGE = 'vision_msgs'


def _definition(**fields: str) -> str:
    return ''.join(f'{kind} {name}\n' for name, kind in fields.items())


def _detection(box: str) -> str:
    return _definition(
        header='std_msgs/Header',
        results=f'{_PACKAGE}/ObjectHypothesisWithPose[]',
        bbox=f'{_PACKAGE}/{box}',
        id='string',
    )


def _array(detection: str) -> str:
    return _definition(header='std_msgs/Header', detections=f'{_PACKAGE}/{detection}[]')


_FIELDS = {
    'Point2D': _definition(x='float64', y='float64'),
    'Pose2D': _definition(position=f'{_PACKAGE}/Point2D', theta='float64'),
    'BoundingBox2D': _definition(center=f'{_PACKAGE}/Pose2D', size_x='float64', size_y='float64'),
    'BoundingBox3D': _definition(center='geometry_msgs/Pose', size='geometry_msgs/Vector3'),
    'ObjectHypothesis': _definition(class_id='string', score='float64'),
    'ObjectHypothesisWithPose': _definition(
        hypothesis=f'{_PACKAGE}/ObjectHypothesis', pose='geometry_msgs/PoseWithCovariance'
    ),
    'Detection2D': _detection('BoundingBox2D'),
    'Detection3D': _detection('BoundingBox3D'),
    'Detection2DArray': _array('Detection2D'),
    'Detection3DArray': _array('Detection3D'),
}
DEFINITIONS = {f'{_PACKAGE}/msg/{name}': text for name, text in _FIELDS.items()}
