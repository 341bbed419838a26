# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Charts as SVG text: lines, columns and stacked bars; colours follow the page, light or dark."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

COLORS = 7  # distinct ones; more series repeat them
# Lines that lie on one another are told apart through the gaps, and so are they on grey paper.
_DASHES = ('', '9 3', '5 3', '', '2 3', '9 3 2 3', '6 5')
LIGHT = ('#0067a5', '#c44e00', '#00805a', '#a8448a', '#9a7000', '#5b53c9', '#52606d')
DARK = ('#4db2f0', '#ff9452', '#3fce9c', '#ee8fd0', '#e8bd3f', '#a8a2ff', '#aab6c2')
STYLE = """
.chart { font: 12px system-ui, sans-serif; }
.chart text { fill: var(--ink-2); } .chart .strong { fill: var(--ink); font-weight: 600; }
.chart .grid { stroke: var(--line); } .chart .frame { stroke: var(--ink-3); fill: none; }
.chart .rule { stroke: var(--ink-3); stroke-dasharray: 2 4; }
.chart .curve { fill: none; stroke-width: 2; stroke-linejoin: round; }
.chart .rest { stroke: var(--ink-3); stroke-opacity: .45; stroke-width: 1; }
"""
_LETTER = 7.0  # width of a letter, px, rather too much
_LEFT, _RIGHT, _TOP, _BOTTOM, _ROW = 50, 14, 28, 42, 18

Point = tuple[float, float]


def palette(colors: Sequence[str]) -> str:
    """Return the CSS variables of the series' colours."""
    return ' '.join(f'--c{number}: {color};' for number, color in enumerate(colors))


def _alone_style() -> str:
    """Return the colours of a picture that stands in no page."""
    light = '--ink: #16202a; --ink-2: #46525f; --ink-3: #8793a0; --line: #e3e8ed; --paper: #fff;'
    dark = '--ink: #edf1f5; --ink-2: #b3bdc8; --ink-3: #717d8a; --line: #2c343d; --paper: #161b21;'
    return (
        f'<style>svg {{ {light} {palette(LIGHT)} background: var(--paper); }}'
        f'@media (prefers-color-scheme: dark) {{ svg {{ {dark} {palette(DARK)} }} }}'
        f'{STYLE}</style>'
    )


@dataclass(frozen=True)
class Scale:
    """Where a value lies between the ends (0 to 1), and which values get a label."""

    place: Callable[[float], float]
    ticks: tuple[tuple[float, str], ...]
    label: str = ''


@dataclass(frozen=True)
class Line:
    """One series; `color` None draws it grey and leaves it out of the legend."""

    name: str
    points: Sequence[Point]
    color: int | None = None
    joined: bool = True  # else dots alone, where there is nothing between the values


@dataclass(frozen=True)
class Rule:
    """A dotted upright line with a word, such as the value that the others are compared with."""

    value: float
    text: str


def linear(low: float, high: float, label: str = '') -> Scale:
    """Return a scale of about five even steps."""
    step = _round_step((high - low) / 5)
    first = math.ceil(low / step - 1e-9)
    values = [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]
    return Scale(
        lambda value: (value - low) / (high - low),
        tuple((value, f'{round(value, 10):g}') for value in values),
        label,
    )


def _round_step(step: float) -> float:
    unit = 10.0 ** math.floor(math.log10(step))
    return next(unit * size for size in (1, 2, 5, 10) if unit * size >= step * (1 - 1e-9))


def percent(label: str = '%', *, room: float = 0) -> Scale:
    """Return a scale from 0 to 100, with some room above."""
    ticks = tuple((value, str(value)) for value in range(0, 101, 20))
    return Scale(lambda value: value / (100 + room), ticks, label)


def log(low: float, high: float, label: str = '') -> Scale:
    """Return a scale of decades; what lies below `low` stands at its end."""
    start, end = math.log10(low), math.log10(high)
    decades = range(math.ceil(start), math.floor(end) + 1)
    return Scale(
        lambda value: (math.log10(max(value, low)) - start) / (end - start),
        tuple((10.0**power, f'{10.0**power:g}') for power in decades),
        label,
    )


def words(labels: Sequence[str]) -> Scale:
    """Return a scale of names at equal distances, placed 0, 1, 2 .."""
    count = max(len(labels), 1)
    return Scale(lambda value: (value + 0.5) / count, tuple(enumerate(labels)))


