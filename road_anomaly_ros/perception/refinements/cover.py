# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Sums over segments and values back to pixels, for masks that may overlap and for partitions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch.nn import functional

from road_anomaly_ros.perception.contract import Segments

# Elements of masks widened at once: what fits the cache on a CPU, what fills a GPU.
_BLOCK = {'cpu': 1 << 21, 'cuda': 1 << 26}
_FEW = 16  # words per run from which on runs are worth their bookkeeping


class Cover(Protocol):
    """Which pixel of a map [H, W] lies in which of n segments; nothing waits for the device."""

    count: int  # n

    def sums(self, score: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        """Return over each segment the number of finite scores and the sums of s and s^2, [3, n].

        `score` [H, W], s = score - shift; float64.
        """

    def pick(self, values: torch.Tensor, held: torch.Tensor, *, largest: bool) -> torch.Tensor:
        """Return per pixel the values [C, n] of its largest or smallest segment, [C, H, W].

        Only segments that are `held` [n] count. Size is the area at the segments' own resolution;
        among equals the later one wins; NaN where none covers the pixel.
        """

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """Return per pixel the sum of values [C, n] over the segments that cover it, [C, H, W]."""


def cover_of(segments: Segments, size: tuple[int, int]) -> Cover:
    """Return how the segments cover a map of `size` (H, W).

    Segments at another resolution are resized by nearest neighbour, source index floor(i * scale).
    ValueError for an index beyond 0 .. N-1; on a GPU, where looking would wait for the device,
    pixels of such numbers lie in no segment.
    """
    if segments.index is not None:
        if segments.index.device.type == 'cpu':
            check_index(segments.index)
        return _Partition(segments.index, size)
    if segments.masks is None:
        raise ValueError('expected masks [N,h,w] or index [h,w], got neither')
    return _Masks(segments.masks, size)


def check_index(index: torch.Tensor) -> None:
    """Raise ValueError where an index [h, w] holds numbers that no 0 .. N-1 can reach."""
    most = int(index.max()) if index.numel() else -1
    if most >= index.numel():
        raise ValueError(
            f'expected segments numbered 0 .. N-1, so below {index.numel()} in '
            f'{index.numel()} pixels, got {most}; number them anew, as '
            'numpy.unique(index, return_inverse=True) does'
        )


class _Cells:
    """The pixels of a map joined to the cells on which coarser segments are constant."""

    def __init__(self, size: tuple[int, int], given: torch.Size, device: torch.device) -> None:
        self.size = size
        self.shape = min(size[0], given[-2]), min(size[1], given[-1])
        self._rows = nearest(size[0], self.shape[0], device)
        self._columns = nearest(size[1], self.shape[1], device)

    def join(self, score: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        """Return the moments of a score [H, W] summed over the cells, flat, [4, cells]."""
        height, width = self.shape
        maps = _moments(score.flatten(), shift).unflatten(1, self.size)
        if height < self.size[0]:
            rows = maps.new_zeros(len(maps), height, self.size[1])
            maps = rows.index_add_(1, self._rows, maps)
        if width < self.size[1]:
            columns = maps.new_zeros(len(maps), height, width)
            maps = columns.index_add_(2, self._columns, maps)
        return maps.flatten(1)

    def expand(self, cells: torch.Tensor) -> torch.Tensor:
        """Return flat cell values [C, cells] per pixel, [C, H, W]."""
        maps = cells.reshape(len(cells), *self.shape)
        if self.shape[1] < self.size[1]:
            maps = maps.index_select(2, self._columns)
        return maps.index_select(1, self._rows) if self.shape[0] < self.size[0] else maps


class _Partition:
    """Segments that do not overlap: scatter and gather over one index map, never one mask each."""

    def __init__(self, index: torch.Tensor, size: tuple[int, int]) -> None:
        # The number of segments is not read from the device: there are at most as many as pixels,
        # and the last place collects what lies in none.
        self.count = index.numel() + 1
        self._cells = _Cells(size, index.shape, index.device)
        index = _resize(index, self._cells.shape).flatten().long()
        self._index = torch.where(index < 0, self.count - 1, index).clamp_(max=self.count - 1)

    def sums(self, score: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        """See Cover."""
        cells = self._cells.join(score, shift)[:3]
        found = cells.new_zeros(3, self.count)
        found.scatter_add_(1, self._index.expand(3, -1), cells)
        found[:, -1:] = 0
        return found

    def pick(self, values: torch.Tensor, held: torch.Tensor, *, largest: bool) -> torch.Tensor:
        """See Cover; no two segments share a pixel."""
        values = torch.where(held, values, torch.nan)
        return self._cells.expand(values.index_select(1, self._index))

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """See Cover."""
        values = values.clone()
        values[:, -1:] = 0
        return self._cells.expand(values.index_select(1, self._index))


class _Masks:
    """Segments that may overlap: products over blocks of pixels, at the coarser resolution."""

    def __init__(self, masks: torch.Tensor, size: tuple[int, int]) -> None:
        masks = masks if masks.dtype == torch.bool else masks > 0
        self.count = len(masks)
        self._cells = _Cells(size, masks.shape, masks.device)
        block = _BLOCK.get(masks.device.type, _BLOCK['cpu'])
        self._step = max(8, block // max(1, self.count) // 8 * 8)
        self._areas: torch.Tensor | None = None
        self._masks = _resize(masks, self._cells.shape).flatten(1)
        if self._masks.shape[1] != masks.shape[1] * masks.shape[2]:
            self._areas = self._count(masks.flatten(1))

    def sums(self, score: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        """See Cover; the areas are counted in the same walk."""
        if self._cells.shape == self._cells.size:
            found = self._products(
                self._masks, score.flatten(), lambda part: _moments(part, shift)
            )
        else:
            cells = self._cells.join(score, shift)
            cells[3] = 1  # areas count pixels of the masks themselves
            found = self._products(self._masks, cells, torch.clone)
        if self._areas is None:
            self._areas = found[3]
        return found[:3]

    def pick(self, values: torch.Tensor, held: torch.Tensor, *, largest: bool) -> torch.Tensor:
        """See Cover."""
        areas = self._count(self._masks) if self._areas is None else self._areas
        order = torch.argsort(areas, stable=True, descending=not largest)
        places = torch.arange(1, self.count + 1, device=order.device)
        rank = torch.zeros_like(order).scatter_(0, order, places) * held
        rank = rank.to(torch.uint8 if self.count < 256 else torch.int32)[:, None]
        parts = self._parts(self._masks)
        best = torch.cat([(part.to(rank.dtype) * rank).amax(0) for part in parts])
        ranked = functional.pad(values.index_select(1, order), (1, 0), value=torch.nan)
        return self._cells.expand(ranked.index_select(1, best.int()))

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """See Cover."""
        found = [values @ part.to(values.dtype) for part in self._parts(self._masks)]
        return self._cells.expand(torch.cat(found, dim=1))

    def _parts(self, masks: torch.Tensor) -> Iterator[torch.Tensor]:
        return iter(masks.split(self._step, dim=1))

    def _count(self, masks: torch.Tensor) -> torch.Tensor:
        ones = torch.ones(1, 1, dtype=torch.float64, device=masks.device)
        return self._products(masks, ones.expand(1, masks.shape[1]), torch.clone)[0]

    def _products(
        self,
        masks: torch.Tensor,
        given: torch.Tensor,
        to_maps: Callable[[torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        """Return the sums over masks [n, P] of maps made block by block from `given` [.., P]."""
        add = _add_eights if _in_eights(masks) else _add
        total: torch.Tensor | float = 0.0
        step = self._step
        for begin in range(0, masks.shape[1], step):
            maps = to_maps(given[..., begin : begin + step])
            total = total + add(maps, masks[:, begin : begin + step])
        return torch.as_tensor(total)


def _moments(score: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Return of a score [P]: is it finite, s = score - shift, s^2 and one; [4, P] float64."""
    finite = torch.isfinite(score)
    maps = score.new_empty((4, len(score)), dtype=torch.float64)
    maps[0] = finite
    maps[1] = torch.where(finite, score, 0)
    maps[1].sub_(shift).mul_(maps[0])
    torch.mul(maps[1], maps[1], out=maps[2])
    maps[3] = 1
    return maps


def _in_eights(masks: torch.Tensor) -> bool:
    aligned = masks.shape[1] % 8 == 0 and int(masks.storage_offset()) % 8 == 0
    return masks.device.type == 'cpu' and masks.is_contiguous() and aligned


def _add(maps: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    return maps @ masks.to(maps.dtype).T


def _add_eights(maps: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Return the sums of maps [C, P] over masks [n, P], eight pixels at a time.

    Along a row of pixels a mask seldom changes: equal groups of eight pixels, read as integers,
    form runs, and the sum over a run is the difference of two running sums. On a CPU this halves
    the time (masks like noise are multiplied out after all); on a GPU the list of the runs would
    have to be waited for.
    """
    words, pixels = masks.view(torch.int64), maps.unflatten(1, (-1, 8))
    fresh = torch.ones(words.shape, dtype=torch.bool)
    torch.ne(words[:, 1:], words[:, :-1], out=fresh[:, 1:])
    mask, begin = fresh.nonzero(as_tuple=True)
    if _FEW * len(mask) > words.numel():
        return _add(maps, masks)
    end = begin.roll(-1)
    end[end == 0] = words.shape[1]
    held = words[mask, begin] != 0
    mask, begin, end = mask[held], begin[held], end[held]
    until = functional.pad(pixels.cumsum(1), (0, 0, 1, 0))
    runs = (until[:, end] - until[:, begin]) * masks.unflatten(1, (-1, 8))[mask, begin]
    return maps.new_zeros(len(maps), len(masks)).index_add_(1, mask, runs.sum(2))


def nearest(length: int, source: int, device: torch.device) -> torch.Tensor:
    """Return the source index of each of `length` pixels as OpenCV's INTER_NEAREST takes it."""
    scale = 1.0 / (length / source)
    places = torch.arange(length, dtype=torch.float64, device=device) * scale
    return places.floor().long().clamp_max(source - 1)


def _resize(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    rows = nearest(size[0], maps.shape[-2], maps.device)
    columns = nearest(size[1], maps.shape[-1], maps.device)
    return maps.index_select(-2, rows).index_select(-1, columns)
