# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the dense pass can accumulate: how it is asked for, what comes back, and both in torch.

A new accumulator is a row of `Accumulators`, what it is asked by in `QueryVectors` and `Weights`,
and its lines in `reduce`; besides, its loop in `loops` and its lines in `programs`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from road_anomaly_ros.perception.contract import UNLABELLED

ABSENT = -3e38  # stands for -inf, which fast arithmetic excludes
NEVER = 3e38  # no logit is above it


@dataclass(frozen=True)
class QueryVectors:
    """What the dense pass weighs every query with; all Q-sized, on the device of the masks.

    `semantic` [Q,K] gives the semantic map S_k = sum_q semantic[q,k] m_q, handed to the epilogue
    where `keep` says so (its maximum and label always are). Each entry of `sums` [Q] gives a map
    sum_q w_q m_q, of `maxima` [Q] (weights >= 0) a map max_q w_q m_q, of `votes` (bool [Q],
    threshold) the number of chosen queries with m_q above the threshold. `accept` [Q] gives the
    maps `accept`, its mean at each pixel over the queries with m_q > 0.5 under the weights
    softmax(accept / temperature), 0 where there is none, and `covered`; -inf takes a query out.
    `partition` and `tanh` are the divisors of S for which the epilogue will call the methods of
    that name of its block. `frame` holds scalars of the whole frame; `features` [F,gh,gw] is
    resized for learned heads.
    """

    semantic: Tensor
    keep: bool = False
    sums: Mapping[str, Tensor] = field(default_factory=dict)
    maxima: Mapping[str, Tensor] = field(default_factory=dict)
    votes: Mapping[str, tuple[Tensor, float]] = field(default_factory=dict)
    accept: Tensor | None = None
    temperature: float = 1.0
    partition: float | None = None
    tanh: float | None = None
    frame: Mapping[str, Tensor] = field(default_factory=dict)
    features: Tensor | None = None

    @property
    def classes(self) -> int:
        """K, the number of known classes."""
        return int(self.semantic.shape[1])

    @property
    def names(self) -> list[str]:
        """The maps that a block will have by name besides those that all have."""
        return [
            name
            for kind, row in Accumulators()._asdict().items()
            if kind not in ('label', 'peak', 'semantic')
            for name in row.names(self)
        ]

    @functools.cached_property
    def weights(self) -> Weights:
        """What the masks are weighed with, on their device."""
        accept = () if self.accept is None else (self.accept.float().clamp_min(ABSENT),)
        return Weights(
            torch.cat([self.semantic.T.float(), self._rows(self.sums.values())]),
            self._rows(self.maxima.values()),
            self._rows(torch.where(who, _logit(at), NEVER) for who, at in self.votes.values()),
            self._rows(accept),
        )

    @property
    def factors(self) -> Factors:
        """The reciprocals of the divisors."""
        return Factors(1 / self.temperature, 1 / (self.partition or 1.0), 1 / (self.tanh or 1.0))

    def _rows(self, rows: Iterable[Tensor]) -> Tensor:
        found = [row.float() for row in rows]
        return torch.stack(found) if found else self.semantic.new_zeros((0, len(self.semantic)))


def _logit(threshold: float) -> float:
    """Return the logit above which a mask is above a threshold; of 0.5 it is exactly 0."""
    return float(torch.tensor(threshold, dtype=torch.float64).logit().clamp(-1e30, 1e30))


class Weights(NamedTuple):
    """The weights of all that is accumulated by query, float32 [n,Q] each; n = 0: not asked for.

    They are tensors, or arrays for the compiled loops.
    """

    linear: Any  # of the semantic map, then of the sums
    largest: Any  # of the maxima
    levels: Any  # logits above which a query votes, NEVER for one that has no vote
    accept: Any  # ABSENT for one that is out

    def limits(self, negligible: float) -> Tensor:
        """Return the logits [Q] up to which a query changes no map by more than `negligible`."""
        reach = torch.cat([self.linear.abs(), self.largest]).amax(0)
        limits = (math.log(negligible) - reach.log()).clamp_(-80.0, 1e30)
        for levels in self.levels:
            limits = torch.minimum(limits, levels)
        for values in self.accept:
            limits = torch.where(values > ABSENT, limits.clamp_max(0.0), limits)
        return limits


