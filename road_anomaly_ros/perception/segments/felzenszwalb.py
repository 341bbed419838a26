# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Graph-based segments (Felzenszwalb and Huttenlocher, 2004) from scikit-image; no weights."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from skimage import segmentation

from road_anomaly_ros.perception.registry import option
from road_anomaly_ros.perception.resources import Resources
from road_anomaly_ros.perception.segments._images import Partition

SOURCE = 'Felzenszwalb and Huttenlocher 2004; scikit-image'
NEEDS = 'nothing'


@dataclass(frozen=True)
class Options:
    """Options of `felzenszwalb`."""

    scale: float = option(100.0, 'Higher gives larger segments.', low=1.0, high=10_000.0)
    sigma: float = option(
        0.6, 'Standard deviation of the blur before.', low=0.0, high=5.0, unit='pixel'
    )
    min_size: int = option(
        20,
        'Smaller segments join a neighbour, in the reduced image.',
        low=1,
        high=100_000,
        unit='pixel',
    )
    max_side: int = option(
        240,
        'Longer side of the reduced image; the time grows with its square.',
        low=16,
        high=4096,
        unit='pixel',
    )


def load(
    *, device: torch.device, options: Options, resources: Resources | None = None
) -> Partition:
    """Return the source."""
    cut = functools.partial(
        segmentation.felzenszwalb,
        scale=options.scale,
        sigma=options.sigma,
        min_size=options.min_size,
    )
    return Partition(cut, options.max_side)
