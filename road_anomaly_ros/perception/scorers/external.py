# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The score that someone else has computed, brought to the size of the image."""

from __future__ import annotations

import torch
from torch import Tensor

from road_anomaly_ros.perception.contract import MapOutput
from road_anomaly_ros.perception.dense import PlaneSource
from road_anomaly_ros.perception.kernels.vectors import Block
from road_anomaly_ros.perception.scorers.base import SCORERS, Scorer

MAPS_ONLY = ('map',)


def as_given(block: Block, options: object) -> Tensor:
    """Return the foreign map [r,W] as it is; any range, higher is stranger."""
    del options
    return block.semantic[0]


def map_source(output: MapOutput, size: tuple[int, int], *, sanitized: bool) -> PlaneSource:
    """Return the source of a foreign map; what is not a number becomes as strange as can be."""
    score = output.score.float()
    bad = torch.zeros((), dtype=torch.int64, device=score.device)
    if sanitized:
        finite = score.isfinite()
        bad = (~finite).sum()
        top = torch.where(finite, score, -torch.inf).max()
        bottom = torch.where(finite, score, torch.inf).min()
        top, bottom = (value.nan_to_num(posinf=1.0, neginf=1.0) for value in (top, bottom))
        score = torch.where(finite, score, torch.where(score == -torch.inf, bottom, top))
    return PlaneSource(score[None], (), size, bad, finite=sanitized)


# Maps of 8 and 16 bits are read as 0 .. 1, hence the starting values.
SCORERS.register('external')(
    Scorer(as_given, 'made elsewhere', kinds=MAPS_ONLY, threshold=0.5, display=(0.0, 1.0))
)
