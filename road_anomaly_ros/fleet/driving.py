# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Hands tasks to workers and keeps what they give, whatever happens to a worker."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, Protocol

from road_anomaly_ros.fleet.index import Index, Part, key_of, part_name
from road_anomaly_ros.fleet.listing import Item, is_gone
from road_anomaly_ros.fleet.mining import Mined, Miner, Order, Task
from road_anomaly_ros.remarks import one_line
from road_anomaly_ros.tools.flow import StopOnSignal

ATTEMPTS = 3  # of a task whose worker died
_POLL = 0.2  # seconds between looks whether to stop


class Answer(NamedTuple):
    """What came of a task: a result, or why there is none; `lost` where its worker died."""

    task: Any  # the Task
    mined: Mined | None = None
    error: str = ''
    lost: bool = False


class Pool(Protocol):
    """Workers, each with one task at a time."""

    @property
    def size(self) -> int:
        """How many have a task or wait for one; this may change."""

    def submit(self, task: Task) -> None:
        """Give a task to a worker that has none."""

    def answers(self, seconds: float) -> list[Answer]:
        """Return what has come within so many seconds at the most; dead workers are replaced."""

    def close(self) -> None:
        """End all workers; what they were at is lost."""


@dataclass
class Progress:
    """How far the mining is."""

    files: int = 0  # all stretches of which are done
    frames: int = 0
    events: int = 0
    failed: int = 0  # stretches that gave nothing
    again: int = 0  # tasks done again after their worker died
    busy_s: float = 0.0  # of all workers together, without loading the model
    signal: int | None = None  # the signal that ended it, if one did
    problems: list[str] = field(default_factory=list)  # files that break off
    refused: Counter[str] = field(default_factory=Counter)  # pictures left out, by reason


class Driver:
    """Takes the items of an archive through workers into an index, each stretch once."""

    def __init__(self, index: Index) -> None:
        self.progress = Progress()
        self._index = index
        self._waiting: deque[Task] = deque()
        self._left: dict[str, int] = {}  # stretches to be done by key of their item
        self._attempts: dict[tuple[str, int], int] = {}

    def plan(self, items: Iterable[Item]) -> int:
        """Queue what is not done yet; returns how many items are done already.

        Results and failures of a file that is there no longer as it was, by size or names, are
        taken out, also failures of files that are gone; what broke off before is a problem
        again.
        """
        items = list(items)
        keys, uris = {item.key for item in items}, {item.uri for item in items}
        found: dict[str, dict[int, Part]] = {}
        for part in self._index.done():
            if part.file in uris and part.key not in keys:
                self._index.remove(part.name)
            else:
                found.setdefault(part.key, {})[part.start] = part
        for name, failure in self._index.failures().items():
            file = failure['file']
            stale = key_of(name) not in keys if file in uris else is_gone(file)
            if stale:
                self._index.remove(name)
        complete = 0
        for item in items:
            done = found.get(item.key, {})
            for part in done.values():
                self._note(part)
            parts = next(iter(done.values())).parts if done else ()
            rest = [start for start in parts or (0,) if start not in done]
            complete += not rest
            self._enqueue([Task(item, start, parts) for start in rest], item)
        return complete

    def _note(self, part: Part) -> None:
        if part.problem:
            self.progress.problems.append(f'{part.file}: {part.problem}')
        self.progress.refused.update(part.refused)

    @property
    def waiting(self) -> int:
        """How many tasks are queued."""
        return len(self._waiting)

    def _enqueue(self, tasks: list[Task], item: Item) -> None:
        if tasks:
            self._left[item.key] = len(tasks)
            self._waiting.extend(tasks)

    def run(
        self,
        pool: Pool,
        stop: StopOnSignal | None = None,
        notice: Callable[[Progress], Any] = lambda _: None,
    ) -> None:
        """Work until all is done, or a signal came; what runs then is waited for no longer."""
        running = 0
        while self._waiting or running:
            if stop is not None and stop.signal is not None:
                self.progress.signal = stop.signal
                return
            while self._waiting and running < pool.size:
                pool.submit(self._waiting.popleft())
                running += 1
            for answer in pool.answers(_POLL):
                running -= 1
                self._take(answer)
                notice(self.progress)

    def _take(self, answer: Answer) -> None:
        task, mined = answer.task, answer.mined
        if answer.lost:
            self._again(task)
        elif mined is None:
            self._fail(task, answer.error)
        elif mined.cut:
            self._left.pop(task.item.key)
            self._enqueue([Task(task.item, start, mined.cut) for start in mined.cut], task.item)
        elif mined.part is not None:
            progress = self.progress
            self._index.add(mined.part, mined.events, mined.pictures)
            progress.frames += mined.part.frames
            progress.events += len(mined.events)
            progress.busy_s += mined.part.seconds
            self._note(mined.part)
            self._settle(task)

    def _again(self, task: Task) -> None:
        name = task.item.key, task.start
        self._attempts[name] = self._attempts.get(name, 1) + 1
        if self._attempts[name] > ATTEMPTS:
            self._fail(task, f'{ATTEMPTS} workers died of it')
        else:
            self.progress.again += 1
            self._waiting.append(task)

    def _fail(self, task: Task, reason: str) -> None:
        uri = task.item.uri
        reason = reason if uri in reason else f'{uri}: {reason}'
        self._index.fail(part_name(task.item.key, task.start), uri, reason)
        self.progress.failed += 1
        self._settle(task)

    def _settle(self, task: Task) -> None:
        self._left[task.item.key] -= 1
        self.progress.files += not self._left[task.item.key]


