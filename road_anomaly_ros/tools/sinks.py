# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What becomes of a processed frame: video, pictures, tables, score maps, a bag."""

from __future__ import annotations

import csv
import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from road_anomaly_ros import files
from road_anomaly_ros.perception.geometry import Survey
from road_anomaly_ros.perception.parameter_file import NODE
from road_anomaly_ros.tools import results, scales
from road_anomaly_ros.tools.bags import (
    COMPRESSED,
    IMAGE,
    BagWriter,
    check_name,
    compressed_message,
    header,
    image_message,
    message_of,
)
from road_anomaly_ros.tools.drive_metres import Compared
from road_anomaly_ros.tools.encodings import JPEG
from road_anomaly_ros.tools.place import Place
from road_anomaly_ros.tools.results import Shown
from road_anomaly_ros.tools.sources import Frame
from road_anomaly_ros.tools.truth import Tally, compare

FRAME_COLUMNS = ('frame', 'name', 'stamp', 'width', 'height', 'objects', 'max_score')
STAGES = (
    'decode',
    'upload',
    'segment',
    'score',
    'refine',
    'objects',
    'track',
    'total',
    'draw',
    'write',
)
OBJECT_COLUMNS = (
    'frame',
    'id',
    'x',
    'y',
    'w',
    'h',
    'area',
    'score',
    'score_max',
    'score_p95',
    'center_x',
    'center_y',
    'label',
    'name',
)
TRACK_COLUMNS = (
    'frame',
    'stamp',
    'track_id',
    'confirmed',
    'age_s',
    'id',
    'x',
    'y',
    'w',
    'h',
    'velocity_x',
    'velocity_y',
    'score',
)


@dataclass
class Done(Shown):
    """One processed frame; arrays come to the host, and the overlay is drawn, when asked for."""

    index: int
    frame: Frame
    times: dict[str, float] = field(default_factory=dict)  # milliseconds per stage

    @cached_property
    def overlay(self) -> np.ndarray:
        """The annotated picture, uint8 RGB [H, W, 3]."""
        begin = time.perf_counter()
        picture = super().overlay
        self.times['draw'] = (time.perf_counter() - begin) * 1e3
        return picture

    @cached_property
    def score(self) -> np.ndarray:
        """The anomaly score, float32 [H, W]."""
        return self.result.array('score')

    @cached_property
    def max_score(self) -> float:
        """The highest score of the frame, NaN left out."""
        return float(np.nanmax(self.score)) if not np.isnan(self.score).all() else float('nan')

    @property
    def strength(self) -> float:
        """How much obstacle there is: area times height above the threshold, summed."""
        threshold = self.result.threshold
        return sum(item.area * (item.score - threshold) for item in self.result.objects)


class Sink:
    """One output, made at `path`; complete once `finish` returned."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        """Final name of the file or folder."""
        return self.path.name

    def write(self, done: Done) -> None:
        """Take one frame; raises OSError when it cannot be stored."""
        raise NotImplementedError

    def finish(self) -> None:
        """Complete the output; raises OSError when that fails."""

    def figures(self) -> dict[str, Any]:
        """Return what the sink adds to summary.json."""
        return {}


class SnapshotSink(Sink):
    """A folder of PNGs: the overlay of the first frame and of those with most obstacle."""

    def __init__(self, path: Path, keep: int = 4, apart: int = 10) -> None:
        super().__init__(path)
        self._keep, self._apart = keep, apart
        self._first: tuple[int, np.ndarray] | None = None
        self._best: list[tuple[float, int, np.ndarray]] = []
        path.mkdir()

    def write(self, done: Done) -> None:
        """Remember the overlay if it is among the strongest so far."""
        if self._first is None:
            self._first = done.index, done.overlay
        if done.result.objects:
            self._consider(done)

    def _consider(self, done: Done) -> None:
        near = [item for item in self._best if abs(item[1] - done.index) < self._apart]
        if any(strength >= done.strength for strength, _, _ in near):
            return
        if len(self._best) - len(near) >= self._keep and self._best[-1][0] >= done.strength:
            return
        far = [item for item in self._best if abs(item[1] - done.index) >= self._apart]
        self._best = sorted(
            [*far, (done.strength, done.index, done.overlay)], key=lambda item: -item[0]
        )[: self._keep]

    def finish(self) -> None:
        """Write the pictures."""
        chosen = {index: picture for _, index, picture in self._best}
        chosen.update([self._first] if self._first else [])
        for index, picture in sorted(chosen.items()):
            save_png(self.path / f'frame_{index:06d}.png', picture)


class PictureSink(Sink):
    """A folder with the overlay of every picture, as JPEG under the picture's own name."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._names: set[str] = set()
        path.mkdir()

    def write(self, done: Done) -> None:
        """Write one overlay."""
        name = self._free(Path(done.frame.name.replace('/', '_')))
        self._names.add(name)
        (self.path / name).write_bytes(to_jpeg(done.overlay).tobytes())

    def _free(self, picture: Path) -> str:
        """Return a name that no overlay has yet: a.png may lie beside a.tif."""
        ends = itertools.chain(
            (picture.stem, picture.name), (f'{picture.name}.{n}' for n in itertools.count(2))
        )
        return next(name for end in ends if (name := f'{end}.jpg') not in self._names)


