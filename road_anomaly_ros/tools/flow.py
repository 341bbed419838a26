# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Stations that work at the same time: read ahead, write behind, stop when asked."""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType, TracebackType
from typing import Any, Generic, NamedTuple, TypeVar

T = TypeVar('T')

_END = object()
_POLL = 0.1                             # seconds between looks whether to stop


class Timed(NamedTuple, Generic[T]):
    """One item and the milliseconds it took to make it."""

    item: T
    spent: float


class ReadAhead(Generic[T]):
    """Iterates over `items` in a thread, at most `depth` items ahead; errors arrive in order."""

    def __init__(self, items: Iterable[T], depth: int = 4) -> None:
        self._queue: queue.Queue[Any] = queue.Queue(depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(items,), name='read', daemon=True)
        self._thread.start()

    def _read(self, items: Iterable[T]) -> None:
        try:
            iterator, begin = iter(items), time.perf_counter()
            for item in iterator:
                if not self._put(Timed(item, (time.perf_counter() - begin) * 1e3)):
                    return
                begin = time.perf_counter()
            self._put(_END)
        except BaseException as error:
            self._put(error)

    def _put(self, item: Any) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=_POLL)
                return True
            except queue.Full:
                continue
        return False

    def __iter__(self) -> Iterator[Timed[T]]:
        while (item := self._queue.get()) is not _END:
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        """Stop reading and wait for the thread."""
        self._stop.set()
        self._thread.join()


class WriteBehind(Generic[T]):
    """Hands items to `write` in a thread, in order; `put` waits while `depth` items are pending.

    After an error in `write` the rest is dropped and every `put` raises that error. `finish` runs
    in the same thread at the end, whatever happened before, and so does `flush`: no later than
    `flush_s` seconds after an item was written, whether more come or not.
    """

    def __init__(self, write: Callable[[T], None], finish: Callable[[], None],
                 depth: int = 4, *, flush: Callable[[], None] = lambda: None,
                 flush_s: float = 0.5) -> None:
        self._write, self._finish = write, finish
        self._flush, self._flush_s = flush, flush_s
        self._due: float | None = None      # when to flush; None while all is
        self._queue: queue.Queue[Any] = queue.Queue(depth)
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name='write', daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (item := self._next()) is not _END:
            if self.error is None:
                self._guard(self._write, item)
                self._due = self._due or time.monotonic() + self._flush_s
        self._guard(self._finish)

    def _next(self) -> Any:
        """Return the next item; while none comes, or many do, flush when it is time."""
        while self._due is not None:
            rest = self._due - time.monotonic()
            if rest > 0:
                with contextlib.suppress(queue.Empty):
                    return self._queue.get(timeout=rest)
            else:
                self._due = None
                if self.error is None:
                    self._guard(self._flush)
        return self._queue.get()

    def _guard(self, step: Callable[..., None], *items: T) -> None:
        try:
            step(*items)
        except Exception as error:
            self.error = self.error or error

    def put(self, item: T) -> None:
        """Queue one item; raises the error of an earlier one."""
        if self.error is not None:
            raise self.error
        self._queue.put(item)

    def stop(self) -> None:
        """Wait until everything is written; what failed then stands in `error`."""
        if self._thread.is_alive():
            self._queue.put(_END)
            self._thread.join()


class StopOnSignal:
    """While entered, SIGINT and SIGTERM only set `signal`; the second one interrupts as usual."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopOnSignal:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note)
                            for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
