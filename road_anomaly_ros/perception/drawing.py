# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures for people: heatmap, class colours and the overlay with obstacles and legend."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from road_anomaly_ros.perception import lettering
from road_anomaly_ros.perception.arrays import as_tensor
from road_anomaly_ros.perception.contract import UNLABELLED, AnomalyObject, FrameResult, LabelSet
from road_anomaly_ros.perception.lettering import GREY, WHITE, Canvas, Color
from road_anomaly_ros.perception.registry import option

ACCENT: Color = (70, 235, 255)  # a colour that neither the heat nor a road scene holds
_SHADE: Color = (8, 12, 20)
_MOST_LABELS = 24  # more plates than this hide the picture
# Pixels that torch works on in one thread. Results may be written by a second thread: if that
# begins parallel loops, OpenMP puts the helpers of the network to sleep after each of its loops.
_SERIAL = 32768
_RARE = 0.002  # the legend leaves out classes on a smaller share of the image


@dataclass(frozen=True)
class DrawingOptions:
    """What the overlay shows."""

    class_opacity: float = option(
        0.3, 'Strength of the class colours in the overlay.', low=0.0, high=1.0
    )
    heat_opacity: float = option(
        0.6, 'Strength of the anomaly heat in the overlay.', low=0.0, high=1.0
    )
    dim: float = option(
        0.1, 'How much the camera image is darkened under the overlay.', low=0.0, high=0.9
    )
    contours: bool = option(True, 'Draw the outlines of obstacles.')
    boxes: bool = option(True, 'Draw boxes with number and score around obstacles.')
    legend: bool = option(True, 'Draw the legend: scorer, obstacles, time, heat range, classes.')
    scale: float = option(
        1.0, 'Size of text and lines, relative to what suits the image.', low=0.25, high=4.0
    )


def heatmap(
    score: torch.Tensor | np.ndarray, display_range: tuple[float, float] = (0.0, 1.0)
) -> Canvas:
    """Return a score [H, W] as a picture uint8 RGB [H, W, 3]: dark is normal, bright strange.

    Linear over `display_range`, on a colour map of evenly rising lightness; NaN is bright.
    """
    return _look_up(_levels(score, display_range), _heat_table())


def color_labels(labels: torch.Tensor | np.ndarray, label_set: LabelSet) -> Canvas:
    """Return class ids [H, W] uint8 in their colours, uint8 RGB [H, W, 3]; unknown is black."""
    return _look_up(_host(labels), _class_table(label_set))


def overlay(result: FrameResult, options: DrawingOptions | None = None) -> Canvas:
    """Return the camera image with classes, heat, obstacles and legend, uint8 RGB [H, W, 3]."""
    options = options or DrawingOptions()
    canvas = _tinted(result, options)
    if options.heat_opacity > 0:
        canvas = _heated(canvas, result, options)
    pen = Pen(result.size, options.scale)
    if options.contours and result.objects:
        _draw_contours(canvas, result, pen)
    if options.legend:
        _draw_legend(canvas, result, pen)
    if options.boxes:
        for item in reversed(result.objects):
            _draw_corners(canvas, item, pen)
        for item in reversed(result.objects[:_MOST_LABELS]):
            _draw_plate(canvas, item, pen)
    return canvas


class Pen:
    """Sizes in pixels that suit an image: a 50th of its shorter side, but always readable."""

    def __init__(self, size: tuple[int, int], scale: float) -> None:
        self.letter = round(scale * max(11.0, 0.021 * min(size)))
        self.line = max(1, round(self.letter / 9))
        self.gap = max(2, round(0.4 * self.letter))
        self.row = lettering.text_height(self.letter) + self.gap


def _host(values: torch.Tensor | np.ndarray) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        return values.detach().cpu().numpy()
    return np.asarray(values)


