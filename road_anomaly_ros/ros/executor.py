# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Callbacks in a few threads, each handed out once.

rclpy's own executor of this kind offers a callback again and again until a thread has begun it.
While a network computes, a thread needs some milliseconds to get Python's lock, and in these the
same callback is queued thousands of times; that in turn keeps the lock from the network (measured:
6,000 turns a second at 30 images, frames of 0.1 s that took 4). This is ros2/rclpy#1452, mended by
#1547 in rclpy 10.0.4: from there on rclpy's own is taken.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rclpy.exceptions import InvalidHandle
from rclpy.executors import Executor, MultiThreadedExecutor, ShutdownException, TimeoutException

from road_anomaly_ros.ros.transport import release

MENDED = (10, 0, 4)  # of rclpy; Kilted and Jazzy may follow with versions of their own


def make_executor(
    threads: int, failed: Callable[[Exception], None], *, context: Any = None
) -> Executor:
    """Return an executor that hands each callback out once, to one of `threads`.

    What a callback raises goes to `failed`, or comes out of `spin_once`.
    """
    if (release() or ()) >= MENDED:
        return MultiThreadedExecutor(threads, context=context)
    return ThreadedExecutor(threads, failed, context=context)


class ThreadedExecutor(Executor):
    """Runs callbacks in `threads` threads; what one of them raises goes to `failed`."""

    def __init__(
        self, threads: int, failed: Callable[[Exception], None], *, context: Any = None
    ) -> None:
        super().__init__(context=context)
        self._failed = failed
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix='callbacks')

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Wait for a callback and hand it to a thread; returns when that has begun it."""
        try:
            task, _, _ = self.wait_for_ready_callbacks(timeout_sec)
        except (ShutdownException, TimeoutException):
            return
        except InvalidHandle:  # a subscription went while its events were collected
            return
        begun = threading.Event()
        self._pool.submit(self._run, task, begun)
        begun.wait()

    def spin_once_until_future_complete(
        self, future: Any, timeout_sec: float | None = None
    ) -> None:
        """Do the same; the end of `future` wakes it."""
        future.add_done_callback(lambda _: self.wake())
        self.spin_once(timeout_sec)

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        """End the threads, then the executor: what they wait for must outlive them."""
        self._pool.shutdown(wait=True)
        return bool(super().shutdown(timeout_sec))

    def _run(self, task: Any, begun: threading.Event) -> None:
        begun.set()
        task()
        error = task.exception() if task.done() else None
        if error is not None:
            self._failed(error)
