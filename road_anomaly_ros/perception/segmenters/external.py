# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""No network: the anomaly map comes from elsewhere, one per image, to be refined and segmented."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch

from road_anomaly_ros.perception.arrays import as_tensor
from road_anomaly_ros.perception.contract import LabelSet, MapOutput
from road_anomaly_ros.perception.model_files import reason
from road_anomaly_ros.perception.registry import option
from road_anomaly_ros.perception.segmenters._images import check_image

SOURCE = 'any method outside'
NEEDS = 'an anomaly map per image'

MAP_SUFFIXES = ('.npy', '.npz', '.png', '.tif', '.tiff')


@dataclass(frozen=True)
class Options:
    """What a user may say about foreign anomaly maps."""

    invert: bool = option(
        False, 'The maps say how normal a pixel is: their negative is the score.', live=False
    )


class ExternalMaps:
    """Anomaly maps in the chain's own form; there are no known classes."""

    kind: Literal['map'] = 'map'
    labels = LabelSet((), ())
    model_dir: Path | None = None
    weights: Path | None = None
    feature_maps: tuple[str, ...] = ()

    def __init__(self, device: torch.device, options: Options) -> None:
        self._device, self._invert = device, options.invert

    @torch.inference_mode()
    def __call__(
        self, images: Sequence[torch.Tensor], maps: Sequence[torch.Tensor | np.ndarray]
    ) -> list[MapOutput]:
        """Return one output per uint8 RGB image [3,H,W] and map [h,w].

        Maps are arrays or tensors: uint8 and uint16 are read as 0 .. 1, floats as they are.
        ValueError where their number or shape, TypeError where their kind is another.
        """
        if len(images) != len(maps):
            raise ValueError(
                f'expected one anomaly map per image, got {len(maps)} maps for '
                f'{len(images)} images'
            )
        sign = -1.0 if self._invert else 1.0
        return [
            MapOutput(
                sign * _score(values, self._device),
                (int(check_image(image).shape[1]), int(image.shape[2])),
            )
            for image, values in zip(images, maps, strict=True)
        ]


def _score(values: torch.Tensor | np.ndarray, device: torch.device) -> torch.Tensor:
    if isinstance(values, np.ndarray):
        if values.dtype.newbyteorder('=') == np.uint16:  # not every operation of torch knows it
            values = values.astype(np.float32) / np.float32(65535)
        values = as_tensor(values)
    if not isinstance(values, torch.Tensor):
        raise TypeError(f'expected an anomaly map as array or tensor, got {type(values).__name__}')
    if values.ndim != 2 or min(values.shape) < 1:
        raise ValueError(f'expected an anomaly map [h,w], got {tuple(values.shape)}')
    if values.dtype == torch.uint8:
        return values.to(device).float() / 255
    if not values.is_floating_point():
        raise TypeError(f'expected an anomaly map of uint8, uint16 or floats, got {values.dtype}')
    return values.to(device, torch.float32)


def read_map(path: str | Path) -> np.ndarray:
    """Return the anomaly map [h,w] of a .npy, .npz or grey 8- or 16-bit image file, as stored.

    Of several maps in a .npz it is the one called 'score'. ValueError, in one line, where there is
    no such file or it holds something else.
    """
    path = Path(path)
    try:
        if path.suffix.lower() == '.npz':
            with np.load(path, allow_pickle=False) as arrays:
                maps = [name for name in arrays.files if arrays[name].ndim > 1]
                values = arrays[maps[0]] if len(maps) == 1 else arrays['score']
        elif path.suffix.lower() == '.npy':
            values = np.load(path, allow_pickle=False)
        else:
            values = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    except Exception as error:  # readers of npy, zip, ... raise their own types
        raise ValueError(f'{path} could not be read as an anomaly map: {reason(error)}') from None
    values = np.squeeze(values) if isinstance(values, np.ndarray) else values
    if not isinstance(values, np.ndarray) or values.ndim != 2:
        raise ValueError(f'{path}: expected an anomaly map of one channel (npy, npz, grey image)')
    return values


def load(
    model: str, *, device: torch.device, precision: torch.dtype, options: Options
) -> ExternalMaps:
    """Return the source; `model` and `precision` mean nothing to it."""
    return ExternalMaps(device, options)