def save_png(path: Path, picture: np.ndarray) -> None:
    """Write RGB uint8 [H, W, 3] or grey uint8/uint16 [H, W]; raises OSError."""
    picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) if picture.ndim == 3 else picture
    path.write_bytes(cv2.imencode('.png', picture, [cv2.IMWRITE_PNG_COMPRESSION, 3])[1])


class _Table(Sink):
    """A CSV file whose rows are on disk as soon as they are written."""

    columns: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        # Names of files keep the bytes that they have.
        self._file = path.open(
            'w', newline='', encoding='utf-8', errors='surrogateescape', buffering=1
        )
        self._rows = csv.DictWriter(self._file, self.columns, restval='')
        self._rows.writeheader()

    def finish(self) -> None:
        """Close the file."""
        self._file.close()


class FrameTable(_Table):
    """One row per frame: stamp, objects, highest score, milliseconds per stage, remarks."""

    columns = (*FRAME_COLUMNS, *(f'{stage}_ms' for stage in STAGES), 'sanitized', 'notes')

    def write(self, done: Done) -> None:
        """Append the row."""
        height, width = done.frame.image.shape[:2]
        times = {
            f'{stage}_ms': round(done.times[stage], 3) for stage in STAGES if stage in done.times
        }
        self._rows.writerow(
            {
                'frame': done.index,
                'name': done.frame.name,
                'width': width,
                'height': height,
                'stamp': seconds(done.frame.stamp_ns),
                'objects': len(done.result.objects),
                'max_score': f'{done.max_score:.6g}',
                'sanitized': done.result.sanitized,
                'notes': '; '.join(done.result.notes),
                **times,
            }
        )


def seconds(stamp_ns: int) -> str:
    """Return a time in seconds with all nine decimals, which a float would lose."""
    return f'{stamp_ns // 10**9}.{stamp_ns % 10**9:09d}'


class ObjectTable(_Table):
    """One row per obstacle: frame, id, box and centre in pixels, area, scores, class around it."""

    columns = OBJECT_COLUMNS

    def write(self, done: Done) -> None:
        """Append the frame's obstacles."""
        names = done.result.label_set.names
        for item in done.result.objects:
            x, y, w, h = item.box
            self._rows.writerow(
                {
                    'frame': done.index,
                    'id': item.id,
                    'x': x,
                    'y': y,
                    'w': w,
                    'h': h,
                    'area': item.area,
                    'score': f'{item.score:.6g}',
                    'score_max': f'{item.score_max:.6g}',
                    'score_p95': f'{item.score_p95:.6g}',
                    'center_x': f'{item.centroid[0]:.2f}',
                    'center_y': f'{item.centroid[1]:.2f}',
                    'label': names[item.label] if item.label < len(names) else '',
                    'name': item.name,
                }
            )


