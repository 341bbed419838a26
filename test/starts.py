# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Start the node and end it at a random moment, again and again: `make starts COUNT=1000`.

Every state is met: Python starting, imports, loading, active. Most of what a start costs is the
import of torch, so several run at once (--jobs). The short form, every state once and with two
signals, is test_process.py.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

WORDS = (
    *(sys.executable, '-m', 'road_anomaly_ros.ros.process'),
    *('--ros-args', '-p', 'segmenter:=synthetic'),
)
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STATES = {'active: ': 'active', 'loading ': 'loading'}  # by what the node says, the last first
PATIENCE_S = 60.0
PYTHON_S = 0.3  # until Python has started, a signal ends it the hard way
LOOK_S = 0.02


def start(domain):
    """Start the node in a domain of its own, so that no other holds its shared memory."""
    return subprocess.Popen(
        WORDS,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, 'ROS_DOMAIN_ID': str(domain), 'ROS_LOCALHOST_ONLY': '1'},
    )


def mapped(process):
    """Return the segments of Fast DDS in the memory of a process, none once it has ended."""
    try:
        return set(re.findall(r'/dev/shm/\S*fast\S*', Path(f'/proc/{process}/maps').read_text()))
    except OSError:
        return set()


def abandoned(segments, since):
    """Return those made after a moment that are there and in no process, sorted."""
    held = set().union(*(mapped(path.name) for path in Path('/proc').glob('[0-9]*')))
    left = [path for path in sorted(segments - held) if Path(path).exists()]
    return [path for path in left if Path(path).stat().st_ctime >= since]


def ended(process):
    """Wait for the end; return all shared memory that was ever seen, None where it goes on."""
    seen, until = set(), time.monotonic() + PATIENCE_S
    while process.poll() is None:
        if time.monotonic() > until:
            process.kill()
            return None
        seen |= mapped(process.pid)
        time.sleep(LOOK_S)
    return seen


def once(wait, number, domain):
    """Start, wait, send a signal; return the state, the exit code and what was wrong, or ''."""
    born, process = time.time(), start(domain)
    time.sleep(wait)
    begin = time.monotonic()
    process.send_signal(number)
    seen = ended(process)
    took = time.monotonic() - begin
    errors, code = process.communicate()[1], process.returncode
    state = next((name for text, name in STATES.items() if text in errors), 'starting')
    left = abandoned(seen or set(), born)
    polite = code in (0, 128 + number) or (code == -number and wait < PYTHON_S)
    wrong = ''
    if seen is None:
        wrong = f'still there {PATIENCE_S:g} s later'
    elif left:
        wrong = f'shared memory left: {", ".join(left)}'
    elif not polite or 'Traceback' in errors:
        wrong = f'code {code}, {errors[-300:]!r}'
    place = f'{number.name} after {wait:.2f} s, {state}, ended in {took:.1f} s'
    return state, code, wrong and f'{place}: {wrong}'


def time_to_active(domain):
    """Return the seconds from the start to 'active', on this machine as busy as it is."""
    begin, process = time.monotonic(), start(domain)
    said = []
    for line in process.stderr:
        said.append(line)
        if 'active: ' in line:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=PATIENCE_S)
            return time.monotonic() - begin
    raise SystemExit(f'starts: the node ended before it was active: {"".join(said)[-300:]!r}')


def main():
    """Do it as often as the command line says; returns 1 where anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--count', type=int, default=1000)
    parser.add_argument('--jobs', type=int, default=2, help='starts at once')
    parser.add_argument(
        '--longest',
        type=float,
        help='seconds before the signal (default: until active, and a quarter)',
    )
    parser.add_argument('--seed', type=int, default=0)
    arguments = parser.parse_args()
    dice, domain = random.Random(arguments.seed), random.SystemRandom().randint(1, 100)
    for number in SIGNALS:
        if signal.getsignal(number) is signal.SIG_IGN:  # by nohup; the node would inherit that
            signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    longest = arguments.longest or 1.25 * time_to_active(domain)
    moments = [(dice.uniform(0.05, longest), dice.choice(SIGNALS)) for _ in range(arguments.count)]
    begin, states, codes, wrong = time.monotonic(), Counter(), Counter(), 0
    with ThreadPoolExecutor(arguments.jobs) as pool:
        rows = pool.map(
            lambda row: once(*row[1], domain + row[0] % arguments.jobs), enumerate(moments)
        )
        try:
            for state, code, problem in rows:
                states[state] += 1
                codes[code] += 1
                wrong += bool(problem)
                if problem:
                    print(problem, flush=True)
        except KeyboardInterrupt:  # an account of those so far
            pool.shutdown(wait=False, cancel_futures=True)
    count = states.total()
    print(
        f'{count} of {arguments.count} starts, signals within {longest:.1f} s, '
        f'{(time.monotonic() - begin) / max(1, count):.1f} s each; ended while {dict(states)}, '
        f'exit codes {dict(codes)}, {wrong} wrong'
    )
    return int(wrong > 0 or count < arguments.count)


if __name__ == '__main__':
    sys.exit(main())
