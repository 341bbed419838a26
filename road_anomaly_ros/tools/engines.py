# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The tables of what `road-anomaly bench --engines` measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from road_anomaly_ros.tools.markdown import number, table

Row = Mapping[str, Any]
_HEAD = ('network', 'size', 'engine', 'ms', 'against torch', 'difference', 'AP')


def details(rows: Sequence[Row]) -> str:
    """Return every figure in Markdown, one engine a line."""
    return table(_HEAD, map(_line, rows), 4)


def summary(rows: Sequence[Row]) -> str:
    """Return milliseconds in Markdown (times as fast as torch), and what each engine costs."""
    engines = list(dict.fromkeys(row['engine'] for row in rows))
    times = {
        (*_place(row), row['engine']): f'{row["ms"]:.0f} ({row["against_torch"]:.1f})'
        for row in rows
    }
    places = list(dict.fromkeys(map(_place, rows)))
    lines = [(*place, *(times.get((*place, name), '') for name in engines)) for place in places]
    most = [[row['difference'] or 0 for row in rows if row['engine'] == name] for name in engines]
    lines.append(('largest difference', '', *(_small(max(values)) for values in most)))
    known = {row['engine']: row['AP'] for row in rows if row['AP']}
    for name in dict.fromkeys(name for found in known.values() for name in found):
        found = (number(known.get(engine, {}).get(name)) for engine in engines)
        lines.append((f'AP, built-in, {name}', '', *found))
    return table(('network', 'size', *engines), lines, len(engines))


def _line(row: Row) -> Iterator[str]:
    yield from _place(row)
    yield row['engine']
    yield number(row['ms'])
    yield number(row['against_torch'], 2)
    yield _small(row['difference'])
    yield ', '.join(map(number, (row['AP'] or {}).values()))


def _place(row: Row) -> tuple[str, str]:
    return row['network'], 'x'.join(map(str, row['size']))


def _small(value: float | None) -> str:
    return f'{value:.1e}' if value else ''
