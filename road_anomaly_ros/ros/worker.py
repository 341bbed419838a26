# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The newest frame of every camera, and the one thread that works on them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Frame:
    """A camera message that waits to be processed."""

    camera: str
    message: Any
    arrived: float  # seconds, monotonic clock
    anomaly: Any = None  # message with the anomaly map of the same moment


class NewestFrames:
    """One slot per camera: a newer frame replaces the one that nobody has taken yet.

    Thread-safe. The camera served longest ago comes first, so that none starves when not all fit.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._slots: dict[str, Frame] = {}
        self._served: dict[str, int] = {}
        self._turn = 0
        self._closed = False

    def put(self, frame: Frame) -> bool:
        """Store `frame`; returns False when it was lost or another one was lost for it."""
        with self._changed:
            if self._closed:
                return False
            kept = frame.camera not in self._slots
            self._slots[frame.camera] = frame
            self._changed.notify()
            return kept

    def take(self, limit: int) -> list[Frame]:
        """Wait for a frame and return up to `limit`, one per camera; nothing once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._slots or self._closed)
            if self._closed:
                return []
            due = sorted(self._slots, key=lambda camera: self._served.get(camera, -1))[:limit]
            for camera in due:
                self._turn += 1
                self._served[camera] = self._turn
            return [self._slots.pop(camera) for camera in due]

    def close(self) -> list[Frame]:
        """Send home whoever waits and take no more; returns the frames that nobody took."""
        with self._changed:
            self._closed = True
            left = list(self._slots.values())
            self._slots.clear()
            self._changed.notify_all()
            return left


class Worker:
    """One thread that hands the newest frames to `process` until it is stopped."""

    def __init__(self, process: Callable[[list[Frame]], None], limit: Callable[[], int]) -> None:
        self.frames = NewestFrames()
        self._process = process
        self._limit = limit
        self._thread = threading.Thread(target=self._run, name='frames', daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> list[Frame]:
        """Wait for the frames in flight and end the thread; returns what nobody took."""
        left = self.frames.close()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()
        return left

    def _run(self) -> None:
        while True:
            frames = self.frames.take(self._limit())
            if not frames:
                return
            self._process(frames)
