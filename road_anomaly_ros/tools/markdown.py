# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = 0) -> str:
    """Return a table without a line end; the last columns hold `numbers`."""
    lines = [head, ['---'] * (len(head) - numbers) + ['---:'] * numbers, *rows]
    return '\n'.join(
        '| ' + ' | '.join(cell.replace('|', r'\|') for cell in line) + ' |' for line in lines
    )


def number(value: float | None, digits: int = 1) -> str:
    """Return a figure with so many digits behind the point, '' where there is none."""
    return '' if value is None else f'{value:.{digits}f}'
