# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a report shows beyond the table: OUT/details/KEY.json, one small file per method.

It holds the curve (counts at some thresholds), figures of single frames, found obstacles by size
and by the image row of their foot, times per stage, and the method's row of results.json, so that
a lost table can be made again. The size depends neither on the pixels nor, beyond some hundred
frames, on the number of images.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from road_anomaly_ros import files
from road_anomaly_ros.perception.curve import TPR_LEVEL, Steps
from road_anomaly_ros.perception.metrics import TAUS, ComponentFrame, PixelMetrics, component_frame
from road_anomaly_ros.tools.environment import by_stage

FOLDER = 'details'
ROW_BANDS = 10  # of the image height, from the top
FOUND = float(TAUS[0])  # least sIoU of an obstacle that counts as found
_EXTREMES = 40  # frames kept of each kind: worst, best, most false pixels
_RECALLS = np.linspace(0.01, 1, 100)
_FALSE_RATES = np.logspace(-6, 0, 61)
_EIGHT = np.ones((3, 3), int)  # neighbours, as in the metrics


@dataclass(frozen=True)
class Frame:
    """Figures of one image; `ap` in percent, NaN without anomalies; pixels at the threshold."""

    index: int
    name: str
    anomaly: int  # pixels
    ap: float
    missed: int  # pixels of anomalies at or below the threshold
    false: int  # other pixels above it
    objects: int
    found: int  # objects with an sIoU of at least FOUND
    alarms: int  # predicted obstacles with a PPV below FOUND


def look(
    index: int,
    name: str,
    score: np.ndarray,
    truth: np.ndarray,
    threshold: float,
    sizes: tuple[int, int],
) -> tuple[ComponentFrame, Frame, list[tuple[int, int, float]]]:
    """Return obstacles and figures of one image, and (size exponent, row band, sIoU) per object.

    `score` float [H,W], `truth` [H,W] of 0, 1, 255; `sizes` are the least predicted and true one.
    """
    parts = component_frame(score, truth, threshold, *sizes)
    above, anomaly = score > threshold, truth == 1
    ap = math.nan
    if anomaly.any() and (truth == 0).any():
        metric = PixelMetrics()
        metric.update(score, truth)
        ap = 100 * metric.compute()['ap']
    frame = Frame(
        index,
        name,
        int(anomaly.sum()),
        ap,
        int((anomaly & ~above).sum()),
        int((above & (truth == 0)).sum()),
        len(parts.siou_gt),
        int((parts.siou_gt >= FOUND).sum()),
        int((parts.ppv < FOUND).sum()),
    )
    bands = _foot_bands(anomaly, sizes[1])
    exponents = np.log2(np.maximum(parts.size_gt, 1)).astype(int)
    return parts, frame, list(zip(exponents.tolist(), bands, parts.siou_gt.tolist(), strict=True))


def _foot_bands(anomaly: np.ndarray, least: int) -> list[int]:
    """Return the band of the lowest row of every true obstacle, in the order of the metrics."""
    index, count = ndimage.label(anomaly, _EIGHT)
    sizes = np.bincount(index.ravel(), minlength=count + 1)[1:]
    places = ndimage.find_objects(index)
    return [
        int(ROW_BANDS * (place[0].stop - 1) / len(anomaly))
        for place, size in zip(places, sizes, strict=True)
        if size >= least
    ]


def thinned(steps: Steps) -> dict[str, list[Any]]:
    """Return thresholds with the anomalies ('true') and known pixels ('false') at or above them.

    Exact counts at about 150 steps of the curve: those that first reach each percent of recall,
    the last ones within false positive rates from 1e-6 to 1 in tenths of a decade, FPR95's and
    that of the best F1.
    """
    true, false = np.cumsum(steps.hits), steps.above + steps.equal
    recall, rate = true / true[-1], false / steps.known
    f1 = 2 * true / (true + false + true[-1])
    last = np.searchsorted(rate, _FALSE_RATES, 'right') - 1
    chosen = np.unique(
        np.concatenate(
            [
                np.minimum(np.searchsorted(recall, _RECALLS), len(true) - 1),
                last[last >= 0],
                [0, int(np.argmax(recall >= TPR_LEVEL)), int(np.argmax(f1)), len(true) - 1],
            ]
        )
    )
    return {
        'threshold': [float(str(np.float32(value))) for value in steps.values[chosen]],
        'true': true[chosen].tolist(),
        'false': false[chosen].tolist(),
    }


