# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How well scores and labels match the ground truth, per pixel, per obstacle and per class.

Ground truth is 0 (known), 1 (anomaly) and 255 (void, left out). All results are fractions in [0,
1], NaN where they are undefined. Every metric exists as a function of whole arrays and as an
object with `update(...)` per image and `compute()`, which never holds the images.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from road_anomaly_ros.perception.curve import FPR_MODES, Counts, ExactCurve, Steps, summarize

VOID = 255
TAUS = np.linspace(0.25, 0.75, 11)  # as published: the 0.6 in it is 0.6000000000000001
UNIFORM_BINS = np.linspace(-0.01, 1.01, 4097, dtype=np.float64)
_EIGHT = np.ones((3, 3), bool)
_DROPPED_BITS = 10  # of a float32, once there are too many pixels


def _checked(score: ArrayLike, label: ArrayLike) -> tuple[NDArray[np.float32], NDArray[Any]]:
    scores, labels = np.asarray(score, np.float32), np.asarray(label)
    if scores.shape != labels.shape:
        raise ValueError(
            f'expected score and label of one shape, got {scores.shape} and {labels.shape}'
        )
    return scores, labels


def _split(score: ArrayLike, label: ArrayLike) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the scores of anomalies and of known pixels, void left out."""
    scores, labels = _checked(score, label)
    anomalies, known = scores[labels == 1], scores[labels == 0]
    for part in (anomalies, known):
        if part.size and not np.isfinite(part).all():
            raise ValueError(
                'expected finite scores, got NaN or infinity; sanitize the score first'
            )
    return anomalies, known


class PixelMetrics:
    """Average precision, AUROC, FPR at 95 % recall and best F1 over all pixels of a data set.

    Exact: it keeps the scores, 4 bytes per pixel. Beyond `max_pixels` (1 GiB by default) it goes
    on with counts of scores rounded to 13 bits of mantissa, a relative error of 1.2e-4 in each
    score, and says so by `exact` = 0. `fpr_mode` is the convention of FPR95: 'ge' the first
    threshold with a recall of at least 0.95, 'gt' of more than 0.95, 'interp' linear between
    thresholds.
    """

    def __init__(self, *, fpr_mode: str = 'ge', max_pixels: int = 1 << 28) -> None:
        if fpr_mode not in FPR_MODES:
            raise ValueError(f'fpr_mode: expected one of {list(FPR_MODES)}, got {fpr_mode!r}')
        self._fpr_mode = fpr_mode
        self._max_pixels = max_pixels
        self._parts: tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]] = ([], [])
        self._counts: Counts | None = None  # [2, 2^22] known, anomaly per rounded score

    def update(self, score: ArrayLike, label: ArrayLike) -> None:
        """Add one image: score float [H,W], label [H,W] of 0, 1, 255; no NaN in the score."""
        anomalies, known = _split(score, label)
        for parts, scores in zip(self._parts, (known, anomalies), strict=True):
            parts.append(scores)
        if self._counts is not None:
            self._count(self._counts)
        elif sum(part.size for kind in self._parts for part in kind) > self._max_pixels:
            self._counts = np.zeros((2, 1 << (32 - _DROPPED_BITS)), np.int64)
            self._count(self._counts)

    def _count(self, table: Counts) -> None:
        """Move the scores that are kept into the table of rounded ones."""
        for counts, parts in zip(table, self._parts, strict=True):
            for scores in parts:
                keys = _keys(scores) >> np.uint32(_DROPPED_BITS)
                counts += np.bincount(keys, minlength=counts.size)
            parts.clear()

    def compute(self) -> dict[str, float]:
        """Return ap, auroc, fpr95, best_f1 and best_threshold (anomalies lie strictly above it).

        NaN and a warning without anomalies or without known pixels.
        """
        steps = self._exact_steps() if self._counts is None else _binned_steps(self._counts)
        return {**summarize(steps, self._fpr_mode), 'exact': float(self._counts is None)}

    def _exact_steps(self) -> Steps:
        known, anomalies = self._parts
        curve = ExactCurve(anomalies)
        for scores in known:
            curve.add(curve.places(scores))
        return curve.steps()


def _keys(scores: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Return integers that sort like the scores."""
    bits = np.ascontiguousarray(scores + np.float32(0.0)).view(np.uint32)  # -0 becomes 0
    return np.where(bits >> np.uint32(31), ~bits, bits | np.uint32(1 << 31))


def _binned_steps(counts: Counts) -> Steps:
    used = np.flatnonzero(counts[1])[::-1]
    keys = (used << _DROPPED_BITS).astype(np.uint32)
    bits = np.where(keys >> np.uint32(31), keys & np.uint32(0x7FFFFFFF), ~keys)
    total = int(counts[0].sum())
    above = total - np.cumsum(counts[0])[used]
    return Steps(
        bits.view(np.float32).astype(np.float64), counts[1][used], above, counts[0][used], total
    )


