# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Measure anomaly heads beside every zero-shot score on the same drawn images.

`python -m road_anomaly_ros.training.head_table --val SYNTH --heads FOLDER [--out TABLE.md]`: the
images are those of `road-anomaly synthesize`, the heads lie in FOLDER/head_v1 and FOLDER/head_v2.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from road_anomaly_ros.perception import heads, scorers
from road_anomaly_ros.perception.refinements import REFINEMENTS, RefineContext
from road_anomaly_ros.perception.segmenters import SEGMENTERS
from road_anomaly_ros.perception.segments import SEGMENTS
from road_anomaly_ros.training.generator.writer import read_records, read_sample
from road_anomaly_ros.training.head_trainer import figures
from road_anomaly_ros.training.measure import CHAINS, SCORERS, pixel_curve

Method = tuple[str, Mapping[str, Any]]
Chain = tuple[str, ...]


def methods(folder: Path) -> dict[str, Method]:
    """Return every zero-shot score and the heads in `folder`, by the name of their row."""
    found: dict[str, Method] = dict(SCORERS)
    for kind in heads.KINDS:
        if (folder / kind / heads.INFO).is_file():
            found[kind] = kind, {'checkpoint': str(folder / kind)}
    return found


def measure(data: Path, chosen: Mapping[str, Method], *, segmenter: str = 'mask2former',
            model: str = 'builtin', chains: Sequence[Chain] = CHAINS,
            stride: int = 3) -> dict[str, dict[str, float]]:
    """Return AP, AUROC, FPR95, best F1 and its threshold per method and chain of refinements.

    All methods score the same pass of the segmenter at full size; every `stride`-th row and column
    counts.
    """
    entry = SEGMENTERS[segmenter]
    frozen = entry.make(model, device=torch.device('cpu'), precision=torch.float32,
                        options=entry.options())
    for name in heads.KINDS:
        if name in chosen:
            options = scorers.SCORERS[name].options(**chosen[name][1])
            scorers.bind(name, options, frozen)
    scores: dict[str, list[np.ndarray]] = {}
    truths = []
    for image, mask in _samples(data):
        mask = mask[::stride, ::stride]
        truths.append(mask[mask != 255] == 1)
        for name, score in _scores(image, frozen, chosen, chains):
            scores.setdefault(name, []).append(score[::stride, ::stride][mask != 255])
    truth = np.concatenate(truths)
    found = {'chance': {'AP': float(truth.mean())}}
    for name, parts in scores.items():
        score = np.concatenate(parts)
        found[name] = figures(pixel_curve(score, truth), score, truth)
    return found


@torch.inference_mode()
def _scores(image: np.ndarray, frozen: Any, chosen: Mapping[str, Method],
            chains: Sequence[Chain]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name of each row with its score [H,W]."""
    source = SEGMENTS['felzenszwalb']
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    asked = {'features': 'pyramid'} if 'head_v2' in chosen else {}
    output = frozen([pixels], **asked)[0]
    context = None
    for name, (scorer, options) in chosen.items():
        found = scorers.evaluate(output, scorer, options)
        context = context or RefineContext(
            image=pixels, labels=found.labels, label_set=frozen.labels,
            source=source.make(device=pixels.device, options=source.options()))
        for chain in chains:
            score = found.score
            for step in chain:
                score = REFINEMENTS[step].make(score, context, REFINEMENTS[step].options())
            yield ' + '.join([name, *chain]), score.numpy()


def _samples(data: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    records = read_records(data)
    if not records:
        raise ValueError(f"{data}: expected images of 'road-anomaly synthesize', found none")
    for index in tqdm(sorted(records), 'measure', disable=None):
        yield read_sample(data, records[index])


def table(found: Mapping[str, Mapping[str, float]]) -> str:
    """Return the Markdown table, best AP first."""
    lines = ['| score | AP | FPR95 | F1 | AUROC |', '| --- | --- | --- | --- | --- |']
    for name, row in sorted(found.items(), key=lambda item: -item[1]['AP']):
        cells = [f'{row[key]:.3f}' if key in row else '' for key in ('AP', 'FPR95', 'F1', 'AUROC')]
        lines.append(f'| {name} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--val', type=Path, required=True, help='folder of drawn images')
    parser.add_argument('--heads', type=Path, required=True, help='folder of the heads')
    parser.add_argument('--model', default='builtin')
    parser.add_argument('--out', type=Path, help='file for the table')
    args = parser.parse_args(argv)
    found = measure(args.val, methods(args.heads), model=args.model)
    print(table(found))
    if args.out:
        args.out.write_text(table(found) + '\n', encoding='utf-8')
        args.out.with_suffix('.json').write_text(json.dumps(found, indent=1), encoding='utf-8')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
