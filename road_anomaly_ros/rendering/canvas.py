# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The picture under construction: colour, surface code and depth, painted back to front."""

from __future__ import annotations

import cv2
import numpy as np

from road_anomaly_ros.rendering.textures import Texture

# The train ids of Cityscapes, in their order.
(
    ROAD,
    SIDEWALK,
    BUILDING,
    WALL,
    FENCE,
    POLE,
    TRAFFIC_LIGHT,
    TRAFFIC_SIGN,
    VEGETATION,
    TERRAIN,
    SKY,
    PERSON,
    RIDER,
    CAR,
    TRUCK,
    BUS,
    TRAIN,
    MOTORCYCLE,
    BICYCLE,
) = range(19)
UNLABELLED = 255

_FLAGS = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP


def surface_code(label: int, instance: int = 0) -> int:
    """Label and obstacle id in one number, as the code plane stores it."""
    return label + (instance << 8)


class Canvas:
    """Colour uint8 [H, W, 3], codes int32 [H, W] and depth float32 [H, W] of one frame.

    A layer covers what was painted before it by its alpha; code and depth change where that
    alpha is at least one half, so that a mixed pixel carries the label of its majority.
    """

    def __init__(self, width: int, height: int) -> None:
        """Start with black sky."""
        self.width, self.height = width, height
        self.color = np.zeros((height, width, 3), np.uint8)
        self.codes = np.full((height, width), surface_code(SKY), np.int32)
        self.depth = np.full((height, width), np.inf, np.float32)
        self._columns = np.arange(width, dtype=np.float32)
        self._rows = np.arange(height, dtype=np.float32)

    def _window(self, low: np.ndarray, high: np.ndarray) -> tuple[int, int, int, int] | None:
        """Pixels between two corners, cut to the frame: left, top, right, bottom."""
        left, top = max(0, int(np.floor(low[0]))), max(0, int(np.floor(low[1])))
        right = min(self.width, int(np.ceil(high[0])) + 1)
        bottom = min(self.height, int(np.ceil(high[1])) + 1)
        return (left, top, right, bottom) if right > left and bottom > top else None

    def quad(
        self,
        texture: Texture,
        corners: np.ndarray,
        scale: tuple[float, float],
        plane: np.ndarray,
        code: int,
        shade: float,
        span: tuple[float, float],
    ) -> None:
        """Paint a texture on a plane seen in perspective.

        corners: pixels [4, 2] of top left, top right, bottom right, bottom left; scale: mean
        width and height in pixels; plane: (a, b, c) with 1/Z = a u + b v + c; span: the part
        of the texture's width that is seen, in [0, 1].
        """
        window = self._window(corners.min(0), corners.max(0))
        if window is None:
            return
        left, top, right, bottom = window
        pixels = texture.level_for(
            texture.width * (span[1] - span[0]) / scale[0], texture.height / scale[1]
        )
        rows, columns = pixels.shape[:2]
        first, last = span[0] * columns - 0.5, span[1] * columns - 0.5
        target = np.array(
            [[first, -0.5], [last, -0.5], [last, rows - 0.5], [first, rows - 0.5]], np.float32
        )
        source = (corners - (left, top)).astype(np.float32)
        transform = cv2.getPerspectiveTransform(source, target)
        layer = cv2.warpPerspective(pixels, transform, (right - left, bottom - top), flags=_FLAGS)
        inverse = self._columns[left:right] * plane[0] + (
            self._rows[top:bottom, None] * plane[1] + plane[2]
        )
        np.reciprocal(np.maximum(inverse, 1e-4, out=inverse), out=inverse)
        self._blend(window, layer, inverse, code, shade)

    def board(
        self,
        texture: Texture,
        low: np.ndarray,
        high: np.ndarray,
        depth: np.ndarray,
        code: int,
        shade: float,
        part_code: int | None = None,
    ) -> None:
        """Paint a texture on an upright rectangle from `low` to `high` (u, v pixels).

        depth: float32 [H], the depth of the board at every image row; part_code: what the
        texture's part stores instead of `code`, where it has one.
        """
        window = self._window(low, high)
        size = high - low
        if window is None or min(size) < 0.3:
            return
        left, top, right, bottom = window
        pixels = texture.level_for(texture.width / size[0], texture.height / size[1])
        step = np.array([pixels.shape[1], pixels.shape[0]]) / size
        offset = (np.array([left, top]) - low) * step - 0.5
        transform = np.array([[step[0], 0.0, offset[0]], [0.0, step[1], offset[1]]])
        layer = cv2.warpAffine(pixels, transform, (right - left, bottom - top), flags=_FLAGS)
        self._blend(window, layer, depth[top:bottom, None], code, shade)
        part = texture.part_like(pixels)
        if part is not None and part_code is not None:
            shown = cv2.warpAffine(part, transform, (right - left, bottom - top), flags=_FLAGS)
            # The part's share of a pixel against that of the rest of the figure in it.
            inside = (layer[..., 3] >= 128) & (2 * shown.astype(int) >= layer[..., 3])
            np.copyto(self.codes[top:bottom, left:right], part_code, where=inside)

    def _blend(
        self,
        window: tuple[int, int, int, int],
        layer: np.ndarray,
        depth: np.ndarray,
        code: int,
        shade: float,
    ) -> None:
        """Put a premultiplied layer uint8 [h, w, 4] over the window."""
        left, top, right, bottom = window
        alpha = cv2.extractChannel(layer, 3)
        color = cv2.cvtColor(layer, cv2.COLOR_RGBA2RGB)
        if shade != 1.0:
            color = cv2.convertScaleAbs(color, alpha=shade)
        keep = cv2.cvtColor(cv2.bitwise_not(alpha), cv2.COLOR_GRAY2RGB)
        region = self.color[top:bottom, left:right]
        cv2.add(cv2.multiply(region, keep, scale=1 / 255), color, dst=region)
        covered = alpha >= 128
        np.copyto(self.codes[top:bottom, left:right], code, where=covered)
        np.copyto(self.depth[top:bottom, left:right], depth, where=covered)
