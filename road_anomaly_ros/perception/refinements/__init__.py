# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Refinements: a score and what is known of its image in, a better score out; chained by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from road_anomaly_ros.perception import naming
from road_anomaly_ros.perception.arrays import as_tensor
from road_anomaly_ros.perception.contract import LabelSet, Segments
from road_anomaly_ros.perception.refinements import filters, segmentwise, vlm_points
from road_anomaly_ros.perception.refinements.base import REFINEMENTS, RefineContext, Refinement
from road_anomaly_ros.perception.refinements.cover import check_index
from road_anomaly_ros.perception.registry import build_options

__all__ = [
    'REFINEMENTS',
    'RefineContext',
    'Refinement',
    'check',
    'filters',
    'refine',
    'segmentwise',
    'vlm_points',
]

Map = torch.Tensor | np.ndarray


def check(name: str, label_set: LabelSet) -> None:
    """Raise ValueError where refinement `name` cannot work with the classes of a model."""
    if REFINEMENTS[name].make.needs_labels and not label_set.drivable:
        raise ValueError(
            f'refinement {name!r} expects drivable classes, the model has none; '
            f'leave it out of refinements'
        )


def refine(
    name: str,
    score: Map,
    masks: Map | Segments | None = None,
    *,
    labels: Map | None = None,
    drivable: Sequence[int] = (),
    **options: object,
) -> Map:
    """Refine one score map by the refinement `name`; higher stays stranger.

    `score` [H, W] float; `masks` [N, h, w] bool (may overlap), [h, w] int (a partition, -1 in
    none) or Segments, at any resolution over the same image; `labels` [H, W] uint8 and `drivable`
    class ids for `road_prior`. Tensors give a tensor on the score's device, arrays an array, in
    the score's dtype (half precision becomes float32). Options go by name, such as
    `refine('oasc', score, masks, order='smallest_wins')`.

    Raises ValueError for unknown names, options out of range, wrong shapes, missing masks or
    labels.
    """
    entry = REFINEMENTS[name]
    chosen: Any = build_options(entry.options, options, naming.prefix('refinement', name))
    values = as_tensor(score)
    context = RefineContext(image=values)
    if masks is not None:
        context.source = lambda _: _segments(masks, values.device)
    if labels is not None:
        context.labels = as_tensor(labels).to(values.device)
        count = max(drivable, default=-1) + 1
        context.label_set = LabelSet(('',) * count, ((0, 0, 0),) * count, tuple(drivable))
    refined = entry.make(values, context, chosen)
    if refined.data_ptr() == values.data_ptr():  # nothing to refine; the result is the caller's
        refined = refined.clone()
    return refined if isinstance(score, torch.Tensor) else refined.numpy()


def _segments(masks: Map | Segments, device: torch.device) -> Segments:
    if isinstance(masks, Segments):
        return masks
    given = as_tensor(masks).to(device)
    if given.ndim == 2 and given.dtype != torch.bool and not given.is_floating_point():
        index = given.long()
        check_index(index)
        return Segments(index=index)
    return Segments(masks=given)
