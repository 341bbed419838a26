# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The parts of a report that look behind the figures: frames, failures, time, environment."""

from __future__ import annotations

import functools
import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from road_anomaly_ros.evaluation import charts
from road_anomaly_ros.evaluation.frames import Shown
from road_anomaly_ros.evaluation.material import Group, Material, Row
from road_anomaly_ros.evaluation.page import (
    Cell,
    figure,
    folded,
    grid,
    heading,
    image,
    paragraph,
    table,
)
from road_anomaly_ros.evaluation.sections import contenders

_SERIES = 3  # methods side by side in a column chart
_BARS = 16
_KINDS = {
    'worst': 'Frames of the lowest AP',
    'best': 'Frames of the highest AP',
    'false': 'Frames with the most false pixels',
}


def pictures(shown: Sequence[tuple[Group, Row, Sequence[Shown], str]]) -> str:
    """Return the frames by kind, or the line that says why there are none."""
    parts = []
    for group, row, found, note in shown:
        parts.append(heading(f'{row.label} on {group.name}'))
        if note:
            parts.append(paragraph(note))
            continue
        parts.append(
            paragraph(
                'Left the camera image, right the heat of the score. Cyan: contour of the true '
                'anomaly. White: contour of what lies above the threshold of the best F1.',
                'small',
            )
        )
        for kind, title in _KINDS.items():
            some = [
                image(item.jpeg, _caption(item.figures)) for item in found if item.kind == kind
            ]
            if some:
                parts += [f'<p><strong>{title}</strong></p>', grid(some, 'wide')]
    return ''.join(parts)


def _caption(frame: Mapping[str, Any]) -> str:
    ap = '' if frame['ap'] is None else f'AP {frame["ap"]:.1f} %, '
    return (
        f'{frame["name"]}: {ap}obstacles found: {frame["found"]} of {frame["objects"]}, '
        f'false: {frame["alarms"]}; {frame["missed"]:,} of {frame["anomaly"]:,} px '
        f'missed, {frame["false"]:,} px false.'
    )


def failures(material: Material) -> str:
    """Return the share of found obstacles by size and by the row of their foot."""
    parts = ''.join(map(_failures_of, material.groups))
    text = (
        'An obstacle counts as found when its sIoU is at least 0.25, the lowest of the thresholds '
        'of F1. With few obstacles in a class a rate says little: the counts stand below.'
    )
    return parts and paragraph(text, 'small') + parts


def _failures_of(group: Group) -> str:
    rows = [row for row in contenders(group, _SERIES) if row.found.get('objects', {}).get('cells')]
    if not rows:
        return ''
    cells, bands = (rows[0].found['objects'][name] for name in ('cells', 'row_bands'))
    sizes = sorted({_size_class(cell) for cell in cells})
    heights = sorted({cell['band'] for cell in cells})
    by_size = _rates(
        rows,
        sizes,
        _size_class,
        _size_label,
        'Found obstacles by size',
        'size of the obstacle in pixels, and how many there are',
    )
    by_row = _rates(
        rows,
        heights,
        lambda cell: cell['band'],
        functools.partial(_band_label, bands=bands),
        'Found obstacles by the image row of their foot',
        'row from the top of the image: left far, right near the camera',
    )
    rates = grid([by_size, by_row], 'wide')
    table = _matrix(rows[0], sizes, heights, bands)
    return heading(group.name) + paragraph(_weakest(rows[0])) + rates + table


def _size_class(cell: Mapping[str, Any]) -> int:
    """Return the least size of its class: powers of four."""
    exponent = int(cell['least_size']).bit_length() - 1
    return 1 << (exponent - exponent % 2)


def _size_label(least: int) -> str:
    return f'{least}-{4 * least - 1}'


def _band_label(band: int, bands: int) -> str:
    return f'{100 * band // bands}-{100 * (band + 1) // bands} %'


def _share(cells: Sequence[Mapping[str, Any]]) -> float | None:
    count = sum(cell['count'] for cell in cells)
    return 100 * sum(cell['found'] for cell in cells) / count if count else None


def _rates(
    rows: Sequence[Row],
    classes: Sequence[int],
    kind: Callable[[Any], int],
    label: Callable[[int], str],
    title: str,
    axis: str,
) -> str:
    def of(row: Row, value: int) -> list[Mapping[str, Any]]:
        return [cell for cell in row.found['objects']['cells'] if kind(cell) == value]

    counts = [sum(cell['count'] for cell in of(rows[0], value)) for value in classes]
    labels = [f'{label(value)} ({count})' for value, count in zip(classes, counts, strict=True)]
    series = [(row.label, [_share(of(row, value)) for value in classes]) for row in rows]
    chart = charts.column_chart(
        labels, series, y=charts.percent('found, %', room=10), title=title, size=(500, 320)
    )
    return figure(chart, f'In brackets the number of obstacles. Axis: {axis}.')


def _weakest(row: Row) -> str:
    """Return in a sentence where the method misses most."""
    cells = row.found['objects']['cells']
    missed: dict[int, int] = {}
    for cell in cells:
        size = _size_class(cell)
        missed[size] = missed.get(size, 0) + cell['count'] - cell['found']
    total = sum(missed.values())
    if not total:
        return f'{row.label} finds every obstacle.'
    worst = max(missed, key=lambda size: missed[size])
    return (
        f'{row.label} misses {total} of {sum(cell["count"] for cell in cells)} obstacles; '
        f'{missed[worst]} of them are {_size_label(worst)} px large.'
    )