def line_chart(
    lines: Sequence[Line],
    *,
    x: Scale,
    y: Scale,
    title: str,
    size: tuple[int, int],
    marked: bool = False,
    rules: Sequence[Rule] = (),
    alone: bool = False,
) -> str:
    """Return lines over axes, with a legend of the coloured ones below; `size` in px."""
    plot = _Plot(x, y, size)
    grey = [line for line in lines if line.color is None]
    colored = [line for line in lines if line.color is not None]
    parts = [
        plot.axes(),
        *(plot.rule(rule) for rule in rules),
        *(plot.curve(line, marked) for line in (*grey, *reversed(colored))),
    ]
    legend = [(line.name, line.color or 0) for line in colored]
    return _svg(title, parts, size, legend, alone, dashed=True)


def column_chart(
    labels: Sequence[str],
    series: Sequence[tuple[str, Sequence[float | None]]],
    *,
    y: Scale,
    title: str,
    size: tuple[int, int],
) -> str:
    """Return groups of columns with their values above; None leaves a column out."""
    plot = _Plot(words(labels), y, size)
    step = (plot.width / max(len(labels), 1)) * 0.8 / max(len(series), 1)
    parts = [plot.axes(upright=False)]
    for number, (name, values) in enumerate(series):
        for place, value in enumerate(values):
            if value is not None:
                left = plot.at_x(place) + (number - len(series) / 2) * step
                parts.append(plot.column(left, step * 0.92, value, number, name))
    return _svg(title, parts, size, [(name, index) for index, (name, _) in enumerate(series)])


def bar_chart(
    rows: Sequence[tuple[str, Mapping[str, float]]], *, title: str, unit: str, width: int
) -> str:
    """Return stacked horizontal bars, one per row, with their sums; keys are the legend."""
    names = list(dict.fromkeys(name for _, parts in rows for name in parts))
    left = 16 + _LETTER * max((len(label) for label, _ in rows), default=0)
    most = max((sum(parts.values()) for _, parts in rows), default=0) or 1
    scale = (width - left - 80) / most
    parts = []
    for number, (label, values) in enumerate(rows):
        top, x = _TOP + 24 * number, left
        parts.append(
            f'<text x="{left - 8:.1f}" y="{top + 13}" text-anchor="end">'
            f'{html.escape(label)}</text>'
        )
        for name, value in values.items():
            parts.append(
                f'<rect x="{x:.1f}" y="{top}" width="{max(value * scale, 0):.1f}" '
                f'height="17" fill="var(--c{names.index(name) % COLORS})">'
                f'<title>{html.escape(name)}: {value:.1f} {unit}</title></rect>'
            )
            x += value * scale
        parts.append(
            f'<text x="{x + 6:.1f}" y="{top + 13}" class="strong">'
            f'{sum(values.values()):.1f} {unit}</text>'
        )
    size = width, _TOP + 24 * len(rows) + 8
    return _svg(title, parts, size, [(name, index) for index, name in enumerate(names)])


