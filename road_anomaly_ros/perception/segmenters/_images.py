# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What every network needs before its first layer: checked batches, size, normalisation."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.transforms.v2 import functional as vision

from road_anomaly_ros.perception.contract import PipelineError
from road_anomaly_ros.perception.model_files import reason

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Of 0..255 after normalisation: 4 as on ImageNet, 1 for 0..1, 255 for networks that take bytes.
_LEAST_SPAN, _LARGEST_SPAN = 0.05, 300.0
_RESAMPLE = {
    0: vision.InterpolationMode.NEAREST_EXACT,
    2: vision.InterpolationMode.BILINEAR,
    3: vision.InterpolationMode.BICUBIC,
}

Size = tuple[int, int]


def check_image(image: Any) -> torch.Tensor:
    """Return `image` if it is a uint8 RGB tensor [3,H,W]; else TypeError or ValueError."""
    if not isinstance(image, torch.Tensor):
        raise TypeError(f'expected a uint8 tensor [3,H,W], got {type(image).__name__}')
    if image.dtype != torch.uint8:
        raise TypeError(f'expected a uint8 tensor [3,H,W] of 0..255, got {image.dtype}')
    if image.ndim != 3 or image.shape[0] != 3 or min(image.shape[1:]) < 1:
        raise ValueError(f'expected an RGB tensor [3,H,W], got {tuple(image.shape)}')
    return image


def same_size_batches(images: Sequence[torch.Tensor]) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Yield (positions, batch [B,3,H,W]) for each size among the checked `images`."""
    groups: dict[Size, list[int]] = {}
    for position, image in enumerate(images):
        height, width = check_image(image).shape[1:]
        groups.setdefault((height, width), []).append(position)
    for positions in groups.values():
        chosen = [images[position] for position in positions]
        # Of one image a view: resizing takes an eighth of the time while channels lie innermost.
        yield positions, torch.stack(chosen) if len(chosen) > 1 else chosen[0][None]


def _refuse_meaningless(preprocessing: Preprocessing) -> None:
    """Raise ValueError where no picture would reach the network in a range that says anything."""
    mean, std = preprocessing.mean, preprocessing.std
    if len(mean) != 3 or len(std) != 3:
        raise ValueError(
            f'expected image_mean and image_std of three channels, got {len(mean)} and {len(std)}'
        )
    if not all(math.isfinite(value) for value in (*mean, *std)) or min(std) <= 0:
        raise ValueError(
            f'expected finite image_mean, image_std above 0 and rescale_factor above '
            f'0, got {list(mean)} and {list(std)} of values 0..255'
        )
    spans = [255 / value for value in std]
    if not _LEAST_SPAN <= min(spans) <= max(spans) <= _LARGEST_SPAN:
        raise ValueError(
            f'pictures would span {min(spans):.3g} after do_rescale, image_mean and '
            'image_std, expected about 1 to 5; these do not fit together'
        )


@dataclass(frozen=True)
class Preprocessing:
    """From image to network input, as a preprocessor_config.json describes it."""

    rule: Mapping[str, int]  # as transformers names it: shortest_edge, ...
    only_shrink: bool = False  # smaller images keep their size
    divisor: int = 0  # stretched to sides that are its multiples
    padded: Size | None = None  # canvas with the image in its top left corner
    pad_divisor: int = 0  # or a canvas with sides that are its multiples
    resample: vision.InterpolationMode = vision.InterpolationMode.BILINEAR
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)  # of values 0..255
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    @classmethod
    def from_directory(
        cls, directory: Path, *, default: Mapping[str, Any], short_side: int = 0
    ) -> Preprocessing:
        """Read preprocessor_config.json; `short_side` > 0 replaces its size (long side: twice).

        PipelineError where the file is missing or says something that is not understood.
        """
        path = directory / 'preprocessor_config.json'
        try:
            stored = {**default, **json.loads(path.read_text(encoding='utf-8'))}
            if short_side:
                stored.update(
                    size={'shortest_edge': short_side, 'longest_edge': 2 * short_side},
                    pad_size=None,
                    do_resize=True,
                )
            return cls.from_stored(stored)
        except FileNotFoundError:
            raise PipelineError(
                f'no preprocessor_config.json in {directory}; expected the file '
                'that came with the model'
            ) from None
        except (OSError, KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise PipelineError(f'{path} is not understood: {reason(error)}') from None

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> Preprocessing:
        """Read the settings of an image processor of transformers from their names and values."""
        rescaled = stored.get('do_rescale', True)
        scale = 1.0 / stored.get('rescale_factor', 1 / 255) if rescaled else 1.0
        normal = stored.get('do_normalize', True)
        mean = stored.get('image_mean', IMAGENET_MEAN) if normal else (0.0, 0.0, 0.0)
        std = stored.get('image_std', IMAGENET_STD) if normal else (1.0, 1.0, 1.0)
        padding = stored.get('pad_size')
        preprocessing = cls(
            rule=_size_rule(stored) if stored.get('do_resize', True) else {},
            only_shrink=bool(stored.get('only_shrink', False)),
            divisor=int(stored.get('size_divisor', stored.get('size_divisibility')) or 0),
            padded=(int(padding['height']), int(padding['width'])) if padding else None,
            resample=_RESAMPLE[int(stored.get('resample', 2))],
            mean=tuple(float(value) * scale for value in mean),
            std=tuple(float(value) * scale for value in std),
        )
        preprocessing.net_size((64, 64))
        _refuse_meaningless(preprocessing)
        return preprocessing

    def padded_to(self, divisor: int) -> Preprocessing:
        """Return the same with a canvas whose sides are multiples of `divisor`."""
        return replace(self, pad_divisor=divisor)

    def net_size(self, size: Size) -> Size:
        """Return the (H, W) to which an image of (H, W) is resized, without padding."""
        if not self.rule:
            return size
        height, width = _resized(size, self.rule)
        if self.only_shrink and height * width > size[0] * size[1]:
            height, width = size
        return _round_up((max(1, height), max(1, width)), max(1, self.divisor))

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Return network input [B,3,h,w] float32 of a uint8 batch [B,3,H,W] on the same device."""
        size = self.net_size((batch.shape[-2], batch.shape[-1]))
        if size != tuple(batch.shape[-2:]):
            batch = vision.resize(batch, list(size), interpolation=self.resample, antialias=True)
        pixels = self.normalize(batch)
        canvas = self._canvas(size)
        return pixels if canvas is None else _pad(pixels, canvas)

    def _canvas(self, size: Size) -> Size | None:
        """Return the (H, W) to which a resized image of `size` is padded."""
        if self.padded is not None or not self.pad_divisor:
            return self.padded
        return _round_up(size, self.pad_divisor)

    def normalize(self, batch: torch.Tensor) -> torch.Tensor:
        """Return (batch - mean) / std as float32, [B,3,h,w] uint8 to [B,3,h,w]."""
        mean, std = _planes(self.mean, batch.device), _planes(self.std, batch.device)
        pixels = batch.to(torch.float32, memory_format=torch.contiguous_format)
        return pixels.sub_(mean).div_(std)

    def crop(self, maps: torch.Tensor, size: Size) -> torch.Tensor:
        """Return what belongs to the image out of maps [..., h, w] over the padded input."""
        height, width = self.net_size(size)
        canvas = self._canvas((height, width))
        if canvas is None:
            return maps
        rows = max(1, round(maps.shape[-2] * height / canvas[0]))
        columns = max(1, round(maps.shape[-1] * width / canvas[1]))
        return maps[..., :rows, :columns]


