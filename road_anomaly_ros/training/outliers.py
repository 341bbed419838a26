# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Things laid into a crop: outliers of many kinds, and known things by the same means.

What is pasted is told from its surroundings by its edge, sharpness and light as well as by what it
is. Known vehicles, people and signs are therefore pasted the same way, and stay normal.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

from road_anomaly_ros.training import label_sets
from road_anomaly_ros.training.generator import blend, variation
from road_anomaly_ros.training.generator.compose import Cutouts
from road_anomaly_ros.training.roads import IGNORE, Source

_CODES = label_sets.CODES
_GROUPS = (
    ('person',),
    ('car', 'truck', 'bus', 'train', 'vehicle'),
    ('pole',),
    ('rider', 'motorcycle', 'bicycle', 'cyclist', 'two-wheeler rider'),
    ('traffic light', 'traffic sign', 'signal'),
)
_GROUND = tuple(_CODES[name] for name in ('road', 'sidewalk', 'terrain', 'ground beside'))
_WEIGHED_AREA, _MOST_WEIGHT = 400.0, 6.0  # half-resolution pixels; small things count more


@dataclasses.dataclass
class Canvas:
    """A crop being drawn: `image` uint8 RGB [h,w,3], the rest at half its size.

    `codes` uint8 as in label_sets; `anomaly` uint8, 0 normal, 1 anomaly, 255 ignored; `weight`
    float32, what a pixel counts in the anomaly's loss.
    """

    image: np.ndarray
    codes: np.ndarray
    anomaly: np.ndarray
    weight: np.ndarray

    def ground(self) -> np.ndarray:
        """Return bool [h/2,w/2] of what things stand on."""
        return np.isin(self.codes, _GROUND)


@dataclasses.dataclass(frozen=True)
class Known:
    """A known thing cut out of a frame: colours, alpha float32 and codes, all [h,w]."""

    image: np.ndarray
    alpha: np.ndarray
    codes: np.ndarray


def known_things(sources: Sequence[Source], *, most: int = 3000) -> list[Known]:
    """Cut vehicles, people, riders, poles and signs out of labelled frames in memory."""
    rng, found = np.random.default_rng(0), []
    for source in sources:
        for index in rng.permutation(len(source.frames))[:700]:
            frame = source.frames[index]
            for group in _GROUPS:
                found += _pieces(frame.image, frame.codes, [_CODES[name] for name in group])
    return [found[index] for index in rng.permutation(len(found))[:most]]


def _pieces(image: np.ndarray, codes: np.ndarray, group: list[int]) -> list[Known]:
    inside = np.isin(codes, group).astype(np.uint8)
    _, parts, boxes, _ = cv2.connectedComponentsWithStats(inside, connectivity=8)
    found = []
    for number, (x, y, width, height, area) in enumerate(boxes[1:], 1):
        if height >= 18 and area >= 160 and area < 0.2 * codes.size:
            box = np.s_[y : y + height, x : x + width]
            alpha = (parts[box] == number).astype(np.float32)
            found.append(Known(image[box].copy(), alpha, codes[box].copy()))
    return found


