# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a refinement is, what it may ask for, and the registry of all of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from road_anomaly_ros.perception.contract import LabelSet, Prompts, Segments
from road_anomaly_ros.perception.registry import NoOptions, Registry
from road_anomaly_ros.perception.resources import Resources
from road_anomaly_ros.perception.vlm.points import NamedMask

Function = Callable[[torch.Tensor, 'RefineContext', Any], torch.Tensor]


@dataclass
class RefineContext:
    """What is known of a score's image; segments are made once, when first asked for."""

    image: torch.Tensor | None = None  # [3, H, W] uint8 RGB
    labels: torch.Tensor | None = None  # [H, W] uint8, 255 = unlabelled
    label_set: LabelSet | None = None
    source: Callable[..., Segments] | None = None
    score: torch.Tensor | None = None  # [H, W], where promptable sources look
    threshold: float = math.nan  # suspicious from here on, if it is finite
    camera: str = ''  # whose image it is
    resources: Resources | None = None  # of the pipeline
    named: list[NamedMask] = field(default_factory=list)  # what a refinement can name
    notes: list[str] = field(default_factory=list)  # one line per step that failed
    _made: Segments | None = field(default=None, init=False, repr=False)

    def segments(self) -> Segments:
        """Return the segments of this image, or raise ValueError without a source."""
        if self._made is None:
            if self.source is None or self.image is None:
                raise ValueError(
                    'expected class-agnostic segments, got none; '
                    'choose a segment source or hand in masks'
                )
            self._made = self.source(self.image, *self._prompts())
        return self._made

    def _prompts(self) -> tuple[Prompts, ...]:
        if self.score is None:
            return ()
        threshold = self.threshold if math.isfinite(self.threshold) else math.nan
        return (Prompts(score=self.score, threshold=threshold),)


@dataclass(frozen=True)
class Refinement:
    """One refinement: score [H, W] float and context in, score of the same shape and dtype out.

    `source` tells where it comes from, `needs_segments` whether it asks for segments,
    `needs_labels` whether for labels and drivable classes, `load` brings what it runs onto the
    device.
    """

    function: Function
    source: str
    needs_segments: bool = False
    needs_labels: bool = False
    load: Callable[[Any, Resources], None] | None = None

    def __call__(
        self, score: torch.Tensor, context: RefineContext, options: object
    ) -> torch.Tensor:
        """Return the refined score; half precision is computed and returned as float32."""
        if score.ndim != 2 or min(score.shape) < 1:
            raise ValueError(f'expected a score [H,W], got {tuple(score.shape)}')
        if score.dtype not in (torch.float32, torch.float64):
            score = score.float()
        return self.function(score, context, options)


REFINEMENTS: Registry[Refinement] = Registry('refinement')


def refinement(
    name: str,
    options: type = NoOptions,
    *,
    source: str,
    needs_segments: bool = False,
    needs_labels: bool = False,
    load: Callable[[Any, Resources], None] | None = None,
) -> Callable[[Function], Refinement]:
    """Return a decorator that registers a function (score, context, options) -> score."""

    def announce(function: Function) -> Refinement:
        return REFINEMENTS.register(name, options)(
            Refinement(function, source, needs_segments, needs_labels, load)
        )

    return announce
