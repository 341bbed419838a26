# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Camera images for segment sources that compute on the CPU, and the sources without weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from road_anomaly_ros.perception.arrays import moved
from road_anomaly_ros.perception.contract import Prompts, Segments


class Partition:
    """An image cut into regions by `cut`, an RGB image uint8 [h, w, 3] in, numbers [h, w] out.

    It computes on the CPU, on an image of at most `max_side`, and answers on the image's device.
    """

    of_image_only = True

    def __init__(self, cut: Callable[[NDArray[np.uint8]], NDArray[Any]], max_side: int) -> None:
        self._cut, self._max_side = cut, max_side

    def __call__(self, image: torch.Tensor, prompts: Prompts | None = None) -> Segments:
        """Return the segments of a uint8 [3, H, W] image as an index; prompts are not needed."""
        index = self._cut(reduced(image, self._max_side)).astype(np.int32, copy=False)
        return Segments(index=moved(torch.from_numpy(index), image.device))


def reduced(image: torch.Tensor, max_side: int) -> NDArray[np.uint8]:
    """Return a [3, H, W] uint8 image as an array [h, w, 3], longer side at most `max_side`.

    Pixels are averaged; from a GPU only the reduced image is copied. ValueError for other inputs.
    """
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3 or not image.numel():
        raise ValueError(
            f'expected an RGB image uint8 [3,H,W], got {image.dtype} {list(image.shape)}'
        )
    height, width = image.shape[1:]
    share = min(1.0, max_side / max(height, width))
    size = max(1, round(share * height)), max(1, round(share * width))
    if image.device.type != 'cpu':
        if size != (height, width):
            image = functional.interpolate(image[None].float(), size, mode='area')[0].round_()
        return image.to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy()
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    if size == (height, width):
        return pixels
    return np.asarray(cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)
