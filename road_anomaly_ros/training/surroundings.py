# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What differs between roads and is no obstacle: marks, shadows, light, lenses and cameras.

Nothing here changes the truth, except that what a bonnet hides has no class.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from road_anomaly_ros.training.outliers import Canvas
from road_anomaly_ros.training.roads import IGNORE

Rng = np.random.Generator


def _quad(rng: Rng, x: float, y: float, wide: float, tall: float) -> np.ndarray:
    lean = rng.normal(0, 0.5) * tall
    corners = np.array(
        [
            [x - wide / 2 + lean, y - tall],
            [x + wide / 2 + lean, y - tall],
            [x + wide / 2 * 1.15, y],
            [x - wide / 2 * 1.15, y],
        ]
    )
    return corners + rng.normal(0, 0.04, (4, 2)) * [wide, tall]


def _fill(mask: np.ndarray, corners: np.ndarray, value: float = 1.0) -> None:
    cv2.fillPoly(mask, [np.round(corners * 8).astype(np.int32)], value, cv2.LINE_AA, 3)


def _patch(rng: Rng, mask: np.ndarray, x: float, y: float, unit: float) -> None:
    _fill(mask, _quad(rng, x, y, unit * rng.uniform(0.5, 3), unit * rng.uniform(0.1, 0.6)))


def _seam(rng: Rng, mask: np.ndarray, x: float, y: float, unit: float) -> None:
    points = np.cumsum(rng.normal(0, 1, (8, 2)) * [unit * 0.25, unit * 0.08], 0) + np.array([x, y])
    cv2.polylines(
        mask, [points.astype(np.int32)], False, 1.0, int(rng.integers(1, 4)), cv2.LINE_AA
    )


def _manhole(rng: Rng, mask: np.ndarray, x: float, y: float, unit: float) -> None:
    half = np.maximum([2, 1], [unit * 0.22, unit * 0.22 * rng.uniform(0.15, 0.4)]).astype(int)
    cv2.ellipse(
        mask, (int(x), int(y)), tuple(int(v) for v in half), 0, 0, 360, 1.0, -1, cv2.LINE_AA
    )
    if rng.random() < 0.6 and half[0] > 5:
        cv2.ellipse(
            mask,
            (int(x), int(y)),
            tuple(int(v * 0.75) for v in half),
            0,
            0,
            360,
            0.3,
            1,
            cv2.LINE_AA,
        )


def _stripes(rng: Rng, mask: np.ndarray, x: float, y: float, unit: float) -> None:
    count, wide, tall = (
        int(rng.integers(1, 8)),
        unit * rng.uniform(0.06, 0.3),
        unit * rng.uniform(0.05, 0.6),
    )
    for place in range(count):
        _fill(mask, _quad(rng, x + (place - count / 2) * 2 * wide, y, wide, tall))


