# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How a run unfolds: learning rate, crops from small to whole frames, averaged weights."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import nn

from road_anomaly_ros.training.data import CropSpec


@dataclasses.dataclass(frozen=True)
class Stage:
    """A part of the run: it lasts until `until` (share of all steps) and shows crops of `spec`."""

    until: float
    spec: CropSpec


def stages(size: tuple[int, int], batch: int) -> tuple[Stage, ...]:
    """Return the curriculum for frames of `size` (H, W): crops grow, pixels per step hardly do."""

    def fit(share: float) -> tuple[int, int]:
        return tuple(max(128, round(side * share / 32) * 32) for side in size)

    return (
        Stage(0.40, CropSpec(fit(0.55), batch + batch // 2, (0.45, 1.3))),
        Stage(0.75, CropSpec(fit(0.72), batch, (0.5, 1.8))),
        Stage(1.0, CropSpec(fit(0.93), max(1, batch * 3 // 4), (0.6, 1.8))),
    )


def spec_at(curriculum: tuple[Stage, ...], step: int, steps: int) -> CropSpec:
    """Return what crops step number `step` of `steps` sees."""
    return next(stage.spec for stage in curriculum if (step + 0.5) / steps <= stage.until)


def rate_at(
    step: int, steps: int, *, peak: float, warm: float = 0.04, floor: float = 0.01
) -> float:
    """Return the learning rate: linear warm-up over `warm` of the run, cosine to floor * peak."""
    done = (step + 1) / steps
    if done < warm:
        return peak * done / warm
    return peak * (
        floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * (done - warm) / (1 - warm)))
    )


@torch.no_grad()
def average_into(average: nn.Module, model: nn.Module, step: int, *, decay: float) -> None:
    """Move `average` (weights, running statistics) towards `model`, faster in the first steps."""
    keep = min(decay, (1 + step) / (10 + step))
    mine, new = average.state_dict(), model.state_dict()
    floats = [name for name, value in mine.items() if value.is_floating_point()]
    torch._foreach_lerp_([mine[name] for name in floats], [new[name] for name in floats], 1 - keep)
    for name in set(mine) - set(floats):
        mine[name].copy_(new[name])
