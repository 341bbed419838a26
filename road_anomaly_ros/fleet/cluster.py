# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Workers on Ray: one actor per device of a cluster; needs the extra 'cluster'."""

from __future__ import annotations

import math
import os
import time
import warnings
from typing import Any

from road_anomaly_ros.fleet.driving import ATTEMPTS, Answer, answer_of, died_loading
from road_anomaly_ros.fleet.mining import Miner, Order, Task
from road_anomaly_ros.remarks import Remark, one_line

os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')  # nothing is sent unasked
os.environ.setdefault('RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO', '0')
os.environ.setdefault('RAY_worker_niceness', '0')  # they do the work; 15 would starve them

try:
    import ray
    from ray.exceptions import RayError
except ModuleNotFoundError as missing:
    raise ValueError(
        "a cluster needs Ray: pip install 'road_anomaly_ros[cluster]' on every machine of it"
    ) from missing

LOCAL = 'local'
PATIENCE_S = 60.0  # with no worker at all, before a word is said


class _Actor:
    """A Miner in a process of the cluster."""

    def __init__(self, order: Order) -> None:
        self._order = order

    def begin(self) -> str:
        """Load the model; returns why that fails, '' where it does not."""
        try:
            self._miner = Miner(self._order)
        except Exception as error:  # another worker may do
            return one_line(error)
        return ''

    def mine(self, task: Task) -> Answer:
        return answer_of(self._miner, task)


class Cluster:
    """One actor per GPU of a cluster, or per `threads` cores where it has none.

    Only actors that have begun get tasks: those for which there is no room, since `workers` is
    more or the cluster has shrunk, begin once there is, and nothing waits for them. One that dies
    before is started again, so many times.

    `address` is that of a running cluster ('auto': the one of this machine) or 'local' for one
    that lives as long as this object. Raises ValueError where none can be reached.
    """

    def __init__(self, order: Order, address: str = LOCAL, workers: int | None = None) -> None:
        _join(address, order.threads, workers)
        machines = [node['Resources'] for node in ray.nodes() if node['Alive']]
        gpus = sum(int(machine.get('GPU', 0)) for machine in machines)
        room = gpus or sum(int(machine.get('CPU', 0)) // order.threads for machine in machines)
        share = {'num_gpus': 1} if gpus else {'num_cpus': order.threads}
        self._need = ', '.join(f'{name}={count}' for name, count in share.items())
        self._make = ray.remote(_Actor).options(**share, max_restarts=0)
        self._order = order
        self._idle: list[Any] = []
        self._running: dict[Any, tuple[Any, Task]] = {}
        self._beginning: dict[Any, tuple[Any, int]] = {}
        self._empty_since: float | None = None
        for _ in range(workers or max(1, room)):
            self._start()
        if room < (asked := len(self._beginning)):
            _warn(f'expected at most {room} workers, got {asked}; the rest wait for room')

    @property
    def size(self) -> int:
        """How many workers have begun."""
        return len(self._idle) + len(self._running)

    def _start(self, attempt: int = 1) -> None:
        actor = self._make.remote(self._order)
        self._beginning[actor.begin.remote()] = actor, attempt

    def submit(self, task: Task) -> None:
        """Give a task to a worker that has none."""
        actor = self._idle.pop()
        self._running[actor.mine.remote(task)] = actor, task

    def answers(self, seconds: float) -> list[Answer]:
        """Return what has come within so many seconds at the most; dead workers are replaced.

        Raises ValueError where no worker is left and none can begin.
        """
        ready, _ = ray.wait([*self._running, *self._beginning], timeout=seconds)
        self._tell_waiting()
        found = []
        for reference in ready:
            if reference in self._beginning:
                self._begun(reference)
            else:
                found.append(self._ended(reference))
        return found

    def _begun(self, reference: Any) -> None:
        actor, attempt = self._beginning.pop(reference)
        try:
            problem = ray.get(reference)
        except RayError:
            if attempt < ATTEMPTS:
                self._start(attempt + 1)
                return
            problem = died_loading()
        if not problem:
            self._idle.append(actor)
        elif self.size or self._beginning:
            _warn(f'goes on without a worker that cannot begin: {problem}')
        else:
            raise ValueError(f'no worker of the cluster can begin: {problem}')

    def _ended(self, reference: Any) -> Answer:
        actor, task = self._running.pop(reference)
        try:
            answer: Answer = ray.get(reference)
        except RayError:
            self._start()
            return Answer(task, lost=True)
        self._idle.append(actor)
        return answer

    def _tell_waiting(self) -> None:
        if self.size:
            self._empty_since = None
        elif self._empty_since is None:
            self._empty_since = time.monotonic()
        elif time.monotonic() - self._empty_since > PATIENCE_S:
            self._empty_since = math.inf
            _warn(f'no worker has begun for {PATIENCE_S:.0f} s: each needs {self._need} free')

    def close(self) -> None:
        """Leave the cluster; a local one ends."""
        ray.shutdown()


def _join(address: str, threads: int, workers: int | None) -> None:
    # 'local' as well is said: without an address Ray joins what else runs on the machine.
    options: dict[str, Any] = {
        'address': address,
        'log_to_driver': False,
        'logging_level': 'error',
    }
    if address == LOCAL:
        workers = workers or max(1, len(os.sched_getaffinity(0)) // threads)
        options |= {'include_dashboard': False, 'num_cpus': workers * threads}
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ValueError(f'expected a Ray cluster at {address!r}: {one_line(error)}') from None


def _warn(text: str) -> None:
    warnings.warn(f'--cluster: {text}', Remark, stacklevel=3)
