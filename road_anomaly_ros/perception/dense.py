# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The one walk over a segmenter's output: from low-resolution masks straight to per-pixel accumulators.

Masks are never held at image resolution as a stack [Q,H,W]: the image is walked in blocks of rows, each
block's logits are interpolated, turned into mask probabilities and reduced over the queries, and the
scorer's epilogue reads the accumulators while they are in cache. The order of operations is that of
Mask2Former and EoMT: logits are resized, then the sigmoid, then the sum over queries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from road_anomaly_ros.perception.contract import MaskOutput, PixelOutput

UPSAMPLE = ('logits', 'semantic')
LOGIT_LIMIT = 1e4
_BLOCK_BYTES = {'cpu': 4 << 20, 'cuda': 256 << 20}


@dataclass(frozen=True)
class QueryVectors:
    """What the dense pass weighs every query with; all Q-sized, on the device of the masks.

    `semantic` [Q,K] gives the semantic map S_k = sum_q semantic[q,k] m_q; each entry of `sums` [Q] a map
    sum_q w_q m_q, of `maxima` [Q] (weights >= 0) a map max_q w_q m_q, of `votes` (bool [Q], threshold) the
    number of chosen queries with m_q above the threshold. `accept` [Q] is averaged at each pixel over the
    queries with m_q > 0.5 under the weights softmax(accept / temperature); -inf takes a query out.
    `frame` holds scalars of the whole frame and `features` [F,gh,gw] is resized for learned epilogues.
    """

    semantic: Tensor
    sums: Mapping[str, Tensor] = field(default_factory=dict)
    maxima: Mapping[str, Tensor] = field(default_factory=dict)
    votes: Mapping[str, tuple[Tensor, float]] = field(default_factory=dict)
    accept: Tensor | None = None
    temperature: float = 1.0
    frame: Mapping[str, Tensor] = field(default_factory=dict)
    features: Tensor | None = None


@dataclass(frozen=True)
class Block:
    """The accumulators of some image rows: `semantic` [K,r,W] and the `maps` [r,W] that were asked for."""

    semantic: Tensor
    maps: Mapping[str, Tensor] = field(default_factory=dict)
    frame: Mapping[str, Tensor] = field(default_factory=dict)
    features: Tensor | None = None
    from_queries: bool = True

    @cached_property
    def _peak(self) -> tuple[Tensor, Tensor]:
        value, index = self.semantic.max(dim=0)
        return value, index.to(torch.uint8)

    @property
    def max_s(self) -> Tensor:
        """max_k S_k, float32 [r,W]."""
        return self._peak[0]

    @property
    def label(self) -> Tensor:
        """argmax_k S_k, uint8 [r,W]; ties go to the lowest class."""
        return self._peak[1]

    def __getitem__(self, name: str) -> Tensor:
        """Return the accumulator `name` [r,W]; KeyError when nobody asked for it."""
        return self.max_s if name == 'max_s' else self.maps[name]


