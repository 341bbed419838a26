# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Stations that work at the same time: read ahead, write behind, stop when asked."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType, TracebackType
from typing import Any, Generic, NamedTuple, TypeVar

T = TypeVar('T')

_END = object()
_POLL = 0.1  # seconds between looks whether to stop
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# A launcher passes on what the terminal has sent to its children already.
AS_ONE_S = 0.5
_QUIT = 255  # no signal's number


class Timed(NamedTuple, Generic[T]):
    """One item and the milliseconds it took to make it."""

    item: T
    spent: float


class ReadAhead(Generic[T]):
    """Iterates over `items` in a thread, at most `depth` items ahead; errors arrive in order.

    With `newest` what was not yet taken gives way to what comes, and `skipped` counts it. It ends
    early once `until` tells so, which is asked while it waits too.
    """

    def __init__(
        self,
        items: Iterable[T],
        depth: int = 4,
        *,
        newest: bool = False,
        until: Callable[[], bool] = lambda: False,
    ) -> None:
        self._queue: queue.Queue[Any] = queue.Queue(1 if newest else depth)
        self._stop = threading.Event()
        self._newest, self._until = newest, until
        self.skipped = 0
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
            if self._newest and isinstance(item, Timed):
                self._drop()
            try:
                self._queue.put(item, timeout=_POLL)
                return True
            except queue.Full:
                continue
        return False

    def _drop(self) -> None:
        with contextlib.suppress(queue.Empty):
            self._queue.get_nowait()
            self.skipped += 1

    def __iter__(self) -> Iterator[Timed[T]]:
        while not self._until():
            try:
                item = self._queue.get(timeout=_POLL)
            except queue.Empty:
                continue
            if item is _END:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self, patience: float | None = None) -> None:
        """Stop reading and wait for the thread, at most `patience` seconds where it may hang."""
        self._stop.set()
        self._thread.join(patience)


class WriteBehind(Generic[T]):
    """Hands items to `write` in a thread, in order; `put` waits while `depth` items are pending.

    After an error in `write` the rest is dropped and every `put` raises that error. `finish` runs
    in the same thread at the end, whatever happened before, and so does `flush`: no later than
    `flush_s` seconds after an item was written, whether more come or not.
    """

    def __init__(
        self,
        write: Callable[[T], None],
        finish: Callable[[], None],
        depth: int = 4,
        *,
        flush: Callable[[], None] = lambda: None,
        flush_s: float = 0.5,
    ) -> None:
        self._write, self._finish = write, finish
        self._flush, self._flush_s = flush, flush_s
        self._due: float | None = None  # when to flush; None while all is
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


def polite_signals() -> tuple[int, ...]:
    """Return the signals that ask for the end; not a hangup that `nohup` has had ignored."""
    return tuple(
        number
        for number in SIGNALS
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN
    )


def leave_terminal() -> None:
    """Drop what is printed from now on where the terminal is gone; writing to it would fail."""
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):
            if stat.S_ISCHR(os.fstat(descriptor).st_mode) and not os.isatty(descriptor):
                nothing = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nothing, descriptor)
                os.close(nothing)


class StopOnSignal:
    """While entered the first polite signal only sets `signal`; the second ends the process.

    It ends at once with 128 + its number, whatever the main thread does, since a thread of its
    own hears it. Signals within `AS_ONE_S` seconds are one. With `interrupt` the first raises
    KeyboardInterrupt in the main thread. Does nothing outside of the main thread. Forked children
    leave it to their parent when to stop.
    """

    _open = 0  # how many are entered

    def __init__(self, *, interrupt: bool = False) -> None:
        self.signal: int | None = None
        self._interrupt = interrupt
        self._raised = False
        self._before: dict[int, Any] = {}
        self._thread: threading.Thread | None = None

    def __enter__(self) -> StopOnSignal:
        if threading.current_thread() is not threading.main_thread():
            return self
        reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)  # asked for by set_wakeup_fd
        self._numbers = polite_signals()
        self._thread = threading.Thread(
            target=self._listen, args=(reader,), name='signals', daemon=True
        )
        self._thread.start()
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, self._handle) for number in self._numbers}
        StopOnSignal._open += 1
        return self

    @classmethod
    def _forget(cls) -> None:
        """Give a child its own signals: it would tell the parent of those that it gets."""
        if cls._open:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            for number in (signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)

    def _listen(self, reader: int) -> None:
        first: float | None = None
        while (number := os.read(reader, 1)[0]) != _QUIT:
            if number not in self._numbers:
                continue
            if number == signal.SIGHUP:
                leave_terminal()
            if first is None:
                first, self.signal = time.monotonic(), number
            elif time.monotonic() - first > AS_ONE_S:
                os._exit(128 + number)
        os.close(reader)

    def _handle(self, number: int, _: FrameType | None) -> None:
        self.signal = self.signal or number
        if self._interrupt and not self._raised:
            self._raised = True
            raise KeyboardInterrupt

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._thread is None:
            return
        StopOnSignal._open -= 1
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._handle:  # else others have taken over
                signal.signal(number, handler)
        mine = signal.set_wakeup_fd(self._wakeup)
        if mine != self._writer:
            signal.set_wakeup_fd(mine)
        os.write(self._writer, bytes([_QUIT]))
        self._thread.join()
        os.close(self._writer)


os.register_at_fork(after_in_child=StopOnSignal._forget)
