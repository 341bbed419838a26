# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Scores of the semantic map alone; a pixel model's logits are scored by the same formulas."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from road_anomaly_ros.perception.contract import LabelSet
from road_anomaly_ros.perception.dense import Block, MaskSource, QueryVectors
from road_anomaly_ros.perception.registry import NoOptions, option
from road_anomaly_ros.perception.scorers.base import SCORERS, Scorer

TEMPERATURE_LOW = 1e-6


def _temperature() -> float:
    value: float = option(
        1.0, 'Temperature; above 1 flattens the distribution.', low=TEMPERATURE_LOW, high=1e3
    )
    return value


@dataclass(frozen=True)
class PlainOptions:
    """Options of `plain`."""

    clip_unit: bool = option(
        False, 'Clip the score to [0, 1]; it is negative where masks overlap.'
    )


@dataclass(frozen=True)
class SoftmaxOptions:
    """Options shared by the scores that read a tempered semantic map."""

    temperature: float = _temperature()
    temperature_target: str = option(
        'semantic',
        "What the temperature divides: the 'semantic' map (as published), the 'class_logits' "
        "before the sum over queries (a calibration), or 'pixel_logits' (pixel models only).",
        choices=('semantic', 'class_logits', 'pixel_logits'),
    )
    include_void_channel: bool = option(
        True,
        'Pixel models: keep the last channel (void) in the softmax and the maximum, as published.',
    )


@dataclass(frozen=True)
class EntropyOptions(SoftmaxOptions):
    """Options of `max_entropy`."""

    normalize_entropy: bool = option(True, 'Divide by log K, so that the score lies in [0, 1].')


@dataclass(frozen=True)
class UnitOptions:
    """Options of scores with a mapping to [0, 1]."""

    unit_range: bool = option(False, 'Publish clip(1 + score, 0, 1) instead of the score itself.')


@dataclass(frozen=True)
class RbaS1Options(UnitOptions):
    """Options of `rba_s1`."""

    temperature: float = _temperature()


def peak_vectors(source: MaskSource, options: object) -> QueryVectors:
    """Weigh queries as for the semantic map, of which only the maximum is read."""
    del options
    return QueryVectors(source.probabilities()[:, :-1].float())


def tempered_vectors(source: MaskSource, options: SoftmaxOptions) -> QueryVectors:
    """Weigh queries by softmax(C/T) where T belongs to the class logits, else by softmax(C)."""
    inside = options.temperature_target == 'class_logits'
    known = source.probabilities(options.temperature if inside else 1.0)[:, :-1].float()
    return QueryVectors(known, partition=_divisor(options))


def rba_vectors(source: MaskSource, options: UnitOptions) -> QueryVectors:
    """Weigh queries as for the semantic map, of which sum_k tanh(S_k / T) is read."""
    return QueryVectors(source.probabilities()[:, :-1].float(), tanh=_divisor(options))


def nls_vectors(source: MaskSource, options: UnitOptions) -> QueryVectors:
    """Weigh queries by their probability of any known class."""
    del options
    known = source.probabilities()[:, :-1].float()
    return QueryVectors(known, sums={'total': known.sum(1)})


def energy_vectors(source: MaskSource, options: NoOptions) -> QueryVectors:
    """Weigh queries as for the semantic map, of which the partition function is read."""
    del options
    return QueryVectors(source.probabilities()[:, :-1].float(), partition=1.0)


def check_target(options: SoftmaxOptions, kind: str, labels: LabelSet) -> None:
    """Refuse a temperature target that this kind of model does not have."""
    del labels
    wrong = 'pixel_logits' if kind == 'mask' else 'class_logits'
    if options.temperature_target == wrong:
        raise ValueError(
            f'temperature_target: expected semantic or '
            f'{"class_logits" if kind == "mask" else "pixel_logits"} for a {kind} model, '
            f'got {wrong}'
        )


def unit(score: Tensor, options: UnitOptions) -> Tensor:
    """Map a score whose top is 0 to [0, 1] where the option asks for it."""
    return (1 + score).clamp_(0, 1) if options.unit_range else score


def _divisor(options: Any) -> float:
    """Return what S is divided by."""
    inside = getattr(options, 'temperature_target', 'semantic') == 'class_logits'
    return 1.0 if inside else float(getattr(options, 'temperature', 1.0))


