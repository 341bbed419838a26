# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The literal loops of the benchmark and our refinements give the same values."""

from __future__ import annotations

import torch

from road_anomaly_ros.tools.bench_refine import refine_rows, refine_table


def test_both_forms_agree_and_the_table_names_them():
    rows = list(refine_rows(torch.device('cpu'), width=80, height=48, masks=7))
    assert [row['refinement'] for row in rows] == ['variance_aware', 'oasc', 'mbp']
    table = refine_table(rows)
    for row in rows:
        assert row['size'] == [80, 48] and row['masks'] == 7
        assert 0 <= row['max_difference'] <= 1e-6
        assert row['p50'] > 0 and row['literal'] > 0 and row['refinement'] in table
