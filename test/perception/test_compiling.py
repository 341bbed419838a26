# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Compiled loops without a folder where they could be kept."""

from __future__ import annotations

import pytest

pytest.importorskip('numba')

from road_anomaly_ros.perception.kernels import arithmetic
from road_anomaly_ros.remarks import Remark


def test_what_is_compiled_at_every_start_is_told_with_the_remedy(monkeypatch):
    def njit(*, cache=False, **_):
        def decorate(function):
            if cache:
                raise RuntimeError('cannot cache function: no locator available for file')
            return function

        return decorate

    monkeypatch.setattr(arithmetic.numba, 'njit', njit)
    with pytest.warns(Remark, match='NUMBA_CACHE_DIR'):
        assert arithmetic.jit()(abs) is abs
