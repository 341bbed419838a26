# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Several processes score the images of a data set; each has a model of its own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from road_anomaly_ros.evaluation.datasets import DataSet
from road_anomaly_ros.perception.config import PipelineConfig
from road_anomaly_ros.remarks import one_line


@dataclass(frozen=True)
class Share:
    """What one process scores: every `members`-th image, beginning with the `number`-th."""

    out: Path
    data: DataSet
    methods: Mapping[str, tuple[PipelineConfig, str]]  # name: settings and key
    seed: int
    number: int
    members: int


def score_images(share: Share, jobs: int, advance: Callable[[], object]) -> None:
    """Score all images in `jobs` processes; ValueError or OSError of one ends all of them."""
    spawn = multiprocessing.get_context('spawn')
    ends, processes = [], []
    try:
        for number in range(jobs):
            mine, theirs = spawn.Pipe(duplex=False)
            words = theirs, replace(share, number=number, members=jobs)
            processes.append(spawn.Process(target=_work, args=words, daemon=True))
            processes[-1].start()
            theirs.close()
            ends.append(mine)
        while ends:
            for end in wait(ends):
                if not isinstance(end, Connection) or not _heard(end, advance):
                    ends.remove(end)
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _heard(end: Connection, advance: Callable[[], object]) -> bool:
    """Take one message; returns False after the last, raises what ended the process."""
    try:
        message = end.recv()
    except EOFError:
        raise ValueError(
            'a process that scored images was killed; the same command continues, '
            'fewer --jobs need less memory'
        ) from None
    if isinstance(message, Exception):
        raise message
    if message:
        advance()
    return bool(message)


def _work(end: Connection, share: Share) -> None:
    # The terminal tells the whole group; the parent ends its children.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(BrokenPipeError):
        try:
            _score(share, lambda: end.send(True))
        except OSError as error:
            end.send(OSError(error.errno, error.strerror, error.filename))
        except Exception as error:
            end.send(ValueError(one_line(error)))
        else:
            end.send(False)


def _score(share: Share, advance: Callable[[], Any]) -> None:
    import torch

    from road_anomaly_ros.evaluation import measuring
    from road_anomaly_ros.evaluation.store import Scores
    from road_anomaly_ros.perception.pipeline import Pipeline

    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // share.members))
    pipeline = Pipeline(next(iter(share.methods.values()))[0])
    methods: Sequence[measuring.Method] = [
        measuring.Method(name, pipeline.prepare(config), key)
        for name, (config, key) in share.methods.items()
    ]
    measuring.score_images(
        pipeline,
        share.data,
        methods,
        Scores(share.out),
        seed=share.seed,
        advance=advance,
        indices=range(share.number, len(share.data), share.members),
    )
