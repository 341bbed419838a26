# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The terms in which every implementation of the dense pass is asked and answers."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from road_anomaly_ros.perception.contract import UNLABELLED


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
    def names(self) -> list[str]:
        """The maps that a block will have by these names."""
        accept = [] if self.accept is None else ['accept', 'covered']
        return [*self.sums, *self.maxima, *self.votes, *accept]

    @property
    def linear(self) -> Tensor:
        """All that is summed, [K + sums, Q] float32: the semantic rows first."""
        return torch.cat(
            [self.semantic.T, *(weight[None] for weight in self.sums.values())]
        ).float()

    @property
    def largest(self) -> Tensor:
        """The weights of the maxima, [M, Q] float32."""
        rows = [weight.float() for weight in self.maxima.values()]
        return torch.stack(rows) if rows else self.semantic.new_zeros((0, len(self.semantic)))

    @property
    def voters(self) -> Tensor:
        """Who votes, bool [V, Q]."""
        rows = [chosen for chosen, _ in self.votes.values()]
        shape = (0, len(self.semantic))
        return (
            torch.stack(rows)
            if rows
            else torch.zeros(shape, dtype=torch.bool, device=self.semantic.device)
        )

    @property
    def levels(self) -> list[float]:
        """The logits above which a vote counts, [V]; a threshold of 0.5 is exactly the logit 0."""
        return [
            float(torch.tensor(threshold, dtype=torch.float64).logit().clamp(-1e30, 1e30))
            for _, threshold in self.votes.values()
        ]


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

    `max_s` float32 [r,c] and `label` [r,c] (see `label_type`) are the maximum of the semantic map
    over the classes and where it is (ties go to the lowest), `maps` [r,c] what was asked for by
    name. `semantic` float32 [K,r,c] is there where the scorer asked to keep it, `features` where
    it gave some; `classes` is K. `from_queries` tells mask models from pixel models.
    """

    max_s: Tensor
    label: Tensor
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
        return cls(
            peak,
            index.to(label_type(len(semantic))),
            semantic,
            maps,
            frame,
            len(semantic),
            from_queries=from_queries,
        )

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
