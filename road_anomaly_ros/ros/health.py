# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the node knows of its condition, as counters, throttled warnings and /diagnostics."""

from __future__ import annotations

import os
import re
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from road_anomaly_ros.perception.drift import Monitor, blindness

TOPIC = '/diagnostics'
PERIOD_S = 1.0
FAILED = 'failed'  # the kind of complaint that frames without a result make
RECENT_S = 5.0  # how long a fault stays visible after it last happened
_WINDOW = 300  # frames behind rates and percentiles

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


class Throttle:
    """Lets a complaint through once per period and kind."""

    def __init__(self, period: float = RECENT_S) -> None:
        self._period = period
        self._last: dict[Any, float] = {}

    def ready(self, key: Any) -> bool:
        """Tell whether the complaint `key` may be made now."""
        now = time.monotonic()
        if now - self._last.get(key, -1e9) < self._period:
            return False
        self._last[key] = now
        return True


class Window:
    """Durations of the last frames, with the moments at which they ended."""

    def __init__(self) -> None:
        self._values: deque[tuple[float, float]] = deque(maxlen=_WINDOW)

    def add(self, value: float) -> None:
        """Note a value that became known now."""
        self._values.append((time.monotonic(), value))

    def percentiles(self) -> tuple[float, float, float]:
        """Return p50, p99 and the maximum; NaN when nothing was noted."""
        values = [value for _, value in list(self._values)]
        if not values:
            return float('nan'), float('nan'), float('nan')
        low, high, top = np.percentile(values, (50, 99, 100))
        return float(low), float(high), float(top)

    def rate(self) -> float:
        """Return values per second over the last seconds, fewer where not all are kept."""
        moments, now = [moment for moment, _ in list(self._values)], time.monotonic()
        full = len(moments) == _WINDOW
        horizon = max(now - RECENT_S, moments[0]) if full else now - RECENT_S
        return sum(moment > horizon for moment in moments) / max(now - horizon, 1e-9)

    def age(self) -> float:
        """Return the seconds since the last value, infinite when there was none."""
        return time.monotonic() - self._values[-1][0] if self._values else float('inf')


@dataclass
class CameraStats:
    """Counts of one camera; received = processed + dropped + failed + refused + in flight.

    `refused` also counts camera_info messages, under the reason camera_info.
    """

    received: int = 0
    processed: int = 0
    dropped: int = 0  # replaced by a newer frame before their turn
    lost: int = 0  # never arrived, as the middleware tells
    failed: int = 0  # the chain raised an error
    backwards: int = 0  # stamps earlier than the one before
    repeated: int = 0  # stamps equal to the one before
    sanitized: int = 0  # non-finite network outputs repaired
    tracks: int = 0  # obstacles of the last result that are followed over time
    confirmed: int = 0  # obstacles of the last result that are believed
    refused: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)  # by topic, 'metres' are all in metres
    arrivals: Window = field(default_factory=Window)
    latency: Window = field(default_factory=Window)  # ms from arrival to published
    stamp_age: Window = field(default_factory=Window)  # ms from the stamp to published
    size: tuple[int, int] | None = None  # (H, W) of the last picture
    info_size: tuple[int, int] | None = None  # (H, W) as camera_info says
    complaints: dict[str, tuple[float, str]] = field(default_factory=dict)

    def complain(self, kind: str, text: str) -> None:
        """Remember what went wrong, for as long as it is recent."""
        self.complaints[kind] = (time.monotonic(), text)

    def recent(self) -> dict[str, str]:
        """Return the complaints of the last seconds by their kind."""
        horizon = time.monotonic() - RECENT_S
        found = list(self.complaints.items())
        return {kind: text for kind, (moment, text) in found if moment > horizon}


