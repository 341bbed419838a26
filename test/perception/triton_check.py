# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Run by test_gpu_kernel.py under TRITON_INTERPRET=1: kernel on the CPU against torch blocks."""

import sys
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

from road_anomaly_ros.perception import dense  # noqa: E402
from road_anomaly_ros.perception.contract import MaskOutput  # noqa: E402
from road_anomaly_ros.perception.dense import MaskSource, QueryVectors  # noqa: E402
from road_anomaly_ros.perception.kernels import cpu, gpu  # noqa: E402
from road_anomaly_ros.perception.resources import Resources  # noqa: E402
from road_anomaly_ros.perception.scorers import evaluate  # noqa: E402

SCORERS = ('max_entropy', 'rba', 's2', 'maskomaly', 'mask2anomaly')
SHAPES = (
    (40, 5, (5, 9), (7, 70)),  # two groups of queries, two of pixels
    (3, 19, (4, 6), (4, 6)),  # no resize
    (1, 1, (1, 1), (1, 1)),
    (0, 2, (3, 2), (1, 5)),
    (33, 18, (6, 30), (3, 9)),  # smaller than the masks
)


def make_source(queries, classes, grid, size):
    random = torch.Generator().manual_seed(queries)
    output = MaskOutput(
        torch.randn(queries, classes + 1, generator=random) * 2,
        torch.randn(queries, *grid, generator=random) * 4,
        size,
    )
    return MaskSource(output, size)


def every_kind(source):
    """Vectors that ask for every accumulator at once."""
    p = source.probabilities().float()
    accept = torch.linspace(0, 1, len(p))
    accept[1::3] = -torch.inf
    even = torch.arange(len(p)) % 2 == 0
    return QueryVectors(
        p[:, :-1],
        keep=True,
        sums={'mass': p[:, :-1].amax(1), 'signed': p[:, 0] - p[:, -1]},
        maxima={'best': p[:, :-1].amax(1), 'none': torch.zeros(len(p)), 'all': torch.ones(len(p))},
        votes={'half': (even, 0.5), 'low': (~even, 0.1)},
        accept=accept,
        temperature=0.3,
        partition=2.0,
        tanh=1.5,
    )


def collect(source, vectors):
    found = {}

    def consume(region, block):
        total, spread = block.partition(vectors.partition)
        maps = {
            **block.maps,
            'partition': total,
            'spread': spread,
            'tanh': block.tanh(vectors.tanh),
            'label': block.label,
            'max_s': block.max_s,
            **{f'semantic {k}': plane for k, plane in enumerate(block.semantic)},
        }
        for name, values in maps.items():
            whole = found.setdefault(name, torch.empty(source.size, dtype=values.dtype))
            whole[region] = values

    source.visit(vectors, consume)
    return found


def twice(call, *arguments):
    """Return what `call` gives with the kernel, which takes CPU tensors here, and with torch."""
    found = []
    for on in (True, False):
        gpu.available = lambda device, on=on: on
        found.append(call(*arguments))
    return found


def counts(source):
    sure = torch.arange(len(source.class_logits)) % 3 == 0
    return torch.stack(source.support_overlap(sure))


def broken(queries, columns):
    values = torch.randn(queries, columns, generator=torch.Generator().manual_seed(1)) * 1e4
    values[0, 1], values[1, :2], values[2, 0], values[3, 2] = (
        torch.nan,
        torch.inf,
        torch.inf,
        -torch.inf,
    )
    return values


def must_run(_, kernel, error):
    raise RuntimeError(f'the kernel {kernel} did not run') from error


def main():
    cpu.loops, Resources.fail = None, must_run
    for values in (broken(7, 5), broken(4, 4).half(), torch.zeros(0, 3)):
        for clean in (dense.sanitize_classes, dense.sanitize_planes):
            for ours, theirs in zip(*twice(clean, values), strict=True):
                torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    for shape in SHAPES:
        source = make_source(*shape)
        ours, theirs = twice(collect, source, every_kind(source))
        if set(ours) != set(theirs):
            raise RuntimeError(f'{shape}: {set(ours) ^ set(theirs)} are not in both')
        for name, values in theirs.items():
            torch.testing.assert_close(ours[name].float(), values.float(), rtol=1e-5, atol=1e-5)
        if not torch.equal(*twice(counts, source)):
            raise RuntimeError(f'{shape}: other counts')
    source = make_source(35, 19, (4, 6), (6, 9))
    for name in SCORERS:
        ours, theirs = twice(evaluate, source.output, name)
        torch.testing.assert_close(ours.score, theirs.score, rtol=1e-5, atol=1e-5)
        if not torch.equal(ours.labels, theirs.labels):
            raise RuntimeError(f'{name}: other labels')
    print('equal')


if __name__ == '__main__':
    main()
