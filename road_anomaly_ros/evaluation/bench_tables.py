# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The tables that `road-anomaly benchmark` puts into docs/accuracy.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from road_anomaly_ros.evaluation import results
from road_anomaly_ros.evaluation.reference import Cell
from road_anomaly_ros.tools.markdown import number, table

DEFAULT = 'auto'
_METRICS = ('AP', 'FPR95', 'F1')
# Rows of publications to stand beside ours, by their table and the name that they print.
PAPERS = {
    (1, 'ERFNet MaxLogit'): 'ERFNet, MaxLogit',
    (2, 'EoMT MaxEntropy'): 'EoMT, MaxEntropy',
    (4, 'Feature-Enriched Head (V2)'): 'EoMT, head V2',
}

Row = Mapping[str, Any]
Found = Mapping[str, Any]  # of results.read


def across(found: Found, papers: Sequence[Cell] = (), most: int | None = None) -> str:
    """Return a Markdown table over data sets: the default, each score's best chain, publications.

    Chains are compared by their mean AP. Columns per data set, then their mean; `most` scores
    besides the default are shown. Empty without a figure.
    """
    rows = _by_method(found)
    names = list(found['environment'].get('runs', {}))
    if not rows:
        return ''
    groups = [*names, *(['mean'] if len(names) > 1 else [])]
    head = [
        'score',
        *(
            f'{group}: {metric}' if metric == 'AP' else metric
            for group in groups
            for metric in _METRICS
        ),
    ]

    def cells(method: str) -> tuple[str, ...]:
        return tuple(
            number(rows[method].get(group, {}).get(metric))
            for group in groups
            for metric in _METRICS
        )

    alike: dict[tuple[str, ...], list[str]] = {}  # scores that order all pixels the same way
    for method in sorted(_best_chains(rows), key=lambda method: -_mean_ap(rows[method])):
        alike.setdefault(cells(method), []).append(_label(method, found))
    lines = [(_label(DEFAULT, found), *cells(DEFAULT))] if DEFAULT in rows else []
    lines += [(', '.join(labels), *figures) for figures, labels in list(alike.items())[:most]]
    lines += [
        (name, *map(number, values)) for name, values in _published(papers, names, groups, found)
    ]
    return table(head, lines, len(head) - 1) + '\n'


def _by_method(found: Found) -> dict[str, dict[str, Row]]:
    """Return method to data set to figures; the mean over all data sets is one of them."""
    rows: dict[str, dict[str, Row]] = {}
    for row in found['results']:
        if row.get('AP') is not None:
            rows.setdefault(row['method'], {})[row['dataset']] = row
    names = set(found['environment'].get('runs', {}))
    for row in results.means(found['results']):
        if set(row['datasets']) == names:
            rows[row['method']]['mean'] = row
    return rows


def _mean_ap(row: Mapping[str, Row]) -> float:
    return float(row.get('mean', next(iter(row.values())))['AP'])


def _best_chains(rows: Mapping[str, Mapping[str, Row]]) -> Iterator[str]:
    by_score: dict[str, list[str]] = {}
    for method in rows:
        if method != DEFAULT:
            by_score.setdefault(method.split('+')[0], []).append(method)
    for chains in by_score.values():
        yield max(chains, key=lambda method: _mean_ap(rows[method]))


def _label(method: str, found: Found) -> str:
    """Return the chain as it ran; what the default stands for is told."""
    if method != DEFAULT:
        return f'`{method}`'
    run = next(iter(found['environment']['runs'].values()))
    options = run['methods'][DEFAULT]['options']
    return f'`{"+".join([options["scorer"], *options["refinements"]])}` (default)'


def _published(
    papers: Sequence[Cell], names: Sequence[str], groups: Sequence[str], found: Found
) -> Iterator[tuple[str, list[float | None]]]:
    """Yield the rows of publications that know all data sets of the table."""
    layouts = {name: found['environment']['runs'][name]['layout'] for name in names}
    for (printed, row), title in PAPERS.items():
        own = {
            (cell.data, cell.metric): cell.value
            for cell in papers
            if (cell.table, cell.row) == (printed, row)
        }
        figures = {
            name: [own.get((layout, metric)) for metric in _METRICS]
            for name, layout in layouts.items()
        }
        if not own or any(values[0] is None for values in figures.values()):
            continue
        columns = list(zip(*figures.values(), strict=True))
        figures['mean'] = [
            None if None in column else sum(column) / len(column) for column in columns
        ]
        yield title, [value for group in groups for value in figures[group]]


def frames(found: Found) -> str:
    """Return the data sets of a table with the number of their images, as part of a sentence."""
    runs = found['environment'].get('runs', {})
    return ', '.join(f'{name} ({run["frames"]})' for name, run in runs.items())


def elsewhere(found: Found, *, without: str) -> str:
    """Return a sentence with the mIoU on data sets other than `without`; empty without any."""
    parts = []
    for row in found['results']:
        if row['dataset'] != without and row.get('mIoU') is not None:
            run = found['environment']['runs'][row['dataset']]
            count = len(run['methods'][row['method']].get('classes', ()))
            parts.append(
                f'{row["mIoU"]:.1f} on {row["frames"]} frames of {row["dataset"]} '
                f'({count} classes)'
            )
    return f'On other roads its mIoU is {", ".join(parts)}.\n' if parts else ''
