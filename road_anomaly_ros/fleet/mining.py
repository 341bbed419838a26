# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One stretch of one file through the chain: what a worker does, wherever it runs."""

from __future__ import annotations

import itertools
import json
import math
import shutil
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from road_anomaly_ros import __version__
from road_anomaly_ros.files import sha256
from road_anomaly_ros.fleet.index import Part, part_name
from road_anomaly_ros.fleet.listing import BAG, PICTURES, Item
from road_anomaly_ros.remarks import one_line
from road_anomaly_ros.tools.sources import Frame, Source, open_source
from road_anomaly_ros.tools.sources.images import ImageSource

if TYPE_CHECKING:
    from road_anomaly_ros.perception.config import PipelineConfig
    from road_anomaly_ros.perception.contract import AnomalyObject, FrameResult
    from road_anomaly_ros.perception.pipeline import Pipeline

_CONTEXT = 1.5  # of a box to each side in its thumbnail
_THUMBNAIL = (320, 240)  # most width and height
_QUALITY = 85
_MARK = (255, 64, 32)
NO_TRACKER, TRACKER = 'none', 'kalman'


@dataclass(frozen=True)
class Order:
    """What every worker is told once: the chain and how to cut."""

    config: PipelineConfig
    fingerprint: str = ''  # of model and settings, for the rows
    stretch: int = 3000  # frames of a stretch; longer files are taken in parts
    topic: str | None = None
    tracks: bool = True  # whether what is seen over time counts as one
    threads: int = 1
    limit: int | None = None  # frames of each file, for an estimate


@dataclass(frozen=True)
class Task:
    """One stretch of one item."""

    item: Item
    start: int = 0
    parts: tuple[int, ...] = ()  # first frames of all stretches; () where nobody knows yet


@dataclass
class Mined:
    """What a task gave: a part with its events and pictures, or how the file is to be cut."""

    part: Part | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    pictures: dict[str, bytes] = field(default_factory=dict)
    cut: tuple[int, ...] = ()  # first frames of the stretches of a long file
    count: int | None = None  # frames that the file announces


