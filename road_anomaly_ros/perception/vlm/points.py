# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""From a picture to named masks: ask, read, prompt the segments at the points."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch

from road_anomaly_ros.perception.contract import Prompts, Segments
from road_anomaly_ros.perception.vlm.answers import PROMPT, Named, parse
from road_anomaly_ros.perception.vlm.model import Asked
from road_anomaly_ros.remarks import Remark


class Unreadable(ValueError):
    """An answer that says neither what is there nor that nothing is."""


@dataclass(frozen=True)
class NamedMask:
    """A thing that does not belong there; `mask` [H, W] bool on the image's device."""

    name: str
    mask: torch.Tensor


def find(
    image: torch.Tensor, model: Asked, source: Callable[..., Segments]
) -> tuple[NamedMask, ...]:
    """Return what a model names in an image uint8 [3, H, W], each with the segment it points at.

    Lines of the answer that cannot be read, and points without a segment, are warned of.
    Raises Unreadable for an answer without any line that can be read.
    """
    size = int(image.shape[1]), int(image.shape[2])
    answer = parse(model.ask(image.permute(1, 2, 0).cpu().numpy(), PROMPT), size)
    if answer.refused and not answer.things:
        raise Unreadable(answer.refused[0])
    for line in answer.refused:
        warnings.warn(f'vlm_points: {line}', Remark, stacklevel=2)
    if not answer.things:
        return ()
    points = torch.tensor(
        [[thing.x * (size[1] - 1), thing.y * (size[0] - 1)] for thing in answer.things],
        device=image.device,
    )
    segments = source(image, Prompts(points=points))
    found = [_at(segments, thing, size) for thing in answer.things]
    for thing, item in zip(answer.things, found, strict=True):
        if item is None:
            warnings.warn(f'vlm_points: no segment at {thing.name}', Remark, stacklevel=2)
    return tuple(item for item in found if item is not None)


def _at(segments: Segments, thing: Named, size: tuple[int, int]) -> NamedMask | None:
    """Return the best segment that holds the point of a thing, None where none does."""
    planes = segments.masks if segments.index is None else segments.index[None]
    if planes is None or not len(planes):
        return None
    height, width = planes.shape[-2:]
    row, column = round(thing.y * (height - 1)), round(thing.x * (width - 1))
    if segments.index is not None:
        number = segments.index[row, column]
        mask = (segments.index == number) & (number >= 0)
    else:
        holding = planes[:, row, column].nonzero().flatten()
        quality = segments.scores
        best = holding if quality is None else holding[quality[holding].argsort(descending=True)]
        mask = planes[best[0]] if len(best) else planes.new_zeros(height, width)
    if not bool(mask.any()):
        return None
    resized = torch.nn.functional.interpolate(mask[None, None].float(), size, mode='nearest')
    return NamedMask(thing.name, resized[0, 0] > 0)
