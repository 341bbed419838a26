# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The steps of `road-anomaly benchmark`, and the tables and pictures that they renew."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from road_anomaly_ros import files
from road_anomaly_ros.evaluation import (
    bench_sets,
    bench_tables,
    material,
    reference,
    report,
    results,
    running,
    sections,
    sweep,
)
from road_anomaly_ros.evaluation.bench_sets import CAMVID
from road_anomaly_ros.evaluation.material import trained
from road_anomaly_ros.evaluation.variants import PRESETS
from road_anomaly_ros.perception import Pipeline
from road_anomaly_ros.perception.config import PipelineConfig
from road_anomaly_ros.perception.heads import FOLDER
from road_anomaly_ros.perception.scorers import SCORERS
from road_anomaly_ros.perception.scorers.mask2anomaly import class_ids
from road_anomaly_ros.tools.markdown import table

CHAINS = ('', '+variance_aware', '+road_prior', '+variance_aware+road_prior')
CURVE = 'precision_recall.svg'  # beside the page
BEGIN, END = '<!-- accuracy -->', '<!-- /accuracy -->'
TABLES = 'accuracy.md'
_HEAD = ('score', 'AP alone', 'variance_aware', 'road_prior', 'both', 'best: FPR95', 'F1')
_ACROSS = ('', '+variance_aware+road_prior')  # chains tried on real frames
_MOST = 5  # scores besides the default on the page, there
DRAWN = 'results'  # folder of OUT with the figures on drawn images
_ON_REAL = (
    'Real frames that no training saw, all pixels, in percent: {}. Each score with its '
    'best chain; the mean weighs data sets alike. Rows without a chain are printed by '
    'publications, on all frames of these data sets.'
)
_ON_WEB = 'Pasted things of kinds that no training saw {}; chains as above.'
_NOT_MEASURED = ('external',)  # it is fed with maps of another method


def measure(
    data: Path, out: Path, *, frames: int, sweep_frames: int, own: Sequence[str] | None = None
) -> dict[str, Any]:
    """Do all steps that are not done yet; returns the results by their folder, and the curves.

    `own` are the scores to measure, by default all. ValueError where DATA lacks a part.
    """
    for part in ('camvid/val', 'objects/val'):
        if not (data / part).is_dir():
            raise ValueError(
                f'{data}: expected {part} in it, found none; give the '
                'folder of the data with --data'
            )
    model = Pipeline.from_config({})
    base = PipelineConfig.from_any(class_options(model.labels.names))
    drawn = running.Job(
        bench_sets.draw(data / 'camvid' / 'val', data / 'objects' / 'val', out / 'val', frames),
        'synthetic',
        out / DRAWN,
        max_frames=frames,
    )
    steps = _steps(data, out, drawn, frames, own or scorers(model.model_dir))
    for name, (jobs, methods) in steps.items():
        print(f'{name}: {", ".join(job.name or job.layout for job in jobs)}', flush=True)
        running.evaluate_all(jobs, running.method_configs(methods, base))
    print('sweep of s2', flush=True)
    job = dataclasses.replace(drawn, out=out / 'sweep', max_frames=sweep_frames)
    sweep.sweep(job, PRESETS['s2'].method, PRESETS['s2'].axes, base)
    gathered = material.gather([*(out / name for name in steps), out / 'sweep'])
    path = report.write(
        gathered, out, title='Road anomaly segmentation: built-in model on what no training saw'
    )
    print(f'report in {path}', flush=True)
    return {
        **{name: results.read(out / name) for name in steps},
        'group': max(
            (group for group in gathered.groups if group.dataset == drawn.layout),
            key=lambda group: len(group.rows),
        ),
    }


def _steps(
    data: Path, out: Path, drawn: running.Job, frames: int, own: Sequence[str]
) -> dict[str, tuple[list[running.Job], list[str]]]:
    """Return jobs and methods by folder of OUT, for what DATA holds."""
    unseen = [name for name in own if not material.trained(name)]
    across = ['auto', *(f'{scorer}{chain}' for scorer in unseen for chain in _ACROSS)]
    steps = {
        DRAWN: ([drawn], [f'{scorer}{chain}' for scorer in own for chain in CHAINS]),
        bench_sets.REAL: (bench_sets.real(data, out, frames), across),
        bench_sets.WEB: (bench_sets.web(data, out, frames), across),
        bench_sets.CLASSES: (bench_sets.classes(data, out, frames), ['plain']),
    }
    return {name: step for name, step in steps.items() if step[0]}


