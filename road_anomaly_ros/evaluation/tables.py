# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Figures as a table in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def markdown(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the named figures of rows, numbers with three digits and to the right."""
    lines = [columns, [_rule(rows[0][name]) for name in columns]] if rows else [columns]
    lines += [[_cell(row[name]) for name in columns] for row in rows]
    return ''.join('| ' + ' | '.join(line) + ' |\n' for line in lines)


def _rule(value: Any) -> str:
    return '---' if isinstance(value, str) else '---:'


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else f'{value:.3g}'
