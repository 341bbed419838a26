# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Damage for messages and files, and the account of what became of them.

`make fuzz` sets ROAD_ANOMALY_FUZZ, by which every count is multiplied, and shows the accounts.
"""

from __future__ import annotations

import os
import time
from collections import Counter

import numpy as np

SCALE = float(os.environ.get('ROAD_ANOMALY_FUZZ', '1'))
TOKENS = (
    b'nan',
    b'-1',
    b'0',
    b'1e999',
    b'9' * 30,
    b'null',
    b'[]',
    b'{}',
    b'""',
    b':',
    b'- ',
    b'&a',
    b'*a',
    b'!!python/object:os.system',
    b'../../x',
    b'\x00',
    b'\xff\xfe',
    b'\n',
    b'\t',
)


def count(short):
    """Return how often something is tried: `short` times in the short form."""
    return max(1, round(short * SCALE))


def damage(rng, raw):
    """Cut, lengthen, flip or replace bytes."""
    raw = bytearray(raw)
    kind = rng.integers(6)
    if kind == 0:
        return raw[: rng.integers(len(raw) + 1)]
    if kind == 1:
        return raw + bytes(rng.integers(0, 256, rng.integers(1, 300), np.uint8))
    if kind == 2:
        return bytes(rng.integers(0, 256, len(raw), np.uint8))
    if kind == 3:
        return b''
    for place in rng.integers(0, len(raw), rng.integers(1, 12)) if raw else ():
        raw[place] = rng.integers(256)
    return raw


def damage_text(rng, raw):
    """Do the same, or put something that means a lot to a parser in the place of a few bytes."""
    if rng.integers(2):
        return damage(rng, raw)
    raw = bytearray(raw)
    for place in rng.integers(0, len(raw) + 1, rng.integers(1, 4)):
        raw[place : place + int(rng.integers(0, 9))] = TOKENS[rng.integers(len(TOKENS))]
    return raw


class Account:
    """What became of damaged inputs: taken, or refused in one line of our own words."""

    def __init__(self, what, refusals=(ValueError, TypeError, RuntimeError, OSError)):
        self.what, self._refusals = what, refusals
        self.taken, self.refused, self.slowest = 0, Counter(), 0.0

    def __call__(self, call):
        """Try one; whatever else it raises goes through."""
        begin = time.perf_counter()
        try:
            call()
            self.taken += 1
        except self._refusals as error:
            text = str(error)
            assert '\n' not in text and len(text.split()) > 2, f'{type(error).__name__}: {text!r}'
            assert not isinstance(error, UnicodeError), text
            self.refused[type(error).__name__] += 1
        self.slowest = max(self.slowest, time.perf_counter() - begin)

    def close(self, tried):
        """Check that each was counted, and tell."""
        assert self.taken + sum(self.refused.values()) == tried
        print(
            f'\n{self.what}: {tried} tried, {self.taken} taken, {dict(self.refused)} refused, '
            f'slowest {self.slowest * 1e3:.0f} ms'
        )