def answer_of(miner: Miner, task: Task) -> Answer:
    """Mine one task; an error becomes its one line."""
    try:
        return Answer(task, miner.mine(task))
    except Exception as error:  # one file must not end the others
        return Answer(task, error=one_line(error))


class Processes:
    """Workers on this machine, each a process of its own."""

    def __init__(self, order: Order, size: int, devices: Iterable[str] = ()) -> None:
        self.size = size
        self._orders = [
            replace(order, config=order.config.replace({'device': name})) for name in devices
        ] or [order]
        self._workers = [self._start(number) for number in range(size)]

    def _start(self, number: int) -> _Worker:
        return _Worker(self._orders[number % len(self._orders)])

    def submit(self, task: Task) -> None:
        """Give a task to a worker that has none."""
        next(worker for worker in self._workers if worker.task is None).give(task)

    def answers(self, seconds: float) -> list[Answer]:
        """Return what has come within so many seconds at the most; dead workers are replaced."""
        busy = [worker for worker in self._workers if worker.task is not None]
        ready = wait([worker.connection for worker in busy], seconds)
        found = []
        for number, worker in enumerate(self._workers):
            if worker.connection not in ready:
                continue
            answer = worker.take()
            if answer.lost:
                self._workers[number] = self._start(number)
            found.append(answer)
        return found

    def close(self) -> None:
        """End all workers; what they were at is lost."""
        for worker in self._workers:
            worker.end()


class _Worker:
    def __init__(self, order: Order) -> None:
        spawn = multiprocessing.get_context('spawn')
        self.connection, theirs = spawn.Pipe()
        self.task: Task | None = None
        self.process = spawn.Process(target=_serve, args=(theirs, order), daemon=True)
        self.process.start()
        theirs.close()

    def give(self, task: Task) -> None:
        self.task = task
        with contextlib.suppress(OSError):  # it died between two tasks: `take` tells
            self.connection.send(task)

    def take(self) -> Answer:
        task, self.task = self.task, None
        try:
            answer: Answer = self.connection.recv()
            return answer
        except (EOFError, OSError):
            self.end()
            return Answer(task, lost=True)

    def end(self) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.join()


def _serve(connection: Connection, order: Order) -> None:
    # The terminal tells the whole group; the driver decides what that means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    miner, error = None, ''
    try:
        miner = Miner(order)
    except Exception as problem:
        error = one_line(problem)
    try:
        while True:
            task = connection.recv()
            connection.send(answer_of(miner, task) if miner else Answer(task, error=error))
    except (EOFError, OSError):
        if miner is not None:
            miner.close()


@dataclass
class Alone:
    """One worker in this process: nothing to start, nothing that dies alone."""

    miner: Miner
    size: int = 1
    _task: Task | None = None

    def submit(self, task: Task) -> None:
        """Keep the task for `answers`."""
        self._task = task

    def answers(self, seconds: float) -> list[Answer]:
        """Mine the task that was submitted, however long it takes."""
        task, self._task = self._task, None
        return [] if task is None else [answer_of(self.miner, task)]

    def close(self) -> None:
        """Remove what was fetched."""
        self.miner.close()


def devices_of(order: Order) -> list[str]:
    """Return the GPUs of this machine that the settings leave open to choose, one worker each."""
    import torch

    if order.config.device not in ('auto', 'cuda'):
        return []
    return [f'cuda:{number}' for number in range(torch.cuda.device_count())]
