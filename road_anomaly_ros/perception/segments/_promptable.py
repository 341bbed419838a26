# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Masks from models that answer to points: prompts in batches, filtered on the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch.nn import functional as F
from torchvision.ops import nms
from torchvision.transforms.v2 import functional as vision

from road_anomaly_ros.perception.contract import PipelineError, Prompts, Segments
from road_anomaly_ros.perception.model_files import weight_files
from road_anomaly_ros.perception.registry import option
from road_anomaly_ros.perception.resources import Resources, stamp
from road_anomaly_ros.perception.segments._prompts import choose_points, grid_points

Size = tuple[int, int]
Network = TypeVar('Network')
Embedding = TypeVar('Embedding')


@dataclass(frozen=True)
class PromptOptions:
    """What every promptable source lets a user choose."""

    mode: str = option(
        'guided',
        "'guided' asks only where the score is suspicious, 'everything' on a grid.",
        choices=('guided', 'everything'),
    )
    max_prompts: int = option(
        32, "Most points asked per image in the mode 'guided'.", low=1, high=1024
    )
    points_per_side: int = option(
        32, "Points per side of the grid in the mode 'everything'.", low=1, high=128
    )
    prompt_batch: int = option(64, 'Points that go through the decoder at once.', low=1, high=1024)
    min_quality: float = option(
        0.8, 'Least quality that the model itself gives a mask.', low=0.0, high=1.0
    )
    min_stability: float = option(
        0.9,
        'Least overlap of a mask with itself when its threshold moves by one up and down.',
        low=0.0,
        high=1.0,
    )
    max_overlap: float = option(
        0.7, 'Boxes that overlap more are one object (IoU).', low=0.0, high=1.0
    )
    max_masks: int = option(256, 'Most masks handed on, the best by quality.', low=1, high=4096)
    mask_side: int = option(
        512, 'Longer side of the masks handed on.', low=16, high=4096, unit='px'
    )


