# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Measure everything on pasted objects of unseen kinds, and renew the README's accuracy table.

DATA holds camvid/val and objects/val. OUT gets the drawn data set, the figures of all scores with
and without refinements and of both heads, the built-in model's mIoU on CamVid, the sweep of the
zero-shot score, and report.html. A run that was stopped is continued by the same command.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from road_anomaly_ros.tools.chain import positive

EXAMPLES = """
examples:
  road-anomaly benchmark --data ../shared/data -o benchmark_out
  road-anomaly benchmark --data ../shared/data -o benchmark_out --readme README.md
  road-anomaly benchmark --data ../shared/data -o try --frames 4 --sweep-frames 2
"""
CHAINS = ('', '+variance_aware', '+road_prior', '+variance_aware+road_prior')
CURVE = 'docs/precision_recall.svg'     # beside the README
BEGIN, END = '<!-- accuracy -->', '<!-- /accuracy -->'
SEED = 1
# Scores by the ids of CamVid's classes, where a score asks for some.
OPTIONS = {'scorers.mask2anomaly.refine_class_ids': (0, 1, 2, 4, 5, 6, 7),
           'scorers.mask2anomaly.paper_class_ids': (3, 8, 9, 10)}
_HEADS = ('head_v1', 'head_v2')
_NOT_MEASURED = ('external',)       # it is fed with maps of another method


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('--data', metavar='DIR', type=Path, required=True,
                        help='folder with camvid/val and objects/val')
    parser.add_argument('-o', '--out', metavar='OUT', type=Path, required=True,
                        help='folder for everything that is made')
    parser.add_argument('--frames', metavar='N', type=positive, default=101,
                        help='images to draw and measure (default: %(default)s)')
    parser.add_argument('--sweep-frames', metavar='N', type=positive, default=25,
                        help='images of the sweep (default: %(default)s)')
    parser.add_argument('--scorers', metavar='NAME', nargs='+',
                        help='measure these scores only (default: all)')
    parser.add_argument('--readme', metavar='FILE', type=Path,
                        help=f'renew the table between {BEGIN} and {END} in this file, and the '
                             f'picture {CURVE} beside it')


