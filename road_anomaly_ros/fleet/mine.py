# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Find what is strange in an archive of driving: thousands of videos, bags and image folders.

SOURCES are files, folders, globs or addresses (s3://, gs://, http://; what fsspec knows). INDEX
gets events.parquet, one row per thing seen (file, time, box, evidence, what is around it), and a
thumbnail of each. Run again, it goes on where it stopped: what is done is not done twice, what
failed is tried anew. 'road-anomaly mine report' makes a page of it, 'mine export' cuts clips.

Exit code 1: some file gave nothing or broke off, or a source was not there; failed/ and the last
lines say which and why.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from road_anomaly_ros import files
from road_anomaly_ros.tools.chain import add_chain_arguments, chain_config, positive

if TYPE_CHECKING:
    from road_anomaly_ros.fleet.driving import Pool, Progress
    from road_anomaly_ros.fleet.index import Index
    from road_anomaly_ros.fleet.listing import Listing
    from road_anomaly_ros.fleet.mining import Miner, Order

EXAMPLES = """
examples:
  road-anomaly mine drives/ -o index
  road-anomaly mine 'archive/2026-*/**/*.mp4' -o index --jobs 8
  road-anomaly mine drives/ -o index --dry-run
  road-anomaly mine s3://bucket/drives -o index --cluster auto
  road-anomaly mine report index -o strange.html
  road-anomaly mine export index --top 200 -o clips
"""
EXIT_INCOMPLETE = 1
STRETCH = 3000
_SAMPLE_FILES, _SAMPLE_FRAMES = 8, 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        'sources', metavar='SOURCES', nargs='*', help='files, folders, globs or addresses'
    )
    parser.add_argument(
        '-o', '--out', metavar='INDEX', type=Path, required=True, help='folder of the index'
    )
    parser.add_argument(
        '--list',
        metavar='FILE',
        type=Path,
        action='append',
        default=[],
        help='text file with one source a line; may be given several times',
    )
    parser.add_argument('--topic', help='image topic of bags that have several')
    parser.add_argument(
        '--stretch',
        metavar='N',
        type=positive,
        default=STRETCH,
        help='longer files of this machine are taken in parts of so many frames, default '
        f'{STRETCH}; remote ones are taken whole',
    )
    parser.add_argument(
        '--no-tracks', action='store_true', help='every obstacle of every frame is an event'
    )
    parser.add_argument(
        '--dry-run', action='store_true', help='estimate time and storage from a sample'
    )
    _add_workers(parser)
    add_chain_arguments(parser)


def _add_workers(parser: argparse.ArgumentParser) -> None:
    work = parser.add_argument_group('workers')
    work.add_argument(
        '--jobs', metavar='N', type=positive, help='workers; default one per GPU, else per core'
    )
    work.add_argument(
        '--threads',
        metavar='N',
        type=positive,
        default=1,
        help='threads of a worker; results agree to the last digit among runs with the same',
    )
    work.add_argument(
        '--cluster',
        metavar='ADDRESS',
        nargs='?',
        const='local',
        help="run on Ray: 'auto', the address of a cluster, or nothing for one on this machine",
    )


def main(arguments: argparse.Namespace) -> int:
    """Run the command; returns 0, 1 where files gave nothing, 128 + the signal that stopped it."""
    from road_anomaly_ros.fleet.driving import Driver
    from road_anomaly_ros.fleet.index import Index
    from road_anomaly_ros.fleet.listing import find
    from road_anomaly_ros.tools.flow import StopOnSignal

    listing = find(arguments.sources, arguments.list)
    _tell_left_out(listing)
    order, miner = _order(arguments)
    if arguments.dry_run:
        return _estimate(listing, miner, arguments)
    index = Index(arguments.out)
    begin = time.perf_counter()
    with files.alone(arguments.out):
        about = {'fingerprint': order.fingerprint, 'stretch': order.stretch, 'topic': order.topic}
        for damaged in index.open(about):
            print(f'warning: {damaged} is damaged and made anew', file=sys.stderr)
        driver = Driver(index)
        done = driver.plan(listing.items)
        if driver.waiting:
            with StopOnSignal() as stop, _bar(len(listing.items), done) as show:
                pool = _pool(arguments, order, miner)
                try:
                    driver.run(pool, stop, show)
                finally:
                    pool.close()
        rows = index.merge()
    code = _report(driver.progress, index, rows, done, begin)
    return code or (EXIT_INCOMPLETE if listing.missing else 0)