class Backend(Protocol[Embedding]):
    """A promptable network with a square input of `side` pixels."""

    side: int
    stretches: bool  # the image fills the square; else it keeps its aspect
    mean: tuple[float, float, float]  # of values 0..255
    std: tuple[float, float, float]

    def embed(self, pixels: torch.Tensor) -> Embedding:
        """Return what `decode` needs of the normalised input [1,3,side,side]."""

    def decode(
        self, embedding: Embedding, points: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits [N,M,h,w] over the square and qualities [N,M] of points [N,2] in it."""


class PromptedSegments:
    """Class-agnostic masks of an image through a promptable network."""

    of_image_only = False

    def __init__(
        self, backend: Backend[Any], options: PromptOptions, device: torch.device
    ) -> None:
        self._backend, self._options, self._device = backend, options, device
        self._mixed = device.type == 'cuda'

    @torch.inference_mode()
    def __call__(
        self, image: torch.Tensor, prompts: Prompts | torch.Tensor | None = None
    ) -> Segments:
        """Return masks [N,h,w] of a uint8 image [3,H,W], best first, with their qualities.

        `prompts` are points [N,2] (x, y) or a score [H,W], plain or as `Prompts`. In the mode
        'guided' no prompt gives no mask, and the network does not run; 'everything' ignores them.
        """
        size = size_of(image)
        target = limited(size, self._options.mask_side)
        points = points_for(prompts, size, self._options, self._device)
        if len(points) == 0:
            return Segments(
                masks=torch.zeros(0, *target, dtype=torch.bool, device=image.device),
                scores=torch.zeros(0, device=image.device),
            )
        masks, scores = self._ask(image.to(self._device), points, size, target)
        return Segments(masks=masks.to(image.device), scores=scores.to(image.device))

    def _ask(
        self, image: torch.Tensor, points: torch.Tensor, size: Size, target: Size
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return masks [N,h,w] and scores [N]; never more than a batch and the kept are held."""
        backend, options = self._backend, self._options
        content = self._content(size)
        scale = points.new_tensor([content[1] / size[1], content[0] / size[0]])
        kept: tuple[torch.Tensor, ...] = ()
        with torch.autocast(self._device.type, torch.float16, enabled=self._mixed):
            embedding = backend.embed(self._input(image, content))
            for part in (points * scale).split(options.prompt_batch):
                logits, quality = backend.decode(embedding, part)
                extent = [
                    length * filled / backend.side
                    for length, filled in zip(logits.shape[-2:], content, strict=True)
                ]
                found = self._good_ones(logits, quality, extent)
                both = tuple(map(torch.cat, zip(kept, found, strict=True))) if kept else found
                chosen = nms(both[2], both[1], options.max_overlap)[: options.max_masks]
                kept = tuple(values[chosen] for values in both)
        logits, scores, _ = kept
        grid = _sampling_grid(extent, target, logits)
        return torch.cat([_sample(part, grid) > 0 for part in logits.split(64)]), scores

    def _content(self, size: Size) -> Size:
        """Return the part (h, w) of the square input that the image fills."""
        side = self._backend.side
        if self._backend.stretches:
            return side, side
        scale = side / max(size)
        return (max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5)))

    def _input(self, image: torch.Tensor, content: Size) -> torch.Tensor:
        side = self._backend.side
        pixels = vision.resize(image[None], list(content), antialias=True).float()
        mean, std = (
            pixels.new_tensor(values).view(-1, 1, 1)
            for values in (self._backend.mean, self._backend.std)
        )
        return F.pad((pixels - mean) / std, (0, side - content[1], 0, side - content[0]))

    def _good_ones(
        self, logits: torch.Tensor, quality: torch.Tensor, extent: Sequence[float]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return logits [n,h,w], scores [n] and boxes [n,4] of what is good; padding is cut off.

        `extent` is the part of the logits that the image fills, in cells.
        """
        logits, quality = logits.flatten(0, 1).float(), quality.flatten().float()
        rows, columns = (math.ceil(cells) for cells in extent)
        good = quality >= self._options.min_quality
        logits, quality = logits[good, :rows, :columns], quality[good]
        areas, inner, outer = ((logits > level).sum((1, 2)) for level in (0.0, 1.0, -1.0))
        stable = (areas > 0) & (inner >= self._options.min_stability * outer)
        logits = logits[stable]
        return logits, quality[stable], _boxes(logits > 0)


def size_of(image: torch.Tensor) -> Size:
    """Return (H, W) of a uint8 RGB image [3,H,W]; ValueError for anything else."""
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3 or not image.numel():
        raise ValueError(
            f'expected an RGB image uint8 [3,H,W], got {image.dtype} {list(image.shape)}'
        )
    return int(image.shape[1]), int(image.shape[2])


def points_for(
    prompts: Prompts | torch.Tensor | None,
    size: Size,
    options: PromptOptions,
    device: torch.device,
) -> torch.Tensor:
    """Return the points x, y [N,2] to ask about in an image (H, W); ValueError without prompts."""
    if options.mode == 'everything':
        return grid_points(size, options.points_per_side, device)
    if prompts is None:
        raise ValueError(
            "expected a score or points for the mode 'guided', got none; choose mode 'everything'"
        )
    if isinstance(prompts, torch.Tensor):
        points = prompts.ndim == 2 and prompts.shape[1] == 2 and prompts.shape != size
        prompts = Prompts(points=prompts) if points else Prompts(score=prompts)
    return choose_points(prompts, size, options.max_prompts).to(device)


def limited(size: Size, longest: int) -> Size:
    """Return `size` (H, W), reduced so that the longer side is at most `longest`."""
    share = min(1.0, longest / max(size))
    return max(1, round(share * size[0])), max(1, round(share * size[1]))


def _sampling_grid(extent: Sequence[float], target: Size, logits: torch.Tensor) -> torch.Tensor:
    """Return where in logits [n,h,w] the cells of a map of the image lie, [1,H,W,2] in -1 .. 1."""
    y, x = (
        ((torch.arange(count, device=logits.device) + 0.5) / count) * (cells / length) * 2 - 1
        for count, cells, length in zip(target, extent, logits.shape[1:], strict=True)
    )
    return torch.stack(torch.meshgrid(x, y, indexing='xy'), -1)[None]


def _sample(logits: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    return F.grid_sample(
        logits[None], grid, mode='bilinear', padding_mode='border', align_corners=False
    )[0]


def _boxes(masks: torch.Tensor) -> torch.Tensor:
    """Return boxes x0, y0, x1, y1 float32 [N,4] around non-empty masks bool [N,h,w]."""
    found = []
    for axis in (1, 2):
        line = masks.any(axis).float()
        low = line.argmax(1)
        found.append((low, line.shape[1] - line.flip(1).argmax(1)))
    (left, right), (top, bottom) = found
    return torch.stack([left, top, right, bottom], 1).float()


def shared_network(
    resources: Resources | None, name: str, source: Path, make: Callable[[], Network]
) -> Network:
    """Return what `make` reads from a file or directory; other options must not read it again."""
    if resources is None:
        return make()
    return resources.get('segments', (name, source, stamp(weight_files(source))), make)


def needs_weights(name: str, path: str, files: str) -> None:
    """Refuse an empty path at configure time: PipelineError with the remedy."""
    if not path.strip():
        raise PipelineError(
            f'segment source {name!r} needs weights; set '
            f'segment_sources.{name}.model to {files}, or choose '
            f'segments=felzenszwalb, which needs none'
        )