def _matrix(row: Row, sizes: Sequence[int], heights: Sequence[int], bands: int) -> str:
    lines: list[list[str | Cell]] = []
    for band in heights:
        line: list[str | Cell] = [_band_label(band, bands)]
        for size in sizes:
            cells = [
                cell
                for cell in row.found['objects']['cells']
                if cell['band'] == band and _size_class(cell) == size
            ]
            share = _share(cells)
            line.append(
                ''
                if share is None
                else Cell(
                    f'{sum(cell["found"] for cell in cells)} of '
                    f'{sum(cell["count"] for cell in cells)}',
                    style=f'background: rgba(var(--heat), {0.05 + 0.0045 * share:.2f})',
                )
            )
        lines.append(line)
    return table(
        ['foot at row', *(f'{_size_label(size)} px' for size in sizes)],
        lines,
        f'{row.label}: found obstacles by row of the foot (far above, near below) and size.',
    )


def times(material: Material) -> str:
    """Return the time of every stage, from the results and from a benchmark."""
    parts = []
    for group in material.groups:
        rows = [row for row in group.rows if row.found.get('stages')][:_BARS]
        if not rows:
            continue
        bars = [
            (
                row.label,
                {
                    stage: spent['p50']
                    for stage, spent in row.found['stages'].items()
                    if stage != 'total'
                },
            )
            for row in rows
        ]
        parts += [
            heading(group.name),
            figure(
                charts.bar_chart(
                    bars, title='Median time of a frame by stage', unit='ms', width=1000
                ),
                'segment: the network; score: the dense pass; segments: class-agnostic '
                'segments; refine: refinements. Network, scores and segments that methods share '
                'are charged to each of them in full. '
                f'The best {len(rows)} methods, measured while all ran in one '
                'process.',
            ),
        ]
    if material.bench is not None:
        parts.append(_bench(material.bench))
    return ''.join(parts)


def _bench(bench: Mapping[str, Any]) -> str:
    stages = list(dict.fromkeys(stage for row in bench['chain'] for stage in row['stages']))
    rows = [
        [
            f'{row["size"][0]}x{row["size"][1]}',
            '+'.join([row['scorer'], *row.get('refinements', ())]),
            f'{row.get("fps", 0):g}',
            *(_pair(row['stages'].get(stage)) for stage in stages),
        ]
        for row in bench['chain']
    ]
    machine = bench.get('environment', {})
    where = machine.get('gpu') or machine.get('cpu', 'unknown machine')
    return heading('Benchmark') + table(
        ['size', 'chain', 'frames/s', *(f'{stage}, ms' for stage in stages)],
        rows,
        f'p50 / p99 of road-anomaly bench on {where}, {machine.get("cores", "?")} cores.',
    )


def _pair(stage: Mapping[str, float] | None) -> str:
    return '–' if stage is None else f'{stage["p50"]:.1f} / {stage["p99"]:.1f}'


def calibration(material: Material) -> str:
    """Return thresholds and what else the calibration file states."""
    if material.calibration is None:
        return ''
    checked, tree = material.calibration
    rows = [
        [
            name,
            f'{levels.threshold:.5g}',
            f'{levels.low_threshold:.5g}',
            f'{levels.display[0]:.4g} to {levels.display[1]:.4g}',
            Cell(levels.source, 'text'),
        ]
        for name, levels in checked.scorers.items()
    ]
    parts = [
        table(
            ['score', 'threshold', 'low threshold', 'display', 'from'],
            rows,
            f'{checked.path}: an obstacle begins above the threshold and grows down to the '
            'low one.',
        )
    ]
    known = {'threshold', 'low_threshold', 'display', 'source'}
    stated = {key: value for key, value in tree.items() if key != 'scorers'}
    stated.update(
        {
            f'scorers.{name}': rest
            for name, entry in tree.get('scorers', {}).items()
            if (rest := {key: value for key, value in entry.items() if key not in known})
        }
    )
    lines = [[name, Cell(text, 'text')] for name, text in _flat(stated)]
    if lines:
        parts.append(
            table(['stated', 'value'], lines, 'Defaults and promises, as the file states them.')
        )
    return ''.join(parts)


def _flat(value: Any, name: str = '') -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        return [
            pair
            for key, inner in value.items()
            for pair in _flat(inner, f'{name}.{key}' if name else str(key))
        ]
    text = ', '.join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return [(name, text)]


def environment(material: Material) -> str:
    """Return machine, versions, seeds, hashes and the options of every method."""
    parts = []
    alike: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for folder, found in material.environments:
        shown = {key: value for key, value in found.items() if key != 'runs'}
        alike.setdefault(tuple(_flat(shown)), []).append(folder)
    for lines, folders in alike.items():
        parts += [
            heading(', '.join(folders)),
            table(['what', 'value'], [[name, Cell(text, 'text')] for name, text in lines]),
        ]
    options = [
        (group, row)
        for group in material.groups
        for row in group.rows
        if row.record.get('options')
    ]
    if options:
        parts.append(
            folded(
                'options of every method', ''.join(_options(group, row) for group, row in options)
            )
        )
    return ''.join(parts)


def _options(group: Group, row: Row) -> str:
    text = ', '.join(f'{name}={value}' for name, value in _flat(row.record['options']))
    return (
        f'<p><strong>{html.escape(f"{row.label}, {group.dataset}")}</strong><br>'
        f'<code>{html.escape(text)}</code></p>'
    )
