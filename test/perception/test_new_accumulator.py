# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What it takes to add an accumulator: lines in three files, here in a copy of the package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from conftest import ROOT

PACKAGE = ROOT / 'road_anomaly_ros'
# The sum of w_q m_q^2: by file, a line that is there once and what follows it.
ADDED = {
    'vectors.py': (
        (
            '    maxima: Mapping[str, Tensor] = field(default_factory=dict)\n',
            '    squares: Mapping[str, Tensor] = field(default_factory=dict)\n',
        ),
        ('            self._rows(accept),\n', '            self._rows(self.squares.values()),\n'),
        ('    accept: Any  # ABSENT for one that is out\n', '    squares: Any\n'),
        (
            '        reach = torch.cat([self.linear.abs(), self.largest]).amax(0)\n',
            '        reach = torch.cat([reach[None], self.squares]).amax(0)\n',
        ),
        (
            '    largest: Any = Row(lambda asked: asked.maxima)\n',
            '    squares: Any = Row(lambda asked: asked.squares)\n',
        ),
        (
            '    masks = logits.sigmoid_()\n',
            '    for name, weight in asked.squares.items():\n'
            '        maps[name] = (masks**2 * weight[:, None, None]).sum(0)\n',
        ),
    ),
    'loops.py': (
        (
            '    """Store what row `o` of the output has of the signs of single queries."""\n',
            '    for j in range(out.squares.shape[0]):\n'
            '        row = out.squares[j, o, c0:c1]\n'
            '        row[:] = np.float32(0.0)\n'
            '        for i in active:\n'
            '            _one_row(low[i], high[i], t, room.spare[0])\n'
            '            for x in range(row.size):\n'
            '                row[x] += weights.squares[j, i] * room.spare[0, x] ** 2\n',
        ),
    ),
    'programs.py': (
        (
            '               ratio_x, largest_by, levels_by, accept_by, label_out, peak_out,\n',
            '               squares_by, squares_out,\n',
        ),
        (
            '        n = tl.arange(0, N_PAD)\n',
            '        squares = tl.zeros((PIXELS,), tl.float32)\n',
        ),
        (
            '            raised = _raised_sigmoid(z, FAST)\n',
            '            if squares_by is not None:\n'
            '                factor = tl.load(squares_by + q, mask=there, other=0.0)\n'
            '                mask = raised * (1.0 / RAISED)\n'
            '                squares += tl.sum(mask * mask * factor[None, :], 1)\n',
        ),
        (
            '        pixel, inside = _places(row, end, column, columns, ROWS, COLUMNS)\n'
            '        _store_semantic(sums, n, pixel, inside, size, label_out, peak_out, '
            'semantic_out, sums_out,\n'
            '                        partition_out, tanh_out, partition_factor, tanh_factor, N, '
            'CLASSES)\n',
            '        if squares_out is not None:\n'
            '            tl.store(squares_out + pixel, squares, mask=inside)\n',
        ),
    ),
}
TRIAL = """
import pathlib, sys
import torch
import road_anomaly_ros
from road_anomaly_ros.perception.contract import MaskOutput
from road_anomaly_ros.perception.dense import MaskSource, QueryVectors
from road_anomaly_ros.perception.kernels import cpu, gpu
from road_anomaly_ros.perception.resources import Resources

assert pathlib.Path(road_anomaly_ros.__file__).is_relative_to(sys.argv[1])

def must_run(_, kernel, error):
    raise error

Resources.fail = must_run
torch.manual_seed(0)
output = MaskOutput(torch.randn(20, 5), torch.randn(20, 5, 9) * 4, (10, 70))
weights = torch.rand(20)
large = torch.nn.functional.interpolate(output.mask_logits[None], size=(10, 70), mode='bilinear')
expected = (weights[:, None, None] * large[0].sigmoid() ** 2).sum(0)

def check(name):
    source = MaskSource(output, (10, 70))
    asked = QueryVectors(source.probabilities()[:, :-1].float(), squares={'square': weights})
    found, names = source.planes(asked, (10, 70))
    assert names == ['square']
    torch.testing.assert_close(found[-1], expected, rtol=1e-5, atol=1e-5)
    print(name)

if cpu.available():
    check('loops')
cpu.loops = None
check('torch')
if gpu.programs is not None:
    gpu.available = lambda device: True
    check('programs')
"""


def test_an_accumulator_is_added_in_three_files(tmp_path):
    package = tmp_path / PACKAGE.name
    shutil.copytree(
        PACKAGE / 'perception', package / 'perception', ignore=shutil.ignore_patterns('*.pyc')
    )
    for path in PACKAGE.glob('*.py'):
        shutil.copy(path, package)
    for name, places in ADDED.items():
        path = package / 'perception' / 'kernels' / name
        text = path.read_text(encoding='utf-8')
        for line, more in places:
            assert text.count(line) == 1, line
            text = text.replace(line, line + more)
        path.write_text(text, encoding='utf-8')
    changes = {'PYTHONPATH': str(tmp_path), 'NUMBA_CACHE_DIR': str(tmp_path), 'NUMBA_OPT': '0'}
    done = subprocess.run(
        [sys.executable, '-c', TRIAL, str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, **changes, 'TRITON_INTERPRET': '1'},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'torch' in done.stdout.split()
