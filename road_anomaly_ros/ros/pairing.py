# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Brings together what two topics say about the same moment."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

_WAITING = 8  # messages of each kind that wait for their partner


class Pairing:
    """Images and anomaly maps whose stamps differ by at most `tolerance` nanoseconds.

    Thread-safe. Whatever is older than a pair is forgotten, and so is what waits longest when more
    than eight of a kind wait.
    """

    def __init__(self, tolerance: int) -> None:
        self._tolerance = tolerance
        self._lock = threading.Lock()
        self._closed = False
        self._waiting: tuple[deque[tuple[int, Any]], ...] = (deque(), deque())

    def add_image(self, stamp: int, image: Any) -> tuple[tuple[Any, Any] | None, int]:
        """Return the pair (image, map) that is now complete, and how many images were lost."""
        return self._add(0, stamp, image)

    def add_map(self, stamp: int, anomaly: Any) -> tuple[tuple[Any, Any] | None, int]:
        """Return the pair (image, map) that is now complete, and how many images were lost."""
        return self._add(1, stamp, anomaly)

    def close(self) -> int:
        """Take no more; returns how many images waited in vain."""
        with self._lock:
            self._closed = True
            lost = len(self._waiting[0])
            for waiting in self._waiting:
                waiting.clear()
            return lost

    def _add(self, kind: int, stamp: int, item: Any) -> tuple[tuple[Any, Any] | None, int]:
        with self._lock:
            if self._closed:
                return None, int(kind == 0)
            mine, others = self._waiting[kind], self._waiting[1 - kind]
            partner = min(others, key=lambda other: abs(other[0] - stamp), default=None)
            if partner is None or abs(partner[0] - stamp) > self._tolerance:
                mine.append((stamp, item))
                full = len(mine) > _WAITING
                if full:
                    mine.popleft()
                return None, int(full and kind == 0)
            others.remove(partner)
            lost = _forget(mine, stamp), _forget(others, partner[0])
            pair = (item, partner[1]) if kind == 0 else (partner[1], item)
            return pair, lost[kind]


def _forget(waiting: deque[tuple[int, Any]], stamp: int) -> int:
    """Remove what is older than `stamp` and return how many that were."""
    older = [entry for entry in waiting if entry[0] < stamp]
    for entry in older:
        waiting.remove(entry)
    return len(older)
