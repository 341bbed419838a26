# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Ours beside the printed cell: runs what a table of a paper shows, on the data that is there."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from road_anomaly_ros.evaluation import reference, results, roots, running
from road_anomaly_ros.evaluation.layouts import layout_named
from road_anomaly_ros.evaluation.reference import Cell
from road_anomaly_ros.perception.config import PipelineConfig
from road_anomaly_ros.perception.model_files import resolve_model
from road_anomaly_ros.perception.refinements import REFINEMENTS

_MODELS = '{models}'
_MARKS = '<!-- tables -->', '<!-- /tables -->'
_DEPTH = 2  # folders below ROOT that are looked at for data sets


@dataclass(frozen=True)
class Place:
    """Where data and models lie, and what is asked for besides."""

    data: Path
    models: Path
    out: Path
    model: str | None = None  # instead of the table's own
    segmenter: str | None = None
    datasets: tuple[str, ...] = ()  # further ones, NAME=LAYOUT:DIR with the table's name of each
    options: Mapping[str, Any] | None = None  # for all rows; they win
    max_frames: int | None = None
    jobs: int = 1


@dataclass(frozen=True)
class Line:
    """A printed cell and ours; `ours` is None where it could not be measured."""

    cell: Cell
    ours: float | None

    @property
    def difference(self) -> float | None:
        """Ours minus theirs."""
        if self.ours is None or self.cell.value is None:
            return None
        return self.ours - self.cell.value


def tables(cells: Sequence[Cell] | None = None) -> dict[str, list[Cell]]:
    """Return the cells of every table by its name, such as query-2."""
    found: dict[str, list[Cell]] = {}
    for cell in reference.load() if cells is None else cells:
        found.setdefault(cell.name, []).append(cell)
    return found


def reproduce(name: str, place: Place) -> tuple[list[Line], list[str]]:
    """Measure what table `name` shows; returns its cells with ours, and what was left out.

    ValueError, one line, for an unknown table, a missing model, and where no data set is there.
    """
    known = tables()
    if name not in known:
        raise ValueError(f'unknown table {name!r}; choose one of {list(known)}')
    cells = known[name]
    found = _datasets(cells, place)
    missing = sorted({cell.data for cell in cells} - {root.name for root in found})
    if not found:
        raise ValueError(
            f'{place.data}: expected one of the data sets {missing}, found none; folders are '
            "known by their publishers' names, or name one with --dataset NAME=LAYOUT:DIR"
        )
    configs, left = _configs(cells, place)
    jobs = [
        running.Job(
            root.folder,
            root.layout,
            place.out,
            root.name,
            max_frames=place.max_frames,
            jobs=place.jobs,
        )
        for root in found
    ]
    running.evaluate_all(jobs, configs)
    rows = {(row['dataset'], row['method']): row for row in results.read(place.out)['results']}
    lines = [
        Line(cell, rows.get((cell.data, _method(cell)), {}).get(cell.metric)) for cell in cells
    ]
    return lines, [*(f'no data set {layout}' for layout in missing), *left]


def _method(cell: Cell) -> str:
    """Return the name of a row's method in results.json."""
    changes = '+'.join(f'{name}={value}' for name, value in cell.settings.items())
    return f'{cell.chain} {changes}'.strip()


def _datasets(cells: Sequence[Cell], place: Place) -> list[roots.Root]:
    wanted = {cell.data for cell in cells}
    found = {root.name: root for root in map(roots.parse, place.datasets) if root.name in wanted}
    folders: list[Path] = [place.data]
    for _ in range(_DEPTH):
        folders = [child for folder in folders for child in _children(folder)]
        for folder in folders:
            layout = layout_named(folder.name)
            if layout in wanted and layout not in found:
                found[layout] = roots.Root(layout, layout, folder)
    return [found[name] for name in sorted(found)]


def _children(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir())


def _configs(cells: Iterable[Cell], place: Place) -> tuple[dict[str, PipelineConfig], list[str]]:
    """Return the settings of every row that has a chain, and which files keep others out."""
    found: dict[str, PipelineConfig] = {}
    left: list[str] = []
    for cell in cells:
        method = _method(cell)
        if cell.chain is None or method in found:
            continue
        config, missing = _config(cell, place)
        if missing:
            left += [f'{cell.row}: {path} is missing' for path in missing]
        else:
            found[method] = config
    if not found:
        raise ValueError(f'no row can be measured: {"; ".join(dict.fromkeys(left))}')
    return found, list(dict.fromkeys(left))


