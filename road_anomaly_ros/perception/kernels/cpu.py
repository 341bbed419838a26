# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The dense pass on the CPU as one fused loop; without numba the torch blocks of `dense` do it.

The image is cut into tiles of 64 columns. A tile of mask logits is widened once per mask row (a
small matrix product, so that every ratio costs the same), blended between two such rows, turned
into probabilities and reduced over the queries while all of it lies in the first two cache levels.
Queries that cannot matter in a tile are skipped: interpolation never exceeds its taps, so the
bound is rigorous (at most `NEGLIGIBLE` per query and accumulator).
"""

from __future__ import annotations

import functools
import itertools
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from road_anomaly_ros.perception.kernels.vectors import (
    NEVER,
    Accumulators,
    Block,
    Factors,
    QueryVectors,
    Taps,
    Weights,
)

try:
    from road_anomaly_ros.perception.kernels import loops
except ImportError:  # numba is an optional dependency
    loops = None  # type: ignore[assignment]

NEGLIGIBLE = 5e-8
_PIXELS = 32768  # of a block: torch works on it in one thread
_LINES = 256  # of a thin product: what a thread takes at a time
_FEW_LINES = 1024  # up to here one thread does the product alone

Part = tuple[slice, tuple[int, int]]  # image rows and tiles
Consume = Callable[[tuple[slice, slice], Block], None]

_log = logging.getLogger(__name__)
_pools: dict[int, ThreadPoolExecutor] = {}
_lock = threading.Lock()
if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_pools.clear)  # threads do not survive a fork


def available() -> bool:
    """Tell whether the compiled loops can be used here."""
    return loops is not None


@dataclass(frozen=True)
class Grid:
    """How mask rows and columns become image rows and columns, in the terms of the loops."""

    rows: tuple[np.ndarray, np.ndarray, np.ndarray]  # low, high int64 [H], weight float32 [H]
    starts: np.ndarray  # [tiles, strips] int64, first mask column
    weights: np.ndarray  # [tiles, strips, taps, STRIP] float32, of as many from there on
    size: tuple[int, int]  # (H, W)

    @classmethod
    @functools.lru_cache(maxsize=16)
    def of(cls, shape: Sequence[int], size: tuple[int, int]) -> Grid:
        """Build for masks of `shape` [..., h, w] and an image of `size` (H, W)."""
        rows = Taps.of(shape[-2], size[0])
        return cls(
            (rows.low.numpy(), rows.high.numpy(), rows.weight.numpy()),
            *_strips(shape[-1], size[1], loops.SCALE),
            size,
        )

    def band(self, rows: slice) -> loops.Band:
        """Return the vertical taps of some image rows and the horizontal ones of all columns."""
        low, high, share = (axis[rows] for axis in self.rows)
        return loops.Band(low, high, share, self.starts, self.weights)

    def parts(self, planes: int) -> list[Part]:
        """Cut the image into parts of a size that keeps `planes` maps of it in cache."""
        pixels = max(loops.TILE, _PIXELS // max(1, planes))
        tiles = min(len(self.starts), max(1, pixels // (64 * loops.TILE)))
        step = max(
            1, min(pixels // (tiles * loops.TILE), -(-self.size[0] // torch.get_num_threads()))
        )
        edges = self._edges(step)
        return [
            (slice(top, bottom), (tile, min(tile + tiles, len(self.starts))))
            for top, bottom in itertools.pairwise(edges)
            for tile in range(0, len(self.starts), tiles)
        ]

    def _edges(self, step: int) -> list[int]:
        """Return where to cut the rows, at most `step` apart, between mask rows where possible."""
        fresh, edges = np.flatnonzero(np.diff(self.rows[0], prepend=-1)), [0]
        while edges[-1] + step < self.size[0]:
            far = edges[-1] + step
            near = int(fresh[np.searchsorted(fresh, far, 'right') - 1])
            edges.append(near if near > edges[-1] else far)
        return [*edges, self.size[0]]

    def columns(self, tiles: tuple[int, int]) -> slice:
        """Return the image columns of some tiles."""
        return slice(tiles[0] * loops.TILE, min(tiles[1] * loops.TILE, self.size[1]))


@functools.lru_cache(maxsize=32)
def _strips(length: int, target: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Return `starts` and `weights` of a grid, the weights times `scale`."""
    columns = Taps.of(length, target)
    low, high, share = columns.low.numpy(), columns.high.numpy(), columns.weight.numpy()
    tiles, strips = -(-len(low) // loops.TILE), loops.TILE // loops.STRIP
    # Beyond the image its last column is repeated, which keeps the extremes what they are.
    place = np.arange(tiles * loops.TILE).reshape(-1, loops.STRIP).clip(max=len(low) - 1)
    low, high, share = low[place], high[place], share[place]
    taps = int((high[:, -1] - low[:, 0]).max()) + 1
    starts = np.minimum(low[:, 0], length - taps)
    strip, inside = np.indices(place.shape)
    weights = np.zeros((len(place), taps, loops.STRIP), np.float32)
    np.add.at(weights, (strip, low - starts[:, None], inside), (1 - share) * scale)
    np.add.at(weights, (strip, high - starts[:, None], inside), share * scale)
    return (starts.reshape(tiles, strips), weights.reshape(tiles, strips, taps, loops.STRIP))


def widened(planes: Tensor, width: int) -> Tensor:
    """Return finite planes float32 [N,h,w] resized along x, and some columns more.

    For 32 planes of 45x60 and a width of 480 it takes a third of a product with all columns.
    """
    starts, weights = _strips(planes.shape[2], width, 1.0)
    # Rows of an odd number of strips: powers of two crowd a few places of the cache.
    out = torch.zeros((*planes.shape[:2], len(starts) * loops.TILE + loops.STRIP))
    lines = planes.contiguous().flatten(0, 1)[:, None].numpy()
    loops.widen(
        lines, starts.ravel(), weights.reshape(-1, *weights.shape[2:]), out.flatten(0, 1).numpy()
    )
    return out


def resized_cells(cells: Tensor, grid: Sequence[int]) -> Tensor:
    """Return cells float32 [h,w,C] on another grid, [gh gw, C], bilinear as torch does it.

    In this thread: for maps of some thousand cells it takes longer to wake another one.
    """
    out = torch.empty((grid[0] * grid[1], cells.shape[2]))
    taps = (
        part.numpy()
        for length, target in zip(cells.shape, grid, strict=False)
        for part in vars(Taps.of(length, target)).values()
    )
    loops.blend_cells(cells.contiguous().numpy(), *taps, out.numpy())
    return out


def add_products(pairs: Sequence[tuple[Tensor, Tensor]], out: Tensor) -> None:
    """Add a [n,m] @ b [m,x] of every pair to out [n,x], all float32 and contiguous, x % 16 = 0."""
    arrays, to = [(a.numpy(), b.numpy()) for a, b in pairs], out.numpy()

    def work(begin: int, end: int) -> None:
        for a, b in arrays:
            loops.add_thin(a, b, begin, end, to)

    by_lines(work, len(out), _LINES)


def by_lines(work: Callable[[int, int], None], lines: int, step: int) -> None:
    """Call `work(begin, end)` for all lines, `step` at a time from several threads if many."""
    step = step if lines > _FEW_LINES else max(1, lines)
    edges = [*range(0, lines, step), lines]
    parts: list[Part] = [(slice(*pair), (0, 1)) for pair in itertools.pairwise(edges)]
    _share(lambda part: work(part[0].start, part[0].stop), parts)


def visit(
    logits: Tensor, tops: Tensor, size: tuple[int, int], vectors: QueryVectors, consume: Consume
) -> None:
    """Call `consume((rows, columns), block)` for every part of the image, from several threads.

    `logits` float32 [Q,h,w] finite and contiguous, `tops` [Q] their maxima, `size` (H, W).
    """
    if not loops.accumulate.signatures:  # type: ignore[attr-defined]
        _log.info('preparing the loops of the dense pass; the first time takes some seconds')
    limits, grid = vectors.weights.limits(NEGLIGIBLE), Grid.of(logits.shape, size)
    live = (tops > limits).nonzero()[:, 0]
    if len(live) == 0:
        live = torch.zeros(1, dtype=torch.int64)
    weights = Weights(*(part[:, live].contiguous().numpy() for part in vectors.weights))
    factors = Factors(*map(np.float32, vectors.factors))
    given = vectors.classes, weights, factors, limits[live].numpy()

    def work(part: Part) -> None:
        rows, tiles = part
        columns = grid.columns(tiles)
        part_size = rows.stop - rows.start, columns.stop - columns.start
        out = Accumulators.room(vectors, part_size)
        arrays = Accumulators(*(planes.numpy() for planes in out))
        loops.accumulate(logits.numpy(), live.numpy(), grid.band(rows), *given, tiles, arrays)
        consume((rows, columns), out.block(vectors))

    _share(work, grid.parts(-(-vectors.classes // 8) if vectors.keep else 1))


def support_overlap(
    logits: Tensor, tops: Tensor, size: tuple[int, int], confident: Tensor
) -> tuple[Tensor, Tensor]:
    """Return per query the pixels with a positive logit, and those in confident masks, int64 [Q].

    `confident` bool [Q]; other arguments as in `visit`.
    """
    live, grid = (tops > 0).nonzero()[:, 0], Grid.of(logits.shape, size)
    counts = torch.zeros((2, len(tops)), dtype=torch.int64)
    levels = torch.where(confident[live], 0.0, NEVER).numpy()
    found: list[np.ndarray] = []

    def work(part: Part) -> None:
        rows, tiles = part
        mine = np.zeros((2, len(live)), np.int64)
        loops.overlap(
            logits.numpy(), live.numpy(), grid.band(rows), levels, size[1], tiles, mine[0], mine[1]
        )
        found.append(mine)

    if len(live):
        _share(work, grid.parts(1))
        counts[:, live] = torch.from_numpy(np.sum(found, axis=0))
    return counts[0], counts[1]


def _share(work: Callable[[Part], None], parts: Sequence[Part]) -> None:
    """Run `work` on all parts in as many threads as torch uses, this one included."""
    threads = min(torch.get_num_threads(), len(parts))
    queue, mode = iter(parts), torch.is_inference_mode_enabled()

    def drain() -> None:
        with torch.inference_mode(mode):
            while (part := _next(queue)) is not None:
                work(part)

    others = [_pool(threads).submit(drain) for _ in range(threads - 1)]
    drain()
    for other in others:
        other.result()


def _next(queue: Iterator[Part]) -> Part | None:
    with _lock:
        return next(queue, None)


def _pool(threads: int) -> ThreadPoolExecutor:
    with _lock:
        if threads not in _pools:
            _pools[threads] = ThreadPoolExecutor(threads, 'dense')
        return _pools[threads]