def camera_status(
    stats: CameraStats, *, active: bool, silent: str, waiting: float
) -> tuple[bytes, str]:
    """Return level and message of a camera.

    `silent` explains a silence longer than allowed, else it is empty; `waiting` is the age of the
    oldest accepted frame without a result in seconds.
    """
    if not active:
        return OK, 'inactive'
    if silent:
        return ERROR, silent
    recent = stats.recent()
    if waiting > RECENT_S and not recent:
        return ERROR, (
            f'no result for {waiting:.0f} s although images arrive: the device is overloaded'
        )
    told = list(recent.values())
    if stats.size and stats.info_size and stats.size != stats.info_size:
        (height, width), (info_height, info_width) = stats.size, stats.info_size
        told.append(
            f'camera_info is for {info_width}x{info_height}, images are '
            f'{width}x{height}: remap camera_info to that of this camera'
        )
    if told:
        return ERROR if FAILED in recent else WARN, '; '.join(told)
    return OK, 'processing' if stats.processed else 'waiting for the first image'


def camera_values(stats: CameraStats) -> dict[str, str]:
    """Return the counters of a camera as texts."""
    p50, p99, top = stats.latency.percentiles()
    age50, age99, _ = stats.stamp_age.percentiles()
    values = {
        'input_rate_hz': f'{stats.arrivals.rate():.2f}',
        'rate_hz': f'{stats.latency.rate():.2f}',
        'input_age_s': f'{stats.arrivals.age():.3f}',
        'result_age_s': f'{stats.latency.age():.3f}',
        'latency_p50_ms': f'{p50:.1f}',
        'latency_p99_ms': f'{p99:.1f}',
        'latency_max_ms': f'{top:.1f}',
        'stamp_age_p50_ms': f'{age50:.1f}',
        'stamp_age_p99_ms': f'{age99:.1f}',
        'received': str(stats.received),
        'processed': str(stats.processed),
        'dropped': str(stats.dropped),
        'lost': str(stats.lost),
        'failed': str(stats.failed),
        'refused': str(sum(stats.refused.values())),
        'time_backwards': str(stats.backwards),
        'time_repeated': str(stats.repeated),
        'sanitized': str(stats.sanitized),
        'tracks': str(stats.tracks),
        'confirmed': str(stats.confirmed),
    }
    for kind, counts in (('refused', stats.refused), ('left_out', stats.left_out)):
        values.update({f'{kind}_{name}': str(count) for name, count in sorted(counts.items())})
    return values


@dataclass(frozen=True)
class _Known:
    """What a chain says of its calibration; the chain itself holds networks."""

    doubt: str
    levels: Any
    calibration: Any
    threshold_source: str


class Calibrated:
    """What the chain was calibrated for, and whether the scores of each camera still look so."""

    def __init__(self) -> None:
        self._chain: Any = None
        self._monitors: dict[str, Monitor] = {}
        self._sizes: dict[str, tuple[int, int]] = {}

    @property
    def _promise(self) -> Any:
        kept = self._chain is not None and not self._chain.doubt
        return self._chain.levels.promise if kept else None

    def follow(self, chain: Any) -> None:
        """Take over the chain in force; another one starts the comparison anew."""
        if self._chain is None or chain.levels is not self._chain.levels:  # made anew with it
            self._chain = _Known(
                chain.doubt, chain.levels, chain.calibration, chain.threshold_source
            )
            self._monitors, self._sizes = {}, {}

    def add(self, camera: str, result: Any, stamp: float) -> None:
        """Note the scores of one frame at `stamp` seconds."""
        promise = self._promise
        if promise is None:
            return
        self._sizes[camera] = result.size
        if blindness(promise.drift):
            return
        if camera not in self._monitors:
            self._monitors[camera] = Monitor(promise.drift, promise.block_seconds)
        self._monitors[camera].add(result.score, stamp)

    def warnings(self) -> list[str]:
        """Return why the promise may not hold now, one line each."""
        if self._chain is None:
            return []
        if self._chain.doubt:
            return [f'the calibration promises nothing here: {self._chain.doubt}']
        found = [
            f'scores of {camera or "the camera"} drift from what was calibrated on '
            f'{self._promise.footage}: calibrate on driving like this'
            for camera, monitor in list(self._monitors.items())
            if monitor.drifted
        ]
        for camera, (height, width) in list(self._sizes.items()):
            if (height, width) != self._promise.size:
                known = self._promise.size
                found.append(
                    f'images of {camera or "the camera"} are {width}x{height}, '
                    f'calibrated on {known[1]}x{known[0]}'
                )
        return found

    def values(self) -> dict[str, str]:
        """Return file, scorer, threshold, promise and the evidence of drift as texts."""
        if self._chain is None:
            return {}
        chain, promise = self._chain, self._promise
        found = {
            'calibration': str(chain.calibration or 'none'),
            'threshold': f'{chain.levels.threshold:.6g} ({chain.threshold_source})',
            'promise': f'{promise} ({promise.method}, {promise.footage}, {promise.blocks} blocks)'
            if promise
            else 'none',
        }
        off = blindness(promise.drift) if promise else 'nothing is promised'
        if off:
            found['drift'] = f'off: {off}'
        for camera, monitor in list(self._monitors.items()):
            name = f'drift_{camera}' if camera else 'drift'
            found[name] = f'{100 * monitor.evidence:.3g} % of an alarm, {monitor.blocks} blocks'
        return found


