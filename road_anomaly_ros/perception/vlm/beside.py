# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Work that takes seconds beside frames that may not wait: the newest picture, the last answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from road_anomaly_ros.remarks import one_line

Picture = TypeVar('Picture')
Found = TypeVar('Found')


@dataclass(frozen=True)
class Last(Generic[Found]):
    """The last answer, when its picture was handed in, and what has gone wrong since then."""

    found: Found | None
    since: float
    error: str = ''


class Beside(Generic[Picture, Found]):
    """Runs `work` on the newest picture in a thread, no more often than every `every_s` seconds.

    `offer` returns at once. A picture that comes while one is worked on replaces the one that
    waits. `work` may fail: the last answer stays, and the error is told to one picture.
    """

    def __init__(
        self,
        work: Callable[[Picture], Found],
        every_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._work, self._every_s, self._clock = work, every_s, clock
        self._change = threading.Condition()
        self._waiting: tuple[Picture, float] | None = None
        self._last: Last[Found] = Last(None, float('-inf'))
        self._begun = float('-inf')
        self._busy = self._closed = False
        self._thread = threading.Thread(target=self._run, name='beside', daemon=True)
        self._thread.start()

    def offer(self, picture: Picture) -> Last[Found]:
        """Hand in a picture; returns the last answer."""
        with self._change:
            now = self._clock()
            if now - self._begun >= self._every_s:
                self._waiting, self._begun = (picture, now), now
                self._change.notify()
            last = self._last
            self._last = replace(last, error='')
            return last

    def age(self, last: Last[Found]) -> float:
        """Return the seconds since the picture of an answer was handed in."""
        return self._clock() - last.since

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting is not None or self._closed)
                if self._closed or self._waiting is None:
                    return
                (picture, since), self._waiting, self._busy = self._waiting, None, True
            try:
                found = Last(self._work(picture), since)
            except Exception as error:  # the next picture may do
                found = Last(self._last.found, self._last.since, one_line(error))
            with self._change:
                self._last, self._busy = found, False
                self._change.notify_all()

    def wait(self, seconds: float) -> bool:
        """Wait until nothing is worked on or waits; returns whether that came in time."""
        with self._change:
            return self._change.wait_for(lambda: self._waiting is None and not self._busy, seconds)

    def close(self) -> None:
        """End the thread once its present work is done; safe to call twice."""
        with self._change:
            self._closed = True
            self._change.notify_all()
