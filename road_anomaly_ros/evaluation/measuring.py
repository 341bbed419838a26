# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""From a data set and some methods to figures: one pass of the network, then one row per method.

Scores wait on disk between the two, so that memory holds one image and the scores of anomalies.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from road_anomaly_ros.evaluation.datasets import DataSet
from road_anomaly_ros.evaluation.details import Findings, look
from road_anomaly_ros.evaluation.layouts import IGNORE
from road_anomaly_ros.evaluation.store import Scores, Store
from road_anomaly_ros.perception.contract import LabelSet
from road_anomaly_ros.perception.curve import ExactCurve, Steps, summarize
from road_anomaly_ros.perception.labels import counted_as
from road_anomaly_ros.perception.metrics import ComponentMetrics, MeanIoU, component_frame
from road_anomaly_ros.perception.pipeline import Pipeline
from road_anomaly_ros.tools import workbench

_PIXEL = {'AP': 'ap', 'AUROC': 'auroc', 'FPR95': 'fpr95'}  # column: name in metrics.py
_COMPONENT = ('sIoU', 'PPV', 'F1')
STAGES = ('segment', 'score', 'segments', 'refine')  # as `Scored` calls them
_MOST_THREADS = 8


@dataclass(frozen=True)
class Method:
    """One chain to be measured; `key` changes with all that its scores depend on."""

    name: str
    chain: Any  # of Pipeline.prepare
    key: str


def score_images(
    pipeline: Pipeline,
    data: DataSet,
    methods: Sequence[Method],
    store: Scores,
    *,
    seed: int = 0,
    advance: Callable[[], object] = lambda: None,
    indices: Sequence[int] | None = None,
) -> None:
    """Store the scores of every image, or of those numbered, by every method that has none yet.

    All methods that an image lacks share one pass of the network. ValueError for an image that a
    method cannot score, OSError when the disk is full; what is stored stays.
    """
    for index in range(len(data)) if indices is None else indices:
        sample = data.samples[index]
        missing = [method for method in methods if not store.has(method.key, index)]
        if missing:
            torch.manual_seed(seed + index)
            np.random.seed(seed + index)
            chains = [method.chain for method in missing]
            found = workbench.scores(pipeline, sample.read_image(), chains)
            for method, scored in zip(missing, found, strict=True):
                if scored.notes:
                    raise ValueError(f'{method.name}, {sample.image}: {scored.notes[0]}')
                arrays: dict[str, Any] = {
                    'seconds': scored.milliseconds / 1e3,
                    'stages': [scored.stages.get(stage, math.nan) for stage in STAGES],
                }
                if sample.anomaly is not None:
                    arrays['score'] = _finite(scored.score, f'{method.name}, {sample.image}')
                if sample.classes is not None:
                    arrays['classes'] = scored.labels.cpu().numpy()
                store.write(method.key, index, arrays)
        advance()


def _finite(score: torch.Tensor, what: str) -> np.ndarray:
    found = score.float().cpu().numpy()
    if not np.isfinite(found).all():
        raise ValueError(f'{what}: the score holds NaN or infinity; set sanitize_inputs=true')
    return found


