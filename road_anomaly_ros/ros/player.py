# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""When to send what: a time line kept without drift, with pause, resume and single steps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from road_anomaly_ros.tools.flow import ReadAhead

AHEAD = 4  # cues prepared before their time
FALLBACK_GAP_NS = 100_000_000  # between two passes over a single picture


@dataclass(frozen=True)
class Cue:
    """Something to send at `time_ns` of the time line; `stamp_ns` is the recorded time."""

    time_ns: int
    stamp_ns: int
    send: Callable[[], Any]
    picture: bool = True


class Line:
    """Puts recorded times on the time line, which goes on when the input starts again.

    With `fps` pictures come at that fixed rate, each computed from its number, so that rounding
    does not add up; what lies between two pictures goes out with the earlier one. A time that runs
    backwards is held.
    """

    def __init__(self, fps: float | None = None) -> None:
        self._fps = fps
        self._offset = 0
        self._first: int | None = None
        self._last = 0
        self._pictures: list[int] = []  # times of the first and the last picture, a count
        self.pictures = 0

    def at(self, stamp_ns: int, *, picture: bool = True) -> int:
        """Return the place of a recorded time."""
        number = self.pictures
        self.pictures += picture
        if self._fps is not None:
            return round((number if picture else max(0, number - 1)) * 1e9 / self._fps)
        self._first = stamp_ns if self._first is None else self._first
        self._last = max(self._last, self._offset + stamp_ns - self._first)
        if picture:
            first, _, count = self._pictures or (self._last, self._last, 0)
            self._pictures = [first, self._last, count + 1]
        return self._last

    def turn(self) -> None:
        """Begin the next pass, one mean gap between pictures after the end of this one."""
        first, last, count = self._pictures or (0, 0, 0)
        gap = (last - first) // (count - 1) if count > 1 else 0
        self._offset = self._last + (gap or FALLBACK_GAP_NS)
        self._first, self._pictures = None, []


class Player:
    """Sends cues at their times, in a thread of its own; late ones at once, none is left out.

    Times are kept against one starting point, so that delays do not add up; with `live` a delay
    moves that point instead, and nothing is sent faster to make up for it. With `newest` a cue
    that waits gives way to the next one; `patience` is how long the end waits for cues that may
    hang. `ended` is called from the thread when the last cue was sent, `error` then says what
    ended it early.
    """

    def __init__(
        self,
        cues: Iterable[Cue],
        *,
        rate: float = 1.0,
        paused: bool = False,
        live: bool = False,
        newest: bool = False,
        patience: float | None = None,
        ended: Callable[[], Any] = lambda: None,
    ) -> None:
        self._cues = cues
        self._rate = rate
        self._live, self._newest, self._patience = live, newest, patience
        self._ended = ended
        self._changed = threading.Condition()
        self._paused = paused
        self._begin: int | None = None  # moment of the line's zero, monotonic clock
        self._held = 0  # place on the line while paused
        self._last: Cue | None = None
        self._steps = 0
        self._stopping = self._finished = False
        self._thread = threading.Thread(target=self._run, name='player', daemon=True)
        self.pictures = 0
        self.others = 0
        self.late_ns = 0  # how much the latest cue was behind its time
        self.error: Exception | None = None

    def start(self) -> None:
        """Begin; the line's zero is when the first cue is ready."""
        self._thread.start()

    def stop(self) -> None:
        """Send nothing more and wait for the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    @property
    def paused(self) -> bool:
        """Tell whether the player waits for `resume` or `step`."""
        return self._paused

    @property
    def finished(self) -> bool:
        """Tell whether everything was sent."""
        return self._finished

    def pause(self) -> bool:
        """Hold the time line; returns False when it was held already."""
        with self._changed:
            if self._paused:
                return False
            self._held, self._paused = self._position(), True
            self._changed.notify_all()
            return True

    def resume(self) -> bool:
        """Go on from where it was held; returns False when it was not held."""
        with self._changed:
            if not self._paused:
                return False
            self._paused, self._steps = False, 0
            if self._begin is not None:
                self._begin = time.monotonic_ns() - round(self._held / self._rate)
            self._changed.notify_all()
            return True

    def step(self, timeout: float) -> bool:
        """Send up to the next picture while paused and wait for it; False when none came.

        Raises ValueError while not paused.
        """
        with self._changed:
            if not self._paused:
                raise ValueError('expected a paused player; call pause first')
            before = self.pictures
            self._steps += 1
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self.pictures > before or self._finished or self._stopping, timeout
            )
            return self.pictures > before

    def clock(self) -> int | None:
        """Return the recorded time that is played now in ns; None before the first cue."""
        with self._changed:
            if self._last is None:
                return None
            return self._last.stamp_ns + max(0, self._position() - self._last.time_ns)

    def _position(self) -> int:
        if self._paused or self._begin is None:
            return self._held
        return round((time.monotonic_ns() - self._begin) * self._rate)

    def _run(self) -> None:
        reader: ReadAhead[Cue] = ReadAhead(
            self._cues, AHEAD, newest=self._newest, until=lambda: self._stopping
        )
        try:
            self._play(timed.item for timed in reader)
        except Exception as error:  # of the source; what was sent before stays sent
            self.error = error
        finally:
            reader.close(self._patience)
            with self._changed:
                self._finished = True
                self._changed.notify_all()
            self._ended()

    def _play(self, cues: Iterator[Cue]) -> None:
        for cue in cues:
            if self._begin is None:
                self._begin = time.monotonic_ns()
            if not self._wait_for(cue):
                return
            cue.send()
            with self._changed:
                self.pictures += cue.picture
                self.others += not cue.picture
                self._changed.notify_all()

    def _wait_for(self, cue: Cue) -> bool:
        """Wait until it is time for `cue`; False when the player stops first."""
        with self._changed:
            while not self._stopping:
                rest = cue.time_ns - self._position()
                if self._paused and not self._steps:
                    self._changed.wait()
                elif self._paused:
                    self._steps -= cue.picture
                    self._held, self._last = max(self._held, cue.time_ns), cue
                    return True
                elif rest <= 0:
                    self._note_delay(cue, -rest)
                    return True
                else:
                    self._changed.wait(rest / self._rate * 1e-9)
            return False

    def _note_delay(self, cue: Cue, late: int) -> None:
        self.late_ns = max(self.late_ns, round(late / self._rate))
        self._last = cue
        if self._live and self._begin is not None:
            self._begin += round(late / self._rate)
