# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Milliseconds per stage of a frame."""

from __future__ import annotations

import itertools
import time
from typing import Any

import torch


class Stopwatch:
    """Milliseconds per stage of one frame; on CUDA from events, so that timing never waits."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == 'cuda'
        self._marks: list[tuple[str, Any]] = [('', self._now())]

    def _now(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def lap(self, stage: str) -> None:
        """Book the time since the last lap under `stage`."""
        self._marks.append((stage, self._now()))

    def times(self) -> dict[str, float]:
        """Return milliseconds per stage and their `total`; a stage that ran twice is summed."""
        if self._cuda:
            self._marks[-1][1].synchronize()
        found: dict[str, float] = {}
        for (_, before), (stage, after) in itertools.pairwise(self._marks):
            spent = before.elapsed_time(after) if self._cuda else (after - before) * 1e3
            found[stage] = found.get(stage, 0.0) + spent
        found['total'] = sum(found.values())
        return found