def _sign(rng: Rng, mask: np.ndarray, x: float, y: float, unit: float) -> None:
    """An arrow, letters or a bicycle-like tangle, flattened as paint on the road is."""
    paint = np.zeros((64, 64), np.uint8)
    kind = rng.integers(3)
    if kind == 0:
        cv2.arrowedLine(paint, (32, 60), (int(rng.integers(8, 56)), 6), 255, 9, tipLength=0.4)
    elif kind == 1:
        text = ''.join(chr(rng.integers(48, 91)) for _ in range(rng.integers(1, 4)))
        cv2.putText(paint, text, (2, 48), cv2.FONT_HERSHEY_SIMPLEX, 1.2, 255, 5)
    else:
        for _ in range(3):
            cv2.circle(
                paint,
                tuple(int(v) for v in rng.integers(14, 50, 2)),
                int(rng.integers(5, 14)),
                255,
                3,
            )
        cv2.polylines(paint, [rng.integers(8, 56, (5, 2)).astype(np.int32)], False, 255, 3)
    wide, tall = max(4, int(unit * rng.uniform(0.3, 1))), max(3, int(unit * rng.uniform(0.1, 0.6)))
    paint = cv2.resize(paint, (wide, tall), interpolation=cv2.INTER_AREA) / np.float32(255)
    top, left = max(0, int(y) - tall), max(0, int(x) - wide // 2)
    part = mask[top : int(y), left : left + wide]
    part[:] = np.maximum(part, paint[: part.shape[0], : part.shape[1]])


def _leaves(rng: Rng, mask: np.ndarray, x: float, y: float, unit: float) -> None:
    for _ in range(int(rng.integers(5, 50))):
        place = rng.normal(0, 1, 2) * [unit * 0.7, unit * 0.2] + [x, y]
        cv2.circle(
            mask,
            tuple(int(v) for v in place),
            int(rng.integers(1, 3)),
            float(rng.uniform(0.4, 1)),
            -1,
        )


_MARKS: tuple[tuple[Callable[..., None], str], ...] = (
    (_patch, 'tone'),
    (_seam, 'dark'),
    (_manhole, 'dark'),
    (_stripes, 'paint'),
    (_sign, 'paint'),
    (_leaves, 'leaf'),
    (_patch, 'wet'),
)


def mark_ground(rng: Rng, canvas: Canvas) -> None:
    """Draw one to four marks on the ground: patches, seams, manholes, paint, leaves, puddles."""
    ground = canvas.ground()
    places = np.flatnonzero(ground)
    if len(places) < 200:
        return
    height, width = canvas.image.shape[:2]
    flat = cv2.resize(ground.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    for _ in range(rng.integers(1, 5)):
        row, column = divmod(int(places[rng.integers(len(places))]), width // 2)
        draw, look = _MARKS[rng.integers(len(_MARKS))]
        mask = np.zeros((height, width), np.float32)
        unit = max(8.0, (2 * row - 0.25 * height) * rng.uniform(0.3, 1.2))
        draw(rng, mask, 2.0 * column, 2.0 * row, unit)
        box = cv2.boundingRect((mask > 0).astype(np.uint8))
        if box[2] and box[3]:
            _colour(rng, canvas.image, mask * flat, box, look)


def _colour(
    rng: Rng, image: np.ndarray, mask: np.ndarray, box: tuple[int, ...], look: str
) -> None:
    x, y, wide, tall = box
    part = image[y : y + tall, x : x + wide]
    share = mask[y : y + tall, x : x + wide, None]
    below = part.astype(np.float32)
    if look == 'paint':
        colour = np.array([235, 235, 230] if rng.random() < 0.75 else [220, 170, 40], np.float32)
        share, there = share * rng.uniform(0.35, 0.95), colour * rng.uniform(0.6, 1)
    elif look == 'leaf':
        share, there = share * 0.8, rng.uniform(30, 190, 3).astype(np.float32)
    elif look == 'wet':
        mirrored = image[max(0, y - tall) : y][::-1]
        there = below * 0.7
        rows = min(len(mirrored), tall)
        there[:rows] = 0.4 * below[:rows] + 0.6 * mirrored[:rows, x : x + wide]
    else:
        factor = (
            rng.uniform(0.3, 0.8)
            if look == 'dark' or rng.random() < 0.6
            else rng.uniform(1.15, 1.6)
        )
        there = below * factor + rng.normal(0, 4, (1, 1, 3))
    part[:] = np.clip(below + share * (there - below), 0, 255).astype(np.uint8)


def shade(rng: Rng, image: np.ndarray) -> np.ndarray:
    """Return the image with cast shadows: of buildings and cars (polygons), of trees (noise)."""
    height, width = image.shape[:2]
    mask = np.zeros((height, width), np.float32)
    if rng.random() < 0.6:
        for _ in range(rng.integers(1, 6)):
            points = np.stack(
                [
                    rng.integers(-width // 4, width + width // 4, 6),
                    rng.integers(height // 4, height + height // 4, 6),
                ],
                1,
            )
            cv2.fillPoly(mask, [cv2.convexHull(points.astype(np.int32))], 1.0)
    if rng.random() < 0.55 or not mask.any():
        cells = rng.random((int(rng.integers(4, 40)), int(rng.integers(4, 40)))).astype(np.float32)
        noise = cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC)
        dapple = (noise > rng.uniform(0.4, 0.6)).astype(np.float32)
        mask = np.maximum(mask, dapple) if rng.random() < 0.5 else np.abs(mask - dapple)
    mask = cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.6, 5))
    tint = np.array([1, 1, 1 - rng.uniform(0, 0.15)], np.float32)
    return _bytes(image * (1 - mask[..., None] * rng.uniform(0.25, 0.75) * tint))


def bonnet(rng: Rng, canvas: Canvas) -> None:
    """Lay the bonnet of one's own car over the lowest part: no class, nothing strange."""
    height, width = canvas.image.shape[:2]
    mask = np.zeros((height, width), np.float32)
    top = rng.uniform(0.04, 0.2) * height
    centre = (int(width * rng.uniform(0.3, 0.7)), height + int(3 * top))
    cv2.ellipse(
        mask,
        centre,
        (int(width * rng.uniform(0.6, 1.2)), int(4 * top)),
        0,
        0,
        360,
        1.0,
        -1,
        cv2.LINE_AA,
    )
    colour = rng.uniform(5, 230, 3) if rng.random() < 0.3 else np.full(3, rng.uniform(5, 235))
    mirrored = cv2.blur(canvas.image[::-1], (9, 9))
    light = (1 + rng.uniform(-0.4, 0.4) * np.linspace(1, 0, height))[:, None, None]
    body = (0.75 * colour + 0.25 * mirrored) * light
    canvas.image[:] = _bytes(canvas.image + mask[..., None] * (body - canvas.image))
    hidden = mask[::2, ::2] > 0.3
    canvas.codes[hidden], canvas.anomaly[hidden], canvas.weight[hidden] = IGNORE, 0, 1


def _glare(rng: Rng, image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    x, y = rng.uniform(0, width), rng.uniform(-0.1, 0.6) * height
    columns, rows = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    distance = ((columns - x) ** 2)[None] + ((rows - y) ** 2)[:, None]
    glow = np.exp(-distance / (2 * (rng.uniform(0.1, 0.5) * width) ** 2))
    return _bytes(image + glow[..., None] * rng.uniform(40, 220))


def _drops(rng: Rng, image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    mask = np.zeros((height, width), np.float32)
    for _ in range(int(rng.integers(5, 40))):
        cv2.circle(
            mask,
            (int(rng.integers(width)), int(rng.integers(height))),
            int(rng.integers(2, 12)),
            1.0,
            -1,
        )
    mask = cv2.GaussianBlur(mask, (0, 0), 1.5)[..., None]
    soft = cv2.GaussianBlur(image, (0, 0), 6)
    soft = np.roll(soft, int(rng.integers(-20, 20)), 0)
    return _bytes(image + mask * (soft.astype(np.float32) - image) * 0.8)


def _haze(rng: Rng, image: np.ndarray) -> np.ndarray:
    rows = np.linspace(0, 1, len(image), dtype=np.float32)
    share = rng.uniform(0.1, 0.6) * np.clip(1.3 - 1.6 * np.abs(rows - 0.4), 0, 1)[:, None, None]
    return _bytes(image * (1 - share) + share * rng.uniform(150, 245))


def _dusk(rng: Rng, image: np.ndarray) -> np.ndarray:
    table = 255 * (np.arange(256) / 255) ** rng.uniform(1.1, 1.7) * rng.uniform(0.45, 0.9)
    dark = cv2.LUT(image, np.clip(table, 0, 255).astype(np.uint8))
    return _bytes(dark + rng.normal(0, rng.uniform(1, 6), (*dark.shape[:2], 1)))


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 255).astype(np.uint8)


def tone(rng: Rng, image: np.ndarray) -> np.ndarray:
    """Return the image with another exposure, contrast, white balance and saturation."""
    ramp = (np.arange(256) / 255) ** np.exp(rng.normal(0, 0.22))
    ramp = (ramp - 0.5) * np.exp(rng.normal(0, 0.18)) + 0.5 + rng.normal(0, 0.06)
    table = _bytes(ramp[:, None] * np.exp(rng.normal(0, 0.06, 3)) * 255)
    image = cv2.LUT(image, table.reshape(1, 256, 3))
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    keep = rng.uniform(0.0, 0.4) if rng.random() < 0.1 else rng.uniform(0.5, 1.4)
    return cv2.addWeighted(image, keep, grey, 1 - keep, 0)


def lens(rng: Rng, image: np.ndarray) -> np.ndarray:
    """Return the image through another lens and sensor: blur, few pixels, noise, JPEG."""
    height, width = image.shape[:2]
    if rng.random() < 0.2:
        less = rng.uniform(0.4, 0.9)
        small = cv2.resize(image, None, fx=less, fy=less, interpolation=cv2.INTER_AREA)
        image = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.6))
    elif rng.random() < 0.06:
        image = cv2.blur(image, (int(rng.integers(3, 11)), 1))
    if rng.random() < 0.15:
        image = cv2.addWeighted(image, 1.6, cv2.GaussianBlur(image, (0, 0), 1.2), -0.6, 0)
    if rng.random() < 0.25:
        noise = rng.normal(0, rng.uniform(1, 8), (height, width, 1)).astype(np.float32)
        image = _bytes(image + noise)
    if rng.random() < 0.3:
        quality = (cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 92)))
        image = cv2.imdecode(cv2.imencode('.jpg', image, quality)[1], cv2.IMREAD_COLOR)
    return image


def weather(rng: Rng, image: np.ndarray) -> np.ndarray:
    """Return the image under other light, through another camera."""
    for chance, change in ((0.1, _glare), (0.05, _drops), (0.1, _haze), (0.1, _dusk)):
        if rng.random() < chance:
            image = change(rng, image)
    return lens(rng, tone(rng, image))