class Miner:
    """A worker: holds the model and takes one task after the other; memory stays as it is."""

    def __init__(self, order: Order) -> None:
        import torch

        from road_anomaly_ros.perception.pipeline import Pipeline

        torch.set_num_threads(order.threads)
        cv2.setNumThreads(order.threads)
        self._pipeline = Pipeline(order.config)
        mark = order.fingerprint or fingerprint(self._pipeline)
        self.order = replace(order, fingerprint=mark)
        self._staged: tuple[Item, tempfile.TemporaryDirectory[str], Path] | None = None

    def mine(self, task: Task) -> Mined:
        """Return what is strange in a stretch; raises ValueError, one line, for an unusable file.

        A whole file longer than a stretch is not mined but cut.
        """
        with self._open(task.item) as source:
            parts = task.parts or self._cut(task.item, source)
            if len(parts) > 1 and not task.parts:
                return Mined(cut=parts, count=source.count)
            return self._stretch(source, Task(task.item, task.start, parts))

    def _cut(self, item: Item, source: Source) -> tuple[int, ...]:
        # Every part of a remote file would fetch all of it once more.
        if self.order.limit is not None or source.count is None or '://' in item.uri:
            return (0,)
        return tuple(range(0, max(1, source.count), self.order.stretch))

    def _stretch(self, source: Source, task: Task) -> Mined:
        begin = time.perf_counter()
        last = task.start == task.parts[-1]
        stop = self.order.limit if last else self.order.stretch
        source.start = task.start
        collector = Collector(task, source, self._origin(task), self.order.fingerprint)
        self._begin_anew(source)
        frames = 0
        for index, frame in enumerate(itertools.islice(source, stop), start=task.start):
            collector.take(index, frame, self._pipeline(frame.image, frame.stamp))
            frames += 1
        part = Part(
            key=task.item.key,
            file=task.item.uri,
            start=task.start,
            parts=task.parts,
            frames=frames,
            seconds=round(time.perf_counter() - begin, 3),
            refused=dict(source.refused),
            problem=source.problem or '',
        )
        return Mined(part, collector.rows(), collector.pictures(), count=source.count)

    def _origin(self, task: Task) -> float | None:
        """Return the stamp of a bag's first picture, 0 elsewhere; None where it comes first."""
        if task.item.kind != BAG:
            return 0.0
        if task.start == 0:
            return None
        with self._open(task.item) as source:
            return next(iter(source)).stamp

    def _open(self, item: Item) -> Source:
        """Open what the listing has found; a folder of pictures may hold a bag as well."""
        path = self._local(item)
        if item.kind == PICTURES and item.files:
            return ImageSource(Path(path), [Path(path, name) for name in item.files])
        return open_source(path, self.order.topic if item.kind == BAG else None)

    def _begin_anew(self, source: Source) -> None:
        """Forget what was followed; photographs of a folder follow nothing unless asked to."""
        config = self.order.config
        if config.tracker == NO_TRACKER and self.order.tracks:
            still = source.kind in ('folder', 'image')
            config = config.replace({'tracker': NO_TRACKER if still else TRACKER})
        self._pipeline.reconfigure(config)
        self._pipeline.forget_tracks()

    def _local(self, item: Item) -> str:
        """Return where an item lies on this machine; of remote ones the last is kept."""
        if '://' not in item.uri:
            return item.uri
        if self._staged is not None and self._staged[0] == item:
            return str(self._staged[2])
        self.close()
        from fsspec.core import url_to_fs

        folder = tempfile.TemporaryDirectory(prefix='road_anomaly_')
        path = Path(folder.name) / Path(item.uri).name
        system, remote = url_to_fs(item.uri)
        try:
            if item.files:
                path.mkdir()
            for name in item.files or ('',):
                source = f'{remote}/{name}' if name else remote
                with system.open(source, 'rb') as reader, (path / name).open('wb') as writer:
                    shutil.copyfileobj(reader, writer, 1 << 20)
        except Exception as error:  # every protocol of fsspec has errors of its own
            folder.cleanup()
            raise ValueError(f'{item.uri}: cannot be fetched: {one_line(error)}') from None
        self._staged = item, folder, path
        return str(path)

    def close(self) -> None:
        """Remove what was fetched; safe to call twice."""
        if self._staged is not None:
            self._staged[1].cleanup()
        self._staged = None


@dataclass
class _Event:
    number: int
    first: float
    last: float = 0.0
    frames: int = 0
    evidence: float = 0.0
    best: float = float('-inf')
    row: dict[str, Any] = field(default_factory=dict)
    picture: Any = None  # RGB thumbnail of the strangest moment


class Collector:
    """Confirmed obstacles of consecutive frames become events: one a track, or one an obstacle.

    `origin` is the stamp of the file's first picture, None where that is the first taken.
    """

    def __init__(self, task: Task, source: Source, origin: float | None, fingerprint: str) -> None:
        self._fixed = {
            'file': task.item.uri,
            'topic': source.topic or '',
            'start': task.start,
            'fingerprint': fingerprint,
        }
        self._archive = f'{part_name(task.item.key, task.start)}.zip'
        self._events: dict[Any, _Event] = {}
        self._origin = origin

    def take(self, index: int, frame: Frame, result: FrameResult) -> None:
        """Note the obstacles of a frame, the `index`-th of the file."""
        self._origin = frame.stamp if self._origin is None else self._origin
        moment = round(frame.stamp - self._origin, 6)
        for item in result.objects:
            if not item.confirmed:
                continue
            event = self._events.setdefault(
                item.track_id or (index, item.id),
                _Event(len(self._events) + 1, first=max(0.0, moment - item.age_s)),
            )
            strength = excess(item, result)
            event.last, event.frames = moment, event.frames + 1
            event.evidence += strength
            # A larger view of the same thing tells more than a slightly higher score.
            rank = strength + item.area / (result.size[0] * result.size[1])
            if rank > event.best:
                event.best, event.row = rank, _row(index, moment, frame, item, result)
                event.picture = thumbnail(frame.image, item.box)

    def rows(self) -> list[dict[str, Any]]:
        """Return the events as rows of the index."""
        return [
            {
                **self._fixed,
                **event.row,
                'event': event.number,
                'first': round(event.first, 6),
                'last': event.last,
                'frames': event.frames,
                'evidence': event.evidence,
                'hash': look(event.picture),
                'thumbnail': f'{self._archive}/{event.number}.jpg',
            }
            for event in self._events.values()
        ]

    def pictures(self) -> dict[str, bytes]:
        """Return the thumbnails as JPEG by name."""
        quality = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
        return {
            f'{event.number}.jpg': cv2.imencode('.jpg', event.picture[..., ::-1], quality)[
                1
            ].tobytes()
            for event in self._events.values()
        }


