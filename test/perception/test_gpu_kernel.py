# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The Triton kernel of the dense pass in the interpreter and, where there is one, on a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch

from road_anomaly_ros.perception.contract import MaskOutput
from road_anomaly_ros.perception.kernels import cpu, gpu
from road_anomaly_ros.perception.resources import Resources
from road_anomaly_ros.perception.scorers import evaluate
from road_anomaly_ros.tools.reference import OF_QUERIES, OF_SEMANTIC, reference_score

REFERENCES = sorted((*OF_SEMANTIC, *OF_QUERIES))


@pytest.mark.skipif(gpu.programs is None, reason='Triton comes with the CUDA builds of torch only')
def test_the_kernel_equals_the_torch_blocks_in_the_interpreter():
    script = Path(__file__).with_name('triton_check.py')
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, 'TRITON_INTERPRET': '1'},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().endswith('equal')


@pytest.fixture
def everywhere(monkeypatch):
    """Kernels that may run on the CPU too."""
    monkeypatch.setattr(gpu, 'available', lambda device: True)
    return Resources(torch.device('cpu'))


def test_a_kernel_that_cannot_be_built_leaves_the_work_to_torch(everywhere, caplog):
    tries = []

    def broken(given):
        tries.append(given)
        raise RuntimeError('no C compiler\nfound')

    for _ in range(3):
        assert gpu.attempt(everywhere, broken, torch.zeros(2)) is None
    assert len(tries) == 1 and caplog.text.count('no C compiler found') == 1
    assert everywhere.faults == {'broken': 'no C compiler found'}


def test_a_kernel_that_fails_takes_no_other_with_it(everywhere):
    def broken(given):
        raise ValueError('a shape')

    gpu.attempt(everywhere, broken, torch.zeros(2))
    assert gpu.attempt(everywhere, torch.neg, torch.ones(2)).tolist() == [-1, -1]
    assert gpu.attempt(Resources(torch.device('cpu')), broken, torch.zeros(2)) is None
    everywhere.release()
    assert not everywhere.faults


def test_out_of_memory_passes_and_turns_no_kernel_off(everywhere):
    faults = [
        torch.cuda.OutOfMemoryError('CUDA out of memory'),
        RuntimeError('Triton Error [CUDA]: out of memory'),
    ]

    def tight(given):
        if faults:
            raise faults.pop()
        return given + 1

    for _ in range(2):
        with pytest.raises(RuntimeError, match='out of memory'):
            gpu.attempt(everywhere, tight, torch.zeros(1))
    assert gpu.attempt(everywhere, tight, torch.zeros(1)).tolist() == [1]
    assert not everywhere.faults


def test_a_failed_kernel_keeps_no_image_alive(everywhere):
    def broken(given):
        raise RuntimeError('no')

    def call():
        image = torch.zeros(9)
        gpu.attempt(everywhere, broken, image)
        return weakref.ref(image)

    assert call()() is None


def test_a_kernel_out_of_memory_reaches_the_caller_of_a_score(monkeypatch):
    def tight(*_):
        raise torch.cuda.OutOfMemoryError('CUDA out of memory')

    def kept(logits, limit):
        return logits, logits.new_zeros(())

    monkeypatch.setattr(gpu, 'available', lambda device: True)
    monkeypatch.setattr(cpu, 'loops', None)
    output = MaskOutput(torch.randn(4, 4), torch.randn(4, 3, 5), (6, 10))
    for name in ('clean_classes', 'clean_masks', 'accumulate'):
        with monkeypatch.context() as patch:
            patch.setattr(gpu, 'clean_classes', kept)
            patch.setattr(gpu, 'clean_masks', kept)
            patch.setattr(gpu, name, tight)
            with pytest.raises(torch.cuda.OutOfMemoryError):
                evaluate(output, 'plain')


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
@pytest.mark.parametrize('name', REFERENCES)
def test_scores_on_cuda_equal_the_materialising_reference(name):
    random = torch.Generator().manual_seed(0)
    output = MaskOutput(
        torch.randn(100, 20, generator=random).cuda() * 2,
        torch.randn(100, 64, 128, generator=random).cuda() * 4,
        (256, 512),
    )
    score = evaluate(output, name).score
    expected = reference_score(name, output.class_logits, output.mask_logits, output.image_size)
    wrong = (score - expected).abs() > 5e-5 + 5e-5 * expected.abs()
    assert wrong.float().mean() < 1e-5  # single logits at 0 may fall on either side
