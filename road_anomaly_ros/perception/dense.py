# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The one walk over a segmenter's output: from small masks straight to per-pixel accumulators.

Masks are never held at image resolution as a stack [Q,H,W]. The image is walked in blocks of rows;
each block's logits are interpolated, turned into mask probabilities and reduced over the queries,
and the scorer's epilogue reads the accumulators while they are in cache. The order of operations
is that of Mask2Former and EoMT: logits are resized, then the sigmoid, then the sum over queries.

Three implementations stand behind the same call: compiled loops on the CPU (`kernels/cpu.py`), a
Triton kernel on CUDA (`kernels/gpu.py`), and the blocks in torch below, which run everywhere and
are what the other two are tested against.

Compiled loops, because torch.compile still makes the stack for the product, and bfloat16 products
miss the 1e-5; figures are in docs/performance.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from road_anomaly_ros.perception.contract import MaskOutput, PixelOutput
from road_anomaly_ros.perception.kernels import cpu, gpu
from road_anomaly_ros.perception.kernels.vectors import (
    Block,
    Features,
    QueryVectors,
    Taps,
    label_type,
    reduce,
)
from road_anomaly_ros.perception.resources import Resources

__all__ = ['LOGIT_LIMIT', 'UPSAMPLE', 'Block', 'MaskSource', 'PlaneSource', 'QueryVectors', 'run']

UPSAMPLE = ('logits', 'semantic')
LOGIT_LIMIT = 1e4
_PART_BYTES = {'cpu': 1 << 20, 'cuda': 256 << 20}
_COLUMNS = {'cpu': 64}  # a narrow part needs few products per column

Region = tuple[slice, slice]  # image rows, image columns
Consume = Callable[[Region, Block], None]
Epilogue = Callable[[Block], Mapping[str, Tensor]]


def sanitize_classes(logits: Tensor, resources: Resources | None = None) -> tuple[Tensor, Tensor]:
    """Return finite class logits float32 [Q,K+1] and the number of repaired values (no sync).

    A row with NaN, or with +inf in several columns, becomes a pure void query; the rest is clamped
    to +-1e4. Unexplained pixels then get a high score, never a low one.
    """
    kept = resources or Resources(logits.device)
    found = gpu.attempt(kept, gpu.clean_classes, logits, LOGIT_LIMIT)
    if found is not None:
        return found
    logits = logits.float()
    broken = logits.isnan().any(1) | (logits.isposinf().sum(1) > 1)
    void = torch.full_like(logits, -LOGIT_LIMIT)
    void[:, -1] = LOGIT_LIMIT
    clean = torch.where(broken[:, None], void, logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT))
    return clean, (~logits.isfinite()).sum()


def sanitize_planes(logits: Tensor, resources: Resources | None = None) -> tuple[Tensor, Tensor]:
    """Return finite mask or pixel logits float32 [N,h,w] and the number of repaired values.

    NaN becomes 'absent', the rest is clamped to +-1e4. On the CPU good input is only looked at.
    """
    kept = resources or Resources(logits.device)
    found = gpu.attempt(kept, gpu.clean_planes, logits, LOGIT_LIMIT)
    if found is not None:
        return found
    logits = logits.float()
    if logits.device.type == 'cpu':
        low, high = logits.aminmax() if logits.numel() else (torch.zeros(()), torch.zeros(()))
        if bool((low >= -LOGIT_LIMIT) & (high <= LOGIT_LIMIT)):  # False for NaN
            return logits, torch.zeros((), dtype=torch.int64)
    clean = logits.nan_to_num(nan=-LOGIT_LIMIT).clamp_(-LOGIT_LIMIT, LOGIT_LIMIT)
    return clean, (~logits.isfinite()).sum()


def sanitize_masks(logits: Tensor, resources: Resources | None = None) -> tuple[Tensor, Tensor]:
    """Do the same for masks [Q,h,w]; on CUDA as its kernel wants to read them."""
    kept = resources or Resources(logits.device)
    found = gpu.attempt(kept, gpu.clean_masks, logits, LOGIT_LIMIT)
    return sanitize_planes(logits, kept) if found is None else found


def resize(planes: Tensor, rows: Taps, columns: Taps, *, finite: bool = True) -> Tensor:
    """Return the values [N,r,c] that a bilinear resize of planes [N,h,w] has at some taps.

    Without `finite` a NaN stays where it is (a product would spread it).
    """
    if planes.device.type == 'cpu' and finite:
        return _resize_by_products(planes, rows, columns)
    for axis, taps in ((1, rows), (2, columns)):
        low, high, share = (
            part.to(planes.device, non_blocking=True) for part in vars(taps).values()
        )
        share = share[:, None] if axis == 1 else share
        planes = torch.lerp(planes.index_select(axis, low), planes.index_select(axis, high), share)
    return planes


