# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Square windows along the longer side of a resized image, as EoMT reads large images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

Size = tuple[int, int]


@dataclass(frozen=True)
class WindowPlan:
    """Where the windows of one image lie after it was resized to `scaled_size`."""

    scaled_size: Size  # (H, W)
    offsets: tuple[tuple[int, int], ...]  # (top, left) of each window
    window: Size  # (h, w) of each window

    def cut(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the windows [n*B,...,h,w] of a resized batch [B,...,H,W], window by window."""
        height, width = self.window
        return torch.cat(
            [batch[..., top : top + height, left : left + width] for top, left in self.offsets]
        )


def plan_windows(size: Size, network: Size) -> WindowPlan:
    """Return the windows over an image of `size` (H, W) for a network input of `network` (h, w).

    The image is scaled until it covers the network's input; windows of the input's shorter side
    follow one another along the longer side, evenly overlapping (specification, section 0).
    """
    factor = max(network[0] / size[0], network[1] / size[1])
    height, width = (max(1, round(length * factor)) for length in size)
    side, longest = min(network), max(height, width)
    count = math.ceil(longest / side)
    overlap = count * side - longest
    step = side - overlap / (count - 1) if count > 1 else float(side)
    starts = [int(index * step) for index in range(count)]
    side = min(side, longest)
    if height > width:
        return WindowPlan((height, width), tuple((start, 0) for start in starts), (side, width))
    return WindowPlan((height, width), tuple((0, start) for start in starts), (height, side))


def merge_windows(
    maps: Sequence[torch.Tensor], offsets: Sequence[tuple[int, int]], scaled_size: Size
) -> torch.Tensor:
    """Return the mean of overlapping window maps [C,h,w] on the resized image, [C,H,W] float32."""
    total = maps[0].new_zeros((maps[0].shape[0], *scaled_size), dtype=torch.float32)
    count = total.new_zeros(scaled_size)
    for values, (top, left) in zip(maps, offsets, strict=True):
        rows, columns = slice(top, top + values.shape[1]), slice(left, left + values.shape[2])
        total[:, rows, columns] += values
        count[rows, columns] += 1
    return total.div_(count.clamp_(min=1))
