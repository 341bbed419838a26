# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The perception chain without ROS: image in, labels, anomaly score and obstacles out.

The names below are imported on first use, so that reading one of them costs only what it needs.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from road_anomaly_ros.perception.config import PipelineConfig
    from road_anomaly_ros.perception.contract import (
        AnomalyObject,
        FrameResult,
        LabelSet,
        MaskOutput,
        PipelineError,
        PixelOutput,
        Segments,
    )
    from road_anomaly_ros.perception.pipeline import Pipeline
    from road_anomaly_ros.perception.refinements import refine
    from road_anomaly_ros.perception.scorers import score_map

_HOME = {
    'AnomalyObject': 'contract',
    'FrameResult': 'contract',
    'LabelSet': 'contract',
    'MaskOutput': 'contract',
    'Pipeline': 'pipeline',
    'PipelineConfig': 'config',
    'PipelineError': 'contract',
    'PixelOutput': 'contract',
    'Segments': 'contract',
    'refine': 'refinements',
    'score_map': 'scorers',
}

__all__ = [
    'AnomalyObject',
    'FrameResult',
    'LabelSet',
    'MaskOutput',
    'Pipeline',
    'PipelineConfig',
    'PipelineError',
    'PixelOutput',
    'Segments',
    'refine',
    'score_map',
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = getattr(importlib.import_module(f'{__name__}.{_HOME[name]}'), name)
    globals()[name] = value
    return value
