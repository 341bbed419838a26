# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What every engine takes and gives: constants of a size of image, and the raw output."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

T = TypeVar('T')
Size = tuple[int, int]
KEPT_SIZES = 8
SETTLED = 32  # images of one size after which an engine changes no more how it computes them


class PerSize(Generic[T]):
    """Keeps what depends on sizes and device only, for the last few of them."""

    def __init__(self, make: Callable[..., T]) -> None:
        self._make = make
        self._kept: dict[tuple[Hashable, ...], T] = {}

    def __call__(self, *key: Hashable) -> T:
        """Return what was made for these sizes and this device, made now where it is not kept."""
        if key not in self._kept:
            while len(self._kept) >= KEPT_SIZES:
                self._kept.pop(next(iter(self._kept)))
            self._kept[key] = self._make(*key)
        return self._kept[key]


@dataclass(frozen=True)
class Constants:
    """What depends on the sizes of the three levels alone, coarse to fine.

    `places` [1,N,C] are the sine embeddings of each level's cells, `scale` [L,2,1,1] and
    `reference` [1,2,1,N] map the offsets of the deformable attention to -1 .. 1.
    """

    places: Sequence[torch.Tensor]
    scale: torch.Tensor
    reference: torch.Tensor

    @classmethod
    def of(cls, sizes: Sequence[Size], channels: int, device: torch.device) -> Constants:
        """Return those of levels of `sizes` (h, w), coarse to fine, with `channels` each."""
        scale = torch.tensor([[2 / width, 2 / height] for height, width in sizes], device=device)
        centres = torch.cat([_centres(size, device) for size in sizes], dim=1)
        return cls(
            [_sine(size, channels, device) for size in sizes],
            scale[..., None, None],
            centres[None, :, None] * 2 - 1,
        )


def _sine(size: Size, channels: int, device: torch.device) -> torch.Tensor:
    """Return the sine embedding of the cells of a map as tokens [1,N,C] (DETR, appendix A.4).

    Half of the channels tell the row, half the column, each counted from 1 to 2 pi at the end.
    """
    half = channels // 2
    order = torch.arange(half, device=device, dtype=torch.float32)
    period = 10000 ** (2 * torch.div(order, 2, rounding_mode='floor') / half)
    parts = []
    for length in size:
        along = torch.arange(1, length + 1, device=device, dtype=torch.float32)
        angle = (along / (length + 1e-6) * (2 * math.pi))[:, None] / period
        waves = torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], 2).flatten(1)
        parts.append(waves)
    rows, columns = parts
    grid = [rows[:, None].expand(-1, size[1], -1), columns[None].expand(size[0], -1, -1)]
    return torch.cat(grid, 2).flatten(0, 1)[None]


def _centres(size: Size, device: torch.device) -> torch.Tensor:
    """Return x and y of the cell centres in 0 .. 1, [2, h*w]."""
    y, x = torch.meshgrid(
        *((torch.arange(length, device=device) + 0.5) / length for length in size), indexing='ij'
    )
    return torch.stack([x.flatten(), y.flatten()])