def _round_up(size: Size, step: int) -> Size:
    return math.ceil(size[0] / step) * step, math.ceil(size[1] / step) * step


def _planes(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    return torch.tensor(values).view(-1, 1, 1).to(device, non_blocking=True)


def _pad(pixels: torch.Tensor, canvas: Size) -> torch.Tensor:
    below, right = canvas[0] - pixels.shape[-2], canvas[1] - pixels.shape[-1]
    if min(below, right) < 0:
        raise PipelineError(
            f'pad_size {canvas} is smaller than the resized image '
            f'{tuple(pixels.shape[-2:])}; enlarge it in preprocessor_config.json'
        )
    return nn.functional.pad(pixels, (0, right, 0, below))


def _size_rule(stored: Mapping[str, Any]) -> dict[str, int]:
    size = stored['size']
    if isinstance(size, Mapping):
        rule = {key: int(value) for key, value in size.items() if value is not None}
    elif isinstance(size, (list, tuple)):
        rule = {'height': int(size[0]), 'width': int(size[1])}
    elif stored.get('default_to_square', False):
        rule = {'height': int(size), 'width': int(size)}
    else:
        rule = {'shortest_edge': int(size)}
    longest = stored.get('max_size', stored.get('_max_size'))
    if longest and 'shortest_edge' in rule:
        rule.setdefault('longest_edge', int(longest))
    if rule and min(rule.values()) < 1:
        raise ValueError(f'expected sizes of at least 1, got {rule}')
    return rule


def _resized(size: Size, rule: Mapping[str, int]) -> Size:
    height, width = size
    if 'shortest_edge' in rule:
        return _by_short_side(size, rule['shortest_edge'], rule.get('longest_edge'))
    if 'max_height' in rule and 'max_width' in rule:
        scale = min(rule['max_height'] / height, rule['max_width'] / width)
        return int(height * scale), int(width * scale)
    if 'height' in rule and 'width' in rule:
        return rule['height'], rule['width']
    raise ValueError(
        f'expected a size of shortest_edge, height and width, or max_height and '
        f'max_width, got {sorted(rule)}'
    )


def _by_short_side(size: Size, short: int, long: int | None) -> Size:
    """Scale so that the short side is `short`, or less where the long one would exceed `long`."""
    height, width = size
    wanted = float(short)
    if long is not None and max(size) / min(size) * short > long:
        wanted = long * min(size) / max(size)
        short = round(wanted)
    if height == width or min(size) == short:
        return (short, short) if height == width else size
    if width < height:
        return int(wanted * height / width), short
    return short, int(wanted * width / height)
