# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Figures that papers print, to stand beside those that a user measures."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
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
    key: str = ''  # of the paper, in names such as heads-2
    settings: Mapping[str, Any] = field(default_factory=dict)  # what the row varies of the chain
    weights: Mapping[str, str] = field(default_factory=dict)  # files that it needs, by option
    model: Mapping[str, Any] = field(default_factory=dict)  # segmenter, folder, fetch, options

    @property
    def name(self) -> str:
        """The table, as `road-anomaly reproduce` calls it."""
        return f'{self.key}-{self.table}'


@dataclass(frozen=True)
class Figure:
    """A printed figure and the command line that makes ours."""

    paper: str
    name: str  # such as query-figure-3
    text: str
    command: str
    needs: str


def load(folder: Path | None = None) -> list[Cell]:
    """Return every cell of all papers; ValueError, one line, where a file is not of that form.

    `folder` is by default the one that comes with the package.
    """
    return [cell for path in _paths(folder) for cell in _read(path)]


def figures(folder: Path | None = None) -> list[Figure]:
    """Return every figure of all papers that a command makes; raises as `load` does."""
    return [figure for path in _paths(folder) for figure in _figures(path)]


def _paths(folder: Path | None) -> list[Path]:
    folder = folder or find_folder()
    paths = sorted(folder.glob('*.yaml'))
    if not paths:
        raise ValueError(f'{folder}: expected reference tables (*.yaml), found none')
    return paths


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
        cell
        for cell in cells
        if (cell.data, cell.chain, cell.metric) == (data, chain, metric) and not cell.settings
    ]


def _read(path: Path) -> Iterator[Cell]:
    try:
        tree = _tree(path)
        for table in tree['tables']:
            for row in table['rows']:
                yield from _cells(tree, table, row)
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f'{path} is no reference table ({one_line(error)}); expected paper and tables, '
            'each with table, text, data, metrics and rows'
        ) from None


def _figures(path: Path) -> Iterator[Figure]:
    tree = _tree(path)
    for row in tree.get('figures', ()):
        name = f'{tree["key"]}-figure-{row["figure"]}'
        yield Figure(_paper(tree), name, row['text'], row['command'], row['needs'])


def _tree(path: Path) -> Mapping[str, Any]:
    tree: Mapping[str, Any] = yaml.safe_load(path.read_text(encoding='utf-8'))
    return tree


def _paper(tree: Mapping[str, Any]) -> str:
    return str(tree['paper']).strip()


def _cells(
    tree: Mapping[str, Any], table: Mapping[str, Any], row: Mapping[str, Any]
) -> Iterator[Cell]:
    columns = [(data, metric) for data in table['data'] for metric in table['metrics']]
    if len(columns) != len(row['values']):
        raise ValueError(
            f'table {table["table"]}, row {row["row"]!r}: expected {len(columns)} '
            f'values, got {len(row["values"])}'
        )
    for (data, metric), value in zip(columns, row['values'], strict=True):
        yield Cell(
            _paper(tree),
            int(table['table']),
            str(table['text']),
            str(row['row']),
            row.get('chain'),
            data,
            metric,
            None if value is None else float(value),
            str(tree.get('key', '')),
            row.get('with', {}),
            row.get('weights', {}),
            table.get('model', {}),
        )