def _resize_by_products(planes: Tensor, rows: Taps, columns: Taps) -> Tensor:
    """Do the same with a matrix product along x: gathering single columns is slow on the CPU."""
    top, left = int(rows.low[0]), int(columns.low[0])
    part = planes[:, top : int(rows.high[-1]) + 1, left : int(columns.high[-1]) + 1]
    place = torch.arange(len(columns.low))
    weights = torch.zeros((part.shape[2], len(place)))
    weights[columns.low - left, place] += 1 - columns.weight
    weights[columns.high - left, place] += columns.weight
    wide = part @ weights
    return torch.lerp(
        wide.index_select(1, rows.low - top),
        wide.index_select(1, rows.high - top),
        rows.weight[:, None],
    )


def walk(
    planes: Tensor, size: tuple[int, int], *, finite: bool = True
) -> Iterator[tuple[Region, Tensor]]:
    """Resize planes [N,h,w] to `size` (H, W) part by part: region and values [N,r,c]."""
    rows, columns = Taps.of(planes.shape[1], size[0]), Taps.of(planes.shape[2], size[1])
    across = min(size[1], _COLUMNS.get(planes.device.type, size[1]))
    budget = _PART_BYTES.get(planes.device.type, _PART_BYTES['cuda'])
    down = max(1, budget // (4 * max(1, len(planes)) * across))
    for row in range(0, size[0], down):
        for column in range(0, size[1], across):
            region = (
                slice(row, min(size[0], row + down)),
                slice(column, min(size[1], column + across)),
            )
            yield region, resize(planes, rows[region[0]], columns[region[1]], finite=finite)


class MaskSource:
    """Accumulators from queries: `prepare` reads its probabilities, `visit` walks the image."""

    def __init__(
        self,
        output: MaskOutput,
        size: tuple[int, int],
        *,
        sanitized: bool = True,
        resources: Resources | None = None,
    ) -> None:
        classes, masks = output.class_logits, output.mask_logits
        self.size = size
        self.output = output
        self._resources = resources or Resources(masks.device)
        self.sanitized: Tensor = torch.zeros((), dtype=torch.int64, device=masks.device)
        if sanitized:
            classes, bad_classes = sanitize_classes(classes, self._resources)
            masks, bad_masks = sanitize_masks(masks, self._resources)
            self.sanitized = bad_classes + bad_masks
        if len(classes) == 0:  # no query is the same as one that is void and nowhere
            classes = torch.full((1, classes.shape[1]), -LOGIT_LIMIT, device=masks.device)
            classes[:, -1] = LOGIT_LIMIT
            masks = torch.full((1, *masks.shape[1:]), -LOGIT_LIMIT, device=masks.device)
        self.class_logits = classes.float()  # [Q, K+1]
        self.mask_logits = masks.float()  # [Q, h, w]
        if not gpu.available(masks.device):
            self.mask_logits = self.mask_logits.contiguous()
        self._narrow = label_type(self.classes) == torch.uint8  # compiled code knows no other
        self._finite = sanitized
        on_cpu = masks.device.type == 'cpu' and cpu.available()
        self._compiled = self._narrow and sanitized and on_cpu

    @property
    def classes(self) -> int:
        """K, the number of known classes."""
        return int(self.class_logits.shape[1]) - 1

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the mask logits."""
        return int(self.mask_logits.shape[1]), int(self.mask_logits.shape[2])

    @cached_property
    def tops(self) -> Tensor:
        """The largest logit of every mask, [Q]."""
        return self.mask_logits.flatten(1).amax(1)

    def probabilities(self, temperature: float = 1.0) -> Tensor:
        """Return softmax(class_logits / temperature) over all K+1 columns, float64 [Q,K+1]."""
        return (self.class_logits.double() / temperature).softmax(1)

    def support_overlap(self, confident: Tensor, *, native: bool = False) -> tuple[Tensor, Tensor]:
        """Return per query the pixels with m_q > 0.5, and those in confident masks, int64 [Q].

        `confident` bool [Q]; `native` counts on the mask grid instead of the image. Signs only.
        """
        size = self.grid if native else self.size
        if self._compiled:
            return cpu.support_overlap(self.mask_logits, self.tops, size, confident)
        if self._finite:
            counts = gpu.attempt(
                self._resources, gpu.support_overlap, self.mask_logits, size, confident
            )
            if counts is not None:
                return counts
        areas = torch.zeros(len(confident), dtype=torch.int64, device=confident.device)
        shared = torch.zeros_like(areas)
        for _, logits in walk(self.mask_logits, size, finite=self._finite):
            support = logits > 0
            region = (support & confident[:, None, None]).any(0)
            areas += support.sum((1, 2))
            shared += (support & region).sum((1, 2))
        return areas, shared

    def visit(
        self, vectors: QueryVectors, consume: Consume, size: tuple[int, int] | None = None
    ) -> None:
        """Call `consume(region, block)` for every part of the image, perhaps from several threads.

        Regions are (rows, columns) of `size`, by default the output size; each comes once.
        """
        size = size or self.size
        consume = with_features(consume, vectors.features, size)
        if self._compiled:
            cpu.visit(self.mask_logits, self.tops, size, vectors, consume)
            return
        if self._finite and self._narrow:
            block = gpu.attempt(self._resources, gpu.accumulate, self.mask_logits, size, vectors)
            if block is not None:
                consume((slice(0, size[0]), slice(0, size[1])), block)
                return
        for region, logits in walk(self.mask_logits, size, finite=self._finite):
            consume(region, reduce(logits, vectors))

    def planes(
        self, vectors: QueryVectors, size: tuple[int, int] | None = None
    ) -> tuple[Tensor, list[str]]:
        """Return the accumulators that may be resized or averaged [K + names, *size], and names.

        The semantic map comes first; by default at mask resolution.
        """
        size = size or self.grid
        vectors = dataclasses.replace(vectors, keep=True, partition=None, tanh=None, features=None)
        names = vectors.names
        found = torch.empty((vectors.classes + len(names), *size), device=self.mask_logits.device)

        def consume(region: Region, block: Block) -> None:
            found[: vectors.classes, region[0], region[1]] = block.semantic
            for plane, name in zip(found[vectors.classes :], names, strict=True):
                plane[region] = block[name]

        self.visit(vectors, consume, size)
        return found, names

    def low_resolution(self, vectors: QueryVectors) -> PlaneSource:
        """Return the accumulators at mask resolution, to be resized (`upsample='semantic'`)."""
        return PlaneSource(*self.planes(vectors), self.size, self.sanitized, finite=self._finite)


class PlaneSource:
    """Accumulators that exist at low resolution: pixel logits, or sums on the mask grid."""

    def __init__(
        self,
        planes: Tensor,
        names: Sequence[str],
        size: tuple[int, int],
        sanitized: Tensor,
        *,
        finite: bool = True,
    ) -> None:
        self.size = size
        self.sanitized = sanitized
        self._planes = planes  # [K + names, h, w]
        self._names = names
        self._finite = finite

    @classmethod
    def of(
        cls,
        output: PixelOutput,
        size: tuple[int, int],
        *,
        sanitized: bool = True,
        resources: Resources | None = None,
    ) -> PlaneSource:
        """Return the source that hands a pixel model's logits to the epilogues as semantic map."""
        planes = output.logits.float()
        count = torch.zeros((), dtype=torch.int64, device=planes.device)
        if sanitized:
            planes, count = sanitize_planes(planes, resources)
        return cls(planes, (), size, count, finite=sanitized)

    @property
    def classes(self) -> int:
        """K, the number of known classes."""
        return len(self._planes) - len(self._names)

    def visit(self, vectors: QueryVectors | None, consume: Consume) -> None:
        """Call `consume(region, block)` for every part; no vectors for pixel models."""
        consume = with_features(consume, vectors.features if vectors else None, self.size)
        classes, frame = self.classes, vectors.frame if vectors else {}
        for region, values in walk(self._planes, self.size, finite=self._finite):
            maps = dict(zip(self._names, values[classes:], strict=True))
            consume(
                region, Block.of(values[:classes], maps, frame, from_queries=vectors is not None)
            )


def with_features(consume: Consume, features: Tensor | None, size: tuple[int, int]) -> Consume:
    """Return `consume` that also gets its part of the features [F,gh,gw], as wide as `size`."""
    if features is None:
        return consume
    height, rows = features.shape[1], Taps.of(features.shape[1], size[0])
    if features.device.type == 'cpu' and cpu.available():
        wide = cpu.widened(features.float(), size[1])
    else:
        columns = Taps.of(features.shape[2], size[1])
        wide = resize(features.float(), Taps.of(height, height), columns).contiguous()

    def more(region: Region, block: Block) -> None:
        part = Features(wide, rows[region[0]], region[1])
        consume(region, dataclasses.replace(block, features=part))

    return more


def run(
    source: MaskSource | PlaneSource,
    vectors: QueryVectors | None,
    epilogue: Epilogue,
    names: Sequence[str],
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return labels [H,W] of `label_type` and the maps `names` [H,W] that `epilogue` gives."""
    device = source.sanitized.device
    labels = torch.empty(source.size, dtype=label_type(source.classes), device=device)
    maps: dict[str, Tensor] = {}

    def consume(region: Region, block: Block) -> None:
        nonlocal labels
        found = epilogue(block)
        if device.type != 'cpu' and block.label.shape == source.size:  # nothing to put together
            labels = block.label
            maps.update((name, found[name]) for name in names)
            return
        labels[region] = block.label
        for name in names:
            if name not in maps:
                maps.setdefault(
                    name, torch.empty(source.size, dtype=found[name].dtype, device=device)
                )
            maps[name][region] = found[name]

    source.visit(vectors, consume)  # type: ignore[arg-type]
    return labels, maps
