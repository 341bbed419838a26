# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The life of a process that holds one node: start, spin, clean end when a signal asks for it.

Imports no ROS at the top, so that the signals are in our hands before anything slow begins; only
while Python itself starts, some 30 ms, do they end the process the hard way.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from road_anomaly_ros.remarks import one_line, speak_as
from road_anomaly_ros.ros import arguments
from road_anomaly_ros.tools.flow import AS_ONE_S, SIGNALS, leave_terminal, polite_signals

GRACE_S = 10.0  # for what must reach the disk, such as the end of a bag
FRAME_GRACE_S = 3.0  # for a frame or a model load; launch waits for 5 s
EXAMPLES = """
examples:
  anomaly_node
  anomaly_node --ros-args -r image:=/camera/image_raw -p scorer:=rba
  anomaly_node --ros-args --params-file config/zero_shot.yaml
"""
_ASKED, _ENDED = 0, 255  # in a pipe that else carries the numbers of signals
EXIT_BAD_INPUT = 2
THREADS = 3  # transitions, images, and parameters with diagnostics


def anomaly_node(args: Sequence[str] | None = None) -> NoReturn:
    """Run the executable `anomaly_node` and end the process."""
    from road_anomaly_ros.ros import usage

    words = sys.argv[1:] if args is None else args
    if usage.asked(words):
        from road_anomaly_ros.ros.parameters import node_parameters

        print(
            usage.text(
                'anomaly_node',
                'Labels, anomaly scores and obstacles for the images of a camera.',
                EXAMPLES,
                node_parameters(),
            ),
            end='',
        )
        leave(0)
    try:
        arguments.refuse_stray('anomaly_node', words)
    except ValueError as error:
        print(f'anomaly_node: {error}', file=sys.stderr)
        leave(EXIT_BAD_INPUT)

    def make(stop: threading.Event) -> Any:
        from road_anomaly_ros.ros.node import AnomalyNode

        return AnomalyNode()

    leave(run(make, args=args, grace=FRAME_GRACE_S))


