# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Options of a method varied one at a time around a base: figures, tables and pictures."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from road_anomaly_ros import files
from road_anomaly_ros.evaluation import charts, results, running, variants
from road_anomaly_ros.evaluation.running import Job
from road_anomaly_ros.evaluation.variants import FIGURES, PRESETS, Axis, file_name, parse_axis
from road_anomaly_ros.perception.config import PipelineConfig
from road_anomaly_ros.tools.markdown import number, table

NAME = 'sweep.json'
CURVES = 'curves'
_DRAWN = ('AP', 'FPR95', 'F1')


def chosen(method: str | None, vary: Sequence[str], preset: str | None) -> tuple[str, list[Axis]]:
    """Return the base method and the axes; ValueError where there is nothing to vary."""
    if preset is not None and preset not in PRESETS:
        raise ValueError(f'--preset: unknown preset {preset!r}; choose one of {list(PRESETS)}')
    axes = [] if preset is None else list(PRESETS[preset].axes)
    axes += [parse_axis(text) for text in vary]
    if not axes:
        raise ValueError(
            f'expected something to vary: --vary NAME=V1,V2 or --preset {"|".join(PRESETS)}'
        )
    names = [axis.name for axis in axes]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ValueError(f'--vary: {doubled[0]!r} is there twice')
    return method or ('auto' if preset is None else PRESETS[preset].method), axes


def sweep(job: Job, method: str, axes: Sequence[Axis], config: PipelineConfig) -> dict[str, Any]:
    """Measure all variants and write everything; returns the content of sweep.json."""
    base = running.method_configs([method], config)[method]
    configs, names = variants.variant_configs(method, base, axes)
    running.evaluate(job, configs)
    measured = results.read(job.out)
    name = job.name or job.layout
    rows = {row['method']: row for row in measured['results'] if row['dataset'] == name}
    made = [
        variants.points(axis, chain, method, rows) for axis, chain in zip(axes, names, strict=True)
    ]
    run = measured['environment']['runs'][name]
    document = {
        'environment': {
            **measured['environment'],
            'runs': {
                name: {**run, 'methods': {chain: run['methods'][chain] for chain in configs}}
            },
        },
        'dataset': name,
        'frames': rows[method]['frames'],
        'base': method,
        'key': run['methods'][method]['key'],
        'axes': made,
    }
    document = _with_earlier(job.out, document)
    write(job.out, document)
    return document


def _with_earlier(out: Path, document: dict[str, Any]) -> dict[str, Any]:
    """Add the other axes of an earlier sweep of the same base."""
    try:
        before = read(out)
    except ValueError:
        return document
    if (before['dataset'], before['key']) != (document['dataset'], document['key']):
        return document
    new = {axis['name'] for axis in document['axes']}
    kept = [axis for axis in before['axes'] if axis['name'] not in new]
    return {**document, 'axes': [*kept, *document['axes']]}


def read(path: Path) -> dict[str, Any]:
    """Return sweep.json, given as file or by its folder; ValueError where it is none."""
    path = path / NAME if path.is_dir() else path
    try:
        found = json.loads(path.read_text(encoding='utf-8'))
        for axis in found['axes']:
            axis['name'], axis['text'], [point['label'] for point in axis['points']]
        found['dataset'], found['base'], found['key']
    except FileNotFoundError:
        raise ValueError(f'{path}: expected a sweep of road-anomaly sweep, found none') from None
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f'{path}: expected {{"environment", "dataset", "base", "axes": [..]}}; '
            'was it written by road-anomaly sweep?'
        ) from None
    return dict(found)


def write(out: Path, document: Mapping[str, Any]) -> None:
    """Write the table as Markdown and CSV, a picture per axis, and sweep.json last."""
    files.write(out / 'sweep.md', markdown(document))
    files.write(out / 'sweep.csv', comma_separated(document))
    for axis in document['axes']:
        files.write(out / CURVES / f'{file_name(axis["name"])}.svg', picture(axis))
    files.write_json(out / NAME, document)


def picture(axis: Mapping[str, Any], *, alone: bool = True) -> str:
    """Return an SVG of AP, FPR95 and F1 against the values of one axis.

    Values stand at equal distances, in the order given: they often span decades or are words.
    """
    marks = axis['points']
    numbers = all(point.get('value') is not None for point in marks)
    lines = [
        charts.Line(
            figure,
            [
                (place, point[figure])
                for place, point in enumerate(marks)
                if point.get(figure) is not None
            ],
            number,
            numbers,
        )
        for number, figure in enumerate(_DRAWN)
    ]
    base = [place for place, point in enumerate(marks) if point.get('base')]
    return charts.line_chart(
        lines,
        x=charts.words([point['label'] for point in marks]),
        y=charts.percent(),
        title=axis['name'],
        marked=True,
        alone=alone,
        size=(380, 250),
        rules=[charts.Rule(place, 'base') for place in base],
    )


def markdown(document: Mapping[str, Any]) -> str:
    """Return one Markdown table per axis, figures in percent, the base marked."""
    lines = [f'{document["dataset"]}, {document["frames"]} frames, base {document["base"]}']
    for axis in document['axes']:
        lines += [
            '',
            f'{axis["name"]}: {axis["text"]}',
            '',
            table(['value', *FIGURES], map(_line, axis['points']), len(FIGURES)),
        ]
    return '\n'.join(lines) + '\n'


def _line(point: Mapping[str, Any]) -> list[str]:
    label = f'{point["label"]} (base)' if point['base'] else point['label']
    return [label, *(number(point[figure], 2) for figure in FIGURES)]


def comma_separated(document: Mapping[str, Any]) -> str:
    """Return all axes as one CSV, figures unrounded."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(['dataset', 'option', 'value', 'method', *FIGURES])
    for axis in document['axes']:
        for point in axis['points']:
            writer.writerow(
                [
                    document['dataset'],
                    axis['name'],
                    point['label'],
                    point['method'],
                    *('' if point[figure] is None else point[figure] for figure in FIGURES),
                ]
            )
    return text.getvalue()