@dataclass
class Findings:
    """Gathers the details of one method while it is measured."""

    pixels: dict[str, Any] = field(default_factory=dict)
    frames: list[Frame] = field(default_factory=list)
    objects: dict[tuple[int, int], list[float]] = field(default_factory=dict)
    stages: dict[str, dict[str, float]] = field(default_factory=dict)

    def add_curve(self, steps: Steps) -> None:
        """Keep the thinned curve of all pixels."""
        self.pixels = {
            'anomaly': int(steps.hits.sum()),
            'known': int(steps.known),
            'curve': thinned(steps),
        }

    def add_frame(self, frame: Frame, objects: Sequence[tuple[int, int, float]]) -> None:
        """Keep an image's figures and count its objects by size and row."""
        self.frames.append(frame)
        for exponent, band, overlap in objects:
            cell = self.objects.setdefault((exponent, band), [0, 0, 0.0])
            cell[0] += 1
            cell[1] += int(overlap >= FOUND)
            cell[2] += overlap

    def add_times(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Condense milliseconds per stage, one mapping per image."""
        self.stages = by_stage(rows)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values; objects as cells of a table with their sums."""
        cells = [
            {
                'least_size': 2**exponent,
                'band': band,
                'count': int(count),
                'found': int(found),
                'siou': total / count,
            }
            for (exponent, band), (count, found, total) in sorted(self.objects.items())
        ]
        return {
            **self.pixels,
            'frame_count': len(self.frames),
            'frames': [vars(frame) for frame in extremes(self.frames)],
            'objects': {'found_from_siou': FOUND, 'row_bands': ROW_BANDS, 'cells': cells},
            'stages': self.stages,
        }


def extremes(frames: Sequence[Frame]) -> list[Frame]:
    """Return the frames of lowest and highest AP and of most false pixels, by their index."""
    rated = sorted((frame for frame in frames if frame.ap == frame.ap), key=lambda item: item.ap)
    noisy = sorted(frames, key=lambda item: -item.false)
    chosen = {
        item.index: item for item in (*rated[:_EXTREMES], *rated[-_EXTREMES:], *noisy[:_EXTREMES])
    }
    return [chosen[index] for index in sorted(chosen)]


def path_of(out: Path, key: str) -> Path:
    """Return where the details of one method stand."""
    return out / FOLDER / f'{key}.json'


def write(out: Path, key: str, document: Mapping[str, Any]) -> None:
    """Write the details of one method, complete or not at all."""
    files.write_json(path_of(out, key), document)


@functools.lru_cache(maxsize=256)
def _read(path: Path, _: int) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding='utf-8'))
        found['row']['dataset'], found['row']['method'], found['environment']['run']['record']
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return dict(found)


def read(out: Path, key: str) -> dict[str, Any] | None:
    """Return the details of one method; None where there are none or they are damaged."""
    path = path_of(out, key)
    return _read(path, path.stat().st_mtime_ns) if path.is_file() else None


def rebuild(out: Path) -> dict[str, Any]:
    """Return what results.json held, made from the details of all methods."""
    found: dict[str, Any] = {'environment': {}, 'results': []}
    for path in sorted((out / FOLDER).glob('*.json')):
        document = read(out, path.stem)
        if document is not None:
            found = joined(found, document['row'], document['environment'])
    return found


def joined(
    found: Mapping[str, Any], row: Mapping[str, Any], environment: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the results with one method's row and environment added or replaced."""
    name, method = row['dataset'], row['method']
    rows = [old for old in found['results'] if (old['dataset'], old['method']) != (name, method)]
    rest = {key: value for key, value in environment.items() if key != 'run'}
    run = {key: value for key, value in environment['run'].items() if key != 'record'}
    runs = dict(found['environment'].get('runs', {}))
    methods = {**runs.get(name, {}).get('methods', {}), method: environment['run']['record']}
    runs[name] = {**run, 'methods': methods}
    return {'environment': {**rest, 'runs': runs}, 'results': [*rows, dict(row)]}


def prune(out: Path, environment: Mapping[str, Any]) -> None:
    """Remove the details of methods that results.json no longer knows."""
    known = {
        record['key']
        for run in environment.get('runs', {}).values()
        for record in run['methods'].values()
    }
    for path in (out / FOLDER).glob('*.json'):
        if path.stem not in known:
            path.unlink()
