# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Class-agnostic segments that are strange as a whole: candidates for obstacles."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch

from road_anomaly_ros.perception.contract import Segments
from road_anomaly_ros.perception.evidence import least_area
from road_anomaly_ros.perception.object_options import COMPONENTS, ObjectOptions
from road_anomaly_ros.perception.objects import Proposals
from road_anomaly_ros.perception.refinements.cover import cover_of, nearest
from road_anomaly_ros.perception.resources import is_out_of_memory
from road_anomaly_ros.remarks import one_line

_BLOCK = 1 << 18  # pixels of the masks widened at once for their overlaps


def or_components(
    segments: Callable[[], Segments],
    score: torch.Tensor,
    *,
    threshold: float,
    options: ObjectOptions,
) -> tuple[ObjectOptions, Proposals | None, tuple[str, ...]]:
    """Return how obstacles are found, the proposals where they are asked for, and notes.

    A source of segments that fails must not cost the frame: components are taken instead. Raises
    only what means that the device is out of memory.
    """
    if options.mode == COMPONENTS:
        return options, None, ()
    try:
        return options, propose(segments(), score, threshold=threshold, options=options), ()
    except Exception as error:
        if is_out_of_memory(error):
            raise
        note = f'objects from segments skipped: {one_line(error)}'
        return dataclasses.replace(options, mode=COMPONENTS), None, (note,)


def propose(
    segments: Segments, score: torch.Tensor, *, threshold: float, options: ObjectOptions
) -> Proposals:
    """Return the segments of a score [H, W] whose mean is above `threshold`, strangest first.

    The mean is that of the finite scores inside; a segment without any counts as strange, as a
    pixel without a score does. Areas count pixels of the score, from `min_area` to
    `max_area_frac`. Of two masks with an IoU above `nms_iou` the stranger one stays, of equal ones
    the larger, then the earlier (the object level of UGainS).
    """
    size = (int(score.shape[0]), int(score.shape[1]))
    cover = cover_of(segments, size)
    if not cover.count:
        return Proposals.none()
    zero = score.new_zeros(())
    known, sums, _ = cover.sums(score, zero)
    area = cover.sums(torch.ones_like(score), zero)[0]
    mean = sums / known
    able = ~(mean <= threshold) & (area >= max(1.0, least_area(score.numel(), options)))
    able &= area <= options.max_area_frac * score.numel()
    chosen = able.nonzero().flatten()
    strangeness = mean[chosen].nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
    by_area = torch.argsort(area[chosen], stable=True, descending=True)
    chosen = chosen[by_area[torch.argsort(strangeness[by_area], stable=True, descending=True)]]
    if segments.index is not None:
        return _of_partition(segments.index, chosen, size)
    return _of_masks(segments, chosen, options.nms_iou, size)


def _of_partition(index: torch.Tensor, chosen: torch.Tensor, size: tuple[int, int]) -> Proposals:
    rank = torch.full((index.numel() + 1,), -1, device=index.device)
    rank[chosen] = torch.arange(len(chosen), device=index.device)
    number = index.long().clamp_max(index.numel())  # as the cover takes it, see there
    ranks = _resized(rank[number].where(index >= 0, -1), size).flatten()
    places = (ranks >= 0).nonzero().flatten()
    return Proposals(_host(ranks[places]), _host(places), len(chosen))


def _of_masks(
    segments: Segments, chosen: torch.Tensor, iou: float, size: tuple[int, int]
) -> Proposals:
    if segments.masks is None:
        raise ValueError('expected masks [N,h,w] or index [h,w], got neither')
    masks = segments.masks[chosen] > 0
    masks = _resized(masks[suppress(masks.flatten(1), iou)], size).flatten(1)
    rows, places = masks.nonzero(as_tuple=True)
    return Proposals(_host(rows), _host(places), len(masks))


def suppress(masks: torch.Tensor, iou: float) -> torch.Tensor:
    """Return which of the masks bool [N, P], best first, stay in a non-maximum suppression.

    A mask goes when a better one that stays overlaps it by more than `iou`. Each round settles at
    least one more mask, and most settle in the first.
    """
    shared = masks.new_zeros((len(masks), len(masks)), dtype=torch.float64)
    for part in masks.split(_BLOCK, dim=1):
        values = part.float()
        shared += values @ values.T
    area = shared.diagonal()
    rivals = (shared > iou * (area[:, None] + area - shared)).triu(1)
    stays = torch.ones(len(masks), dtype=torch.bool, device=masks.device)
    while True:
        after = ~(rivals & stays[:, None]).any(0)
        if torch.equal(after, stays):
            return stays
        stays = after


def _resized(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return maps [.., h, w] at `size` by nearest neighbour, as the means see them."""
    rows, columns = (
        nearest(length, given, maps.device)
        for length, given in zip(size, maps.shape[-2:], strict=True)
    )
    return maps.index_select(-2, rows).index_select(-1, columns)


def _host(values: torch.Tensor) -> np.ndarray:
    return values.cpu().numpy()