def class_options(names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return the ids of a model's classes, where a score asks for some."""
    return {f'scorers.mask2anomaly.{name}': ids for name, ids in class_ids(names).items()}


def scorers(model: Path | None) -> list[str]:
    """Return every score that a mask model in this folder can have, its own heads among them."""

    def runs(name: str) -> bool:
        missing = trained(name) and not (model is not None and (model / FOLDER / name).is_dir())
        return name not in _NOT_MEASURED and not missing

    return [name for name in SCORERS.names() if 'mask' in SCORERS[name].make.kinds and runs(name)]


def tables(found: Mapping[str, Any], most: int | None = None) -> str:
    """Return all tables, with `most` zero-shot scores on real frames; see `bench_tables`."""
    parts = [
        accuracy(found[DRAWN], found[bench_sets.CLASSES]).rstrip('\n')
        + ' '
        + bench_tables.elsewhere(found[bench_sets.CLASSES], without=bench_sets.CAMVID)
    ]
    for name, papers, text in (
        (bench_sets.REAL, reference.load(), _ON_REAL),
        (bench_sets.WEB, (), _ON_WEB),
    ):
        shown = bench_tables.across(found[name], papers, most) if name in found else ''
        if shown:
            parts.append(f'{shown}\n{text.format(bench_tables.frames(found[name]))}\n')
    return '\n'.join(part.rstrip(' \n') + '\n' for part in parts)


def accuracy(drawn: Mapping[str, Any], classes: Mapping[str, Any]) -> str:
    """Return the Markdown table of all scores and chains, best first, and what it was made on."""
    rows = {row['method']: row for row in drawn['results']}
    by_scorer: dict[str, list[Mapping[str, Any] | None]] = {}
    for name in rows:
        scorer = name.split('+')[0]
        by_scorer[scorer] = [rows.get(f'{scorer}{chain}') for chain in CHAINS]
    alike: dict[tuple[str, ...], list[str]] = {}  # scores that order all pixels the same way
    for scorer, chains in sorted(by_scorer.items(), key=lambda item: -_ap(_best(item[1]))):
        best = _best(chains)
        cells = [_cell(row, 'AP', bold=row is best) for row in chains]
        mark = ' (trained)' if trained(scorer) else ''
        key = (*cells, _cell(best, 'FPR95'), _cell(best, 'F1'))
        alike.setdefault(key, []).append(f'`{scorer}`{mark}')
    lines = [(', '.join(names), *cells) for cells, names in alike.items()]
    run = next(iter(drawn['environment']['runs'].values()))
    pixels = run['pixels']
    chance = 100 * pixels['anomaly'] / max(pixels['anomaly'] + pixels['inlier'], 1)
    union = next(
        (row for row in classes['results'] if row['dataset'] == CAMVID), classes['results'][0]
    )
    return (
        f'{table(_HEAD, lines, len(_HEAD) - 1)}\n\n'
        f'{run["frames"]} frames of CamVid val with pasted objects of unseen kinds, all '
        f'pixels, in percent; the AP of chance is {chance:.1f}. F1 is that of obstacles. '
        f'The built-in model has mIoU {union["mIoU"]:.1f} on {union["frames"]} frames of '
        'CamVid val.\n'
    )


def _ap(row: Mapping[str, Any] | None) -> float:
    return -1.0 if row is None or row['AP'] is None else float(row['AP'])


def _best(rows: Sequence[Mapping[str, Any] | None]) -> Mapping[str, Any] | None:
    return max(rows, key=_ap)


def _cell(row: Mapping[str, Any] | None, name: str, *, bold: bool = False) -> str:
    if row is None or row[name] is None:
        return ''
    return f'**{row[name]:.1f}**' if bold else f'{row[name]:.1f}'


def split(path: Path) -> tuple[str, str]:
    """Return what stands before and after the table; ValueError without its markers."""
    try:
        text = path.read_text(encoding='utf-8')
    except OSError as error:
        raise ValueError(f'{path}: expected the page: {error.strerror}') from None
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(
            f'{path}: expected the lines {BEGIN} and {END} around the table; add '
            'them where it shall stand'
        )
    return before, after


def write(found: Mapping[str, Any], out: Path) -> str:
    """Write all tables to OUT; returns them."""
    text = tables(found)
    files.write(out / TABLES, text)
    return text


def renew(path: Path, text: str) -> None:
    """Put the table between the markers; the file is replaced when it is complete."""
    before, after = split(path)
    files.write(path, f'{before}{BEGIN}\n{text}{END}{after}')


def publish(page: Path, found: Mapping[str, Any]) -> Path:
    """Renew the tables of a page and the curves beside it; returns the picture's path."""
    renew(page, tables(found, most=_MOST))
    picture = page.parent / CURVE
    files.write(picture, sections.precision_chart(found['group'], alone=True))
    return picture
