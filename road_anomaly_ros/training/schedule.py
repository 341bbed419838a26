# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How a run unfolds: learning rate and averaged weights."""

from __future__ import annotations

import torch
from torch import nn

WARM = 200  # steps


def rate_at(step: int, steps: int, *, peak: float, fall: int, floor: float = 0.01) -> float:
    """Return the learning rate: linear warm-up, level, and linear to floor * peak in `fall` steps.

    Up to `steps` - `fall` it does not depend on `steps`, so that a run may be ended earlier or
    later and is still the run that had been asked for so from the beginning.
    """
    rising = min(1.0, (step + 1) / WARM)
    falling = min(1.0, (steps - step) / max(1, fall))
    return peak * rising * (floor + (1 - floor) * falling)


@torch.no_grad()
def average_into(average: nn.Module, model: nn.Module, step: int, *, decay: float) -> None:
    """Move `average` (weights, running statistics) towards `model`, faster in the first steps."""
    keep = min(decay, (1 + step) / (10 + step))
    mine, new = average.state_dict(), model.state_dict()
    floats = [name for name, value in mine.items() if value.is_floating_point()]
    torch._foreach_lerp_([mine[name] for name in floats], [new[name] for name in floats], 1 - keep)
    for name in set(mine) - set(floats):
        mine[name].copy_(new[name])
