# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures for people: heatmap, class colours and the overlay with obstacles and legend."""

from __future__ import annotations

from dataclasses import dataclass

from road_anomaly_ros.perception.registry import option


@dataclass(frozen=True)
class DrawingOptions:
    """What the overlay shows."""

    class_opacity: float = option(0.25, 'Strength of the class colours in the overlay.', low=0.0, high=1.0)
    heat_opacity: float = option(0.75, 'Strength of the anomaly heat in the overlay.', low=0.0, high=1.0)
    dim: float = option(0.25, 'How much the camera image is darkened under the overlay.', low=0.0, high=0.9)
    contours: bool = option(True, 'Draw the outlines of obstacles.')
    boxes: bool = option(True, 'Draw boxes with id and score around obstacles.')
    legend: bool = option(True, 'Draw the legend with classes, heat range, scorer and frame time.')
    scale: float = option(1.0, 'Size of text and lines, relative to what suits the image.', low=0.25, high=4.0)
