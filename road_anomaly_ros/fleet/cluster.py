# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Workers on Ray: one actor per device of a cluster; needs the extra 'cluster'."""

from __future__ import annotations

import os
from typing import Any

from road_anomaly_ros.fleet.driving import Answer, answer_of
from road_anomaly_ros.fleet.mining import Miner, Order, Task
from road_anomaly_ros.remarks import one_line

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


class _Actor:
    """A Miner in a process of the cluster."""

    def __init__(self, order: Order) -> None:
        self._miner = Miner(order)

    def mine(self, task: Task) -> Answer:
        return answer_of(self._miner, task)


class Cluster:
    """One actor per GPU of a cluster, or per `threads` cores where it has none.

    `address` is that of a running cluster ('auto': the one of this machine) or 'local' for one
    that lives as long as this object. Raises ValueError where none can be reached.
    """

    def __init__(self, order: Order, address: str = LOCAL, workers: int | None = None) -> None:
        options: dict[str, Any] = {'log_to_driver': False, 'logging_level': 'error'}
        if address == LOCAL:
            options |= {
                'include_dashboard': False,
                'num_cpus': workers and workers * order.threads,
            }
        else:
            options['address'] = address
        try:
            ray.init(**options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ValueError(f'expected a Ray cluster at {address!r}: {one_line(error)}') from None
        resources = ray.cluster_resources()
        gpus = int(resources.get('GPU', 0))
        cores = int(resources.get('CPU', 1)) // order.threads
        self.size = workers or gpus or max(1, cores)
        share = {'num_gpus': 1} if gpus else {'num_cpus': order.threads}
        self._make = ray.remote(_Actor).options(**share, max_restarts=0)
        self._order = order
        self._idle = [self._start() for _ in range(self.size)]
        self._running: dict[Any, tuple[Any, Task]] = {}

    def _start(self) -> Any:
        return self._make.remote(self._order)

    def submit(self, task: Task) -> None:
        """Give a task to a worker that has none."""
        actor = self._idle.pop()
        self._running[actor.mine.remote(task)] = actor, task

    def answers(self, seconds: float) -> list[Answer]:
        """Return what has come within so many seconds at the most; dead workers are replaced."""
        waiting = list(self._running)
        ready, _ = ray.wait(waiting, num_returns=1, timeout=seconds)
        found = []
        for reference in ready:
            actor, task = self._running.pop(reference)
            try:
                found.append(ray.get(reference))
                self._idle.append(actor)
            except RayError as error:
                found.append(_of(error, task))
                ray.kill(actor)
                self._idle.append(self._start())
        return found

    def close(self) -> None:
        """Leave the cluster; a local one ends."""
        ray.shutdown()


def _of(error: Exception, task: Task) -> Answer:
    """Return the answer of a worker that is gone; one that could not begin says why."""
    cause = getattr(error, 'cause', None)
    if cause is not None:
        return Answer(task, error=one_line(cause))
    return Answer(task, lost=True)
