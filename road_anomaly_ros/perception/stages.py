# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The intermediate pictures of one frame: what a score was made of, drawn when asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import torch

from road_anomaly_ros.perception import drawing
from road_anomaly_ros.perception.contract import MaskOutput, Segments, WindowedOutput
from road_anomaly_ros.perception.lettering import Canvas
from road_anomaly_ros.perception.resources import Resources
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
    """Pictures by the names of TEXTS, of one image [3, H, W] and its score before refinement.

    `output` is the network's, `s2` are the options of that scorer, whose three maps share one pass
    over it; `segments` makes the segments of the image, or hands out those that were made.
    """

    def __init__(
        self,
        image: torch.Tensor,
        score: torch.Tensor,
        display: tuple[float, float],
        output: Any,
        s2: Any,
        segments: Callable[[], Segments],
        resources: Resources | None = None,
    ) -> None:
        self._image = image
        self._score = score
        self._display = display
        self._output = output
        self._s2 = s2
        self._segments = segments
        self._resources = resources

    @cached_property
    def maps(self) -> Mapping[str, torch.Tensor]:
        """Rejection, selection and fusion, [H, W] in 0..1; ValueError for pixel models."""
        if not isinstance(self._output, (MaskOutput, WindowedOutput)):
            raise ValueError(NO_QUERIES)
        with torch.inference_mode():
            found = evaluate(
                self._output,
                's2',
                self._s2,
                extras=tuple(MAPS.values()),
                resources=self._resources,
            ).extras
        return {name: found[extra] for name, extra in MAPS.items()}

    @cached_property
    def index(self) -> Canvas:
        """The number of the segment that is shown at each pixel, int32 [H, W], -1 for none."""
        with torch.inference_mode():
            shown = partition(self._segments()).cpu().numpy()
        height, width = self._image.shape[1:]
        return np.asarray(cv2.resize(shown, (width, height), interpolation=cv2.INTER_NEAREST))

    def range(self, name: str) -> tuple[float, float]:
        """Return the values that are dark and bright in a picture of a score."""
        return (0.0, 1.0) if name in MAPS else self._display

    def draw(self, name: str) -> Canvas:
        """Return one picture, uint8 RGB [H, W, 3]; ValueError where the chain cannot make it."""
        if name == SEGMENTED:
            return self._draw_segments()
        score = self._score if name == SCORE else self.maps[name]
        return drawing.heatmap(score, self.range(name))

    def _draw_segments(self) -> Canvas:
        index = self.index
        picture = np.ascontiguousarray(self._image.permute(1, 2, 0).cpu().numpy())
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
