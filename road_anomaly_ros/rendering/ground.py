# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The ground plane: asphalt, kerbs, pavements and grass, markings and shadows on them."""

from __future__ import annotations

from functools import cache, lru_cache

import cv2
import numpy as np

from road_anomaly_ros.rendering.camera import Camera, GroundRows
from road_anomaly_ros.rendering.canvas import ROAD, SIDEWALK, TERRAIN, Canvas
from road_anomaly_ros.rendering.style import Style
from road_anomaly_ros.rendering.textures import fractal_noise, grain, modulated

REACH = 400.0
_SCALE = 24
_LENGTH = 32.0
_HALF = 20.0
_ROWS = int(_LENGTH * _SCALE)


@cache
def _asphalt(variant: int) -> np.ndarray:
    """Worn asphalt, uint8 [768, 528, 3], repeating along the road."""
    rng = np.random.default_rng((51, variant))
    width = 528
    base = rng.uniform(86, 122)
    light = 1 + 0.025 * fractal_noise(rng, _ROWS, width, 3, 5) + 0.055 * grain(rng, _ROWS, width)
    for _ in range(int(rng.integers(2, 7))):
        x, y = rng.integers(0, width), rng.integers(40, _ROWS - 160)
        w, h = rng.integers(20, 90), rng.integers(20, 120)
        light[y : y + h, x : x + w] *= rng.uniform(0.8, 0.95)
    cracks = np.zeros((_ROWS, width), np.uint8)
    for _ in range(int(rng.integers(3, 10))):
        start = rng.uniform((0, 40), (width, _ROWS - 40))
        path = start + np.cumsum(rng.normal(0, 9, (12, 2)), 0)
        cv2.polylines(cracks, [path.astype(np.int32)], False, 255, 1, cv2.LINE_AA)
    light *= 1 - 0.3 * cracks / 255
    tint = np.array((1.0, 1.0, 1.02)) + rng.uniform(-0.03, 0.03, 3)
    return modulated((base * tint).astype(np.float32), light.astype(np.float32))