class BinnedPixelMetrics:
    """The pixel metrics with the uniform bins of SegmentMeIfYouCan: 4096 over [-0.01, 1.01].

    Scores outside are dropped without a word, as published; use it only to compare with old
    tables.
    """

    def __init__(self) -> None:
        self._counts = np.zeros((2, UNIFORM_BINS.size - 1), np.int64)

    def update(self, score: ArrayLike, label: ArrayLike) -> None:
        """Add one image: score float [H,W], label [H,W] of 0, 1, 255."""
        anomalies, known = _split(score, label)
        for counts, scores in zip(self._counts, (known, anomalies), strict=True):
            counts += np.histogram(scores, UNIFORM_BINS)[0]

    def compute(self) -> dict[str, float]:
        """Return ap, auroc, fpr95, best_f1 and best_threshold of the binned curve."""
        used = np.flatnonzero(self._counts[1])[::-1]
        above = self._counts[0].sum() - np.cumsum(self._counts[0])[used]
        return summarize(
            Steps(
                UNIFORM_BINS[used],
                self._counts[1][used],
                above,
                self._counts[0][used],
                int(self._counts[0].sum()),
            )
        )


def pixel_metrics(
    scores: Iterable[ArrayLike],
    labels: Iterable[ArrayLike],
    *,
    fpr_mode: str = 'ge',
    smiyc_binned: bool = False,
) -> dict[str, float]:
    """Return ap, auroc, fpr95, best_f1 and best_threshold pooled over images.

    `scores` float [n,H,W] or a sequence of [H,W] of any sizes, higher is stranger; `labels`
    likewise with 0, 1, 255. ValueError for NaN scores and for shapes that differ.
    """
    metric = BinnedPixelMetrics() if smiyc_binned else PixelMetrics(fpr_mode=fpr_mode)
    for score, label in zip(scores, labels, strict=True):
        metric.update(score, label)
    return metric.compute()


@dataclass(frozen=True)
class ComponentFrame:
    """Obstacles of one image, in raster order of their first pixel."""

    siou_gt: NDArray[np.float64]  # [gt components]
    siou_pred: NDArray[np.float64]  # [predicted components]
    ppv: NDArray[np.float64]  # [predicted components]
    size_gt: Counts
    size_pred: Counts
    tp: Counts  # [11], one per tau
    fn: Counts
    fp: Counts