Epilogue = Callable[[Block], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Taps:
    """Bilinear interpolation along one axis, half-pixel centres, edges repeated: two taps per output."""

    low: Tensor                                     # [n] int64
    high: Tensor                                    # [n] int64
    weight: Tensor                                  # [n] float32, of the high tap

    @classmethod
    def of(cls, length: int, target: int, device: torch.device) -> Taps:
        """Return the taps that resize `length` samples to `target` samples."""
        place = (torch.arange(target, device=device, dtype=torch.float32) + 0.5) * (length / target) - 0.5
        place = place.clamp_(min=0.0)
        low = place.to(torch.int64).clamp_(max=length - 1)
        return cls(low, (low + 1).clamp_(max=length - 1), (place - low).clamp_(0.0, 1.0))

    def __getitem__(self, rows: slice) -> Taps:
        return Taps(self.low[rows], self.high[rows], self.weight[rows])


def sanitize(class_logits: Tensor, mask_logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return float32 logits without non-finite values and how many there were (0-d int64, no sync).

    A class row with NaN or with +inf in several columns becomes a pure void query, NaN mask logits become
    absent, everything is clamped to +-1e4. Unexplained pixels get a high score, never a low one.
    """
    classes, masks = class_logits.float(), mask_logits.float()
    count = _count_bad(classes) + _count_bad(masks)
    broken = classes.isnan().any(1) | (classes.isposinf().sum(1) > 1)
    void = torch.full_like(classes, -LOGIT_LIMIT)
    void[:, -1] = LOGIT_LIMIT
    classes = torch.where(broken[:, None], void, classes.clamp(-LOGIT_LIMIT, LOGIT_LIMIT))
    return classes, sanitize_plane(masks, nan=-LOGIT_LIMIT), count


def sanitize_plane(values: Tensor, *, nan: float) -> Tensor:
    """Return `values` clamped to +-1e4 with NaN replaced; the same tensor when nothing has to change."""
    if values.device.type == 'cpu' and _is_tame(values):
        return values
    return values.nan_to_num(nan=nan).clamp_(-LOGIT_LIMIT, LOGIT_LIMIT)


def _is_tame(values: Tensor) -> bool:
    if values.numel() == 0:
        return True
    low, high = values.aminmax()
    return bool((low >= -LOGIT_LIMIT) & (high <= LOGIT_LIMIT))      # False for NaN


def _count_bad(values: Tensor) -> Tensor:
    if values.device.type == 'cpu' and _is_tame(values):
        return torch.zeros((), dtype=torch.int64)
    return (~values.isfinite()).sum()


def block_height(queries: int, width: int, device: torch.device) -> int:
    """Return how many image rows one block holds, so that its masks stay in cache."""
    budget = _BLOCK_BYTES.get(device.type, _BLOCK_BYTES['cuda'])
    return max(1, budget // (4 * max(1, queries) * width))


def resize_rows(planes: Tensor, rows: Taps, width: int) -> Tensor:
    """Return output rows [N,r,W] of the planes [N,h,w], equal to a bilinear resize of the whole."""
    upper, lower = planes.index_select(1, rows.low), planes.index_select(1, rows.high)
    block = torch.lerp(upper, lower, rows.weight[:, None])
    if block.shape[-1] == width:
        return block
    return functional.interpolate(block, size=width, mode='linear', align_corners=False)


class MaskSource:
    """Accumulators from queries: `prepare` sees its probabilities, `blocks` walks the image."""

    def __init__(self, output: MaskOutput, size: tuple[int, int], *, sanitized: bool = True) -> None:
        classes, masks = output.class_logits, output.mask_logits
        self.size = size
        self.output = output
        self.sanitized: Tensor = torch.zeros((), dtype=torch.int64, device=masks.device)
        if sanitized:
            classes, masks, self.sanitized = sanitize(classes, masks)
        if len(classes) == 0:       # no query is the same as one that is void and nowhere
            classes = torch.full((1, classes.shape[1]), -LOGIT_LIMIT, device=masks.device)
            classes[:, -1] = LOGIT_LIMIT
            masks = torch.full((1, *masks.shape[1:]), -LOGIT_LIMIT, device=masks.device)
        self.class_logits = classes.float()         # [Q, K+1]
        self.mask_logits = masks.float()            # [Q, h, w]

    def probabilities(self, temperature: float = 1.0) -> Tensor:
        """Return softmax(class_logits / temperature) over all K+1 columns, float64 [Q,K+1]."""
        return (self.class_logits.double() / temperature).softmax(1)

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the mask logits."""
        return int(self.mask_logits.shape[1]), int(self.mask_logits.shape[2])

    def _rows(self, size: tuple[int, int]) -> Iterator[tuple[slice, Tensor]]:
        height, width = size
        queries, masks = len(self.mask_logits), self.mask_logits
        taps = Taps.of(masks.shape[1], height, masks.device)
        step = block_height(queries, width, masks.device)
        for start in range(0, height, step):
            rows = slice(start, min(height, start + step))
            yield rows, resize_rows(masks, taps[rows], width)

    def support_overlap(self, confident: Tensor, *, native: bool = False) -> tuple[Tensor, Tensor]:
        """Return pixels with m_q > 0.5 per query and how many of them a confident query covers, int64 [Q].

        `confident` bool [Q]; `native` counts on the mask grid instead of the output grid. Signs only.
        """
        areas = torch.zeros(len(confident), dtype=torch.int64, device=confident.device)
        shared = torch.zeros_like(areas)
        for _, logits in self._rows(self.grid if native else self.size):
            support = logits > 0
            region = (support & confident[:, None, None]).any(0)
            areas += support.sum((1, 2))
            shared += (support & region).sum((1, 2))
        return areas, shared

    def blocks(self, vectors: QueryVectors, size: tuple[int, int] | None = None
               ) -> Iterator[tuple[slice, Block]]:
        """Walk the rows of `size` (default: the output size) and yield each block's accumulators."""
        for rows, logits in self._rows(size or self.size):
            yield rows, accumulate(logits, vectors)

    def low_resolution(self, vectors: QueryVectors) -> PlaneSource:
        """Return the accumulators at mask resolution as planes to be resized (`upsample='semantic'`)."""
        found = [block for _, block in self.blocks(vectors, self.grid)]
        names = list(found[0].maps)
        parts = [torch.cat([block.semantic, *(block.maps[name].float()[None] for name in names)])
                 for block in found]
        return PlaneSource(torch.cat(parts, 1), self.size, names=names)


class PlaneSource:
    """Accumulators that exist at low resolution: a pixel model's logits, or sums made on the mask grid."""

    def __init__(self, planes: Tensor, size: tuple[int, int], *, names: Sequence[str] = (),
                 sanitized: bool = False) -> None:
        self.size = size
        self.sanitized: Tensor = torch.zeros((), dtype=torch.int64, device=planes.device)
        planes = planes.float()
        if sanitized:
            self.sanitized = _count_bad(planes)
            planes = sanitize_plane(planes, nan=-LOGIT_LIMIT)
        self._planes = planes
        self._names = names

    @classmethod
    def of(cls, output: PixelOutput, size: tuple[int, int], *, sanitized: bool = True) -> PlaneSource:
        """Return the source that feeds a pixel model's logits to the epilogues as the semantic map."""
        return cls(output.logits, size, sanitized=sanitized)

    def blocks(self, vectors: QueryVectors | None = None) -> Iterator[tuple[slice, Block]]:
        """Walk the output rows and yield each block's accumulators."""
        height, width = self.size
        planes, count = self._planes, len(self._planes) - len(self._names)
        taps = Taps.of(planes.shape[1], height, planes.device)
        step = block_height(len(planes), width, planes.device)
        for start in range(0, height, step):
            rows = slice(start, min(height, start + step))
            block = resize_rows(planes, taps[rows], width)
            maps = dict(zip(self._names, block[count:], strict=True))
            yield rows, Block(block[:count], maps, vectors.frame if vectors else {},
                              from_queries=vectors is not None)


def accumulate(logits: Tensor, vectors: QueryVectors) -> Block:
    """Reduce the upsampled logits [Q,r,W] of one block over the queries; `logits` is overwritten."""
    maps: dict[str, Tensor] = {}
    for name, (chosen, threshold) in vectors.votes.items():
        level = torch.logit(torch.tensor(threshold, dtype=torch.float64)).item()
        maps[name] = ((logits > level) & chosen[:, None, None]).sum(0, dtype=torch.int32)
    if vectors.accept is not None:
        maps['accept'], maps['covered'] = _accept(logits > 0, vectors.accept, vectors.temperature)
    masks = logits.sigmoid_()
    for name, weight in vectors.maxima.items():
        maps[name] = (masks * weight[:, None, None]).amax(0)
    count, (rows, width) = vectors.semantic.shape[1], masks.shape[1:]
    weights = torch.cat([vectors.semantic.T, *(weight[None] for weight in vectors.sums.values())])
    sums = torch.mm(weights, masks.reshape(len(masks), -1)).view(-1, rows, width)
    maps.update(zip(vectors.sums, sums[count:], strict=True))
    return Block(sums[:count], maps, vectors.frame)


def _accept(active: Tensor, values: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return the softmax-weighted mean of `values` [Q] over the active queries, and where there are any.

    The maximum is subtracted per pixel: a global one underflows at small temperatures.
    """
    active = active & values.isfinite()[:, None, None]
    scaled = torch.where(active, (values / temperature)[:, None, None], -torch.inf)
    peak = scaled.amax(0)
    covered = peak > -torch.inf
    weight = scaled.sub_(torch.where(covered, peak, 0.0)).exp_()
    total = weight.sum(0)
    mean = (weight * values.nan_to_num(neginf=0.0)[:, None, None]).sum(0)
    return torch.where(covered, mean / total.clamp_min(1e-30), 0.0), covered


def run(source: MaskSource | PlaneSource, vectors: QueryVectors | None, epilogue: Epilogue,
        names: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
    """Return labels uint8 [H,W] and the maps `names` [H,W] that `epilogue` gives for every block."""
    device = source.sanitized.device
    labels = torch.empty(source.size, dtype=torch.uint8, device=device)
    maps: dict[str, Tensor] = {}
    for rows, block in source.blocks(vectors):      # type: ignore[arg-type]
        labels[rows] = block.label
        found = epilogue(block)
        for name in names:
            if name not in maps:
                maps[name] = torch.empty(source.size, dtype=found[name].dtype, device=device)
            maps[name][rows] = found[name]
    return labels, maps
