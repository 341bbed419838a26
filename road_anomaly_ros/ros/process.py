# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The life of a process that holds one node: start, spin, clean end at SIGINT and SIGTERM.

Imports no ROS at the top, so that the signals are in our hands before anything slow begins.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE_S = 10.0                      # for a frame or a model load; launch kills after 5 + 5 s
THREADS = 3                         # transitions, images, and parameters with diagnostics

_log = logging.getLogger(__name__)


def anomaly_node(args: Sequence[str] | None = None) -> NoReturn:
    """Run the executable `anomaly_node` and end the process."""
    def make(stop: threading.Event) -> Any:
        from road_anomaly_ros.ros.node import AnomalyNode
        return AnomalyNode()
    leave(run(make, args=args))


def run(make: Callable[[threading.Event], Any], *, args: Sequence[str] | None = None,
        threads: int = THREADS) -> int:
    """Spin the node that `make(stop)` returns until a signal comes or the node sets `stop`.

    A node may offer `close()`, called once after the last callback and before it is destroyed,
    and `exit_code`. Returns 0 after a signal in whatever state; 1, after one line on stderr, when
    the node cannot be made. Exceptions of callbacks are logged and do not end the process.
    """
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in SIGNALS}
    try:
        return _Session(stop, threads).run(make, args)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Session:
    """One context, one node, one executor in a thread; the main thread waits for the signal."""

    def __init__(self, stop: threading.Event, threads: int) -> None:
        self._stop = stop
        self._threads = threads
        self._node: Any = None
        self._executor: Any = None
        self._worker = threading.Thread(target=self._work, name='executor', daemon=True)
        self._closing = threading.Event()
        self._make: Callable[[threading.Event], Any] | None = None
        self._failure: BaseException | None = None

    def run(self, make: Callable[[threading.Event], Any], args: Sequence[str] | None) -> int:
        from road_anomaly_ros.ros.transport import make_room
        make_room()
        import rclpy
        from rclpy.signals import SignalHandlerOptions
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        self._make = make
        self._worker.start()
        self._stop.wait()
        self._closing.set()
        if self._executor is not None:
            self._executor.wake()
        self._worker.join(GRACE_S)
        if self._worker.is_alive():
            # A model load cannot be interrupted; nothing of ours is half written.
            leave(0)
        rclpy.try_shutdown()
        return self._exit_code()

    def _exit_code(self) -> int:
        if self._failure is not None:
            print(f'{type(self._failure).__name__}: {one_line(self._failure)}', file=sys.stderr)
            return 1
        return int(getattr(self._node, 'exit_code', 0))

    def _work(self) -> None:
        """Do all that may take long here, so that the main thread always hears a signal."""
        try:
            self._node = self._make(self._stop)
            if not self._closing.is_set():
                self._spin()
        except Exception as error:
            self._failure = error
        finally:
            self._close()
            self._stop.set()

    def _spin(self) -> None:
        from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
        executor = MultiThreadedExecutor(num_threads=self._threads)
        executor.add_node(self._node)
        self._executor = executor
        while not self._closing.is_set() and self._node.context.ok():
            try:
                executor.spin_once(timeout_sec=1.0)
            except ExternalShutdownException:
                break
            except Exception as error:      # one failing callback must not end the others
                self._node.get_logger().error(f'callback failed: {one_line(error)}')
        # rclpy takes its guard down before its threads end, which then complain: end them first.
        pool = getattr(executor, '_executor', None)
        if pool is not None:
            pool.shutdown(wait=True)
        executor.shutdown()

    def _close(self) -> None:
        if self._node is None:
            return
        try:
            getattr(self._node, 'close', lambda: None)()
            self._node.destroy_node()
        except Exception as error:          # the process ends anyway: say it, keep the exit code
            _log.warning('while closing: %s', one_line(error))


def leave(code: int) -> NoReturn:
    """End the process: all is closed, and torch takes seconds to unload and sometimes crashes."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def one_line(error: BaseException) -> str:
    """Return the text of an error on one line; its kind where it has no text."""
    return ' '.join(str(error).split()) or type(error).__name__


if __name__ == '__main__':
    anomaly_node()