def _levels(score: torch.Tensor | np.ndarray, display_range: tuple[float, float]) -> Canvas:
    """Return the score as 0..255 over the range, on its device, so that only bytes travel."""
    low, high = display_range
    spread = 255.0 / (high - low) if high > low else math.inf
    values = as_tensor(score)
    levels = torch.empty(values.shape, dtype=torch.uint8, device=values.device)
    whole = values.device.type != 'cpu'
    rows = max(1, len(values) if whole else _SERIAL // max(1, values.shape[-1]))
    for part, to in zip(values.split(rows), levels.split(rows), strict=True):
        scaled = torch.nan_to_num((part.float() - low) * spread, nan=255.0 if high > low else 0.0)
        to.copy_(scaled.clamp_(0.0, 255.0).round_())
    return levels.cpu().numpy()


@functools.lru_cache(maxsize=1)
def _heat_table() -> Canvas:
    ramp = np.arange(256, dtype=np.uint8)[:, None]
    return np.ascontiguousarray(cv2.applyColorMap(ramp, cv2.COLORMAP_INFERNO)[:, 0, ::-1])


@functools.lru_cache(maxsize=8)
def _class_table(label_set: LabelSet) -> Canvas:
    table = np.zeros((UNLABELLED + 1, 3), np.uint8)
    table[: len(label_set)] = np.asarray(label_set.colors, np.uint8).reshape(-1, 3)
    table[UNLABELLED] = 0
    return table


def _look_up(places: Canvas, table: Canvas) -> Canvas:
    return np.asarray(cv2.LUT(cv2.merge([places] * 3), table[None]), np.uint8)


def _tinted(result: FrameResult, options: DrawingOptions) -> Canvas:
    image = np.ascontiguousarray(result.array('image').transpose(1, 2, 0))
    light = 1 - options.dim
    if options.class_opacity == 0:
        return np.asarray(cv2.convertScaleAbs(image, alpha=light), np.uint8)
    colors = color_labels(result.array('labels'), result.label_set)
    share = options.class_opacity
    mixed = cv2.addWeighted(image, light * (1 - share), colors, light * share, 0)
    return np.asarray(mixed, np.uint8)


def _heated(canvas: Canvas, result: FrameResult, options: DrawingOptions) -> Canvas:
    """Lay heat over what comes near the threshold; what is normal stays as it is."""
    places = _levels(result.score, result.display_range)
    opacity = options.heat_opacity * _heat_opacity(result.display_range, result.threshold)
    heat = np.rint(_heat_table() * opacity[:, None]).astype(np.uint8)
    keep = np.repeat(np.rint(255 * (1 - opacity)).astype(np.uint8)[:, None], 3, axis=1)
    kept = cv2.multiply(canvas, _look_up(places, keep), scale=1 / 255)
    return np.asarray(cv2.add(kept, _look_up(places, heat)), np.uint8)


def _heat_opacity(display_range: tuple[float, float], threshold: float) -> np.ndarray:
    """Return the opacity 0..1 of 256 levels: none up to half way to the threshold, then rising."""
    low, high = display_range
    full = (threshold - low) / (high - low) if high > low and math.isfinite(threshold) else 0.7
    full = min(max(full, 0.1), 1.0)
    ramp = np.clip((np.linspace(0, 1, 256) - 0.5 * full) / (0.5 * full), 0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def _draw_contours(canvas: Canvas, result: FrameResult, pen: Pen) -> None:
    marks = result.array('mask').astype(np.uint8)
    outlines, _ = cv2.findContours(marks, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(canvas, outlines, -1, _SHADE, pen.line + 2, cv2.LINE_AA)
    cv2.drawContours(canvas, outlines, -1, ACCENT, pen.line, cv2.LINE_AA)


def _draw_corners(canvas: Canvas, item: AnomalyObject, pen: Pen) -> None:
    """Draw the corners of a box a little outside of the obstacle, which stays free to be seen."""
    x, y, width, height = item.box
    away = 2 * pen.line + 1
    left, top, right, bottom = x - away, y - away, x + width - 1 + away, y + height - 1 + away
    arm = max(3 * pen.line, min(width, height) // 4)
    corners = [
        np.array([[cx, cy + sy * arm], [cx, cy], [cx + sx * arm, cy]], np.int32)
        for cx, sx in ((left, 1), (right, -1))
        for cy, sy in ((top, 1), (bottom, -1))
    ]
    cv2.polylines(canvas, corners, False, _SHADE, pen.line + 2, cv2.LINE_AA)
    cv2.polylines(canvas, corners, False, WHITE if item.confirmed else GREY, pen.line, cv2.LINE_AA)


def _draw_plate(canvas: Canvas, item: AnomalyObject, pen: Pen) -> None:
    text = f'{_name(item)}  {item.score:.2f}'
    if item.distance is not None:
        text += f'  {item.distance:.1f} m'
    width = lettering.text_width(text, pen.letter) + 2 * pen.gap
    height = lettering.text_height(pen.letter) + pen.gap // 2
    x, y, _, extent = item.box
    top = y - height - 3 * pen.line - 2
    if top < 0:
        top = min(y + extent + 3 * pen.line + 2, canvas.shape[0] - height)
    left = max(0, min(x - 2 * pen.line, canvas.shape[1] - width))
    lettering.darken(canvas, (left, top, width, height), 0.2)
    lettering.fill(
        canvas, (left, top, max(2, 2 * pen.line), height), ACCENT if item.confirmed else GREY
    )
    lettering.draw_text(canvas, text, (left + pen.gap + pen.line, top + pen.gap // 4), pen.letter)


def _name(item: AnomalyObject) -> str:
    """Return the number of an obstacle, that of its track where it has one; '?' for a doubt."""
    number = f'#{item.track_id or item.id}' + ('' if item.confirmed else '?')
    return f'{number} {item.name}' if item.name else number


def _draw_legend(canvas: Canvas, result: FrameResult, pen: Pen) -> None:
    """Draw the legend over the top, where the sky is; nothing where it would hide a third."""
    rows = _class_rows(result, pen, canvas.shape[1])
    height = pen.gap + pen.row * (1 + len(rows))
    if 3 * height > canvas.shape[0] or 12 * pen.letter > canvas.shape[1]:
        return
    lettering.darken(canvas, (0, 0, canvas.shape[1], height))
    bar = _draw_heat_bar(canvas, result, pen)
    _draw_facts(canvas, result, pen, bar)
    for number, row in enumerate(rows, start=1):
        top = pen.gap + number * pen.row
        for left, index in row:
            side = round(0.8 * pen.letter)
            lettering.fill(
                canvas,
                (left, top + pen.letter - side + 1, side, side),
                result.label_set.colors[index],
            )
            lettering.draw_text(
                canvas,
                result.label_set.names[index],
                (left + side + pen.gap, top),
                pen.letter,
                GREY,
            )


def _draw_facts(canvas: Canvas, result: FrameResult, pen: Pen, limit: int) -> None:
    count = len(result.objects)
    facts = [result.scorer, '1 obstacle' if count == 1 else f'{count} obstacles']
    if 'total' in result.timings:
        facts.append(f'{result.timings["total"]:.0f} ms')
    if result.stamp is not None and abs(result.stamp) < 1e6:
        facts.append(f't = {result.stamp:.2f} s')
    left = pen.gap
    for number, fact in enumerate(facts):
        width = lettering.text_width(fact, pen.letter)
        if left + width > limit:
            break
        color = ACCENT if number == 1 and count else WHITE if number == 0 else GREY
        lettering.draw_text(canvas, fact, (left, pen.gap), pen.letter, color)
        left += width + 3 * pen.gap


def _draw_heat_bar(canvas: Canvas, result: FrameResult, pen: Pen) -> int:
    """Draw the heat's range with a tick at the threshold at the right; return its left end."""
    low, high = result.display_range
    texts = f'{low:.3g}', f'{high:.3g}'
    widths = [lettering.text_width(text, pen.letter) for text in texts]
    length = min(10 * pen.letter, canvas.shape[1] // 4)
    left = canvas.shape[1] - 3 * pen.gap - widths[1] - length
    height = round(0.8 * pen.letter)
    top = pen.gap + pen.letter - height + 1
    ramp = _heat_table()[np.linspace(0, 255, length).astype(np.uint8)]
    canvas[top : top + height, left : left + length] = ramp
    cv2.rectangle(canvas, (left, top), (left + length - 1, top + height - 1), (110, 115, 120), 1)
    if high > low and low <= result.threshold <= high:
        tick = left + round((result.threshold - low) / (high - low) * (length - 1))
        lettering.fill(canvas, (tick - pen.line // 2, top - 2, pen.line, height + 4), ACCENT)
    ends = left - pen.gap - widths[0], left + length + pen.gap
    for text, place in zip(texts, ends, strict=True):
        lettering.draw_text(canvas, text, (place, pen.gap), pen.letter, GREY)
    return left - 2 * pen.gap - widths[0]


def _class_rows(result: FrameResult, pen: Pen, width: int) -> list[list[tuple[int, int]]]:
    """Return up to two rows of (left, class) for the classes in the picture, by their ids."""
    rows: list[list[tuple[int, int]]] = []
    left = width
    for index in _present(result):
        name = result.label_set.names[index]
        need = round(0.8 * pen.letter) + pen.gap + lettering.text_width(name, pen.letter)
        if left + need > width - pen.gap:
            if len(rows) == 2:
                break
            rows.append([])
            left = pen.gap
        rows[-1].append((left, index))
        left += need + 2 * pen.gap
    return rows


def _present(result: FrameResult) -> Sequence[int]:
    step = max(1, min(result.size) // 180)
    labels = result.array('labels')[::step, ::step]
    counts = np.bincount(labels.ravel(), minlength=UNLABELLED + 1)[: len(result.label_set)]
    return np.flatnonzero(counts > _RARE * labels.size).tolist()
