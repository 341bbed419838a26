# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Nothing but what a vision-language model names: zero everywhere, for the refinement to raise."""

from __future__ import annotations

import torch
from torch import Tensor

from road_anomaly_ros.perception.kernels.vectors import Block
from road_anomaly_ros.perception.scorers.base import SCORERS, Scorer

NAME = 'vlm_points'


def nothing(block: Block, options: object) -> Tensor:
    """Return 0 [r,W]: a network of known classes has no say here."""
    del options
    return torch.zeros_like(block.semantic[0])


SCORERS.register(NAME)(
    Scorer(
        nothing,
        'query-level uncertainty, row "Molmo + SAM"',
        threshold=0.5,
        top=1.0,
        completed_by={'refinements': NAME, f'refinement.{NAME}.every_s': 0.0},
    )
)