class Factors(NamedTuple):
    """What accumulators of these names multiply by."""

    accept: Any
    partition: Any
    tanh: Any


class Row(NamedTuple):
    """One kind of accumulator: the names of its maps, given what is asked for, and their type."""

    names: Callable[[QueryVectors], Collection[Any]]
    dtype: torch.dtype = torch.float32


class Accumulators(NamedTuple):
    """All that can be accumulated of r rows and c columns of an image, maps [n,r,c] of each kind.

    They are tensors, or arrays for the compiled loops, and n = 0 for what is not asked for. What
    stands here by default is the table of them, from which room, blocks and the arguments of
    kernels are made.
    """

    label: Any = Row(lambda asked: ('label',), torch.uint8)
    peak: Any = Row(lambda asked: ('max_s',))
    semantic: Any = Row(lambda asked: range(asked.classes if asked.keep else 0))
    sums: Any = Row(lambda asked: asked.sums)
    largest: Any = Row(lambda asked: asked.maxima)
    votes: Any = Row(lambda asked: asked.votes, torch.int32)
    accept: Any = Row(lambda asked: () if asked.accept is None else ('accept',))
    covered: Any = Row(lambda asked: () if asked.accept is None else ('covered',), torch.bool)
    partition: Any = Row(lambda asked: ('partition', 'spread') if asked.partition else ())
    tanh: Any = Row(lambda asked: ('tanh',) if asked.tanh else ())

    @classmethod
    def room(
        cls, asked: QueryVectors, size: tuple[int, int], device: torch.device | None = None
    ) -> Accumulators:
        """Return tensors to be filled, of `size` (r, c)."""
        return cls(
            *(
                torch.empty((len(row.names(asked)), *size), dtype=row.dtype, device=device)
                for row in cls()
            )
        )

    def block(self, asked: QueryVectors) -> Block:
        """Return what a scorer sees of these tensors."""
        maps = {
            name: planes[i]
            for row, planes in zip(Accumulators(), self, strict=True)
            if planes is not self.semantic
            for i, name in enumerate(row.names(asked))
        }
        return Block(self.semantic, maps, asked.frame, asked.classes)


def label_type(classes: int) -> torch.dtype:
    """Return the type of labels that must tell so many classes, and 255 for none, apart."""
    return torch.uint8 if classes <= UNLABELLED else torch.int32


@dataclass(frozen=True)
class Taps:
    """Bilinear interpolation along one axis, half-pixel centres, edges repeated."""

    low: Tensor  # [n] int64
    high: Tensor  # [n] int64
    weight: Tensor  # [n] float32, of the high tap

    @classmethod
    @functools.lru_cache(maxsize=64)
    @torch.inference_mode(False)  # what is kept may be used where gradients are wanted
    def of(cls, length: int, target: int) -> Taps:
        """Return, on the CPU, the taps that resize `length` samples to `target` as torch does.

        Whether torch rounds a position once or twice depends on the processor, so its weights are
        read off a resize of alternating samples, where each of them stands unblended.
        """
        place = torch.arange(target, dtype=torch.float32) + 0.5
        low = (place * (length / target) - 0.5).clamp_(min=0.0)
        low = low.to(torch.int64).clamp_(max=length - 1)
        odd = (torch.arange(length) % 2).float()
        samples = torch.stack((odd, 1 - odd))[:, None, :, None]
        of_odd, of_even = F.interpolate(samples, size=(target, 1), mode='bilinear')[:, 0, :, 0]
        weight = torch.where(low % 2 == 0, of_odd, of_even)
        return cls(low, (low + 1).clamp_(max=length - 1), weight)

    def __getitem__(self, rows: slice) -> Taps:
        return Taps(self.low[rows], self.high[rows], self.weight[rows])


@dataclass(frozen=True)
class Features:
    """A block's part of features [F,gh,gw] that are resized along x for the whole image only.

    The last step, a blend of two rows, is left to who reads them: it is cheap there, while resized
    features of the whole image would be the largest of all accumulators.
    """

    wide: Tensor  # [F, gh, W or more] contiguous
    rows: Taps  # of the block, r
    columns: slice  # of the block, c

    def resized(self) -> Tensor:
        """Return the features of the block, [F,r,c]."""
        part = self.wide[:, :, self.columns]
        low, high, share = (
            value.to(part.device, non_blocking=True) for value in vars(self.rows).values()
        )
        return torch.lerp(part.index_select(1, low), part.index_select(1, high), share[:, None])


