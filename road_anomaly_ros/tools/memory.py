# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How much memory a piece of work takes at its peak, beyond what was held before."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from road_anomaly_ros.perception.stopwatch import Stopwatch

T = TypeVar('T')

_STATUS = Path('/proc/self/status')
_CLEAR = Path('/proc/self/clear_refs')
_RESET_PEAK = '5'


class PeakMemory:
    """Peak of memory since the last `start`, in MiB: of the GPU on CUDA, else resident memory.

    None where the system cannot tell (it takes Linux's /proc).
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device if device.type == 'cuda' else None
        self._before: float | None = None

    def start(self) -> None:
        """Begin anew from what is held now."""
        if self._cuda is not None:
            torch.cuda.synchronize(self._cuda)
            torch.cuda.reset_peak_memory_stats(self._cuda)
            self._before = torch.cuda.memory_allocated(self._cuda) / 2**20
            return
        _give_back()
        try:
            _CLEAR.write_text(_RESET_PEAK)
        except OSError:
            self._before = None
        else:
            self._before = _status('VmRSS')

    def peak(self) -> float | None:
        """Return the peak beyond what was held at `start`."""
        if self._before is None:
            return None
        if self._cuda is not None:
            torch.cuda.synchronize(self._cuda)
            return torch.cuda.max_memory_allocated(self._cuda) / 2**20 - self._before
        return max(0.0, (_status('VmHWM') or 0.0) - self._before)


def peak_of(work: Callable[[], T], device: torch.device) -> tuple[T, float | None]:
    """Return what `work` returns and its peak of memory in MiB."""
    meter = PeakMemory(device)
    meter.start()
    result = work()
    return result, meter.peak()


def memory_watch() -> tuple[type[Stopwatch], dict[str, float]]:
    """Return a stopwatch for `Pipeline.batch` and the mapping it fills: peaks in MiB by stage."""
    peaks: dict[str, float] = {}

    class MemoryWatch(Stopwatch):
        def __init__(self, device: torch.device) -> None:
            super().__init__(device)
            self._meter = PeakMemory(device)
            self._meter.start()

        def lap(self, stage: str) -> None:
            super().lap(stage)
            peak = self._meter.peak()
            if peak is not None:
                peaks[stage] = max(peak, peaks.get(stage, 0.0))
            self._meter.start()

    return MemoryWatch, peaks


def _status(field: str) -> float | None:
    """Return one line of /proc/self/status, in MiB."""
    for line in _STATUS.read_text(encoding='ascii').splitlines():
        if line.startswith(f'{field}:'):
            return int(line.split()[1]) / 1024
    return None


def _give_back() -> None:
    """Return freed memory to the system, else work that reuses it would seem to take none."""
    gc.collect()
    trim: Any = getattr(ctypes.CDLL(None), 'malloc_trim', None)
    if trim is not None:
        trim(0)