def _order(arguments: argparse.Namespace) -> tuple[Order, Miner]:
    """Return what workers are told, and the first worker, which knows that the chain can work."""
    from road_anomaly_ros.fleet.mining import Miner, Order

    config = chain_config(arguments)
    limit = _SAMPLE_FRAMES if arguments.dry_run else None
    miner = Miner(
        Order(
            config,
            stretch=arguments.stretch,
            topic=arguments.topic,
            tracks=not arguments.no_tracks,
            threads=arguments.threads,
            limit=limit,
        )
    )
    return miner.order, miner


def _pool(arguments: argparse.Namespace, order: Order, miner: Miner) -> Pool:
    from road_anomaly_ros.fleet.driving import Alone, Processes, devices_of

    if arguments.cluster:
        from road_anomaly_ros.fleet.cluster import Cluster

        miner.close()
        return Cluster(order, arguments.cluster, arguments.jobs)
    devices = devices_of(order)
    jobs = arguments.jobs or len(devices) or len(os.sched_getaffinity(0)) // order.threads
    if jobs <= 1:
        return Alone(miner)
    miner.close()
    return Processes(order, jobs, devices)


@contextlib.contextmanager
def _bar(total: int, done: int) -> Iterator[Callable[[Progress], None]]:
    """Yield a function that shows progress: files, frames a second, things found, time left."""
    from tqdm import tqdm

    with tqdm(total=total, initial=done, unit=' files', disable=None, dynamic_ncols=True) as bar:
        begin = time.perf_counter()

        def show(progress: Progress) -> None:
            rate = progress.frames / max(1e-9, time.perf_counter() - begin)
            bar.set_postfix_str(
                f'{progress.frames} frames, {rate:.1f}/s, {progress.events} events', refresh=False
            )
            bar.update(done + progress.files - bar.n)

        yield show


def _tell_left_out(listing: Listing) -> None:
    from road_anomaly_ros.tools.pictures import some

    for reason, count in listing.refused.items():
        print(f'left out {count}: {reason}: {some(listing.left_out[reason])}', file=sys.stderr)


def _report(progress: Progress, index: Index, rows: int, done: int, begin: float) -> int:
    from road_anomaly_ros.fleet.index import EVENTS

    seconds = time.perf_counter() - begin
    rate, busy = (value / max(1e-9, seconds) for value in (progress.frames, progress.busy_s))
    print(
        f'{progress.files + done} files done ({done} before), {progress.failed} parts of files '
        f'failed, {progress.frames} frames in '
        f'{seconds:.0f} s ({rate:.1f}/s, {busy:.2f} workers busy), '
        f'{rows} events in {index.path / EVENTS}'
    )
    if progress.again:
        print(f'{progress.again} tasks were done again, their workers had died')
    for reason, count in progress.refused.items():
        print(f'left out {count} pictures: {reason}', file=sys.stderr)
    for problem in progress.problems:
        print(f'incomplete: {problem}', file=sys.stderr)
    failures = index.failures().values()
    for failure in failures:
        print(f'failed: {failure["reason"]}', file=sys.stderr)
    if progress.signal is not None:
        print('stopped; run the same command to go on', file=sys.stderr)
        return 128 + progress.signal
    return EXIT_INCOMPLETE if failures or progress.problems else 0


def _estimate(listing: Listing, miner: Miner, arguments: argparse.Namespace) -> int:
    """Mine the beginning of some files, spread over all, and print what the whole would take."""
    from road_anomaly_ros.fleet.driving import answer_of
    from road_anomaly_ros.fleet.estimate import Sample, estimate
    from road_anomaly_ros.fleet.mining import Task

    items = listing.items
    step = max(1, len(items) // _SAMPLE_FILES)
    samples = [Sample(item, answer_of(miner, Task(item))) for item in items[::step]]
    miner.close()
    jobs = arguments.jobs or len(os.sched_getaffinity(0)) // arguments.threads
    print(estimate(items, samples, max(1, jobs)))
    return 0
