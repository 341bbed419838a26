# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Video measured as video: results against the truth of their arrival, maps that do not flicker.

A frame's result arrives a latency after its stamp, and is compared with the truth that holds then;
frames that come while one is computed are left out, as the live node does. After 'Latency-aware
Road Anomaly Segmentation in Videos' (2024) and 'Road Obstacle Video Segmentation' (2025).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from road_anomaly_ros.evaluation.layouts import OBSTACLE_TRACK
from road_anomaly_ros.evaluation.results import add_video
from road_anomaly_ros.evaluation.sequences import open_sequences, split
from road_anomaly_ros.evaluation.tables import markdown
from road_anomaly_ros.perception.metrics import VOID, ComponentMetrics, PixelMetrics
from road_anomaly_ros.tools.sources import Frame

NAME = 'video.json'
EXACT, FLOW = 'depth and pose', 'optical flow (DIS)'
COLUMNS = (
    'video',
    'AP',
    'F1',
    'streaming_AP',
    'streaming_F1',
    'latency_ms',
    'processed',
    'score_change',
    'mask_consistency',
    'motion',
)
RULE = (
    'AP of pixels and F1 of obstacles in percent; streaming: each result against the truth of the '
    'moment it arrives; along the motion of the picture, score_change is the mean change of the '
    'score from frame to frame and mask_consistency the overlap (IoU) of the obstacle masks'
)
# Where [H, W, 2] the pixels of a frame were in the one before, and which of them it saw, [H, W].
Motion = tuple[np.ndarray, np.ndarray]
_ROUNDING = 1e-9  # seconds, by which a result may be late
_OCCLUDED = 0.03  # share by which a depth may differ where the same place is seen


def arrivals(stamps: Sequence[float], latencies: Sequence[float]) -> list[tuple[int, int]]:
    """Return which frames are taken, each with the one whose truth holds when its result is there.

    A frame waits until the one before it is done, and is left out where a newer one has come by
    then. What arrives after the last frame's time meets no truth.
    """
    found, free = [], -math.inf
    period = (stamps[-1] - stamps[0]) / max(1, len(stamps) - 1)
    for index, (stamp, latency) in enumerate(zip(stamps, latencies, strict=True)):
        if index + 1 < len(stamps) and stamps[index + 1] <= free + _ROUNDING:
            continue
        free = max(stamp, free) + latency
        if free < stamps[-1] + period - _ROUNDING or not latency:
            found.append((index, bisect_right(stamps, free + _ROUNDING) - 1))
    return found


class Consistency:
    """How maps change from frame to frame along the motion of what they show."""

    def __init__(self) -> None:
        self._changes: list[float] = []
        self._both = self._either = 0

    def add(self, before: Any, now: Any, places: np.ndarray, seen: np.ndarray) -> None:
        """Take two frames' (score, mask), and where [H, W, 2] the pixels of `now` were before."""
        score, mask = (
            cv2.remap(part, places.astype(np.float32), None, how)
            for part, how in (
                (before[0], cv2.INTER_LINEAR),
                (before[1].astype(np.uint8), cv2.INTER_NEAREST),
            )
        )
        if seen.any():
            self._changes.append(float(np.abs(score - now[0])[seen].mean()))
        was, here = (mask > 0) & seen, now[1] & seen
        self._both += int((was & here).sum())
        self._either += int((was | here).sum())

    def figures(self) -> dict[str, float]:
        """Return the mean change of the score and the overlap of the masks, NaN of nothing."""
        return {
            'score_change': float(np.mean(self._changes or [math.nan])),
            'mask_consistency': self._both / self._either if self._either else math.nan,
        }


def exact_motion(cameras: Callable[[int], Any]) -> Callable[..., Motion]:
    """Return the function from two neighbouring frames of a rendered drive to their motion.

    What has moved by itself or was hidden is told by its depth and left out, as is the sky.
    """

    def motion(index: int, before: Frame, now: Frame) -> Motion:
        earlier, later, depth = cameras(index - 1), cameras(index), now.depth
        places, ahead = _back(earlier, later, depth)
        height, width = depth.shape
        inside = ((places > -0.5) & (places < (width - 0.5, height - 0.5))).all(-1)
        nearest = np.rint(np.where(inside[..., None], places, 0)).astype(np.int64)
        column, row = np.clip(nearest, 0, (width - 1, height - 1)).transpose(2, 0, 1)
        same = np.abs(before.depth[row, column] - ahead) <= _OCCLUDED * ahead
        return places, np.isfinite(depth) & inside & same

    return motion


