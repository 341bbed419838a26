# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The Triton kernel of the dense pass in the interpreter and, where there is one, on a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from road_anomaly_ros.perception.contract import MaskOutput
from road_anomaly_ros.perception.kernels import gpu
from road_anomaly_ros.perception.scorers import evaluate
from road_anomaly_ros.tools.reference import reference_names, reference_score


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


def test_a_kernel_that_cannot_be_built_leaves_the_work_to_torch(monkeypatch, caplog):
    monkeypatch.setattr(gpu, '_refused', [])

    def broken():
        raise RuntimeError('no C compiler\nfound')

    assert gpu.attempt(broken) is None
    assert 'no C compiler found' in caplog.text
    assert not gpu.available(torch.device('cuda'))


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
@pytest.mark.parametrize('name', reference_names())
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
