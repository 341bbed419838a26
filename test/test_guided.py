# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the guided damage begins with is whole, and what it calls a fault is one."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import guided
import pytest


@pytest.fixture(scope='module')
def target():
    return guided.Target()


def test_the_inputs_to_begin_with_are_used(target, monkeypatch):
    used = []
    readers = [(target._encodings, f'decode_{name}') for name in ('image', 'compressed', 'map')]
    for owner, name in (*readers, (target._infos, 'to_model')):
        original = getattr(owner, name)

        def read(*values, original=original, **named):
            used.append(original(*values, **named))
            return used[-1]

        monkeypatch.setattr(owner, name, read)
    for raw in guided.seeds():
        if raw[0] != guided.PARAMETER:
            target(raw)
    assert len(used) == len(guided.BYTES) + len(guided.MEASURED) + 5 + 4


def test_parameters_are_in_force_or_refused(monkeypatch):
    pytest.importorskip('rclpy', reason='no rclpy installed')
    target = guided.Target(guided.PARAMETER)
    answers = []
    set_parameters = target._node._node.set_parameters

    def answer(given):
        answers.append(set_parameters(given))
        return answers[-1]

    monkeypatch.setattr(target._node._node, 'set_parameters', answer)
    for raw in guided.seeds():
        if raw[0] == guided.PARAMETER:
            target(raw)
    taken = [found.successful for (found,) in answers]
    assert any(taken) and not all(taken)
    lies = [SimpleNamespace(successful=True, reason='')]
    monkeypatch.setattr(target._node._node, 'set_parameters', lambda given: lies)
    for value in (9.0, -1e9):  # neither is in force, one is not even possible
        with pytest.raises(AssertionError, match='anomaly_tolerance'):
            target._node.change(0, value, False)


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