@cache
def _paving(variant: int) -> np.ndarray:
    """Flag stones or fine asphalt of a pavement, uint8 [768, 240, 3]."""
    rng = np.random.default_rng((52, variant))
    width = 240
    light = 1 + 0.04 * fractal_noise(rng, _ROWS, width, 4, 4) + 0.045 * grain(rng, _ROWS, width)
    if variant % 3:
        cell = (16, 12)[variant % 2]
        flags = 0.06 * grain(rng, _ROWS // cell, width // cell)
        light += flags.repeat(cell, 0).repeat(cell, 1)
        light[::cell] *= 0.8
        light[:, ::cell] *= 0.8
    color = ((158, 152, 144), (150, 132, 122), (128, 128, 130), (172, 164, 150))[variant % 4]
    return modulated(color, light)


@cache
def _grass(variant: int) -> np.ndarray:
    """Grass of a verge, green to straw, uint8 [768, 480, 3]."""
    rng = np.random.default_rng((53, variant))
    light = 1 + 0.14 * fractal_noise(rng, _ROWS, 480, 4, 5) + 0.16 * grain(rng, _ROWS, 480, 0.7)
    dry = np.clip(0.5 + 0.4 * fractal_noise(rng, _ROWS, 480, 3, 3), 0, 1)[..., None]
    colors = ((72, 96, 42), (88, 104, 52), (112, 112, 58), (66, 84, 44))
    color = np.array(colors[variant % 4]) * (1 - dry * 0.4) + np.array((134, 122, 74)) * dry * 0.4
    return modulated(color, light)


@lru_cache(maxsize=1)
def _grit() -> np.ndarray:
    """Fine mineral grain around 128 for the nearest metres, uint8 [512, 512]."""
    rng = np.random.default_rng(54)
    noise = 10 * grain(rng, 512, 512, 0.7) + 2.5 * fractal_noise(rng, 512, 512, 16, 4)
    return np.clip(128 + noise, 0, 255).astype(np.uint8)


class Ground:
    """Renders the ground of one drive; `style` fixes widths, materials and markings."""

    def __init__(self, style: Style) -> None:
        """Assemble the strip of road that repeats every 32 m."""
        self._style = style
        self._levels = {(0, 0): self._assemble()}

    def _assemble(self) -> np.ndarray:
        """Cross-section from -20 m to 20 m, uint8 [768, 960, 3]."""
        style = self._style
        grass = (
            _grass(style.grass)
            if style.verge == TERRAIN
            else np.tile(_paving(style.paving), (1, 2, 1))
        )
        strip = np.hstack([grass, grass])
        middle = int(_HALF * _SCALE)
        road, walk = int(style.half_road * _SCALE), int(style.pavement * _SCALE)
        if walk:
            paving = _paving(style.paving)[:, :walk]
            strip[:, middle - road - walk : middle - road] = paving
            strip[:, middle + road : middle + road + walk] = paving
            for edge in (middle - road - 4, middle + road):
                strip[:, edge : edge + 4] = style.kerb
                strip[::_SCALE, edge : edge + 4] = np.array(style.kerb) * 0.7
        across = np.arange(-road, road) / _SCALE
        wear = self._wear(across) * style.asphalt_light
        tiled = cv2.resize(wear[None].astype(np.float32), (2 * road, _ROWS))
        profile = cv2.cvtColor(np.clip(tiled * 128, 0, 255).astype(np.uint8), cv2.COLOR_GRAY2RGB)
        asphalt = _asphalt(style.asphalt)[:, : 2 * road]
        strip[:, middle - road : middle + road] = cv2.multiply(asphalt, profile, scale=1 / 128)
        return strip

    def _wear(self, across: np.ndarray) -> np.ndarray:
        """Brightness over the road's width: polished wheel tracks, oil between, dirty edges."""
        wear = np.ones_like(across)
        for center in self._style.lane_centers:
            offset = np.abs(across - center)
            wear += 0.07 * np.exp(-(((offset - 0.75) / 0.28) ** 2))
            wear -= 0.08 * np.exp(-((offset / 0.35) ** 2))
        gap = self._style.half_road - np.abs(across)
        return wear - 0.16 * np.exp(-gap / 0.22)

    def _level(self, x: int, y: int) -> np.ndarray:
        """The strip halved `x` times across and `y` times along."""
        found = self._levels.get((x, y))
        if found is None:
            source = self._level(x, y - 1) if y else self._level(x - 1, 0)
            rows, columns = source.shape[:2]
            size = (columns, rows // 2) if y else (columns // 2, rows)
            found = cv2.resize(source, size, interpolation=cv2.INTER_AREA)
            self._levels[x, y] = found
        return found

    def paint(self, canvas: Canvas, camera: Camera, shade: np.ndarray | None) -> GroundRows:
        """Fill the rows below the horizon; `shade` darkens them, uint8 [H, W] of 255 = lit."""
        rows = camera.ground_rows(REACH)
        if rows.first >= camera.height:
            return rows
        step = (rows.depth / camera.focal).astype(np.float32)
        start = (camera.x - rows.bend - camera.center[0] * step).astype(np.float32)
        across = np.arange(camera.width, dtype=np.float32)[None] * step[:, None] + start[:, None]
        along = camera.station + rows.distance
        color = canvas.color[rows.first :]
        self._texture(color, across, along, step, rows)
        self._codes(canvas, rows, step, start)
        canvas.depth[rows.first :] = rows.depth[:, None]
        self._add_grit(color, across, along, rows)
        self._add_markings(color, camera, rows)
        if shade is not None:
            part = cv2.cvtColor(shade[rows.first :], cv2.COLOR_GRAY2RGB)
            cv2.multiply(color, part, dst=color, scale=1 / 255)
        return rows

    def _texture(
        self,
        color: np.ndarray,
        across: np.ndarray,
        along: np.ndarray,
        step: np.ndarray,
        rows: GroundRows,
    ) -> None:
        """Map the strip onto the rows, each group of rows from its own pair of halvings."""
        stride = np.abs(np.gradient(rows.distance)) if len(along) > 1 else step
        levels_x = np.clip(np.log2(step * _SCALE) + 0.5, 0, 4).astype(int)
        levels_y = np.clip(np.log2(stride * _SCALE) + 0.2, 0, 7).astype(int)
        inside = np.clip(across, 0.1 - _HALF, _HALF - 0.1) + np.float32(_HALF)
        phase = along % _LENGTH
        keys = levels_x * 16 + levels_y
        cuts = np.flatnonzero(np.diff(keys)) + 1
        for begin, end in zip([0, *cuts], [*cuts, len(keys)], strict=True):
            level_x, level_y = int(levels_x[begin]), int(levels_y[begin])
            source = self._level(level_x, level_y)
            map_x = inside[begin:end] * np.float32(_SCALE / 2**level_x) - np.float32(0.5)
            map_y = np.repeat(
                (phase[begin:end] * (_SCALE / 2**level_y) - 0.5).astype(np.float32)[:, None],
                color.shape[1],
                1,
            )
            color[begin:end] = cv2.remap(
                source, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
            )

    def _codes(
        self, canvas: Canvas, rows: GroundRows, step: np.ndarray, start: np.ndarray
    ) -> None:
        """Label the rows: verge, pavement, road, pavement, verge; smooth the borders."""
        style, codes = self._style, canvas.codes[rows.first :]
        columns = np.arange(canvas.width, dtype=np.float32)[None]
        codes[:] = style.verge
        for outer, label in (
            (style.half_road + style.pavement, SIDEWALK),
            (style.half_road, ROAD),
        ):
            low = ((-outer - start) / step)[:, None]
            high = ((outer - start) / step)[:, None]
            np.copyto(codes, label, where=(columns >= low) & (columns < high))

    def _add_grit(
        self, color: np.ndarray, across: np.ndarray, along: np.ndarray, rows: GroundRows
    ) -> None:
        """Modulate the nearest rows with fine grain that the strip cannot hold."""
        begin = int(np.searchsorted(-rows.distance, -16.0))
        if begin >= len(along):
            return
        map_x = across[begin:] * np.float32(160)
        map_y = np.repeat(
            ((along[begin:] % 51.2) * 160).astype(np.float32)[:, None], color.shape[1], 1
        )
        grit = cv2.remap(_grit(), map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        near = color[begin:]
        cv2.multiply(near, cv2.cvtColor(grit, cv2.COLOR_GRAY2RGB), dst=near, scale=1 / 128)

    def _add_markings(self, color: np.ndarray, camera: Camera, rows: GroundRows) -> None:
        """Paint the lines of the road, worn by the grain of what lies below."""
        mask = np.zeros(color.shape[:2], np.uint8)
        nearest = max(float(rows.distance[-1]) * 0.9, 0.3)
        outlines = _outlines(self._style.lines, camera.station + nearest, camera.station + 110)
        pixels = camera.project(np.concatenate(outlines)) - (0, rows.first)
        limit = 4 * max(camera.width, camera.height)
        pixels = (np.clip(pixels, -limit, limit) * 16).astype(np.int32)
        cuts = np.cumsum([len(outline) for outline in outlines])[:-1]
        for points in np.split(pixels, cuts):
            cv2.fillPoly(mask, [points], self._style.paint_strength, cv2.LINE_AA, 4)
        keep = cv2.cvtColor(cv2.bitwise_not(mask), cv2.COLOR_GRAY2RGB)
        paint = cv2.multiply(
            cv2.cvtColor(mask, cv2.COLOR_GRAY2RGB), self._style.paint_color, scale=1 / 255
        )
        cv2.add(cv2.multiply(color, keep, scale=1 / 255), paint, dst=color)


def _outlines(lines: tuple, first: float, last: float) -> list[np.ndarray]:
    """Outlines [n, 3] (x, 0, s) of the painted pieces between two stations."""
    outlines = []
    for x, width, length, gap in lines:
        for begin, end in _dashes(first, last, length, gap):
            cut = np.linspace(begin, end, 2 + int((end - begin) / 12))
            left = np.stack([np.full_like(cut, x - width / 2), np.zeros_like(cut), cut], -1)
            outlines.append(np.concatenate([left, left[::-1] + np.array([width, 0.0, 0.0])]))
    return outlines


def _dashes(begin: float, end: float, length: float, gap: float) -> list[tuple[float, float]]:
    """Pieces of a line between two stations; gap 0 means a solid line."""
    if gap == 0:
        return [(begin, end)]
    period = length + gap
    first = int(np.floor((begin - length) / period)) + 1
    starts = np.arange(first, int(end / period) + 1) * period
    return [(max(s, begin), s + length) for s in starts if s + length > begin]