def _channels(block: Block, options: SoftmaxOptions) -> Block:
    """Return the block without the void channel of a pixel model where that is asked for."""
    if block.from_queries or options.include_void_channel or len(block.semantic) < 2:
        return block
    return Block.of(block.semantic[:-1], block.maps, block.frame, from_queries=False)


def plain(block: Block, options: PlainOptions) -> Tensor:
    """1 - max_k S_k; range (1-Q, 1]; Mask2Anomaly eq. 2 without its extra channels."""
    score = 1 - block.max_s
    return score.clamp_(0, 1) if options.clip_unit else score


def msp(block: Block, options: SoftmaxOptions) -> Tensor:
    """1 - max_k softmax(S/T)_k; range [0, 1 - 1/K]."""
    total, _ = _channels(block, options).partition(_divisor(options))
    return 1 - 1 / total


def max_logit(block: Block, options: SoftmaxOptions) -> Tensor:
    """-max_k S_k/T; range (-Q/T, 0] for mask models, the whole line for pixel models."""
    return -_channels(block, options).max_s / _divisor(options)


def max_entropy(block: Block, options: EntropyOptions) -> Tensor:
    """Entropy of softmax(S/T) in nats, or divided by log K; 0 for a single class."""
    block = _channels(block, options)
    total, spread = block.partition(_divisor(options))
    entropy = total.log() - spread / total
    if not options.normalize_entropy:
        return entropy.clamp_min_(0)
    return (entropy / math.log(max(block.classes, 2))).clamp_(0, 1)


def rba(block: Block, options: UnitOptions) -> Tensor:
    """-sum_k tanh(S_k); range (-K, 0], 0 = rejected by all (Nayal et al. 2023)."""
    return unit(-block.tanh(1.0), options)


def rba_s1(block: Block, options: RbaS1Options) -> Tensor:
    """-sum_k tanh(relu(S_k / T)); equal to `rba` at T = 1 for mask models, where S >= 0."""
    if not block.from_queries:
        block = Block.of(block.semantic.relu(), {}, {}, from_queries=False)
    return unit(-block.tanh(options.temperature), options)


def nls(block: Block, options: UnitOptions) -> Tensor:
    """-sum_k S_k, the negative logit sum; range (-Q, 0] (UGainS)."""
    return unit(-(block['total'] if block.from_queries else block.semantic.sum(0)), options)


def energy(block: Block, options: NoOptions) -> Tensor:
    """-log sum_k exp S_k, the free energy."""
    del options
    total, _ = block.partition(1.0)
    return -block.max_s - total.log()


SCORERS.register('plain', PlainOptions)(
    Scorer(plain, 'Mask2Anomaly eq. 2', peak_vectors, threshold=0.7, top=1.0)
)
SCORERS.register('msp', SoftmaxOptions)(
    Scorer(
        msp,
        'Hendrycks and Gimpel 2017',
        tempered_vectors,
        check=check_target,
        display=(0.85, 0.95),
        top=1.0,
    )
)
SCORERS.register('max_logit', SoftmaxOptions)(
    Scorer(
        max_logit,
        'Hendrycks et al. 2022',
        tempered_vectors,
        check=check_target,
        display=(-1.0, 0.0),
        top=0.0,
    )
)
SCORERS.register('max_entropy', EntropyOptions)(
    Scorer(
        max_entropy,
        'entropy of the softmax',
        tempered_vectors,
        check=check_target,
        display=(0.95, 1.0),
    )
)
SCORERS.register('rba', UnitOptions)(
    Scorer(
        rba, 'RbA, Nayal et al. 2023', rba_vectors, threshold=-0.1, top=0.0, display=(-1.0, 0.0)
    )
)
SCORERS.register('rba_s1', RbaS1Options)(
    Scorer(
        rba_s1,
        'RbA with temperature, EoMT study',
        rba_vectors,
        threshold=-0.1,
        top=0.0,
        display=(-1.0, 0.0),
    )
)
SCORERS.register('nls', UnitOptions)(
    Scorer(nls, 'UGainS', nls_vectors, threshold=-0.15, top=0.0, display=(-1.0, 0.0))
)
SCORERS.register('energy')(
    Scorer(energy, 'Liu et al. 2020, PEBAL', energy_vectors, display=(-4.0, -2.0))
)
