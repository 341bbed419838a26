# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How loops are compiled, and the arithmetic that they share (importing this needs numba)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np

from road_anomaly_ros.remarks import Remark

FAST = {'contract', 'reassoc', 'nnan', 'ninf', 'nsz'}

Array = Any
T = TypeVar('T')
UNCACHED = Remark(
    'compiled loops cannot be kept, so that every start compiles them anew, some '
    'half a minute: set NUMBA_CACHE_DIR to a folder that can be written'
)


def jit(fastmath: set[str] = FAST) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Return the decorator that compiles a loop, kept on disk where there is a folder for it.

    Loops are inlined where they are called: handing over arrays takes longer than a row of a tile.
    """

    def compile_it(function: Callable[..., T]) -> Callable[..., T]:
        flags: dict[str, Any] = {
            'nogil': True,
            'error_model': 'numpy',
            'fastmath': fastmath,
            'forceinline': True,
        }
        try:
            return numba.njit(cache=True, **flags)(function)
        except RuntimeError:  # no folder where compiled code may be kept
            warnings.warn(UNCACHED, stacklevel=1)
            return numba.njit(**flags)(function)

    return compile_it


@jit(FAST - {'reassoc'})  # the rounding trick must not be simplified away
def power(y: np.float32) -> np.float32:
    """2^y to a relative error of 3e-7, |y| below 126: 2^n by the exponent, 2^f by a series."""
    shifted = np.float32(y + np.float32(12582912.0))  # 1.5 * 2^23: the mantissa is round(y)
    f = y - (shifted - np.float32(12582912.0))
    p = np.float32(1.326472672e-3)  # minimax on [-0.5, 0.5], relative error 9.1e-8
    p = p * f + np.float32(9.671512724e-3)
    p = p * f + np.float32(5.550733745e-2)
    p = p * f + np.float32(2.402224208e-1)
    p = p * f + np.float32(6.931469776e-1)
    p = np.float32(p * f + np.float32(1.0))
    exponent = np.int32(shifted.view(np.int32) << np.int32(23))
    return np.int32(p.view(np.int32) + exponent).view(np.float32)


@jit()
def exp2(y: np.float32) -> np.float32:
    """2^y with |y| limited to 62, so that the product of two results is a float32; 1 at 0."""
    y = y if y < np.float32(62.0) else np.float32(62.0)
    return power(y if y > np.float32(-62.0) else np.float32(-62.0))


@jit()
def exp(x: np.float32) -> np.float32:
    """Return e^x for |x| below 43, to a relative error of 2e-6."""
    return exp2(x * np.float32(1.4426950408889634))


@jit()
def scratch(rows: int, columns: int) -> Array:
    """Return zeros [rows,columns] that begin at a cache line; across lines, loads take twice."""
    room = np.zeros(rows * columns + 16, np.float32)
    skip = (64 - room.ctypes.data % 64) % 64 // 4
    return room[skip : skip + rows * columns].reshape((rows, columns))


@jit()
def copy(source: Array, target: Array) -> None:
    """Do what an assignment would, which first finds out whether both are the same memory."""
    for x in range(target.size):
        target[x] = source[x]
