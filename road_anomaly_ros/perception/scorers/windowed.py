# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Accumulators of overlapping windows, averaged on the resized image before they are scored."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from road_anomaly_ros.perception import dense
from road_anomaly_ros.perception.contract import WindowedOutput
from road_anomaly_ros.perception.resources import Resources
from road_anomaly_ros.perception.scorers.base import Maps, Scorer
from road_anomaly_ros.perception.windows import merge_windows


def merged_source(
    output: WindowedOutput,
    method: Scorer,
    options: object,
    size: tuple[int, int],
    *,
    sanitized: bool,
    resources: Resources,
) -> tuple[dense.PlaneSource, dense.QueryVectors]:
    """Return the mean of what the windows accumulate at their own size, to be resized to `size`.

    The order is that of the original EoMT: logits are resized to the window, the semantic map is
    formed there, windows are averaged, the mean is resized. Counts of the frame are added up.
    """
    sources = [
        dense.MaskSource(window, window.image_size, sanitized=sanitized, resources=resources)
        for window in output.windows
    ]
    vectors = [method.prepare(source, options) for source in sources]
    found = [
        _planes(source, weights, method, options)
        for source, weights in zip(sources, vectors, strict=True)
    ]
    maps, names = [planes for planes, _ in found], found[0][1]
    merged = merge_windows(maps, output.offsets, output.scaled_size)
    repaired = torch.stack([source.sanitized for source in sources]).sum()
    frame = {
        name: torch.stack([weights.frame[name] for weights in vectors]).sum(0)
        for name in vectors[0].frame
    }
    return (
        dense.PlaneSource(merged, names, size, repaired, finite=sanitized),
        dense.QueryVectors(vectors[0].semantic, frame=frame),
    )


def _planes(
    source: dense.MaskSource, vectors: dense.QueryVectors, method: Scorer, options: object
) -> tuple[torch.Tensor, list[str]]:
    """Return what one window accumulates and what the method wants averaged besides, by name."""
    planes, names = source.planes(vectors, source.size)
    if not method.merged:
        return planes, names

    def epilogue(block: dense.Block) -> Maps:
        found = method.epilogue(block, options)
        return found if isinstance(found, Mapping) else {'score': found}

    _, maps = dense.run(source, vectors, epilogue, method.merged)
    return (
        torch.cat([planes, *(maps[name][None] for name in method.merged)]),
        [*names, *method.merged],
    )