def _components(
    mask: NDArray[np.bool_], least: int
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Return 8-connected components of `least` pixels, numbered from 1, and where others are."""
    index, count = ndimage.label(mask, _EIGHT)
    small = np.bincount(index.ravel(), minlength=count + 1) < least
    numbers = np.cumsum(~small, dtype=np.int32) - np.int32(not small[0])
    numbers[small] = 0
    return numbers[index], small[index]


def component_frame(
    score: ArrayLike, label: ArrayLike, threshold: float, min_pred_size: int, min_gt_size: int
) -> ComponentFrame:
    """Return the obstacle metrics of one image (SegmentMeIfYouCan, component-wise).

    A pixel is predicted where its score [H,W] is strictly above `threshold`; void (label 255) cuts
    predictions. Predictions below `min_pred_size` pixels are dropped, ground truth below
    `min_gt_size` becomes void.
    """
    scores, labels = _checked(score, label)
    roi = labels < VOID
    pred, _ = _components((scores > threshold) & roi, min_pred_size)
    truth, small = _components(labels == 1, min_gt_size)
    roi = roi & ~small
    return _contingency(truth[roi], pred[roi])


def _contingency(truth: NDArray[np.int32], pred: NDArray[np.int32]) -> ComponentFrame:
    rows, columns = int(truth.max(initial=0)) + 1, int(pred.max(initial=0)) + 1
    pairs = truth.astype(np.int64) * columns + pred
    table = np.bincount(pairs, minlength=rows * columns).reshape(rows, columns)
    seen = (np.append(True, table[1:].any(1)), np.append(True, table[:, 1:].any(0)))
    table = table[np.ix_(*seen)]  # without what lies wholly in void
    size_gt, size_pred = table.sum(1)[1:], table.sum(0)[1:]
    siou_gt, _ = _adjusted_iou(table)
    siou_pred, inside = _adjusted_iou(table.T)
    ppv = inside / size_pred
    hit = siou_gt[:, None] >= TAUS
    return ComponentFrame(
        siou_gt,
        siou_pred,
        ppv,
        size_gt,
        size_pred,
        hit.sum(0),
        (~hit).sum(0),
        (ppv[:, None] < TAUS).sum(0),
    )


def _adjusted_iou(table: Counts) -> tuple[NDArray[np.float64], Counts]:
    """Return each row's IoU with what it touches, without other rows' share, and its overlap.

    `table` [rows, columns] counts pixels; row and column 0 are the background.
    """
    inner = table[1:, 1:]
    touched = inner > 0
    overlap = inner.sum(1)
    columns = table[:, 1:].sum(0)
    others = touched @ inner.sum(0) - overlap  # pixels of touched columns in other components
    union = touched @ columns + table[1:].sum(1) - overlap - others
    return overlap / union, overlap


@dataclass
class ComponentMetrics:
    """Obstacle metrics over a data set: update with every image, then compute.

    Sizes of the anomaly track are 500 and 100, of the obstacle track 50 and 10 pixels.
    """

    threshold: float
    min_pred_size: int = 500
    min_gt_size: int = 100
    frames: list[ComponentFrame] = field(default_factory=list)

    def update(self, score: ArrayLike, label: ArrayLike) -> None:
        """Add one image: score float [H,W], label [H,W] of 0, 1, 255."""
        self.frames.append(
            component_frame(score, label, self.threshold, self.min_pred_size, self.min_gt_size)
        )

    def compute(self) -> dict[str, object]:
        """Return sIoU, sIoU_pred, PPV, F1 (mean over tau); taus, tp, fn, fp, f1_per_tau [11]."""
        tp, fn, fp = (
            np.sum([getattr(frame, name) for frame in self.frames], axis=0, dtype=np.int64)
            if self.frames
            else np.zeros(TAUS.size, np.int64)
            for name in ('tp', 'fn', 'fp')
        )
        total = 2 * tp + fn + fp
        f1 = np.divide(2 * tp, total, out=np.full(TAUS.size, np.nan), where=total > 0)
        return {
            'sIoU': self._mean('siou_gt'),
            'sIoU_pred': self._mean('siou_pred'),
            'PPV': self._mean('ppv'),
            'F1': float(f1.mean()),
            'taus': TAUS.copy(),
            'tp': tp,
            'fn': fn,
            'fp': fp,
            'f1_per_tau': f1,
        }

    def _mean(self, name: str) -> float:
        values = np.concatenate([getattr(frame, name) for frame in self.frames] or [np.empty(0)])
        return float(values.mean()) if values.size else math.nan


def component_metrics(
    scores: Iterable[ArrayLike],
    labels: Iterable[ArrayLike],
    threshold: float,
    min_pred_size: int = 500,
    min_gt_size: int = 100,
) -> dict[str, object]:
    """Return sIoU, sIoU_pred, PPV, F1 and per tau (0.25 .. 0.75) tp, fn, fp, f1_per_tau.

    `scores` float [n,H,W] or a sequence of [H,W]; `labels` likewise with 0, 1, 255. NaN where
    there is no component of the kind.
    """
    metric = ComponentMetrics(threshold, min_pred_size, min_gt_size)
    for score, label in zip(scores, labels, strict=True):
        metric.update(score, label)
    return metric.compute()


class MeanIoU:
    """Intersection over union per class, summed over images; absent classes do not count.

    `table` counts pixels by true class and predicted class, the last column what is no class.
    """

    def __init__(self, num_classes: int) -> None:
        if num_classes < 1:
            raise ValueError(f'expected at least one class, got {num_classes}')
        self.table = np.zeros((num_classes, num_classes + 1), np.int64)

    def update(self, prediction: ArrayLike, truth: ArrayLike) -> None:
        """Add one image: class ids [H,W] predicted and true; 255 in the truth is left out."""
        pred, gt = np.asarray(prediction), np.asarray(truth)
        if pred.shape != gt.shape:
            raise ValueError(f'expected labels of one shape, got {pred.shape} and {gt.shape}')
        classes = len(self.table)
        valid = gt < classes
        guess = np.minimum(pred[valid].astype(np.int64), classes)
        pairs = gt[valid].astype(np.int64) * (classes + 1) + guess
        self.table += np.bincount(pairs, minlength=self.table.size).reshape(self.table.shape)

    def compute(self) -> dict[str, object]:
        """Return miou, and per class iou (0 where absent), inter and union [K]."""
        inter = np.diagonal(self.table).copy()
        union = self.table.sum(1) + self.table[:, :-1].sum(0) - inter
        present = union > 0
        iou = np.divide(inter, union, out=np.zeros(inter.size), where=present)
        return {
            'miou': float(iou[present].mean()) if present.any() else math.nan,
            'iou': iou,
            'inter': inter,
            'union': union,
        }


def miou(
    predictions: Iterable[ArrayLike], truths: Iterable[ArrayLike], num_classes: int
) -> dict[str, object]:
    """Return miou, and per class iou, inter and union [K], over images [n,H,W] of class ids."""
    metric = MeanIoU(num_classes)
    for prediction, truth in zip(predictions, truths, strict=True):
        metric.update(prediction, truth)
    return metric.compute()
