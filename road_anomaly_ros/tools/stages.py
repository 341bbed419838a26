# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The intermediate pictures of one frame: what a score was made of, drawn when asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cached_property

import cv2
import numpy as np
import torch

from road_anomaly_ros.perception import drawing
from road_anomaly_ros.perception.chain import Chain
from road_anomaly_ros.perception.contract import Output, Segments
from road_anomaly_ros.perception.lettering import Canvas
from road_anomaly_ros.perception.refinements import RefineContext
from road_anomaly_ros.perception.scorers import evaluate

SCORE, SEGMENTED = 'score', 'segments'
MAPS = {'rejection': 's_reject', 'selection': 's_accept', 'fused': 's_fuse'}
PAPER = '"Zero-Shot Anomaly Segmentation via Query-Level Uncertainty Analysis"'
TEXTS: Mapping[str, str] = {
    'rejection': f'Rejection: no query is sure of a known class here (eq. 1 of {PAPER}).',
    'selection': f'Selection: the queries that cover this are undecided (eq. 9 of {PAPER}).',
    'fused': f'Fused: rejection and selection together (eq. 10 of {PAPER}).',
    SCORE: 'The chosen score before refinement.',
    SEGMENTED: 'Class-agnostic segments.',
}
NO_QUERIES = 'this model gives no queries: no rejection, no selection'


class Stages:
    """Pictures by the names of TEXTS, of one image and its score before refinement.

    The three maps of the scorer `s2` share one pass over the network's output; segments that were
    made for the frame are shown, others made now.
    """

    def __init__(self, chain: Chain, context: RefineContext, output: Output) -> None:
        self._chain, self._context, self._output = chain, context, output

    @cached_property
    def maps(self) -> Mapping[str, torch.Tensor]:
        """Rejection, selection and fusion, [H, W] in 0..1; ValueError for pixel models."""
        if self._output.kind != 'mask':
            raise ValueError(NO_QUERIES)
        options = self._chain.config.options('scorer', 's2')
        with torch.inference_mode():
            found = evaluate(
                self._output,
                's2',
                dataclasses.replace(options, stage='fuse'),
                extras=tuple(MAPS.values()),
                resources=self._chain.resources,
            ).extras
        return {name: found[extra] for name, extra in MAPS.items()}

    @cached_property
    def index(self) -> Canvas:
        """The number of the segment that is shown at each pixel, int32 [H, W], -1 for none."""
        with torch.inference_mode():
            if self._context.source is None:
                self._context.source = self._chain.any_segment_source()
            shown = partition(self._context.segments()).cpu().numpy()
        height, width = self._context.image.shape[1:]
        return np.asarray(cv2.resize(shown, (width, height), interpolation=cv2.INTER_NEAREST))

    def range(self, name: str) -> tuple[float, float]:
        """Return the values that are dark and bright in a picture of a score."""
        return (0.0, 1.0) if name in MAPS else self._chain.levels.display

    def draw(self, name: str) -> Canvas:
        """Return one picture, uint8 RGB [H, W, 3]; ValueError where the chain cannot make it."""
        if name == SEGMENTED:
            return self._draw_segments()
        score = self._context.score if name == SCORE else self.maps[name]
        return drawing.heatmap(score, self.range(name))

    def _draw_segments(self) -> Canvas:
        index = self.index
        picture = np.ascontiguousarray(self._context.image.permute(1, 2, 0).cpu().numpy())
        colors = np.random.default_rng(0).integers(40, 256, (int(index.max()) + 2, 3), np.uint8)
        colors[0] = 0
        pixels = cv2.addWeighted(picture, 0.55, colors[index + 1], 0.45, 0)
        edges = np.zeros(index.shape, bool)
        edges[:, 1:] |= index[:, 1:] != index[:, :-1]
        edges[1:] |= index[1:] != index[:-1]
        pixels[edges] = 255
        return np.asarray(pixels, np.uint8)


def partition(segments: Segments) -> torch.Tensor:
    """Return the segment shown at each pixel, int32 [h, w]: the smallest of several, -1 of none.

    Of equal ones the later is shown.
    """
    if segments.index is not None:
        return segments.index.int()
    masks = segments.masks if segments.masks is not None else torch.zeros(0, 1, 1)
    masks = masks > 0
    order = torch.argsort(masks.sum((1, 2)), stable=True, descending=True)
    rank = torch.zeros_like(order).scatter_(
        0, order, torch.arange(1, len(order) + 1, device=order.device)
    )
    if not len(order):
        return torch.full(masks.shape[1:], -1, dtype=torch.int32, device=masks.device)
    top = (masks.to(torch.int32) * rank.int()[:, None, None]).amax(0)
    shown = torch.cat((order.new_full((1,), -1), order)).int()
    return shown[top.long()]
