# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""From a source through the pipeline into sinks: reading, perception and writing overlap."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from road_anomaly_ros.tools.environment import by_stage
from road_anomaly_ros.tools.flow import ReadAhead, StopOnSignal, WriteBehind
from road_anomaly_ros.tools.sinks import STAGES, Done, Sink
from road_anomaly_ros.tools.sources import Frame, Source
from road_anomaly_ros.tools.sources.stream import PIPE_KIND

if TYPE_CHECKING:
    from road_anomaly_ros.perception.contract import FrameResult
    from road_anomaly_ros.perception.pipeline import Pipeline

# Tables and the summary must still find room when a video has filled the disk.
RESERVE_BYTES = 32 << 20
_PATIENCE_S = 1.0  # for a reader that may hang in a camera or a pipe


@dataclass
class Outcome:
    """What came of processing a source."""

    frames: int = 0
    taken: int = 0  # given to the pipeline; what is not among `frames` could not be stored
    skipped: int = 0  # of a live source, because newer ones were there
    began: float = field(default_factory=time.perf_counter)
    seconds: float = 0.0  # from the first frame to the last one written
    objects: int = 0
    frames_with_objects: int = 0
    times: list[dict[str, float]] = field(default_factory=list)  # milliseconds per stage
    signal: int | None = None  # the signal that ended it, if one did
    error: Exception | None = None  # what ended it early; what was done before is kept
    outputs: list[str] = field(default_factory=list)  # names of what came out whole

    def ends(self, stop: StopOnSignal | None, limit: int | None, duration: float | None) -> bool:
        """Tell whether a signal came, or so many frames or seconds of work are over."""
        if stop is not None and stop.signal is not None:
            self.signal = stop.signal
        late = duration is not None and time.perf_counter() - self.began > duration
        return self.signal is not None or late or self.taken == limit

    def figures(self) -> dict[str, Any]:
        """Return the outcome as it stands in summary.json."""
        stages = by_stage(self.times)
        return {
            'frames': self.frames,
            'seconds': round(self.seconds, 3),
            'fps': round(self.frames / self.seconds, 2) if self.seconds > 0 else None,
            'objects': self.objects,
            'frames_with_objects': self.frames_with_objects,
            'stages_ms': {name: stages[name] for name in STAGES if name in stages},
            'interrupted': self.signal is not None,
        }


def process(
    source: Source,
    pipeline: Pipeline,
    sinks: Sequence[Sink],
    *,
    draw: Callable[[FrameResult], np.ndarray],
    limit: int | None = None,
    duration: float | None = None,
    size: tuple[int, int] | None = None,
    stop: StopOnSignal | None = None,
    advance: Callable[[], Any] = lambda: None,
) -> Outcome:
    """Run every frame, of a live source always the newest, through all sinks.

    It ends after `limit` frames or `duration` seconds of the source, whose frames are resized to
    `size` (W, H). Never raises for what happens on the way: the error, or the signal that stopped
    it, is in the outcome, all before it in the outputs. Sinks are used from one thread.
    """
    outcome = Outcome()
    writer = WriteBehind(*(partial(work, sinks, outcome) for work in (_write, _finish)))
    ends = partial(outcome.ends, stop, limit, duration if source.live else None)
    reader = ReadAhead(_prepared(source, limit, duration, size), newest=source.live, until=ends)
    try:
        for frame, decode in reader:
            if outcome.taken == 0 and source.count != 1:
                pipeline.warm_up(frame.image.shape[:2])
                outcome.began = time.perf_counter()
            result = _result(pipeline, frame)
            times = {'decode': decode, **result.timings}
            writer.put(Done(result, draw, outcome.taken, frame, times))
            outcome.taken += 1
            advance()
    except Exception as error:  # kept for the caller, who first saves what is done
        outcome.error = error
    finally:
        reader.close(_PATIENCE_S if source.live or source.kind == PIPE_KIND else None)
        writer.stop()
    outcome.skipped, outcome.error = reader.skipped, outcome.error or writer.error
    outcome.seconds = time.perf_counter() - outcome.began
    return outcome


def _result(pipeline: Pipeline, frame: Frame) -> FrameResult:
    foreign = {} if frame.anomaly is None else {'anomaly': frame.anomaly}
    return pipeline(frame.image, frame.stamp, **foreign)


def _prepared(
    source: Source, limit: int | None, duration: float | None, size: tuple[int, int] | None
) -> Iterator[Frame]:
    first = None
    for index, frame in enumerate(source):
        first = frame.stamp if first is None else first
        if duration is not None and frame.stamp - first >= duration:
            break
        if size is not None and frame.image.shape[1::-1] != size:
            frame = _resized(frame, size)
        yield frame
        if index + 1 == limit and not source.live:
            break


def _resized(frame: Frame, size: tuple[int, int]) -> Frame:
    image = cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
    known = {'truth': frame.truth, 'depth': frame.depth}
    resized = {
        name: None if one is None else cv2.resize(one, size, interpolation=cv2.INTER_NEAREST)
        for name, one in known.items()
    }
    return replace(frame, image=image, **resized)


def _write(sinks: Sequence[Sink], outcome: Outcome, done: Done) -> None:
    begin = time.perf_counter()
    for sink in sinks:
        done.times['write'] = (time.perf_counter() - begin) * 1e3 - done.times.get('draw', 0.0)
        sink.write(done)
    outcome.frames += 1
    outcome.objects += len(done.result.objects)
    outcome.frames_with_objects += bool(done.result.objects)
    outcome.times.append(done.times)
    if sinks and shutil.disk_usage(sinks[0].path.parent).free < RESERVE_BYTES:
        raise OSError(
            errno.ENOSPC,
            f'the disk is full, stopped after {outcome.frames} frames',
            str(sinks[0].path.parent.parent),
        )


def _finish(sinks: Sequence[Sink], outcome: Outcome) -> None:
    """Complete all sinks; a broken one is removed, which makes room for the others."""
    broken = None
    for sink in sinks:
        try:
            sink.finish()
        except OSError as error:
            broken = broken or error
            if sink.path.is_dir():
                shutil.rmtree(sink.path, ignore_errors=True)
            else:
                sink.path.unlink(missing_ok=True)
            continue
        if sink.path.exists():
            outcome.outputs.append(sink.name)
    if broken is not None:
        raise broken
