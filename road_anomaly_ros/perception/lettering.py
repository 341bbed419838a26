# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Text, plates and coverage-blended shapes on RGB arrays."""

from __future__ import annotations

import functools

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Canvas = NDArray[np.uint8]
Color = tuple[int, int, int]

WHITE, GREY = (255, 255, 255), (200, 205, 210)


@functools.lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


@functools.lru_cache(maxsize=512)
def _coverage(text: str, size: int) -> Canvas:
    """Return the coverage 0..255 of one line of text, [1.3 size, w]; all baselines are level."""
    font = _font(size)
    width = max(1, round(font.getlength(text)))
    image = Image.new('L', (width + 1, round(1.3 * size)))
    ImageDraw.Draw(image).text((0, size), text, fill=255, font=font, anchor='ls')
    return np.asarray(image)


def text_width(text: str, size: int) -> int:
    """Return the width of a line of text in pixels."""
    return int(_coverage(text, size).shape[1])


def text_height(size: int) -> int:
    """Return the height of a line of text in pixels."""
    return int(_coverage('x', size).shape[0])


def draw_text(
    canvas: Canvas, text: str, corner: tuple[int, int], size: int, color: Color = WHITE
) -> None:
    """Draw a line of text of font size `size`, upper left `corner` (x, y); cut at the border."""
    blend(canvas, _coverage(text, size), corner, color)


def blend(canvas: Canvas, coverage: Canvas, corner: tuple[int, int], color: Color) -> None:
    """Lay `color` over the canvas [H, W, 3] in place with coverage [h, w] 0..255 at (x, y)."""
    x, y = corner
    left, top = max(0, -x), max(0, -y)
    height, width = coverage.shape
    part = canvas[max(0, y) : max(0, y + height), max(0, x) : max(0, x + width)]
    weight = coverage[top : top + part.shape[0], left : left + part.shape[1], None].astype(
        np.int32
    )
    ink = np.asarray(color, np.int32)
    part[...] = (part * (255 - weight) + ink * weight + 127) // 255


def darken(canvas: Canvas, box: tuple[int, int, int, int], keep: float = 0.35) -> None:
    """Darken the rectangle x, y, width, height in place, as a plate under text."""
    x, y, width, height = box
    part = canvas[max(0, y) : max(0, y + height), max(0, x) : max(0, x + width)]
    if part.size:
        part[...] = cv2.convertScaleAbs(part, alpha=keep)


def fill(canvas: Canvas, box: tuple[int, int, int, int], color: Color) -> None:
    """Fill the rectangle x, y, width, height in place."""
    x, y, width, height = box
    canvas[max(0, y) : max(0, y + height), max(0, x) : max(0, x + width)] = color