@dataclass(frozen=True)
class Block:
    """The accumulators of some image rows and columns, r by c of them.

    `maps` [r,c] holds by their names `label` and `max_s`, and what was asked for by name.
    `semantic` float32 [K,r,c] is there where the scorer asked to keep it, `features` where
    it gave some; `classes` is K. `from_queries` tells mask models from pixel models.
    """

    semantic: Tensor
    maps: Mapping[str, Tensor]
    frame: Mapping[str, Tensor]
    classes: int
    features: Features | None = None
    from_queries: bool = True

    @classmethod
    def of(
        cls,
        semantic: Tensor,
        maps: Mapping[str, Tensor],
        frame: Mapping[str, Tensor],
        from_queries: bool = True,
    ) -> Block:
        """Build from the semantic map [K,r,c], whose maximum and label are taken here."""
        peak, index = semantic.max(dim=0)
        maps = {**maps, 'label': index.to(label_type(len(semantic))), 'max_s': peak}
        return cls(semantic, maps, frame, len(semantic), from_queries=from_queries)

    @property
    def max_s(self) -> Tensor:
        """The maximum of the semantic map over the classes, float32 [r,c]."""
        return self.maps['max_s']

    @property
    def label(self) -> Tensor:
        """Where that is, [r,c] of `label_type`; ties go to the lowest."""
        return self.maps['label']

    def __getitem__(self, name: str) -> Tensor:
        """Return the accumulator `name` [r,c]; KeyError when nobody asked for it."""
        return self.maps[name]

    def partition(self, temperature: float) -> tuple[Tensor, Tensor]:
        """Return sum_k e_k and sum_k e_k z_k, with z_k = (S_k - max S) / T and e_k = exp(z_k)."""
        if 'partition' in self.maps:
            return self.maps['partition'], self.maps['spread']
        z = (self.semantic - self.max_s) / temperature
        weight = z.exp()
        return weight.sum(0), z.mul_(weight).sum(0)

    def tanh(self, temperature: float) -> Tensor:
        """Sum the hyperbolic tangents of S_k / T; for mask models, whose S is never negative."""
        if 'tanh' in self.maps:
            return self.maps['tanh']
        return (self.semantic / temperature).tanh_().sum(0)


def reduce(logits: Tensor, asked: QueryVectors) -> Block:
    """Reduce the resized logits [Q,r,c] of one part over the queries; `logits` is overwritten."""
    maps: dict[str, Tensor] = {}
    weights = asked.weights
    for name, levels in zip(asked.votes, weights.levels, strict=True):
        maps[name] = (logits > levels[:, None, None]).sum(0, dtype=torch.int32)
    if asked.accept is not None:
        maps['accept'], maps['covered'] = _accept(logits > 0, asked.accept, asked.temperature)
    masks = logits.sigmoid_()
    for name, weight in zip(asked.maxima, weights.largest, strict=True):
        maps[name] = (masks * weight[:, None, None]).amax(0)
    sums = torch.mm(weights.linear, masks.flatten(1)).view(-1, *masks.shape[1:])
    maps.update(zip(asked.sums, sums[asked.classes :], strict=True))
    return Block.of(sums[: asked.classes], maps, asked.frame)


def _accept(active: Tensor, values: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return the softmax-weighted mean of `values` [Q] over the active queries, and where any is.

    The maximum is subtracted per pixel: a global one underflows at small temperatures.
    """
    active = active & values.isfinite()[:, None, None]
    scaled = torch.where(active, (values / temperature)[:, None, None], -torch.inf)
    peak = scaled.amax(0)
    covered = peak > -torch.inf
    weight = scaled.sub_(torch.where(covered, peak, 0.0)).exp_()
    mean = (weight * values.nan_to_num(neginf=0.0)[:, None, None]).sum(0)
    return torch.where(covered, mean / weight.sum(0).clamp_min(1e-30), 0.0), covered
