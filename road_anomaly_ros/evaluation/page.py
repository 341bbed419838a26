# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The page of a report: style, navigation, tables and figures; nothing beside it is needed."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from road_anomaly_ros.evaluation import charts

_STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --card: #f6f8fa; --ink: #16202a;
  --ink-2: #46525f; --ink-3: #8793a0; --line: #e3e8ed; --accent: #0067a5; --best: #dff1e6;
  --heat: 0, 128, 90; LIGHT }
@media (prefers-color-scheme: dark) { :root { --paper: #12161b; --card: #1a2027;
  --ink: #edf1f5; --ink-2: #b3bdc8; --ink-3: #717d8a; --line: #2c343d; --accent: #4db2f0;
  --best: #123c2b; --heat: 63, 206, 156; DARK } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, "Segoe UI", sans-serif; }
.layout { display: grid; grid-template-columns: 200px minmax(0, 1080px); gap: 2.5rem;
  justify-content: center; padding: 0 1.5rem; }
nav { position: sticky; top: 0; align-self: start; max-height: 100vh; overflow: auto;
  padding: 2.2rem 0; font-size: .9rem; }
nav a { display: block; padding: .22rem .7rem; color: var(--ink-2); text-decoration: none;
  border-left: 2px solid var(--line); }
nav a:hover { color: var(--accent); border-color: var(--accent); }
main { padding: 2rem 0 4rem; min-width: 0; }
h1 { font-size: 1.65rem; line-height: 1.25; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.8rem 0 .5rem; padding-top: .8rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
p { margin: .4rem 0; max-width: 78ch; } .small { color: var(--ink-2); font-size: .88rem; }
.answer { background: var(--card); border-left: 4px solid var(--accent); padding: .9rem 1.1rem;
  margin: 1rem 0; font-size: 1.05rem; max-width: none; }
.scroll { overflow-x: auto; margin: .7rem 0; }
table { border-collapse: collapse; font-size: .87rem; min-width: 50%; }
caption { caption-side: bottom; text-align: left; color: var(--ink-2); font-size: .85rem;
  padding: .5rem 0; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; font-variant-numeric: tabular-nums; }
th { color: var(--ink-2); font-weight: 600; border-bottom-color: var(--ink-3); }
th:first-child, td:first-child { text-align: left; padding-left: .2rem; }
td.text { text-align: left; white-space: normal; min-width: 9rem; } th.text { text-align: left; }
tbody tr:hover { background: var(--card); } td.best { background: var(--best); font-weight: 600; }
tr.paper td { color: var(--ink-2); font-style: italic; }
code { font: .85em ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
.grid { display: grid; gap: 1.2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); }
.wide { grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); }
figure { margin: .8rem 0; min-width: 0; break-inside: avoid; }
figure svg { max-width: 100%; height: auto; display: block; }
figure img { width: 100%; display: block; border-radius: 4px; }
figcaption { color: var(--ink-2); font-size: .87rem; padding-top: .35rem; max-width: 85ch; }
details { margin: .6rem 0; } summary { cursor: pointer; color: var(--accent); }
@media (max-width: 900px) { .layout { display: block; padding: 0 1rem; }
  nav { position: static; display: flex; flex-wrap: wrap; padding: 1rem 0 0; }
  nav a { border-left: 0; border-bottom: 2px solid var(--line); padding: .2rem .5rem; } }
@media print { :root { --paper: #fff; --card: #f6f8fa; --ink: #000; --ink-2: #333;
  --ink-3: #777; --line: #ccc; --best: #dff1e6; LIGHT } body { font-size: 10.5pt; }
  .layout { display: block; padding: 0; } nav { display: none; } h2, h3 { break-after: avoid; }
  tr { break-inside: avoid; } .scroll { overflow: visible; }
  th, td { padding: .15rem .4rem; white-space: normal; } }
"""


@dataclass(frozen=True)
class Section:
    """A part of the page with its name in the navigation; `body` is HTML."""

    key: str
    title: str
    body: str


@dataclass(frozen=True)
class Cell:
    """A cell of a table that is more than text."""

    text: str
    kind: str = ''  # class: best, text
    style: str = ''


def render(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """Return the whole page; it loads nothing and runs no script."""
    style = _STYLE.replace('LIGHT', charts.palette(charts.LIGHT)).replace(
        'DARK', charts.palette(charts.DARK)
    )
    links = ''.join(
        f'<a href="#{section.key}">{html.escape(section.title)}</a>' for section in sections
    )
    first, *rest = sections
    body = first.body + ''.join(
        f'<section id="{section.key}"><h2>{html.escape(section.title)}</h2>{section.body}'
        f'</section>'
        for section in rest
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{html.escape(title)}</title>'
        f'<style>{style}{charts.STYLE}</style></head>\n<body><div class="layout">'
        f'<nav aria-label="sections">{links}</nav><main>'
        f'<header id="{first.key}"><h1>{html.escape(title)}</h1>'
        f'<p class="small">{html.escape(subtitle)}</p></header>{body}'
        f'</main></div></body></html>\n'
    )


def paragraph(text: str, kind: str = '') -> str:
    """Return a paragraph of plain text."""
    return f'<p{_class(kind)}>{html.escape(text)}</p>'


def heading(text: str) -> str:
    """Return a heading inside a section."""
    return f'<h3>{html.escape(text)}</h3>'


def grid(parts: Iterable[str], kind: str = '') -> str:
    """Return figures side by side where there is room."""
    return f'<div class="grid {kind}">{"".join(parts)}</div>'


def figure(inner: str, caption: str) -> str:
    """Return a chart with the words that tell how to read it."""
    return f'<figure>{inner}<figcaption>{html.escape(caption)}</figcaption></figure>'


def image(jpeg: str, caption: str) -> str:
    """Return an embedded JPEG (base64) with its caption."""
    return figure(
        f'<img alt="{html.escape(caption)}" src="data:image/jpeg;base64,{jpeg}">', caption
    )


def folded(summary: str, inner: str) -> str:
    """Return a part that opens on a click."""
    return f'<details><summary>{html.escape(summary)}</summary>{inner}</details>'


def table(
    heads: Sequence[str],
    rows: Iterable[Sequence[str | Cell]],
    caption: str = '',
    paper: Iterable[int] = (),
) -> str:
    """Return a table, the first column to the left; rows numbered in `paper` are set apart."""
    rows, apart = list(rows), set(paper)
    lines = []
    for number, row in enumerate(rows):
        kind = ' class="paper"' if number in apart else ''
        lines.append(f'<tr{kind}>{"".join(map(_cell, row))}</tr>')
    words = {
        place
        for row in rows[:1]
        for place, cell in enumerate(row)
        if isinstance(cell, Cell) and cell.kind == 'text'
    }
    top = ''.join(
        f'<th scope="col"{_class("text" if place in words else "")}>{html.escape(head)}</th>'
        for place, head in enumerate(heads)
    )
    foot = f'<caption>{html.escape(caption)}</caption>' if caption else ''
    return (
        f'<div class="scroll"><table>{foot}<thead><tr>{top}</tr></thead>'
        f'<tbody>{"".join(lines)}</tbody></table></div>'
    )


def _cell(cell: str | Cell) -> str:
    if isinstance(cell, str):
        return f'<td>{html.escape(cell)}</td>'
    style = f' style="{html.escape(cell.style)}"' if cell.style else ''
    return f'<td{_class(cell.kind)}{style}>{html.escape(cell.text)}</td>'


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ''