def main(arguments: argparse.Namespace) -> int:
    """Run the command; returns 0, or 130 when Ctrl-C ended it early."""
    from road_anomaly_ros.evaluation import running, sections, store
    if arguments.readme is not None:
        split(arguments.readme)
    for part in ('camvid/val', 'objects/val'):
        if not (arguments.data / part).is_dir():
            raise ValueError(f'{arguments.data}: expected {part} in it, found none; give the '
                             'folder of the data with --data')
    try:
        found = measure(arguments)
    except KeyboardInterrupt:
        return running.interrupted(arguments.out)
    text = accuracy(found['drawn'], found['classes'])
    print(text, end='')
    if arguments.readme is not None:
        renew(arguments.readme, text)
        picture = arguments.readme.parent / CURVE
        picture.parent.mkdir(exist_ok=True)
        store.write_text(picture, sections.precision_chart(found['group'], alone=True))
        print(f'table in {arguments.readme}, curves in {picture}')
    return 0


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Do all steps that are not done yet; returns the results on drawn images and on CamVid."""
    from road_anomaly_ros.evaluation import material, report, results, running, sweep
    from road_anomaly_ros.evaluation.variants import PRESETS
    from road_anomaly_ros.perception.config import PipelineConfig
    out, base = arguments.out, PipelineConfig.from_any(OPTIONS)
    drawn = running.Job(draw(arguments.data, out / 'val', arguments.frames), 'synthetic',
                        out / 'results', max_frames=arguments.frames)
    print('methods on drawn images', flush=True)
    names = [f'{scorer}{chain}' for scorer in arguments.scorers or scorers() for chain in CHAINS]
    running.evaluate(drawn, running.method_configs(names, base))
    print('classes of CamVid', flush=True)
    camvid = running.Job(arguments.data / 'camvid' / 'val', 'camvid', out / 'classes',
                         max_frames=arguments.frames)
    running.evaluate(camvid, running.method_configs(['plain'], base))
    print('sweep of s2', flush=True)
    job = dataclasses.replace(drawn, out=out / 'sweep', max_frames=arguments.sweep_frames)
    preset = PRESETS['s2']
    sweep.sweep(job, preset.method, preset.axes, base)
    gathered = material.gather([out / 'results', out / 'classes', out / 'sweep'])
    path = report.write(gathered, out,
                        title='Road anomaly segmentation: built-in model on objects of unseen '
                        'kinds')
    print(f'report in {path}', flush=True)
    return {'drawn': results.read(out / 'results'), 'classes': results.read(out / 'classes'),
            'group': max(gathered.groups, key=lambda group: len(group.rows))}


def scorers() -> list[str]:
    """Return every score that a mask model can have, zero-shot ones and heads."""
    from road_anomaly_ros.perception.scorers import SCORERS
    return [name for name in SCORERS.names() if name not in _NOT_MEASURED
            and 'mask' in SCORERS[name].make.kinds]


def draw(data: Path, out: Path, count: int) -> Path:
    """Draw the images that are missing, as `road-anomaly synthesize --seed 1` does."""
    from road_anomaly_ros.training import synthesize
    parser = argparse.ArgumentParser()
    synthesize.add_arguments(parser)
    code = synthesize.main(parser.parse_args([
        '--backgrounds', str(data / 'camvid' / 'val'), '--objects', str(data / 'objects' / 'val'),
        '--count', str(count), '--seed', str(SEED), '-o', str(out)]))
    if code:
        raise KeyboardInterrupt
    return out


def accuracy(drawn: Mapping[str, Any], classes: Mapping[str, Any]) -> str:
    """Return the Markdown table of all scores and chains, best first, and what it was made on."""
    rows = {row['method']: row for row in drawn['results']}
    by_scorer: dict[str, list[Mapping[str, Any] | None]] = {}
    for name in rows:
        scorer = name.split('+')[0]
        by_scorer[scorer] = [rows.get(f'{scorer}{chain}') for chain in CHAINS]
    lines = ['| score | AP alone | variance_aware | road_prior | both | best: FPR95 | F1 |',
             '| --- | ---: | ---: | ---: | ---: | ---: | ---: |']
    alike: dict[tuple[str, ...], list[str]] = {}    # scores that order all pixels the same way
    for scorer, chains in sorted(by_scorer.items(), key=lambda item: -_ap(_best(item[1]))):
        best = _best(chains)
        cells = [_cell(row, 'AP', bold=row is best) for row in chains]
        mark = ' (trained)' if scorer in _HEADS else ''
        key = (*cells, _cell(best, 'FPR95'), _cell(best, 'F1'))
        alike.setdefault(key, []).append(f'`{scorer}`{mark}')
    lines += [f'| {" | ".join((", ".join(names), *cells))} |' for cells, names in alike.items()]
    run = next(iter(drawn['environment']['runs'].values()))
    pixels = run['pixels']
    chance = 100 * pixels['anomaly'] / max(pixels['anomaly'] + pixels['inlier'], 1)
    union = classes['results'][0]
    lines += ['', f'{run["frames"]} frames of CamVid val with pasted objects of unseen kinds, all '
              f'pixels, in percent; the AP of chance is {chance:.1f}. F1 is that of obstacles. '
              f'The built-in model has mIoU {union["mIoU"]:.1f} on {union["frames"]} frames of '
              'CamVid val.']
    return '\n'.join(lines) + '\n'


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
        raise ValueError(f'{path}: expected the README: {error.strerror}') from None
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f'{path}: expected the lines {BEGIN} and {END} around the table; add '
                         'them where it shall stand')
    return before, after


def renew(path: Path, text: str) -> None:
    """Put the table between the markers; the file is replaced when it is complete."""
    from road_anomaly_ros.evaluation.store import write_text
    before, after = split(path)
    write_text(path, f'{before}{BEGIN}\n{text}{END}{after}')
