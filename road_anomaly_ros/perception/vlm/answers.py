# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a vision-language model is asked, and its answers, read strictly.

The question follows figure 9 of the query-level paper in its contents: what to ignore, what to
look for, one line per thing, coordinates in hundredths of the picture with one decimal.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

PROMPT = """This picture was taken from a vehicle. Name every thing that does NOT belong on or near
a road and could endanger traffic, and tell where its centre is.

Leave out what roads always have: vehicles of every kind, people on foot or on bicycles, signs,
lights, markings, barriers, buildings, plants, poles, small stones and leaves.

Look for: large animals; boulders, fallen trees and other large debris; lost cargo, furniture,
appliances; water, fire or smoke; damage to the road that endangers traffic.

Answer with one line per thing and nothing else, exactly in this form:
- name: (x.x, y.y)
x runs from 0.0 at the left edge to 100.0 at the right, y from 0.0 at the top to 100.0 at the
bottom, each with one decimal.

If there is no such thing, answer with exactly: No anomalies detected"""
NOTHING = 'no anomalies detected'

_LINE = re.compile(
    r'-\s*(?P<name>[^:()]{1,80}):\s*\(\s*(?P<x>-?\d+\.\d)\s*,\s*(?P<y>-?\d+\.\d)\s*\)'
)
_POINT = re.compile(r'<points?\b([^>]*)>(.*?)</points?>', re.DOTALL)
_ATTRIBUTE = re.compile(r'([xy])(\d*)\s*=\s*"\s*(-?\d+(?:\.\d+)?)\s*"')
_FENCE = re.compile(r'```(?:json)?\s*(.*?)```', re.DOTALL)
_BOX, _POINT_2D = ('bbox_2d', 'bbox'), ('point_2d', 'point')


@dataclass(frozen=True)
class Named:
    """A thing that was pointed at; x and y in shares of width and height, 0 ... 1."""

    name: str
    x: float
    y: float


@dataclass(frozen=True)
class Answer:
    """What an answer says; `refused` holds the lines that are none, in one line each."""

    things: tuple[Named, ...] = ()
    refused: tuple[str, ...] = ()


def parse(text: str, size: tuple[int, int] = (1000, 1000)) -> Answer:
    """Read an answer: lines as asked for, Molmo's point tags, or JSON with boxes as Qwen-VL gives.

    `size` (H, W) is that of the picture the model saw, in whose pixels JSON tells its boxes.
    Every point must lie in the picture. An answer that says neither what is there nor that nothing
    is counts as refused, never as "nothing".
    """
    for read in (_tags, _json(size), _lines):
        found = list(read(text))
        if found:
            things = tuple(item for item in found if isinstance(item, Named))
            return Answer(things, tuple(item for item in found if isinstance(item, str)))
    if NOTHING in ' '.join(text.lower().split()):
        return Answer()
    return Answer(refused=(f'expected lines "- name: (x.x, y.y)", got {_short(text)}',))


def _lines(text: str) -> Iterator[Named | str]:
    """Read the form that was asked for; once one line has it, all others must."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not any(_LINE.fullmatch(line) or line.startswith('-') for line in lines):
        return
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None:
            yield f'expected "- name: (x.x, y.y)", got {_short(line)}'
        else:
            yield _checked(match['name'], float(match['x']), float(match['y']), 100.0, 100.0)


def _tags(text: str) -> Iterator[Named | str]:
    """Read `<point x="4.5" y="60.1" alt="cow">` and `<points x1=... y1=... x2=...>`."""
    for attributes, inner in _POINT.findall(text):
        values: dict[str, dict[str, float]] = {}
        for axis, number, value in _ATTRIBUTE.findall(attributes):
            values.setdefault(number, {})[axis] = float(value)
        if not values:
            yield f'expected coordinates in a point tag, got {_short(attributes)}'
        for pair in values.values():
            if len(pair) == 2:
                yield _checked(inner, pair['x'], pair['y'], 100.0, 100.0)
            else:
                yield f'expected x and y in a point tag, got {_short(attributes)}'


def _json(size: tuple[int, int]) -> Callable[[str], Iterator[Named | str]]:
    height, width = size

    def read(text: str) -> Iterator[Named | str]:
        match = _FENCE.search(text)
        try:
            rows = json.loads(match[1] if match else text)
        except ValueError:
            return
        for row in rows if isinstance(rows, list) else [rows]:
            yield _of_row(row, width, height)

    return read


def _of_row(row: object, width: int, height: int) -> Named | str:
    if not isinstance(row, dict):
        return f'expected an object with a box, got {_short(json.dumps(row))}'
    name = str(row.get('label', ''))
    for keys, count in ((_BOX, 4), (_POINT_2D, 2)):
        values = next((row[key] for key in keys if key in row), None)
        if values is None:
            continue
        if not (
            isinstance(values, list)
            and len(values) == count
            and all(isinstance(value, (int, float)) for value in values)
        ):
            break
        x, y = (sum(values[axis::2]) / (count // 2) for axis in (0, 1))
        return _checked(name, x, y, width, height)
    return f'expected a box or a point of numbers, got {_short(json.dumps(row))}'


def _checked(name: str, x: float, y: float, most_x: float, most_y: float) -> Named | str:
    name = ' '.join(name.split())[:80]
    if not name:
        return f'a point at ({x:g}, {y:g}) has no name'
    if not (0 <= x <= most_x and 0 <= y <= most_y and math.isfinite(x + y)):
        return f'{name} at ({x:g}, {y:g}) lies outside of the picture'
    return Named(name, x / most_x, y / most_y)


def _short(text: str, most: int = 60) -> str:
    line = ' '.join(text.split())
    return repr(line if len(line) <= most else f'{line[:most]}...')