def _row(
    index: int, moment: float, frame: Frame, item: AnomalyObject, result: FrameResult
) -> dict[str, Any]:
    height, width = result.size
    names = result.label_set.names
    return {
        'frame': index,
        'time': moment,
        'stamp': frame.stamp,
        **dict(zip('xywh', item.box, strict=True)),
        'width': width,
        'height': height,
        'area': item.area,
        'size': item.area / (width * height),
        'score': item.score_p95,
        'surroundings': names[item.label] if item.label < len(names) else '',
    }


def excess(item: AnomalyObject, result: FrameResult) -> float:
    """Return how far an obstacle's score lies above its threshold: 1 at the end of the display.

    -1 ... 1; 0 at the threshold. Comparable for all scorers, as the display is calibrated.
    """
    low, high = result.display_range
    above = item.score_p95 - result.threshold
    span = high - result.threshold if above > 0 else result.threshold - low
    return min(max(above / span, -1.0), 1.0) if span > 0 else math.copysign(1.0, above)


def thumbnail(image: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """Return the surroundings of a box in an image [H, W, 3] uint8, the box marked."""
    x, y, w, h = box
    height, width = image.shape[:2]
    reach = max(_CONTEXT * max(w, h), 0.1 * height)
    left, top = max(0, int(x - reach)), max(0, int(y - reach))
    right, bottom = min(width, int(x + w + reach)), min(height, int(y + h + reach))
    part = image[top:bottom, left:right]
    scale = min(_THUMBNAIL[0] / part.shape[1], _THUMBNAIL[1] / part.shape[0])
    size = max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale))
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = cv2.resize(part, size, interpolation=kind)
    corners = np.array([[x - left, y - top], [x + w - left, y + h - top]]) * scale
    (x0, y0), (x1, y1) = corners.round().astype(int).tolist()
    return cv2.rectangle(small, (x0, y0), (x1, y1), _MARK, 1, cv2.LINE_AA)


def look(picture: np.ndarray) -> int:
    """Return 64 bits that tell where a picture [H, W, 3] grows brighter from left to right.

    Pictures of the same thing differ in few bits (difference hash).
    """
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA)
    bits = (small[:, 1:] > small[:, :-1]).reshape(-1)
    return int.from_bytes(np.packbits(bits).tobytes(), 'big')


def fingerprint(pipeline: Pipeline) -> str:
    """Return 16 hex digits of what decides about results: settings in force, weights, version."""
    from road_anomaly_ros.perception.model_files import weights_digest

    settings = {
        name: value
        for name, value in pipeline.chain.as_dict().items()
        if name not in ('device', 'cuda_graphs') and not name.startswith('drawing.')
    }
    weights = weights_digest(pipeline.segmenter.weights)
    text = json.dumps([__version__, weights, settings], sort_keys=True)
    return sha256(text)[:16]
