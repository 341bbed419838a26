# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a report is made of: results of one or several folders, sorted by data set."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from road_anomaly_ros.evaluation import details, results, sweep, videos
from road_anomaly_ros.files import read_yaml
from road_anomaly_ros.perception.calibration import Calibration


def trained(scorer: str) -> bool:
    """Tell whether a score learned from drawn anomalies, as the heads did."""
    return scorer.startswith('head_')


@dataclass(frozen=True)
class Row:
    """One method on one data set."""

    method: str
    figures: Mapping[str, Any]  # the row of results.json
    record: Mapping[str, Any]  # key, options, checkpoints, threshold ..
    found: Mapping[str, Any]  # its details; empty where they are gone
    origin: str = ''  # its folder, where another one has a row of this method too

    @property
    def scorer(self) -> str:
        """The score that ran, with 'auto' resolved."""
        return str(self.record.get('options', {}).get('scorer', self.method.split('+')[0]))

    @property
    def chain(self) -> str:
        """Score and refinements that ran, as the reference tables call them."""
        refinements = self.record.get('options', {}).get('refinements', ())
        return '+'.join([self.scorer, *refinements])

    @property
    def label(self) -> str:
        """The name for people: what 'auto' stands for is told."""
        name = f'auto ({self.chain})' if self.method == 'auto' else self.method
        return f'{name} in {self.origin}' if self.origin else name

    def figure(self, name: str) -> float | None:
        """Return a figure in percent; None where it is undefined."""
        value = self.figures.get(name)
        return float(value) if isinstance(value, (int, float)) and value == value else None


@dataclass(frozen=True)
class Group:
    """Rows that were measured on the same images, best AP first."""

    dataset: str
    run: Mapping[str, Any]  # layout, folder, frames, pixels
    rows: tuple[Row, ...]

    @property
    def name(self) -> str:
        """The data set with the number of its images."""
        return f'{self.dataset}, {self.frames} frames'

    @property
    def frames(self) -> int:
        """The number of images."""
        return int(self.run.get('frames', 0))

    @property
    def chance(self) -> float | None:
        """The AP of a score that knows nothing, in percent: the share of anomalies."""
        pixels = self.run.get('pixels', {})
        known = pixels.get('inlier', 0) + pixels.get('anomaly', 0)
        return 100 * pixels['anomaly'] / known if known and pixels.get('anomaly') else None


@dataclass
class Material:
    """All that was found."""

    groups: list[Group] = field(default_factory=list)
    sweeps: list[Mapping[str, Any]] = field(default_factory=list)
    videos: list[Mapping[str, Any]] = field(default_factory=list)
    environments: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    calibration: tuple[Calibration, Mapping[str, Any]] | None = None
    bench: Mapping[str, Any] | None = None


def gather(
    folders: Sequence[Path], calibration: Path | None = None, bench: Path | None = None
) -> Material:
    """Read everything; ValueError, one line, for what is none of ours or damaged."""
    found = Material()
    rows: dict[tuple[Any, ...], tuple[Mapping[str, Any], dict[tuple[Any, ...], Row]]] = {}
    for folder in folders:
        if not folder.exists():
            raise ValueError(f'{folder}: expected a folder of results, found nothing')
        varied = _read_sweep(folder, found)
        moving = videos.read(folder)
        found.videos += moving
        if folder.is_dir() and not (folder / results.NAME).is_file() and (varied or moving):
            continue
        document = results.read(folder)
        found.environments.append((str(folder), document['environment']))
        out = folder if folder.is_dir() else folder.parent
        for dataset, run, row in _rows(out, document):
            if (dataset, row.method) in varied:
                continue
            same = (
                dataset,
                run.get('layout'),
                run.get('frames'),
                run.get('fingerprint'),
                tuple(sorted(run.get('pixels', {}).items())),
            )
            made = [row.record.get(name) for name in ('key', 'min_pred_size', 'min_gt_size')]
            which = (row.method, *(made if made[0] else [str(folder)]))
            row = replace(row, origin=str(folder))
            rows.setdefault(same, (run, {}))[1][which] = row
    found.groups = [
        Group(key[0], run, tuple(sorted(_told_apart([*named.values()]), key=_by_ap)))
        for key, (run, named) in rows.items()
    ]
    found.calibration = None if calibration is None else _read_calibration(calibration)
    found.bench = None if bench is None else _read_bench(bench)
    return found


def _told_apart(rows: Sequence[Row]) -> list[Row]:
    """Return the rows, with their folders only where methods would share a label."""
    methods = [row.method for row in rows]
    return [row if methods.count(row.method) > 1 else replace(row, origin='') for row in rows]


def _by_ap(row: Row) -> tuple[float, str]:
    return -(row.figure('AP') or -1.0), row.method


def _read_sweep(folder: Path, found: Material) -> set[tuple[str, str]]:
    """Add the folder's sweep; returns (data set, method) of its variants."""
    if not folder.is_dir() or not (folder / sweep.NAME).is_file():
        return set()
    document = sweep.read(folder)
    found.sweeps.append(document)
    return {
        (document['dataset'], point['method'])
        for axis in document['axes']
        for point in axis['points']
    } | {(document['dataset'], document['base'])}


def _rows(out: Path, document: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], Row]]:
    runs = document['environment'].get('runs', {})
    for figures in document['results']:
        run = runs.get(figures['dataset'], {'frames': figures.get('frames', 0)})
        record = run.get('methods', {}).get(figures['method'], {})
        found = details.read(out, record['key']) if 'key' in record else None
        if found is not None:  # a method may be older than the run that others share
            run = found['environment']['run']
        yield figures['dataset'], run, Row(figures['method'], figures, record, found or {})


def _read_calibration(path: Path) -> tuple[Calibration, Mapping[str, Any]]:
    checked = Calibration.read(path)
    return checked, read_yaml(path)


def _read_bench(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding='utf-8'))
        for row in found['chain']:
            row['size'], row['scorer'], row['stages']['total']['p50']
        return dict(found)
    except OSError as error:
        raise ValueError(
            f'{path}: expected the JSON of road-anomaly bench: {error.strerror}'
        ) from None
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f'{path}: expected the JSON of road-anomaly bench -o, got another file'
        ) from None
