# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Hands tasks to workers and keeps what they give, whatever happens to a worker."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, Protocol

from road_anomaly_ros.fleet.index import Index, Part, key_of, part_name
from road_anomaly_ros.fleet.listing import Item, is_gone
from road_anomaly_ros.fleet.mining import Mined, Miner, Order, Task
from road_anomaly_ros.remarks import Remark, one_line
from road_anomaly_ros.tools.flow import StopOnSignal

ATTEMPTS = 3  # of a task whose worker died, and of a worker that dies before it has begun
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
    """Workers on this machine, each a process of its own.

    Only those that have begun get tasks. One that dies before is started again, so many times;
    without one that cannot begin the others go on.
    """

    def __init__(self, order: Order, size: int, devices: Iterable[str] = ()) -> None:
        self._orders = [
            replace(order, config=order.config.replace({'device': name})) for name in devices
        ] or [order]
        self._workers: list[_Worker] = []
        for number in range(size):
            self._start(number)

    def _start(self, number: int, attempt: int = 1) -> None:
        order = self._orders[number % len(self._orders)]
        self._workers.append(_Worker(order, number, attempt))

    @property
    def size(self) -> int:
        """How many workers have begun."""
        return sum(worker.begun for worker in self._workers)

    def submit(self, task: Task) -> None:
        """Give a task to a worker that has none."""
        next(worker for worker in self._workers if worker.begun and not worker.task).give(task)

    def answers(self, seconds: float) -> list[Answer]:
        """Return what has come within so many seconds at the most; dead workers are replaced.

        Raises ValueError where no worker is left and none can begin.
        """
        heard = {worker.connection: worker for worker in self._workers}
        found = []
        for connection in wait(list(heard), seconds):
            worker = heard[connection]
            task, worker.task = worker.task, None
            try:
                said: Answer | str = worker.connection.recv()
            except (EOFError, OSError):
                found += [Answer(task, lost=True)] if task is not None else []
                self._replace(worker)
                continue
            if isinstance(said, Answer):
                found.append(said)
            elif said:
                self._go_on_without(worker, said)
            else:
                worker.begun = True
        return found

    def _replace(self, worker: _Worker) -> None:
        attempt = 1 if worker.begun else worker.attempt + 1
        if attempt > ATTEMPTS:
            self._go_on_without(worker, died_loading())
            return
        self._end(worker)
        self._start(worker.number, attempt)

    def _go_on_without(self, worker: _Worker, problem: str) -> None:
        self._end(worker)
        if not self._workers:
            raise ValueError(f'no worker can begin: {problem}')
        text = f'--jobs: goes on without a worker that cannot begin: {problem}'
        warnings.warn(text, Remark, stacklevel=4)

    def _end(self, worker: _Worker) -> None:
        worker.end()
        self._workers.remove(worker)

    def close(self) -> None:
        """End all workers; what they were at is lost."""
        for worker in self._workers:
            worker.end()


def died_loading() -> str:
    """Return why a worker cannot begin that dies each time."""
    return f'{ATTEMPTS} times it died while it loaded the model, look at the memory of the machine'


class _Worker:
    def __init__(self, order: Order, number: int, attempt: int) -> None:
        spawn = multiprocessing.get_context('spawn')
        self.connection, theirs = spawn.Pipe()
        self.number, self.attempt, self.begun = number, attempt, False
        self.task: Task | None = None
        self.process = spawn.Process(target=_serve, args=(theirs, order), daemon=True)
        self.process.start()
        theirs.close()

    def give(self, task: Task) -> None:
        self.task = task
        with contextlib.suppress(OSError):  # it died between two tasks: the next look tells
            self.connection.send(task)

    def end(self) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.join()


def _serve(connection: Connection, order: Order) -> None:
    # The terminal tells the whole group; the driver decides what that means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with contextlib.suppress(EOFError, OSError):  # the driver has left
        try:
            miner = Miner(order)
        except Exception as problem:
            connection.send(one_line(problem))
            return
        with contextlib.closing(miner):
            connection.send('')
            while True:
                connection.send(answer_of(miner, connection.recv()))


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