def measure(
    data: DataSet,
    store: Store,
    key: str,
    *,
    labels: LabelSet | None = None,
    sizes: tuple[int, int] | None = None,
    findings: Findings | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the figures of one method in percent, NaN where undefined, and how they came about.

    `labels` are the model's classes, for mIoU; `sizes` the least predicted and least true obstacle
    in pixels, by default the layout's; `findings` receives what a report shows besides.
    """
    sizes = sizes or data.layout.sizes
    row: dict[str, Any] = dict.fromkeys((*_PIXEL, *_COMPONENT), math.nan)
    details: dict[str, Any] = {'min_pred_size': sizes[0], 'min_gt_size': sizes[1]}
    steps = curve_of(data, store, key)
    if steps is not None:
        pixels = summarize(steps)
        row.update({name: 100 * pixels[short] for name, short in _PIXEL.items()})
        details.update(best_f1=100 * pixels['best_f1'], threshold=pixels['best_threshold'])
        if findings is not None:
            findings.add_curve(steps)
        found = _component_figures(data, store, key, pixels['best_threshold'], sizes, findings)
        row.update({name: 100 * found[name] for name in _COMPONENT})
    shared = None if labels is None else shared_classes(labels.names, data.layout.class_names)
    if shared is not None:
        row['mIoU'] = 100 * mean_iou(data, store, key, shared)
        details['classes'] = list(shared.names)
    row['frames'] = len(data)
    row['seconds'] = sum(float(store.read(key, index, 'seconds')) for index in range(len(data)))
    if findings is not None:
        findings.add_times([_stages(store, key, index) for index in range(len(data))])
    return row, details


def _stages(store: Store, key: str, index: int) -> dict[str, float]:
    spent = store.read(key, index, 'stages').tolist()
    return {stage: time for stage, time in zip(STAGES, spent, strict=True) if time == time}


def _component_figures(
    data: DataSet,
    store: Store,
    key: str,
    threshold: float,
    sizes: tuple[int, int],
    findings: Findings | None,
) -> Mapping[str, Any]:
    metric = ComponentMetrics(threshold, *sizes)

    def parts(index: int) -> Any:
        score, truth = _scored(data, store, key, index)
        if findings is None:
            return component_frame(score, truth, threshold, *sizes), None, ()
        return look(index, data.samples[index].name, score, truth, threshold, sizes)

    for frame, figures, objects in _parallel(parts, range(len(data))):
        metric.frames.append(frame)
        if findings is not None:
            findings.add_frame(figures, objects)
    return metric.compute()


def _scored(data: DataSet, store: Store, key: str, index: int) -> tuple[np.ndarray, Any]:
    return store.read(key, index, 'score'), data.anomaly(index)


def curve_of(data: DataSet, store: Store, key: str) -> Steps | None:
    """Return the curve over the pixels of all images; None where it is undefined.

    Exact: only the scores of anomalies are held; known pixels are counted between them.
    """

    def anomalies(index: int) -> np.ndarray:
        score, truth = _scored(data, store, key, index)
        return score[truth == 1]

    def places(index: int) -> Any:
        score, truth = _scored(data, store, key, index)
        return curve.places(score[truth == 0])

    labelled = [index for index, sample in enumerate(data.samples) if sample.anomaly is not None]
    curve = ExactCurve(_parallel(anomalies, labelled))
    for found in _parallel(places, labelled):
        curve.add(found)
    steps = curve.steps()
    return steps if steps.known and steps.values.size else None


def _parallel(work: Callable[[int], Any], indices: Sequence[int]) -> Iterator[Any]:
    """Yield what `work` returns, in order; a few images at a time, to keep memory bounded."""
    threads = min(_MOST_THREADS, len(os.sched_getaffinity(0)))
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(indices), threads):
            yield from pool.map(work, indices[start : start + threads])


@dataclass(frozen=True)
class SharedClasses:
    """The classes in which a model and a data set are compared, and how each gets there.

    predicted, truth: uint8 [256], from stored class ids to places in `names`; the ids of classes
    that the other side lacks are translated to len(names), which is always wrong.
    """

    names: tuple[str, ...]
    predicted: np.ndarray
    truth: np.ndarray


def shared_classes(model: Sequence[str], data: Sequence[str]) -> SharedClasses | None:
    """Return the classes of the data set, where the model has each of them or a part of each.

    Else those of the model, where all of the data set's are one of them or a part of one, as the
    19 of a rendered drive are for a model of CamVid's 11. Else None.
    """
    own = np.arange(256, dtype=np.uint8)
    forward = counted_as(model, data)
    if data and set(range(len(data))) <= set(forward):
        return SharedClasses(tuple(data), _table(forward, len(data)), own)
    backward = counted_as(data, model)
    if not data or set(range(len(model))) != set(backward):
        return None
    return SharedClasses(tuple(model), own, _table(backward, len(model)))


def _table(places: Sequence[int | None], missing: int) -> np.ndarray:
    """Return uint8 [256] of places, `missing` for None and unknown ids; 255 stays ignored."""
    table = np.full(256, missing, np.uint8)
    table[: len(places)] = [missing if place is None else place for place in places]
    table[IGNORE] = IGNORE
    return table


def mean_iou(data: DataSet, store: Store, key: str, shared: SharedClasses) -> float:
    """Return the mean IoU of the stored classes, in the classes of `shared_classes`."""
    metric = MeanIoU(len(shared.names))

    def pair(index: int) -> tuple[np.ndarray, np.ndarray]:
        return (
            shared.predicted[store.read(key, index, 'classes')],
            shared.truth[data.classes(index)],
        )

    labelled = [index for index, sample in enumerate(data.samples) if sample.classes is not None]
    for predicted, truth in _parallel(pair, labelled):
        metric.update(predicted, truth)
    return float(metric.compute()['miou'])
