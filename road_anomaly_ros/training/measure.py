# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Measure a model's anomaly scores on pasted objects it has never seen; write its calibration.

Cut-outs stand on road or pavement of labelled frames, sized by perspective, drawn by a seed.
Pixels of an object are positive, other labelled pixels negative, unlabelled ones count nowhere.
`python -m road_anomaly_ros.training.measure --frames camvid/val --objects objects/val -o OUT`
prints the table of all scorers and writes OUT/calibration.yaml.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from tqdm import tqdm

from road_anomaly_ros.perception.calibration import FILE_NAME, VERSION
from road_anomaly_ros.perception.refinements import REFINEMENTS, RefineContext
from road_anomaly_ros.perception.scorers import evaluate
from road_anomaly_ros.perception.scorers.mask2anomaly import class_ids
from road_anomaly_ros.perception.segmenters import SEGMENTERS
from road_anomaly_ros.perception.segments import SEGMENTS
from road_anomaly_ros.training.data import IGNORE, Frame, read_folder
from road_anomaly_ros.training.generator.cutouts import cutout_files

# Rows of the table; options that are class ids are found by the model's names.
SCORERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    'eam': ('eam', {}), 'rba': ('rba', {}), 'plain': ('plain', {}), 'msp': ('msp', {}),
    'max_logit': ('max_logit', {}), 'max_entropy': ('max_entropy', {}), 'energy': ('energy', {}),
    'nls': ('nls', {}), 's2_reject': ('s2_reject', {}), 's2': ('s2', {}),
    's2 drop_void_queries': ('s2', {'drop_void_queries': True}),
    'mask2anomaly': ('mask2anomaly', {}), 'maskomaly': ('maskomaly', {}),
}
CHAINS: tuple[tuple[str, ...], ...] = (
    (), ('variance_aware',), ('road_prior',), ('variance_aware', 'road_prior'))
Pair = tuple[np.ndarray, np.ndarray]
Key = tuple[str, tuple[str, ...]]


@dataclasses.dataclass(frozen=True)
class Curve:
    """Pixel figures of one score: ap, auroc, fpr95 as shares, thresholds and the display range."""

    ap: float
    auroc: float
    fpr95: float
    threshold: float
    low_threshold: float
    display: tuple[float, float]


Curves = Mapping[Key, Curve]


def read_cutouts(folder: Path) -> list[np.ndarray]:
    """Read the RGBA cut-outs of `folder` as uint8 [h,w,4], by name; ValueError where none is."""
    images = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in cutout_files(folder)]
    found = [cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA) for image in images
             if image is not None and image.ndim == 3 and image.shape[2] == 4]
    if not found:
        raise ValueError(f'{folder}: expected RGBA cut-outs (PNG or WebP), found none')
    return found