class TrackTable(_Table):
    """One row per tracked obstacle and frame: its track, state, box and velocity [px/s].

    `id` is that of the same frame in the table of obstacles.
    """

    columns = TRACK_COLUMNS

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._tracks: set[int] = set()
        self._confirmed: set[int] = set()

    def write(self, done: Done) -> None:
        """Append the frame's tracks."""
        for item in done.result.objects:
            if not item.track_id:
                continue
            self._tracks.add(item.track_id)
            self._confirmed.update([item.track_id] if item.confirmed else [])
            x, y, w, h = item.box
            across, down = (
                ('', '') if item.velocity is None else (f'{speed:.2f}' for speed in item.velocity)
            )
            self._rows.writerow(
                {
                    'frame': done.index,
                    'stamp': seconds(done.frame.stamp_ns),
                    'track_id': item.track_id,
                    'confirmed': int(item.confirmed),
                    'age_s': f'{item.age_s:.3f}',
                    'id': item.id,
                    'x': x,
                    'y': y,
                    'w': w,
                    'h': h,
                    'velocity_x': across,
                    'velocity_y': down,
                    'score': f'{item.score:.6g}',
                }
            )

    def figures(self) -> dict[str, Any]:
        """Return how many tracks there were, and how many of them were confirmed."""
        return {'tracks': len(self._tracks), 'tracks_confirmed': len(self._confirmed)}


class ScoreSink(Sink):
    """A folder of score maps, one per frame: 16-bit PNG with scale.json, or exact float32 npz."""

    def __init__(self, path: Path, layout: str) -> None:
        super().__init__(path)
        self._layout = layout
        self._ranges: dict[str, Mapping[str, float]] = {}
        path.mkdir()

    def write(self, done: Done) -> None:
        """Write one map."""
        name = f'{done.index:06d}.{self._layout}'
        if self._layout == 'npz':
            np.savez(self.path / name, score=done.score, stamp=done.frame.stamp)
            return
        pixels, low, high = scales.quantize(done.score)
        save_png(self.path / name, pixels)
        self._ranges[name] = {'low': low, 'high': high}

    def finish(self) -> None:
        """Write the scale beside the PNGs."""
        if self._layout == 'png':
            told = {'formula': scales.FORMULA, 'maps': self._ranges}
            files.write_json(self.path / scales.NAME, told)


class BagSink(Sink):
    """A rosbag2 with the results on the live node's topics, stamps and frames as in the input."""

    def __init__(self, path: Path, storage: str, place: Place | None = None) -> None:
        super().__init__(path)
        check_name(path, storage)
        self._storage = storage
        self._survey = None if place is None else place.surveys()

    @cached_property
    def bag(self) -> BagWriter:
        """The bag, opened by the thread that writes: SQLite is bound to it."""
        return BagWriter(self.path, self._storage)

    def write(self, done: Done) -> None:
        """Append the frame's messages."""
        sources: dict[type, Any] = {results.Shown: done}
        if self._survey is not None:
            sources[Survey] = self._survey(done.result)
        for output in results.OUTPUTS:
            if output.recorded and output.source in sources:
                self._append(output, sources[output.source], done.frame)

    def _append(self, output: results.Output, source: Any, frame: Frame) -> None:
        topic, kind = f'/{NODE}/{output.topic}', IMAGE
        about = {'stamp_ns': frame.stamp_ns, 'frame_id': frame.frame_id}
        if output.package:
            kind = output.form.replace('/', '/msg/')
            try:
                message = message_of(kind, output.build(source, header(**about)))
            except ValueError:  # a view without any road has no scan
                return
        elif output.jpeg:
            topic, kind = f'{topic}/compressed', COMPRESSED
            message = compressed_message(to_jpeg(output.build(source)), JPEG, **about)
        else:
            message = image_message(output.build(source), output.form, **about)
        self.bag.write(topic, kind, message, frame.stamp_ns)

    def finish(self) -> None:
        """Write index and metadata."""
        if 'bag' in vars(self):
            self.bag.close()


def to_jpeg(picture: np.ndarray) -> np.ndarray:
    """Return RGB uint8 [H, W, 3] as the bytes of a JPEG, uint8 [N]."""
    picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    return cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].reshape(-1)


class TruthSink(Sink):
    """Compares results with the ground truth that the rendered drive brings; writes no file."""

    def __init__(self, path: Path, drive: Any) -> None:
        super().__init__(path)
        self._tally, self._compared = Tally(), Compared(drive)

    def write(self, done: Done) -> None:
        """Compare one frame."""
        truth = done.frame.truth
        if truth is not None:
            self._tally.add(
                compare(done.result.array('mask'), done.result.array('instances'), truth)
            )
            self._compared.add(done.result, done.frame)

    def figures(self) -> dict[str, Any]:
        """Return recall, false alarms and, of tracks, IDF1 and error of range under `truth`."""
        return {'truth': self._tally.figures(), **self._compared.figures()}