class StageTimes:
    """Milliseconds of each stage of the chain over the last frames, and what was skipped.

    A note reads 'refinement NAME skipped: why'; it is counted under what stands before the colon.
    """

    def __init__(self) -> None:
        self._stages: dict[str, Window] = {}
        self._notes: dict[str, tuple[float, int, str]] = {}

    def add(self, timings: Mapping[str, float], notes: Iterable[str]) -> None:
        """Note one frame."""
        for stage, spent in timings.items():
            self._stages.setdefault(stage, Window()).add(spent)
        for note in notes:
            kind = kind_of(note)
            _, count, _ = self._notes.get(kind, (0.0, 0, ''))
            self._notes[kind] = (time.monotonic(), count + 1, note)

    def notes(self) -> list[str]:
        """Return what was skipped in the last seconds, and why."""
        horizon = time.monotonic() - RECENT_S
        return [note for moment, _, note in list(self._notes.values()) if moment > horizon]

    def values(self) -> dict[str, str]:
        """Return p50 and p99 per stage and the counts of skipped stages as texts."""
        found = {}
        for stage, window in list(self._stages.items()):
            p50, p99, _ = window.percentiles()
            found[f'{stage}_p50_ms'], found[f'{stage}_p99_ms'] = f'{p50:.2f}', f'{p99:.2f}'
        for kind, (_, count, _) in list(self._notes.items()):
            found[kind] = str(count)
        return found


def kind_of(note: str) -> str:
    """Return what a note is about, without reason and numbers, which may differ each time."""
    return re.sub(r'\b\d+\b', 'N', note.partition(':')[0])


def memory_values(device: Any) -> dict[str, str]:
    """Return resident memory and, for a CUDA `device`, what torch holds there, in MiB."""
    found = {'resident_mib': f'{resident_bytes() / 2**20:.0f}'}
    if device is not None and device.type == 'cuda':
        import torch

        found['device_allocated_mib'] = f'{torch.cuda.memory_allocated(device) / 2**20:.0f}'
        found['device_reserved_mib'] = f'{torch.cuda.memory_reserved(device) / 2**20:.0f}'
    return found


def resident_bytes() -> int:
    """Return the resident memory of this process, 0 where the system does not tell."""
    try:
        with open('/proc/self/statm', encoding='ascii') as source:
            return int(source.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')
    except (OSError, ValueError, IndexError):
        return 0


def status(
    name: str, level: bytes, message: str, values: Mapping[str, Any], hardware_id: str = ''
) -> DiagnosticStatus:
    """Return one row of /diagnostics."""
    pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    return DiagnosticStatus(
        name=name, level=level, message=message, hardware_id=hardware_id, values=pairs
    )


def report(stamp: Any, rows: Iterable[DiagnosticStatus]) -> DiagnosticArray:
    """Return the rows as one message."""
    message = DiagnosticArray(status=list(rows))
    message.header.stamp = stamp
    return message