def paste(frame: Frame, cutout: np.ndarray, ground: Sequence[int],
          rng: np.random.Generator) -> Pair:
    """Return the image with `cutout` standing on a `ground` pixel, and its truth 0, 1 or 255.

    The object is as high as its foot lies below the horizon (taken at 0.4 H), times 0.3 to 0.9.
    """
    image = frame.image.copy()
    truth = np.where(frame.labels == IGNORE, IGNORE, 0).astype(np.uint8)
    height, width = truth.shape
    rows, columns = np.nonzero(np.isin(frame.labels[:height - 4], ground))
    far = rows > .5 * height
    rows, columns = rows[far], columns[far]
    if not len(rows):
        return image, truth
    pick = rng.integers(len(rows))
    tall = max(12, round((rows[pick] - .4 * height) * rng.uniform(.3, .9)))
    wide = max(4, round(cutout.shape[1] * tall / cutout.shape[0]))
    patch = cv2.resize(cutout, (wide, tall), interpolation=cv2.INTER_AREA)
    top, left = max(0, rows[pick] - tall), int(np.clip(columns[pick] - wide // 2, 0, width - 1))
    region = np.s_[top:rows[pick], left:min(width, left + wide)]
    patch = patch[-(rows[pick] - top):, :min(width, left + wide) - left]
    alpha = cv2.GaussianBlur(patch[..., 3].astype(np.float32) / 255, (3, 3), 0)[..., None]
    image[region] = (alpha * patch[..., :3] + (1 - alpha) * image[region] + .5).astype(np.uint8)
    truth[region][patch[..., 3] > 127] = 1
    return image, truth


def pasted_frames(frames: Sequence[Frame], cutouts: Sequence[np.ndarray],
                  ground: Sequence[int], *, seed: int = 0) -> Iterator[Pair]:
    """Yield (image, truth uint8 [H,W]) for every frame, one object in each."""
    for index, frame in enumerate(frames):
        rng = np.random.default_rng([seed, index])
        yield paste(frame, cutouts[rng.integers(len(cutouts))], ground, rng)


def pixel_curve(score: np.ndarray, truth: np.ndarray) -> Curve:
    """Return the figures of `score` [N] (higher is stranger) against bool `truth` [N].

    AP is the step-wise sum of precision over recall; FPR95 the false positive rate at the first
    threshold with a true positive rate of at least 0.95. Thresholds: best F2 (a missed obstacle
    costs more than a false one) and, for growing what was found, best F4 below it.
    Display: the median of the negatives to the 99.5th percentile of all.
    """
    order = np.argsort(-score, kind='stable')
    ordered = score[order]
    last = np.r_[np.flatnonzero(np.diff(ordered)), len(ordered) - 1]
    hits = np.cumsum(truth[order])[last].astype(np.float64)
    alarms = last + 1 - hits
    recall, false_rate = hits / hits[-1], alarms / max(alarms[-1], 1)
    precision = hits / (hits + alarms)
    best, low = (int(_f_measure(precision, recall, beta).argmax()) for beta in (2, 4))
    low = max(best, low)
    quiet, loud = np.quantile(score[~truth], .5), np.quantile(score, .995)
    return Curve(ap=float(np.sum(np.diff(recall, prepend=0) * precision)),
                 auroc=float(np.trapezoid(np.r_[0, recall], np.r_[0, false_rate])),
                 fpr95=float(false_rate[np.argmax(recall >= .95)]),
                 threshold=float(_below(ordered[last], best)),
                 low_threshold=float(_below(ordered[last], low)),
                 display=(float(quiet), float(max(loud, quiet + 1e-6))))


def _f_measure(precision: np.ndarray, recall: np.ndarray, beta: float) -> np.ndarray:
    weight = beta ** 2
    return (1 + weight) * precision * recall / np.maximum(weight * precision + recall, 1e-12)


def _below(values: np.ndarray, index: int) -> float:
    """Return a threshold between values[index] and the next; `values` descend."""
    following = values[index + 1] if index + 1 < len(values) else values[index] - 1e-6
    return (values[index] + following) / 2


class Scores:
    """Every scorer through every chain of refinements, on one frame after the other."""

    def __init__(self, model: str, chains: Sequence[tuple[str, ...]],
                 device: torch.device) -> None:
        entry = SEGMENTERS['mask2former']
        self.segmenter = entry.make(model, device=device, precision=torch.float32,
                                    options=entry.options())
        segments = SEGMENTS['felzenszwalb']
        self.source = segments.make(device=device, options=segments.options())
        self.chains, self.device = chains, device
        ids = class_ids(self.segmenter.labels.names)
        self.scorers = {**SCORERS, 'mask2anomaly': ('mask2anomaly', ids)}

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> Iterator[tuple[Key, np.ndarray]]:
        """Yield ((scorer, chain), score float32 [H,W]) for uint8 RGB [H,W,3]."""
        tensor = torch.from_numpy(image).permute(2, 0, 1).to(self.device)
        output = self.segmenter([tensor])[0]
        context = None
        for name, (scorer, options) in self.scorers.items():
            found = evaluate(output, scorer, options)
            context = context or RefineContext(
                image=tensor, labels=found.labels, label_set=self.segmenter.labels,
                source=self.source)
            for chain in self.chains:
                score = found.score
                for step in chain:
                    entry = REFINEMENTS[step]
                    score = entry.make(score, context, entry.options())
                yield (name, chain), score.float().cpu().numpy()


def measure(model: str, frames: Sequence[Frame], cutouts: Sequence[np.ndarray],
            ground: Sequence[int], *, chains: Sequence[tuple[str, ...]] = CHAINS,
            device: torch.device, seed: int = 0, stride: int = 3) -> tuple[float, Curves]:
    """Return the share of positive pixels (the AP of chance) and the figures of every score.

    Scores are computed at full size and compared on every `stride`-th row and column.
    """
    compute = Scores(model, chains, device)
    scores: dict[Key, list[np.ndarray]] = {}
    truths = []
    total = len(frames)
    for image, truth in tqdm(pasted_frames(frames, cutouts, ground, seed=seed), 'measure', total):
        truth = truth[::stride, ::stride]
        valid = truth != IGNORE
        truths.append(truth[valid] == 1)
        for key, score in compute(image):
            scores.setdefault(key, []).append(score[::stride, ::stride][valid])
    truth = np.concatenate(truths)
    curves = {key: pixel_curve(np.concatenate(parts), truth) for key, parts in scores.items()}
    return float(truth.mean()), curves


def table(chance: float, curves: Curves) -> str:
    """Return the Markdown table of all scores, best AP first, in percent."""
    rows = sorted(curves.items(), key=lambda item: -item[1].ap)
    lines = ['| scorer | refinements | AP | AP / chance | AUROC | FPR95 |',
             '| --- | --- | --- | --- | --- | --- |']
    lines += [f'| {name} | {", ".join(chain) or "none"} | {100 * c.ap:.1f} | '
              f'{c.ap / chance:.1f} | {100 * c.auroc:.1f} | {100 * c.fpr95:.1f} |'
              for (name, chain), c in rows]
    return '\n'.join([*lines, f'| chance | | {100 * chance:.1f} | 1.0 | 50.0 | 95.0 |'])


def write_calibration(folder: Path, curves: Curves, *, chain: tuple[str, ...], source: str,
                      default: Mapping[str, Any]) -> None:
    """Write calibration.yaml: the `default` chain, and per scorer what was found after `chain`.

    Rows whose name has a blank are variants: they stand in the table, not in the calibration.
    """
    scorers = {}
    for (name, refinements), curve in curves.items():
        if ' ' not in name and refinements == chain:
            scorers[name] = {
                'threshold': _short(curve.threshold),
                'low_threshold': _short(min(curve.low_threshold, curve.threshold)),
                'display': [_short(value) for value in curve.display], 'source': source}
    partial = folder / f'.{FILE_NAME}.partial'
    partial.write_text(yaml.safe_dump(
        {'version': VERSION, 'default': dict(default), 'scorers': scorers}, sort_keys=False),
        encoding='utf-8')
    os.replace(partial, folder / FILE_NAME)


def _short(value: float) -> float:
    return float(f'{value:.5g}')


def _settings(pairs: Sequence[str]) -> dict[str, Any]:
    for pair in pairs:
        if '=' not in pair:
            raise ValueError(f'--set: expected NAME=VALUE, got {pair!r}')
    return {name: yaml.safe_load(value) for name, value in (pair.split('=', 1) for pair in pairs)}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the calibration."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--frames', type=Path, required=True, help='folder with images/, labels/')
    parser.add_argument('--objects', type=Path, required=True, help='folder of RGBA cut-outs')
    parser.add_argument('--model', default='builtin')
    parser.add_argument('--classes', type=int, default=11, help='number of classes (default 11)')
    parser.add_argument('--ground', default='3,4', help='label ids to stand on (default 3,4)')
    parser.add_argument('--every', type=int, default=1, help='take every so many-th frame')
    parser.add_argument('--seed', type=int, default=0, help='seed of the pasting (default 0)')
    parser.add_argument('--scorer', default='plain', help='scorer of the default chain')
    parser.add_argument('--refinements', default='road_prior',
                        help='refinements of the default chain')
    parser.add_argument('--set', action='append', default=[], metavar='NAME=VALUE',
                        help='an option of the default chain; may be given several times')
    parser.add_argument('-o', '--out', type=Path, help='folder that receives calibration.yaml')
    args = parser.parse_args(argv)
    frames = read_folder(args.frames, classes=args.classes)[::args.every]
    ground = [int(part) for part in args.ground.split(',')]
    chance, curves = measure(args.model, frames, read_cutouts(args.objects), ground,
                             device=torch.device('cpu'), seed=args.seed)
    print(table(chance, curves))
    if args.out:
        chain = tuple(part for part in args.refinements.split(',') if part)
        write_calibration(args.out, curves, chain=chain,
                          source=f'{len(frames)} frames with pasted objects',
                          default={'scorer': args.scorer, 'refinements': list(chain),
                                   **_settings(args.set)})
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
