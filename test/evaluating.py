# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The command `evaluate` as the tests call it, and what it leaves."""

import json

from road_anomaly_ros import cli
from road_anomaly_ros.perception.chain import Chain

METRICS = ('AP', 'AUROC', 'FPR95', 'sIoU', 'PPV', 'F1')


def evaluate(data, out, *options, methods=('plain', 'max_entropy+road_prior')):
    return cli.main(
        [
            'evaluate',
            str(data),
            '-o',
            str(out),
            '--set',
            'segmenter=synthetic',
            '--methods',
            *methods,
            *options,
        ]
    )


def rows_of(out):
    document = json.loads((out / 'results.json').read_text())
    return {row['method']: row for row in document['results']}


def passes(monkeypatch, stop_at=None, error=KeyboardInterrupt):
    """Count passes of the network; raise `error` at pass `stop_at`."""
    seen, segment = [], Chain.segment

    def counted(self, *arguments):
        seen.append(1)
        if len(seen) == stop_at:
            raise error
        return segment(self, *arguments)

    monkeypatch.setattr(Chain, 'segment', counted)
    return seen