class Paster:
    """Draws things into canvases; everything random comes from the generator handed in."""

    def __init__(self, cutouts: Sequence[Cutouts], known: Sequence[Known]) -> None:
        self._cutouts, self._known = [folder for folder in cutouts if len(folder)], known
        self._shares = np.array([len(folder) for folder in self._cutouts], float)

    def outliers(self, rng: np.random.Generator, canvas: Canvas) -> None:
        """Lay one to four strange things into the canvas."""
        if not self._cutouts:
            return
        places, sharpness = self._places(canvas), blend.sharpness_of(canvas.image)
        for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
            colours, alpha = self._strange(rng)
            tall = self._height(rng, canvas)
            self._lay(rng, canvas, places, sharpness, colours, alpha, tall, None)

    def knowns(self, rng: np.random.Generator, canvas: Canvas) -> None:
        """Lay one or two known things into the canvas."""
        if not self._known:
            return
        places, sharpness = self._places(canvas), blend.sharpness_of(canvas.image)
        for _ in range(rng.integers(1, 3)):
            thing = self._known[rng.integers(len(self._known))]
            tall = np.clip(
                len(thing.alpha) * np.exp(rng.normal(0, 0.5)), 10, 0.6 * len(canvas.image)
            )
            self._lay(rng, canvas, places, sharpness, thing.image, thing.alpha, tall, thing.codes)

    def _strange(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        folder = self._cutouts[rng.choice(len(self._cutouts), p=self._shares / self._shares.sum())]
        first, second = rng.integers(len(folder), size=2)
        way = rng.random()
        if way < 0.08:
            return variation.drawn(rng, folder[second])
        if way < 0.2:
            return variation.varied(rng, folder[first], folder[second])
        return folder[first]

    def _places(self, canvas: Canvas) -> np.ndarray:
        return np.flatnonzero(canvas.ground())

    def _height(self, rng: np.random.Generator, canvas: Canvas) -> float:
        height = len(canvas.image)
        if rng.random() < 0.08:
            return rng.uniform(0.35, 0.8) * height
        return float(np.exp(rng.uniform(np.log(9), np.log(0.6 * height))))

    def _lay(
        self,
        rng: np.random.Generator,
        canvas: Canvas,
        places: np.ndarray,
        sharpness: float,
        colours: np.ndarray,
        alpha: np.ndarray,
        tall: float,
        codes: np.ndarray | None,
    ) -> None:
        height, width = canvas.image.shape[:2]
        foot, middle = _drawn_place(rng, places, (height, width))
        tall = float(np.clip(tall * (0.4 + 0.6 * foot / height), 8, 0.9 * height))
        wide = max(4, round(tall * alpha.shape[1] / alpha.shape[0]))
        if wide > 0.9 * width:
            return
        size = (wide, max(4, round(tall)))
        way = cv2.INTER_AREA if size[1] < len(alpha) else cv2.INTER_LINEAR
        turn = slice(None, None, -1 if rng.random() < 0.5 else 1)
        patch, mask = (
            cv2.resize(plane, size, interpolation=way)[:, turn] for plane in (colours, alpha)
        )
        if codes is not None:
            codes = cv2.resize(codes, size, interpolation=cv2.INTER_NEAREST)[:, turn]
        box = _Box(foot - size[1] + 1, middle - wide // 2, mask.shape, canvas.image.shape)
        if min(box.height, box.width) < 4:
            return
        patch, mask = patch[box.source], mask[box.source]
        if mask.sum() < 16:
            return
        patch, mask = _fitted(rng, canvas.image, patch, mask, sharpness)
        if rng.random() < 0.4:
            dark, ground = rng.uniform(0.2, 0.7), np.ones((height, width), bool)
            blend.cast_shadow(canvas.image, mask, (box.left, box.top), dark, ground)
        blend.composite(canvas.image, patch, mask, (box.left, box.top))
        _mark(canvas, box, mask, None if codes is None else codes[box.source])


class _Box:
    """The part of a patch that lies inside an image."""

    def __init__(self, top: int, left: int, patch: tuple[int, ...], image: tuple[int, ...]):
        self.top, self.left = max(0, top), max(0, left)
        bottom, right = min(image[0], top + patch[0]), min(image[1], left + patch[1])
        self.height, self.width = bottom - self.top, right - self.left
        self.source = np.s_[self.top - top : bottom - top, self.left - left : right - left]


def _drawn_place(
    rng: np.random.Generator, places: np.ndarray, size: tuple[int, int]
) -> tuple[int, int]:
    """Return the foot and the middle of a thing: on one of the places mostly, else anywhere."""
    height, width = size
    if len(places) > 50 and rng.random() < 0.88:
        row, column = divmod(int(places[rng.integers(len(places))]), width // 2)
        return 2 * row + 1, 2 * column
    return int(rng.integers(height // 4, height)), int(rng.integers(width))


def _fitted(
    rng: np.random.Generator,
    image: np.ndarray,
    patch: np.ndarray,
    mask: np.ndarray,
    sharpness: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Return colours and soft alpha in the light and sharpness of the image."""
    inside = mask > 0.5
    if rng.random() < 0.85:
        patch = blend.match_blur(np.ascontiguousarray(patch), inside, sharpness)
    own = float(patch[inside].mean()) if inside.any() else 100.0
    gain = np.clip((float(image[::4, ::4].mean()) + rng.uniform(-35, 40)) / max(own, 20), 0.3, 1.5)
    patch = cv2.convertScaleAbs(np.ascontiguousarray(patch), alpha=float(gain))
    if rng.random() < 0.2:
        grey = cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY)
        patch = cv2.addWeighted(patch, 0.3, cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), 0.7, 0)
    soft = cv2.GaussianBlur(np.ascontiguousarray(mask), (0, 0), rng.uniform(0.4, 1.2))
    return patch, soft * (rng.uniform(0.5, 0.9) if rng.random() < 0.04 else 1.0)


def _mark(canvas: Canvas, box: _Box, mask: np.ndarray, codes: np.ndarray | None) -> None:
    """Write what was laid at `box` into the truth at half the size."""
    top, left = box.top - box.top % 2, box.left - box.left % 2
    rows, columns = -(-(box.top + box.height - top) // 2), -(-(box.left + box.width - left) // 2)
    rows = min(rows, canvas.codes.shape[0] - top // 2)
    columns = min(columns, canvas.codes.shape[1] - left // 2)
    wide = np.zeros((2 * rows, 2 * columns), np.float32)
    part = mask[: 2 * rows - (box.top - top), : 2 * columns - (box.left - left)]
    wide[
        box.top - top : box.top - top + part.shape[0],
        box.left - left : box.left - left + part.shape[1],
    ] = part
    share = wide.reshape(rows, 2, columns, 2).mean((1, 3))
    there = np.s_[top // 2 : top // 2 + rows, left // 2 : left // 2 + columns]
    covered, edge = share > 0.5, (share > 0.1) & (share <= 0.5)
    if codes is None:
        canvas.codes[there][covered | edge] = IGNORE
        canvas.anomaly[there][covered] = 1
        canvas.anomaly[there][edge] = IGNORE
        weight = np.clip(np.sqrt(_WEIGHED_AREA / max(covered.sum(), 1)), 1, _MOST_WEIGHT)
        canvas.weight[there][covered] = weight
        return
    full = np.full((2 * rows, 2 * columns), IGNORE, np.uint8)
    full[box.top - top :, box.left - left :][: part.shape[0], : part.shape[1]] = codes[
        : part.shape[0], : part.shape[1]
    ]
    canvas.codes[there][edge] = IGNORE
    canvas.codes[there][covered] = full[::2, ::2][covered]
    canvas.anomaly[there][covered | edge] = 0
    canvas.weight[there][covered | edge] = 1
