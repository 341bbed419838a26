# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""When a size of image gets a graph of its own, on the built-in model's."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

pytest.importorskip('openvino', reason='needs the extra openvino')

from road_anomaly_ros.perception.engines import open_vino
from road_anomaly_ros.perception.engines.base import KEPT_SIZES, SETTLED
from road_anomaly_ros.perception.segmenters import SEGMENTERS

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 3, 96, 160), np.uint8)


def loaded():
    entry = SEGMENTERS['mask2former']
    return entry.make(
        'builtin',
        options=entry.options(engine='openvino', short_side=96),
        device=torch.device('cpu'),
        precision=torch.float32,
    )


def masks(segmenter, count):
    pictures = [torch.from_numpy(IMAGES[index % 2]) for index in range(count)]
    return [segmenter([picture])[0].mask_logits for picture in pictures]


@pytest.fixture
def compiled(monkeypatch):
    """The sizes that graphs were compiled for, () for all; each of one size takes `delay`."""
    calls, delay, real = [], [0.0], open_vino.Session._compiled

    def slow(self, shapes):
        calls.append(shapes)
        time.sleep(delay[0] if shapes else 0)
        return real(self, shapes)

    monkeypatch.setattr(open_vino.Session, '_compiled', slow)
    return calls, delay


def test_the_same_images_give_the_same_results_however_long_compiling_takes(compiled):
    calls, delay = compiled
    quick = masks(loaded(), SETTLED + 2)
    delay[0] = 2.0
    slow = masks(loaded(), SETTLED + 2)
    assert all(torch.equal(*pair) for pair in zip(quick, slow, strict=True))
    assert [len(shapes) > 0 for shapes in calls] == [False, True] * 2
    # Image 32 is the first that the graph of its own size computes: frames 0 and 1 come again.
    general, own = quick[SETTLED - 3], quick[SETTLED - 1]
    assert torch.equal(general, quick[1]), 'the same picture through the same graph'
    assert torch.equal(own, quick[SETTLED + 1])
    assert (general - own).abs().max() < 0.1 * own.abs().max()


def test_sizes_met_a_few_times_are_never_compiled_for(compiled):
    calls, _ = compiled
    segmenter = loaded()
    for width in range(64, 64 + 32 * 4, 32):
        for _ in range(open_vino._COMPILED - 1):
            segmenter([torch.zeros(3, 96, width, dtype=torch.uint8)])
    assert calls == [()]


def test_the_oldest_size_goes_when_there_are_too_many_and_may_come_back():
    session = open_vino.Session.__new__(open_vino.Session)
    made = []

    class Worker:
        def submit(self, function, shapes):
            made.append(shapes)
            return type('Done', (), {'result': staticmethod(lambda: shapes)})

    session._any_size, session._general = True, 'general'
    session._seen, session._own, session._worker = open_vino.Counter(), {}, Worker()
    for size in range(KEPT_SIZES + 1):
        found = [session._request((size,)) for _ in range(SETTLED)]
        assert found == ['general'] * (SETTLED - 1) + [(size,)]
    assert len(session._own) == KEPT_SIZES
    assert session._request((0,)) == 'general'
    assert [session._request((0,)) for _ in range(SETTLED - 1)][-1] == (0,)
    assert made == [(size,) for size in (*range(KEPT_SIZES + 1), 0)]