def _back(earlier: Any, later: Any, depth: np.ndarray) -> Motion:
    """Return where [H, W, 2] and how deep [H, W] an earlier camera has what a later one sees."""
    far = np.where(np.isfinite(depth), depth, 1.0)
    rows, columns = np.indices(depth.shape)
    u, v = later.center
    right, down = (columns - u) / later.focal * far, (rows - v) / later.focal * far
    sine, cosine = math.sin(later.pitch), math.cos(later.pitch)
    ahead, below = far * cosine - down * sine, down * cosine + far * sine
    x, y = right + later.x - later.bend(ahead), later.elevation - below
    view = earlier.to_camera(np.stack((x, y, ahead + later.station), -1))
    view[..., 2] = np.maximum(view[..., 2], 1e-3)
    return earlier.to_pixels(view), view[..., 2]


def flow_motion(_: int, before: Frame, now: Frame) -> Motion:
    """Return the motion between two frames as optical flow has it; all is taken for seen."""
    grey = [cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY) for frame in (now, before)]
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST).calc(*grey, None)
    rows, columns = np.indices(grey[0].shape)
    places = flow + np.stack((columns, rows), -1)
    return places, ((places >= 0) & (places <= (columns[0, -1], rows[-1, 0]))).all(-1)


def measure(source: Any, pipeline: Any, latency: float | None) -> dict[str, Any]:
    """Return the figures of one video with its truth; `latency` in seconds, None: as measured."""
    exact = source.kind == 'rendered'
    motion = exact_motion(source.drive.camera) if exact else flow_motion
    consistency, scores, labels, stamps, spent = Consistency(), [], [], [], []
    before: Any = None
    for index, frame in enumerate(source):
        things, ignored = split(frame.truth, source.name)
        result = pipeline(frame.image, frame.stamp)
        maps = result.score.cpu().numpy(), result.mask.cpu().numpy()
        if before is not None:
            consistency.add(before[1], maps, *motion(index, before[0], frame))
        before = frame, maps
        scores.append(maps[0])
        labels.append(np.where(ignored, VOID, things > 0).astype(np.uint8))
        stamps.append(frame.stamp)
        spent.append(result.timings['total'] * 1e-3 if latency is None else latency)
    if not stamps:
        raise ValueError(f'{source.name}: expected at least one frame, got none')
    threshold = pipeline.prepared.levels.threshold
    same = [(index, index) for index in range(len(stamps))]
    pairs = arrivals(stamps, spent)
    (ap, f1), (streaming_ap, streaming_f1) = (
        quality(scores, labels, chosen, threshold) for chosen in (same, pairs)
    )
    return {
        'AP': ap,
        'F1': f1,
        'streaming_AP': streaming_ap,
        'streaming_F1': streaming_f1,
        'latency_ms': float(np.median(spent)) * 1e3,
        'latency': 'measured' if latency is None else 'given',
        'frames': len(stamps),
        'processed': len(pairs),
        **consistency.figures(),
        'motion': EXACT if exact else FLOW,
    }


def quality(
    scores: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    pairs: Iterable[tuple[int, int]],
    threshold: float,
) -> tuple[float, float]:
    """Return AP of pixels and F1 of obstacles in percent over pairs (score, label), or NaN."""
    pixels, parts = PixelMetrics(), ComponentMetrics(threshold, *OBSTACLE_TRACK)
    for taken, shown in pairs:
        pixels.update(scores[taken], labels[shown])
        parts.update(scores[taken], labels[shown])
    if not parts.frames:
        return math.nan, math.nan
    return 100 * pixels.compute()['ap'], 100 * float(parts.compute()['F1'])


def run(
    names: Iterable[str], config: Any, out: Path | None, latency: float | None, fps: float
) -> int:
    """Measure every video, print the table, add to OUT/video.json; returns 0."""
    from road_anomaly_ros.perception.pipeline import Pipeline

    sources = [source for name in names for source in open_sequences(name, fps)]
    pipeline = Pipeline(config)
    pipeline.warm_up()
    about = {'rule': RULE, 'options': pipeline.chain.as_dict(), 'columns': COLUMNS}
    rows = []
    for source in sources:
        with source:
            rows.append({'video': source.name, **measure(source, pipeline, latency)})
        if out is not None:
            add_video(out / NAME, about, rows[-1])
    print(markdown(COLUMNS, rows), end='')
    print(RULE)
    return 0
