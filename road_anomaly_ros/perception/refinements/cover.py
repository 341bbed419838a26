# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Sums over segments and values back to pixels, for masks that may overlap and for partitions."""

from __future__ import annotations

from typing import Protocol

import torch
from torch.nn import functional

from road_anomaly_ros.perception.contract import Segments

# Elements of masks widened at once: what fits the cache on a CPU, what fills a GPU.
_BLOCK = {'cpu': 1 << 19, 'cuda': 1 << 26}


class Cover(Protocol):
    """Which pixel of a map [H, W] lies in which of n segments; nothing here waits for the device."""

    count: int                                      # n

    def sums(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the sum of each of C maps [C, H, W] float64 over each segment, [C, n]."""

    def winner(self, held: torch.Tensor, *, largest: bool) -> torch.Tensor:
        """Return per pixel the largest or smallest of the segments `held` [n] over it, [H, W] int64.

        Size is the area at the segments' own resolution; among equals the later one wins; -1 where none.
        """

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """Return per pixel the sum of values [C, n] over the segments that contain it, [C, H, W]."""


def cover_of(segments: Segments, size: tuple[int, int]) -> Cover:
    """Return how the segments cover a map of `size` (H, W).

    Segments at another resolution are resized with nearest neighbour, source index floor(i * scale).
    """
    if segments.index is not None:
        return _Partition(segments.index, size)
    if segments.masks is None:
        raise ValueError('expected masks [N,h,w] or index [h,w], got neither')
    return _Masks(segments.masks, size)


class _Partition:
    """Segments that do not overlap: scatter and gather over one index map, never one mask per segment."""

    def __init__(self, index: torch.Tensor, size: tuple[int, int]) -> None:
        # The number of segments is not read from the device: there are at most as many as pixels,
        # and the last place collects what lies in none.
        self.count = index.numel() + 1
        index = _resize(index, size).long()
        self._index = torch.where(index < 0, self.count - 1, index)

    def sums(self, maps: torch.Tensor) -> torch.Tensor:
        """See Cover."""
        found = maps.new_zeros(len(maps), self.count)
        where = self._index.flatten().expand(len(maps), -1)
        found.scatter_add_(1, where, maps.flatten(1))
        found[:, -1:] = 0
        return found

    def winner(self, held: torch.Tensor, *, largest: bool) -> torch.Tensor:
        """See Cover; no two segments share a pixel."""
        return torch.where(held[self._index], self._index, -1)

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """See Cover."""
        return torch.where(self._index < self.count - 1, values[:, self._index], 0)


class _Masks:
    """Segments that may overlap: matrix products over blocks of pixels, at the coarser resolution."""

    def __init__(self, masks: torch.Tensor, size: tuple[int, int]) -> None:
        masks = masks if masks.dtype == torch.bool else masks > 0
        self.count = len(masks)
        self._areas = masks.flatten(1).sum(1)
        self._size = size
        cells = (min(size[0], masks.shape[1]), min(size[1], masks.shape[2]))
        self._cells = cells
        self._masks = _resize(masks, cells).flatten(1)
        self._rows = nearest(size[0], cells[0], masks.device)
        self._columns = nearest(size[1], cells[1], masks.device)
        self._step = max(1, _BLOCK.get(masks.device.type, _BLOCK['cpu']) // max(1, len(masks)))

    def sums(self, maps: torch.Tensor) -> torch.Tensor:
        """See Cover."""
        maps = self._to_cells(maps).flatten(1)
        found = maps.new_zeros(len(maps), len(self._masks))
        for begin in range(0, maps.shape[1], self._step):
            part = slice(begin, begin + self._step)
            found += maps[:, part] @ self._masks[:, part].to(maps.dtype).T
        return found

    def winner(self, held: torch.Tensor, *, largest: bool) -> torch.Tensor:
        """See Cover."""
        order = torch.argsort(self._areas, stable=True, descending=not largest)
        places = torch.arange(1, self.count + 1, device=order.device)
        rank = torch.zeros_like(order).scatter_(0, order, places) * held
        kind = torch.uint8 if self.count < 256 else torch.int16 if self.count < 32768 else torch.int32
        weight = rank.to(kind)[:, None]
        best = [(self._masks[:, begin:begin + self._step].to(kind) * weight).amax(0)
                for begin in range(0, self._masks.shape[1], self._step)]
        order = functional.pad(order, (1, 0), value=-1)
        return self._to_pixels(order[torch.cat(best).long()][None])[0]

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """See Cover."""
        found = [values @ self._masks[:, begin:begin + self._step].to(values.dtype)
                 for begin in range(0, self._masks.shape[1], self._step)]
        return self._to_pixels(torch.cat(found, dim=1))

    def _to_cells(self, maps: torch.Tensor) -> torch.Tensor:
        height, width = self._cells
        if height < self._size[0]:
            rows = maps.new_zeros(len(maps), height, maps.shape[2])
            maps = rows.index_add_(1, self._rows, maps)
        if width < self._size[1]:
            columns = maps.new_zeros(len(maps), maps.shape[1], width)
            maps = columns.index_add_(2, self._columns, maps)
        return maps

    def _to_pixels(self, flat: torch.Tensor) -> torch.Tensor:
        cells = flat.reshape(len(flat), *self._cells)
        if self._cells == self._size:
            return cells
        return cells[:, self._rows[:, None], self._columns]


def nearest(length: int, source: int, device: torch.device) -> torch.Tensor:
    """Return the source index of each of `length` pixels as OpenCV's INTER_NEAREST takes it, int64."""
    scale = 1.0 / (length / source)
    places = torch.arange(length, dtype=torch.float64, device=device) * scale
    return places.floor().long().clamp_max(source - 1)


def _resize(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    rows = nearest(size[0], maps.shape[-2], maps.device)
    columns = nearest(size[1], maps.shape[-1], maps.device)
    return maps[..., rows[:, None], columns]
