# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What was measured on videos, tracks and results in time, for the report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from road_anomaly_ros.evaluation import streaming, tracks
from road_anomaly_ros.evaluation.page import Cell, heading, paragraph, table

_KINDS = {tracks.NAME: 'Tracks', streaming.NAME: 'Results in time'}


def read(folder: Path) -> list[Mapping[str, Any]]:
    """Return what `evaluate --tracks` and `--video` wrote; ValueError where it is damaged."""
    found = []
    for name, title in _KINDS.items():
        path = folder / name
        if not path.is_file():
            continue
        try:
            document = json.loads(path.read_text(encoding='utf-8'))
            rows = [[row[column] for column in document['columns']] for row in document['videos']]
            shown = {'title': title, 'columns': document['columns'], 'rows': rows}
            found.append({**shown, 'rule': str(document['rule'])})
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f'{path}: expected {{"rule", "columns", "videos": [..]}}; was it written by '
                'road-anomaly evaluate?'
            ) from None
    return found


def section(documents: Sequence[Mapping[str, Any]]) -> str:
    """Return the tables in HTML, '' for none."""
    parts = []
    for document in documents:
        first, *others = document['columns']
        rows = [[Cell(str(row[0]), 'text'), *map(_text, row[1:])] for row in document['rows']]
        parts += [heading(document['title']), table([first, *others], rows)]
        parts.append(paragraph(document['rule'], 'small'))
    return ''.join(parts)


def _text(value: Any) -> str:
    if value is None:
        return '-'
    return value if isinstance(value, str) else f'{value:.3g}'