def _config(cell: Cell, place: Place) -> tuple[PipelineConfig, list[str]]:
    given = dict(place.options or {})
    base = PipelineConfig().replace(
        {'segmenter': place.segmenter or cell.model['segmenter'], 'model': _model(cell, place)}
    )
    chain = running.method_configs([str(cell.chain)], base)[str(cell.chain)]
    options = {
        name: str(value).replace(_MODELS, str(place.models)) if isinstance(value, str) else value
        for name, value in itertools.chain(
            cell.model.get('options', {}).items(), cell.weights.items(), cell.settings.items()
        )
    }
    needed = any(REFINEMENTS[name].make.needs_segments for name in chain.refinements)
    if 'segments' in given or not (needed or cell.chain == 'vlm_points'):
        options = {
            name: value
            for name, value in options.items()
            if not name.startswith(('segments', 'segment_sources.'))
        }
    options |= given
    paths = [
        str(value)
        for name, value in options.items()
        if name not in given
        and isinstance(value, str)
        and value.startswith(f'{place.models}/')
        and not Path(value).exists()
    ]
    return chain.replace(options), paths


def _model(cell: Cell, place: Place) -> str:
    if place.model is not None:
        return place.model
    folder = place.models / str(cell.model['folder'])
    if not folder.exists():
        raise ValueError(
            f'{folder}: expected the model of the table, found nothing; fetch '
            f'{cell.model["fetch"]} to there, or name another one with --model'
        )
    return str(resolve_model(str(folder)))


def markdown(lines: Sequence[Line]) -> str:
    """Return the cells as a Markdown table: row, data, metric, printed, ours, difference."""
    rows = ['| row | data | metric | printed | ours | difference |']
    rows.append('| --- | --- | --- | ---: | ---: | ---: |')
    for line in lines:
        cell, change = line.cell, line.difference
        texts = (
            '-' if cell.value is None else f'{cell.value:g}',
            '-' if line.ours is None else f'{line.ours:.2f}',
            '-' if change is None else f'{change:+.2f}',
        )
        rows.append(f'| {cell.row} | {cell.data} | {cell.metric} | {" | ".join(texts)} |')
    return '\n'.join(rows) + '\n'


def listing() -> str:
    """Return all tables and figures with command, weights and data, for docs/reproduce.md."""
    rows = ['| of | shows | command | weights | data |', '| --- | --- | --- | --- | --- |']
    for name, cells in tables().items():
        first = cells[0]
        files = {
            value.removeprefix(f'{_MODELS}/')
            for cell in cells
            for group in (cell.model.get('options', {}), cell.weights, cell.settings)
            for value in group.values()
            if isinstance(value, str) and value.startswith(_MODELS)
        }
        weights = [f'{first.model["folder"]}/: {first.model["fetch"]}', *sorted(files)]
        data = ', '.join(dict.fromkeys(cell.data for cell in cells))
        rows.append(
            f'| {name} | {first.text} | `road-anomaly reproduce {name} --data data --models '
            f'models -o out` | {"; ".join(weights)} | {data} |'
        )
    for figure in reference.figures():
        rows.append(f'| {figure.name} | {figure.text} | `{figure.command}` | {figure.needs} | |')
    return '\n'.join(rows) + '\n'


def renewed(text: str) -> str:
    """Return docs/reproduce.md with its table made anew; ValueError without its marks."""
    before, sign, rest = text.partition(_MARKS[0])
    _, end, after = rest.partition(_MARKS[1])
    if not sign or not end:
        raise ValueError(f'expected a table between {_MARKS[0]} and {_MARKS[1]}, found none')
    return f'{before}{_MARKS[0]}\n{listing()}{_MARKS[1]}{after}'


if __name__ == '__main__':
    page = Path('docs', 'reproduce.md')
    page.write_text(renewed(page.read_text(encoding='utf-8')), encoding='utf-8')
