# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""results.json, the tables made of it, and the comparison of two of them."""

from __future__ import annotations

import csv
import io
import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from road_anomaly_ros import files
from road_anomaly_ros.files import plain
from road_anomaly_ros.tools.markdown import table

NAME = 'results.json'
METRICS = ('AP', 'AUROC', 'FPR95', 'sIoU', 'PPV', 'F1', 'mIoU')
_AVERAGED = METRICS[:-1]  # data sets differ in their classes, so mIoU has no mean
_COLUMNS = ('dataset', 'method', *METRICS, 'frames', 'seconds')
_UNITS = 'Metrics in percent; seconds are those of all frames together.'
_FORM = '{"environment": {...}, "results": [{"dataset", "method", "AP", ...}]}'

Row = Mapping[str, Any]


def read(path: Path) -> dict[str, Any]:
    """Return results.json, given as file or by its folder; ValueError where it is none."""
    path = path / NAME if path.is_dir() else path
    try:
        found = json.loads(path.read_text(encoding='utf-8'))
        for row in found['results']:
            row['dataset'], row['method']
        return {'environment': dict(found['environment']), 'results': list(found['results'])}
    except FileNotFoundError:
        raise ValueError(
            f'{path}: expected results of road-anomaly evaluate, found none'
        ) from None
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f'{path}: expected {_FORM}; was it written by road-anomaly evaluate?'
        ) from None


def write(out: Path, found: Mapping[str, Any]) -> None:
    """Write results.json, table.md and table.csv; undefined figures are null or empty."""
    rows = found['results']
    averages = means(rows)
    kept = {name: value for name, value in found.items() if name != 'means'}
    files.write(out / 'table.md', markdown(rows))
    files.write(out / 'table.csv', comma_separated(rows))
    files.write_json(out / NAME, {**kept, 'means': averages} if averages else kept)


def set_aside(path: Path) -> Path:
    """Copy a file of results to a name that is free; returns it."""
    numbers = itertools.count(1)
    aside = path.with_name(f'{path.name}.earlier')
    while aside.exists():
        aside = path.with_name(f'{path.name}.earlier.{next(numbers)}')
    files.write(aside, path.read_bytes())
    return aside


def add_video(path: Path, about: Mapping[str, Any], row: Row) -> None:
    """Write a table of videos with one row more; that of the same video is replaced.

    Rows made with something else than `about`, such as other options, are set aside and told.
    """
    video, earlier = about['columns'][0], _videos(path)
    about = plain(about)
    rows = earlier.get('videos', [])
    if rows and any(earlier.get(name) != value for name, value in about.items()):
        aside = set_aside(path)
        print(
            f'warning: {path} was made with other options; it is kept as {aside.name}',
            file=sys.stderr,
        )
        rows = []
    rows = [old for old in rows if old[video] != row[video]]
    files.write_json(path, {**about, 'videos': [*rows, row]})


def _videos(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding='utf-8'))
        [row[found['columns'][0]] for row in found['videos']]
        return dict(found)
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, IndexError):
        raise ValueError(
            f'{path}: expected {{"rule", "columns", "videos": [..]}}; move it away, or choose '
            'another folder'
        ) from None


def other_data(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the data sets of one name in both results that are known not to be the same data."""
    first, second = (found['environment'].get('runs', {}) for found in (before, after))
    return [
        name
        for name in first
        if name in second
        and None not in (first[name].get('fingerprint'), second[name].get('fingerprint'))
        and first[name]['fingerprint'] != second[name]['fingerprint']
    ]


def markdown(rows: Sequence[Row]) -> str:
    """Return the Markdown table of all rows and their `means`, metrics in percent."""
    columns = _used(rows)
    lines = [
        [_cell(row.get(column)) for column in columns] for row in (*_sorted(rows), *means(rows))
    ]
    return f'{table(columns, lines)}\n\n{_UNITS}\n'


def means(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the mean row of every method over the data sets with anomalies, best AP first.

    Data sets weigh alike, whatever their frames; 'dataset' says how many they are, and of how
    many where a method lacks some. A metric that is undefined on one of them has no mean. Empty
    for a single data set.
    """
    rated = [row for row in rows if _number(row.get('AP')) >= 0]
    every = {row['dataset'] for row in rated}
    found = []
    for method in dict.fromkeys(row['method'] for row in rated):
        own = [row for row in rated if row['method'] == method]
        if len(own) < 2:
            continue
        some = '' if len(own) == len(every) else f' of {len(every)}'
        figures = {name: _mean([row.get(name) for row in own]) for name in _AVERAGED}
        found.append(
            {
                'dataset': f'mean of {len(own)}{some}',
                'method': method,
                **figures,
                'frames': sum(row['frames'] for row in own),
                'seconds': sum(row.get('seconds') or 0.0 for row in own),
                'datasets': sorted(row['dataset'] for row in own),
            }
        )
    return sorted(found, key=lambda row: (-len(row['datasets']), *_best_first(row)))


def _mean(values: Sequence[Any]) -> float | None:
    defined = all(_number(value) >= 0 for value in values)
    return sum(values) / len(values) if defined else None


def comma_separated(rows: Sequence[Row]) -> str:
    """Return the same table as CSV, figures unrounded."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    columns = _used(rows)
    writer.writerow(columns)
    for row in _sorted(rows):
        cells = plain([row.get(column) for column in columns])
        writer.writerow(['' if cell is None else cell for cell in cells])
    return text.getvalue()


def compare(before: Sequence[Row], after: Sequence[Row]) -> str:
    """Return a Markdown table of what both results hold, `after` with its difference in points.

    Rows of only one of them are named below. ValueError where they have nothing in common.
    """
    first, second = (
        {(row['dataset'], row['method']): row for row in rows} for rows in (before, after)
    )
    common = [key for key in first if key in second]
    if not common:
        raise ValueError('the two results have no data set and method in common')
    metrics = [
        name
        for name in METRICS
        if any(
            first[key].get(name) is not None or second[key].get(name) is not None for key in common
        )
    ]
    changes = [
        [*key, *(_change(first[key].get(name), second[key].get(name)) for name in metrics)]
        for key in sorted(common)
    ]
    lines = [table(['dataset', 'method', *metrics], changes)]
    alone = [
        (side, key)
        for side, one, other in (('A', first, second), ('B', second, first))
        for key in sorted(one)
        if key not in other
    ]
    lines += [f'only in {side}: {dataset}, {method}' for side, (dataset, method) in alone]
    return '\n'.join(lines) + '\n'


def _change(before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return f'{_cell(before) or "-"} to {_cell(after) or "-"}'
    return f'{after:.2f} ({after - before:+.2f})'


def _used(rows: Sequence[Row]) -> list[str]:
    return [name for name in _COLUMNS if name != 'mIoU' or any('mIoU' in row for row in rows)]


def _sorted(rows: Sequence[Row]) -> list[Row]:
    """Order by data set, best AP first."""
    return sorted(rows, key=lambda row: (row['dataset'], *_best_first(row)))


def _best_first(row: Row) -> tuple[float, str]:
    return -_number(row.get('AP')), row['method']


def _number(value: Any) -> float:
    return value if isinstance(value, (int, float)) and value == value else -1.0


def _cell(value: Any) -> str:
    value = plain(value)
    if value is None:
        return ''
    return f'{value:.2f}' if isinstance(value, float) else str(value)
