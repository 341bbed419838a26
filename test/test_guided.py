# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the guided damage begins with is whole, and what it calls a fault is one."""

from __future__ import annotations

import sys

import guided
import pytest


@pytest.fixture(scope='module')
def target():
    return guided.Target()


def test_the_inputs_to_begin_with_are_used(target, monkeypatch):
    used = []
    for name in ('decode_image', 'decode_compressed', 'decode_map'):
        original = getattr(target._encodings, name)
        monkeypatch.setattr(
            target._encodings,
            name,
            lambda *values, original=original: used.append(original(*values)) or used[-1],
        )
    for raw in guided.seeds():
        target(raw)
    assert len(used) == len(guided.BYTES) + len(guided.MEASURED) + 5


def test_an_error_of_another_kind_or_of_many_lines_is_a_fault(target, monkeypatch):
    raw = next(guided.seeds())
    for error in (ValueError('no\nreason at all'), ValueError('bad'), KeyError('step')):
        with monkeypatch.context() as patch:
            patch.setattr(target._encodings, 'decode_image', lambda *_, error=error: _raise(error))
            with pytest.raises((AssertionError, KeyError)):
                target(raw)


def _raise(error):
    raise error


def test_without_atheris_a_line_says_so(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['guided.py'])
    monkeypatch.setitem(sys.modules, 'atheris', None)
    guided.main()
    assert 'atheris is missing' in capsys.readouterr().out
