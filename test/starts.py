# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Start the node and end it at a random moment, again and again: `make starts COUNT=1000`.

Every state is met: Python starting, imports, loading, active. The short form, every state once and
with two signals, is test_process.py.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

WORDS = [
    sys.executable,
    '-m',
    'road_anomaly_ros.ros.process',
    '--ros-args',
    '--log-level',
    'warn',
    '-p',
    'segmenter:=synthetic',
]
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE_S = 60.0
PYTHON_S = 0.3  # until Python has started, a signal ends it the hard way


def shared_memory():
    """Return the segments of Fast DDS on this machine."""
    return {path.name for path in Path('/dev/shm').glob('*fast*')}


def once(dice, longest):
    """Start, wait, send a signal; return what was wrong, '' for nothing, and the exit code."""
    wait, number = dice.uniform(0.05, longest), dice.choice(SIGNALS)
    process = subprocess.Popen(
        WORDS,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    time.sleep(wait)
    process.send_signal(number)
    try:
        _, errors = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return f'{number.name} after {wait:.2f} s: still there {PATIENCE_S:g} s later', None
    code = process.returncode
    polite = code in (0, 128 + number) or (code == -number and wait < PYTHON_S)
    if polite and 'Traceback' not in errors:
        return '', code
    return f'{number.name} after {wait:.2f} s: code {code}, {errors[-300:]!r}', code


def main():
    """Do it as often as the command line says; returns 1 where anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--count', type=int, default=1000)
    parser.add_argument('--longest', type=float, default=12.0, help='seconds before the signal')
    parser.add_argument('--seed', type=int, default=0)
    arguments = parser.parse_args()
    os.environ.setdefault('ROS_LOCALHOST_ONLY', '1')
    os.environ.setdefault('ROS_DOMAIN_ID', str(random.SystemRandom().randint(1, 101)))
    dice, codes, wrong, before = random.Random(arguments.seed), Counter(), [], shared_memory()
    for _ in range(arguments.count):
        text, code = once(dice, arguments.longest)
        codes[code] += 1
        wrong += [text] if text else []
    left = shared_memory() - before
    print(
        f'{arguments.count} starts, exit codes {dict(codes)}, {len(wrong)} wrong, '
        f'{len(left)} segments of shared memory left'
    )
    print(*wrong, *sorted(left), sep='\n')
    return int(bool(wrong or left))


if __name__ == '__main__':
    sys.exit(main())
