# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How loops are compiled, and the arithmetic that they share (importing this needs numba)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

FAST = {'contract', 'reassoc', 'nnan', 'ninf', 'nsz'}

Array = Any


def jit(fastmath: set[str] = FAST) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the decorator that compiles a loop, kept on disk where there is a folder for it."""
    def compile_it(function: Callable[..., Any]) -> Callable[..., Any]:
        flags: dict[str, Any] = {'nogil': True, 'error_model': 'numpy', 'fastmath': fastmath}
        try:
            return numba.njit(cache=True, **flags)(function)  # type: ignore[no-any-return]
        except RuntimeError:  # no folder where compiled code may be kept
            return numba.njit(**flags)(function)  # type: ignore[no-any-return]

    return compile_it


@jit(FAST - {'reassoc'})  # the rounding trick must not be simplified away
def power(y: Any) -> Any:
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
def exp2(y: Any) -> Any:
    """2^y with |y| limited to 62, so that the product of two results is a float32; 1 at 0."""
    y = y if y < np.float32(62.0) else np.float32(62.0)
    return power(y if y > np.float32(-62.0) else np.float32(-62.0))


@jit()
def exp(x: Any) -> Any:
    """Return e^x for |x| below 43, to a relative error of 2e-6."""
    return exp2(x * np.float32(1.4426950408889634))


@jit()
def add_product(a: Array, b: Array, width: int, out: Array) -> None:
    """Add a [m,n] @ b [n,x] to out [m,x], first `width` columns; m even, n a multiple of 4.

    Two by four rows at a time: eight weights stay in registers, and loads keep up with sums.
    """
    for k in range(0, a.shape[0], 2):
        top, bottom = out[k, :width], out[k + 1, :width]
        for q in range(0, a.shape[1], 4):
            a0, a1, a2, a3 = a[k, q], a[k, q + 1], a[k, q + 2], a[k, q + 3]
            c0, c1 = a[k + 1, q], a[k + 1, q + 1]
            c2, c3 = a[k + 1, q + 2], a[k + 1, q + 3]
            b0, b1, b2, b3 = b[q], b[q + 1], b[q + 2], b[q + 3]
            for x in range(width):
                top[x] += (a0 * b0[x] + a1 * b1[x]) + (a2 * b2[x] + a3 * b3[x])
                bottom[x] += (c0 * b0[x] + c1 * b1[x]) + (c2 * b2[x] + c3 * b3[x])