class Stop(threading.Event):
    """The wish that the process ends: nodes and threads set it, signals as well once it listens.

    No handler sets it. A handler runs in the main thread, which may just hold the event's lock
    and would wait for itself for ever: two signals in a row are enough. And a signal that another
    thread takes from the kernel does not wake a main thread that waits for a lock. So signals
    write their number to a pipe, from whatever thread, and the main thread reads it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)  # asked for by set_wakeup_fd
        self._numbers: tuple[int, ...] = ()
        self._first: float | None = None  # moment of the first signal

    def listen(self) -> None:
        """Take over the signals, in the main thread."""
        self._numbers = polite_signals()
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in self._numbers:
            signal.signal(number, lambda *_: None)

    def set(self) -> None:
        """Ask for the end; from any thread, any number of times."""
        if not self.is_set():
            super().set()
            os.write(self._writer, bytes([_ASKED]))

    def wait_listening(self) -> None:
        """Return when a thread or a signal asks for the end; for the main thread."""
        while (number := self._read()) != _ASKED and number not in self._numbers:
            pass  # of a library that has a signal of its own
        super().set()

    def ended(self) -> None:
        """Tell `wait_ended` that all is over; from any thread."""
        os.write(self._writer, bytes([_ENDED]))

    def wait_ended(self, grace: float) -> bool:
        """Wait for `ended`, for the main thread; False when that took `grace` seconds.

        A second signal ends the process at once, with 128 + its number.
        """
        end = time.monotonic() + grace
        while (rest := end - time.monotonic()) > 0 and select.select([self._reader], [], [], rest)[
            0
        ]:
            before = self._first
            number = self._read()
            if number == _ENDED:
                return True
            late = before is not None and time.monotonic() - before > AS_ONE_S
            if number in self._numbers and late:
                leave(128 + number)
        return False

    def _read(self) -> int:
        number = os.read(self._reader, 1)[0]
        if number in self._numbers and self._first is None:
            self._first = time.monotonic()
        if number == signal.SIGHUP:
            leave_terminal()
        return number


def run(
    make: Callable[[threading.Event], Any],
    *,
    args: Sequence[str] | None = None,
    threads: int = THREADS,
    grace: float = GRACE_S,
) -> int:
    """Spin the node that `make(stop)` returns until a signal comes or the node sets `stop`.

    A node may offer `close()`, called once after the last callback and before it is destroyed,
    and `exit_code`. Returns 0 after a signal in whatever state; 1, after one line on stderr, when
    the node cannot be made. Exceptions of callbacks are logged and do not end the process. What
    is not over `grace` seconds after a signal ends with the process, with code 0. A second signal
    ends the process at once with 128 + its number, unless it follows the first so closely that it
    is the same one, passed on by a launcher.

    For the main thread of a process that ends afterwards: later signals are ignored.
    """
    stop = Stop()
    stop.listen()
    code = _Session(stop, make, args, threads).run(grace)
    for number in SIGNALS:
        # The second of the two signals that launch and a terminal send may come as late as this,
        # and Python takes down handlers of its own before it is gone.
        signal.signal(number, signal.SIG_IGN)
    return code


class _Session:
    """One context, one node, one executor in a thread; the main thread waits for the signal."""

    def __init__(
        self,
        stop: Stop,
        make: Callable[[threading.Event], Any],
        args: Sequence[str] | None,
        threads: int,
    ) -> None:
        self._stop = stop
        self._make = make
        self._args = args
        self._words = list(sys.argv[1:] if args is None else args)
        self._threads = threads
        self._node: Any = None
        self._code = 0
        self._executor: Any = None
        self._waking = threading.Lock()  # an executor must not be woken once it is gone
        self._worker = threading.Thread(target=self._work, name='executor', daemon=True)
        self._failure: BaseException | None = None

    def run(self, grace: float) -> int:
        self._worker.start()
        self._stop.wait_listening()
        with self._waking:
            if self._executor is not None:
                self._executor.wake()
        if not self._stop.wait_ended(grace):
            # A model load cannot be interrupted; nothing of ours is half written.
            leave(0)
        return self._exit_code()

    def _exit_code(self) -> int:
        if self._failure is not None:
            print(f'{type(self._failure).__name__}: {one_line(self._failure)}', file=sys.stderr)
            return 1
        return self._code

    def _work(self) -> None:
        """Do all that may take long here, so that the main thread always hears a signal."""
        try:
            self._live()
        except Exception as error:
            self._failure = error
        finally:
            self._stop.set()
            self._stop.ended()

    def _live(self) -> None:
        from road_anomaly_ros.ros.transport import make_room

        speak_as(Path(sys.argv[0]).stem)
        make_room()
        import rclpy
        from rclpy.signals import SignalHandlerOptions

        files = arguments.params_files(self._words)
        for path in files:
            _parameter_file().check(path)
        silent = arguments.without_log_file()
        if silent:
            print('no log file: its folder cannot be written; set ROS_LOG_DIR', file=sys.stderr)
        words = sys.argv if self._args is None else self._args
        try:
            rclpy.init(args=[*words, *silent], signal_handler_options=SignalHandlerOptions.NO)
        except Exception as error:
            raise ValueError(arguments.explain(error) or one_line(error)) from error
        try:
            if not self._stop.is_set():
                self._node = self._make(self._stop)
                self._tell_unmatched(files)
                self._spin()
        finally:
            self._close()
            rclpy.try_shutdown()

    def _tell_unmatched(self, files: Sequence[Path]) -> None:
        """Point out files of parameters for other nodes: ROS passes over them in silence."""
        name = self._node.get_fully_qualified_name()
        for line in _parameter_file().remarks(files, name) if files else ():
            self._node.get_logger().warning(line)

    def _spin(self) -> None:
        from rclpy.executors import ExternalShutdownException

        from road_anomaly_ros.ros.executor import make_executor

        def failed(error: Exception) -> None:  # one failing callback must not end the others
            self._node.get_logger().error(f'callback failed: {one_line(error)}')

        executor = make_executor(self._threads, failed)
        executor.add_node(self._node)
        self._executor = executor
        # What is set after this look wakes the executor, what was set before is seen by it.
        while not self._stop.is_set() and self._node.context.ok():
            try:
                executor.spin_once(timeout_sec=1.0)
            except ExternalShutdownException:
                break
            except Exception as error:
                failed(error)
        with self._waking:
            self._executor = None
        executor.shutdown()

    def _close(self) -> None:
        node, self._node = self._node, None
        if node is None:
            return
        try:
            getattr(node, 'close', lambda: None)()
            node.destroy_node()
        except Exception as error:  # the process ends anyway: say it, keep the exit code
            print(f'while closing: {one_line(error)}', file=sys.stderr)
        self._code = int(getattr(node, 'exit_code', 0))
        # A lifecycle node lives on in cycles, and with it the participant in the graph, whose
        # shared memory of 32 MiB would outlive a process that ends without taking itself apart.
        del node
        gc.unfreeze()
        gc.collect()


def leave(code: int) -> NoReturn:
    """End the process: all is closed, and torch takes seconds to unload and sometimes crashes."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # nobody reads any more
            stream.flush()
    from road_anomaly_ros.ros.transport import remove_segments

    remove_segments()
    os._exit(code)


def _parameter_file() -> Any:
    from road_anomaly_ros.perception import parameter_file

    return parameter_file


if __name__ == '__main__':
    anomaly_node()