class _Plot:
    """A rectangle with two scales."""

    def __init__(self, x: Scale, y: Scale, size: tuple[int, int]) -> None:
        self.x, self.y = x, y
        self.width, self.height = size[0] - _LEFT - _RIGHT, size[1] - _TOP - _BOTTOM

    def at_x(self, value: float) -> float:
        return _LEFT + self.width * min(max(self.x.place(value), 0), 1)

    def at_y(self, value: float) -> float:
        return _TOP + self.height * (1 - min(max(self.y.place(value), 0), 1))

    def axes(self, *, upright: bool = True) -> str:
        bottom, right = _TOP + self.height, _LEFT + self.width
        parts = []
        for value, text in self.y.ticks:
            y = self.at_y(value)
            parts.append(
                f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" '
                f'y2="{y:.1f}"/><text x="{_LEFT - 6}" y="{y + 4:.1f}" '
                f'text-anchor="end">{html.escape(text)}</text>'
            )
        for number, (value, text) in enumerate(self.x.ticks):
            x = self.at_x(value)
            if upright:
                parts.append(
                    f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom}"/>'
                )
            parts.append(self._tick(x, bottom + 16, number, text))
        parts.append(
            f'<rect class="frame" x="{_LEFT}" y="{_TOP}" width="{self.width}" '
            f'height="{self.height}"/>'
            f'<text x="{_LEFT + self.width / 2}" y="{bottom + 34}" '
            f'text-anchor="middle">{html.escape(self.x.label)}</text>'
            f'<text transform="translate(13 {_TOP + self.height / 2}) rotate(-90)" '
            f'text-anchor="middle">{html.escape(self.y.label)}</text>'
        )
        return ''.join(parts)

    def _tick(self, x: float, y: float, number: int, text: str) -> str:
        """Place a label; long ones take two heights in turn so that they do not touch."""
        room = self.width / max(len(self.x.ticks), 1)
        crowded = any(len(label) * _LETTER > room for _, label in self.x.ticks)
        down = 13 if crowded and number % 2 else 0
        return (
            f'<text x="{x:.1f}" y="{y + down:.1f}" text-anchor="middle">{html.escape(text)}</text>'
        )

    def rule(self, rule: Rule) -> str:
        x = self.at_x(rule.value)
        return (
            f'<line class="rule" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" '
            f'y2="{_TOP + self.height}"/><text x="{x + 4:.1f}" y="{_TOP + 13}">'
            f'{html.escape(rule.text)}</text>'
        )

    def curve(self, line: Line, marked: bool) -> str:
        places = [(self.at_x(x), self.at_y(y)) for x, y in line.points]
        path = ' '.join(f'{x:.1f},{y:.1f}' for x, y in places)
        title = f'<title>{html.escape(line.name)}</title>'
        if line.color is None:
            return f'<polyline class="curve rest" points="{path}">{title}</polyline>'
        color = f'var(--c{line.color % COLORS})'
        dots = (
            ''.join(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{color}"><title>'
                f'{html.escape(line.name)}: {value:.2f}</title></circle>'
                for (x, y), (_, value) in zip(places, line.points, strict=True)
            )
            if marked
            else ''
        )
        if not line.joined:
            return dots
        return (
            f'<polyline class="curve" points="{path}" style="stroke: {color}"'
            f'{_dash(line.color)}>{title}</polyline>{dots}'
        )

    def column(self, left: float, width: float, value: float, color: int, name: str) -> str:
        top, bottom = self.at_y(value), _TOP + self.height
        return (
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" '
            f'height="{max(bottom - top, 0):.1f}" fill="var(--c{color % COLORS})">'
            f'<title>{html.escape(name)}: {value:.1f}</title></rect>'
            f'<text x="{left + width / 2:.1f}" y="{top - 4:.1f}" text-anchor="middle">'
            f'{value:.0f}</text>'
        )


def _svg(
    title: str,
    parts: Sequence[str],
    size: tuple[int, int],
    legend: Sequence[tuple[str, int]],
    alone: bool = False,
    dashed: bool = False,
) -> str:
    entries, rows = _legend(legend, size, dashed)
    height = size[1] + _ROW * rows
    own = _alone_style() if alone else ''
    space = ' xmlns="http://www.w3.org/2000/svg"' if alone else ''
    return (
        f'<svg{space} class="chart" role="img" aria-label="{html.escape(title)}" '
        f'viewBox="0 0 {size[0]} {height}" width="{size[0]}" height="{height}">{own}'
        f'<text class="strong" x="{_LEFT}" y="17">{html.escape(title)}</text>'
        f'{"".join(parts)}{entries}</svg>'
    )


def _dash(color: int) -> str:
    dash = _DASHES[color % COLORS]
    return f' stroke-dasharray="{dash}"' if dash else ''


def _legend(
    legend: Sequence[tuple[str, int]], size: tuple[int, int], dashed: bool
) -> tuple[str, int]:
    """Return swatches with names, as many to a row as there is room for, and the rows."""
    parts, x, row = [], 10.0, 0
    for name, color in legend:
        width = 34 + _LETTER * len(name)
        if x > 10 and x + width > size[0]:
            x, row = 10.0, row + 1
        y = size[1] + _ROW * row + 8
        dash = _dash(color) if dashed else ''
        parts.append(
            f'<line x1="{x:.1f}" x2="{x + 18:.1f}" y1="{y}" y2="{y}" stroke-width="3" '
            f'style="stroke: var(--c{color % COLORS})"{dash}/>'
            f'<text x="{x + 23:.1f}" y="{y + 4}">{html.escape(name)}</text>'
        )
        x += width
    return ''.join(parts), row + 1 if legend else 0
