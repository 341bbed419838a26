# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Figures that papers print, to stand beside those that a user measures."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from road_anomaly_ros.remarks import one_line

FOLDER = Path('config', 'reference')
_PACKAGE = 'road_anomaly_ros'


@dataclass(frozen=True)
class Cell:
    """One printed number, in percent; `value` is None where the paper prints a dash."""

    paper: str
    table: int
    text: str  # what the table shows
    row: str  # the method as the paper calls it
    chain: str | None  # the method as `road-anomaly evaluate` calls it, where it has it
    data: str  # layout of the data set
    metric: str  # a column of results.json
    value: float | None


def load(folder: Path | None = None) -> list[Cell]:
    """Return every cell of all papers; ValueError, one line, where a file is not of that form.

    `folder` is by default the one that comes with the package.
    """
    folder = folder or find_folder()
    paths = sorted(folder.glob('*.yaml'))
    if not paths:
        raise ValueError(f'{folder}: expected reference tables (*.yaml), found none')
    return [cell for path in paths for cell in _read(path)]


def find_folder() -> Path:
    """Return config/reference of the checkout, else of the installation."""
    installed = [*os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep), sys.prefix]
    places = [
        Path(__file__).resolve().parents[2] / FOLDER,
        *(Path(prefix, 'share', _PACKAGE, FOLDER) for prefix in installed if prefix),
    ]
    for place in places:
        if place.is_dir():
            return place
    raise ValueError(f'expected the reference tables at {places[-1]}; install the package anew')


def published(cells: list[Cell], data: str, chain: str, metric: str) -> list[Cell]:
    """Return the cells that belong beside one measured figure."""
    return [
        cell for cell in cells if (cell.data, cell.chain, cell.metric) == (data, chain, metric)
    ]


def _read(path: Path) -> Iterator[Cell]:
    try:
        tree = yaml.safe_load(path.read_text(encoding='utf-8'))
        for table in tree['tables']:
            for row in table['rows']:
                yield from _cells(str(tree['paper']).strip(), table, row)
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f'{path} is no reference table ({one_line(error)}); expected paper and tables, '
            'each with table, text, data, metrics and rows'
        ) from None


def _cells(paper: str, table: Mapping[str, Any], row: Mapping[str, Any]) -> Iterator[Cell]:
    columns = [(data, metric) for data in table['data'] for metric in table['metrics']]
    if len(columns) != len(row['values']):
        raise ValueError(
            f'table {table["table"]}, row {row["row"]!r}: expected {len(columns)} '
            f'values, got {len(row["values"])}'
        )
    for (data, metric), value in zip(columns, row['values'], strict=True):
        yield Cell(
            paper,
            int(table['table']),
            str(table['text']),
            str(row['row']),
            row.get('chain'),
            data,
            metric,
            None if value is None else float(value),
        )
