# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The explanation of one frame as a single HTML page that needs nothing beside it."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping
from typing import Any

import cv2

from road_anomaly_ros.tools.explanation import Explanation, Picture

_WIDEST = 1280
_STYLE = """
body { margin: 0; background: #14171c; color: #e4e7eb; font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1400px; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.4rem; margin: 0; }
h2 { font-size: 1.1rem; margin: 2rem 0 .6rem; color: #46ebff; }
p { margin: .3rem 0; color: #aab2bd; }
.grid { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(400px, 1fr)); }
figure { margin: 0; background: #1d2128; border-radius: 6px; overflow: hidden; }
figure img { display: block; width: 100%; }
figcaption { padding: .5rem .7rem; font-size: .88rem; color: #c3c9d1; }
table { border-collapse: collapse; font-size: .9rem; }
td, th { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid #2b313a; }
th { color: #8b95a1; font-weight: 500; } td { font-variant-numeric: tabular-nums; }
"""


def page(explanation: Explanation, title: str, chain: Mapping[str, Any]) -> str:
    """Return the page: result, obstacles, stages, queries, options; pictures are embedded."""
    result = explanation.result
    count = len(result.objects)
    facts = (
        f'{result.size[1]}x{result.size[0]}, score {result.scorer}, {count} '
        f'obstacle{"" if count == 1 else "s"}, with a highest score above '
        f'{result.threshold:.3g} (from: {result.threshold_source})'
    )
    rest = explanation.stages[2:]
    parts = [
        f'<h1>{html.escape(title)}</h1><p>{html.escape(facts)}</p>',
        *(f'<p>{html.escape(note)}</p>' for note in explanation.notes),
        '<h2>Result</h2>',
        _grid(explanation.stages[:2]),
    ]
    if explanation.obstacles:
        parts += ['<h2>Obstacles</h2>', _obstacles(explanation.obstacles)]
    if explanation.rejected:
        parts += [
            '<h2>Regions that are no obstacles</h2><p>Above the low threshold, brightest '
            'first, with the first rule that removes each.</p>',
            _rejected(explanation.rejected),
        ]
    parts += ['<h2>Stages</h2>', _grid(picture for picture in rest if picture.used)]
    if others := [picture for picture in rest if not picture.used]:
        parts += ['<h2>For comparison</h2><p>This chain uses none of these.</p>', _grid(others)]
    if explanation.queries:
        parts += [
            '<h2>Queries</h2><p>Ranked by entropy times what no sure mask covers; in colour '
            'is what the query claims.</p>',
            _grid(explanation.queries),
        ]
    parts += ['<h2>Chain</h2>', _table(['option', 'value'], chain.items())]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n'
        f'<body><main>{"".join(parts)}</main></body></html>\n'
    )


def _grid(pictures: Iterable[Picture]) -> str:
    return f'<div class="grid">{"".join(map(_figure, pictures))}</div>'


def _figure(picture: Picture) -> str:
    text = html.escape(picture.text)
    return (
        f'<figure><img alt="{text}" src="data:image/jpeg;base64,{_jpeg(picture)}">'
        f'<figcaption>{text}</figcaption></figure>'
    )


def _jpeg(picture: Picture) -> str:
    pixels = cv2.cvtColor(picture.pixels, cv2.COLOR_RGB2BGR)
    height, width = pixels.shape[:2]
    if width > _WIDEST:
        size = _WIDEST, max(1, round(height * _WIDEST / width))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode('.jpg', pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return base64.b64encode(data.tobytes()).decode('ascii')


def _obstacles(rows: Iterable[Mapping[str, Any]]) -> str:
    rows = list(rows)
    stages = [name for name in ('rejection', 'selection', 'fused') if name in rows[0]]
    heads = [
        'obstacle',
        'box x, y, w, h (pixels)',
        'area (pixels)',
        'highest score',
        'mean score',
        *(f'mean {name}' for name in stages),
        'ground',
        'queries there',
    ]
    return _table(
        heads,
        [
            [
                f'#{row["id"]}',
                ', '.join(map(str, row['box'])),
                row['area'],
                f'{row["score_max"]:.3f}',
                f'{row["score"]:.3f}',
                *(f'{row[name]:.3f}' for name in stages),
                row['ground'],
                '; '.join(
                    f'{query["number"]}: {query["class"]} {query["probability"]:.2f}, mask '
                    f'{query["mask"]:.2f}'
                    for query in row['queries']
                ),
            ]
            for row in rows
        ],
    )


def _rejected(rows: Iterable[Mapping[str, Any]]) -> str:
    return _table(
        [
            'box x, y, w, h (pixels)',
            'area (pixels)',
            'highest score',
            'mean score',
            'no obstacle because',
        ],
        [
            [
                ', '.join(map(str, row['box'])),
                row['area'],
                f'{row["score_max"]:.3f}',
                f'{row["score"]:.3f}',
                row['rule'],
            ]
            for row in rows
        ],
    )


def _table(heads: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    def line(cells: Iterable[Any], tag: str) -> str:
        return ''.join(f'<{tag}>{html.escape(str(cell))}</{tag}>' for cell in cells)

    body = ''.join(f'<tr>{line(row, "td")}</tr>' for row in rows)
    return f'<table><tr>{line(heads, "th")}</tr>{body}</table>'
