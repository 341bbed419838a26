# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Make one page of the strangest events of an index: picture, place, time, a link to the moment.

Near-duplicates are folded into the surest of them. The page needs nothing beside it.
"""

from __future__ import annotations

import argparse
import html
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from road_anomaly_ros import files
from road_anomaly_ros.tools.chain import add_out

if TYPE_CHECKING:
    from road_anomaly_ros.fleet.choosing import Shown
    from road_anomaly_ros.fleet.index import Index

EXAMPLES = """
examples:
  road-anomaly mine report index -o strange.html
  road-anomaly mine report index -o road.html --around road --min-size 0.002 --within 0.2,0.4,0.8,1
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    from road_anomaly_ros.fleet import choosing

    add_out(parser, 'HTML file to write', 'PAGE')
    choosing.add_arguments(parser, 'most events shown')


def main(arguments: argparse.Namespace) -> int:
    """Run the command; returns 0."""
    from road_anomaly_ros.evaluation import page
    from road_anomaly_ros.fleet.choosing import choose, fold
    from road_anomaly_ros.fleet.index import Index

    index = Index(arguments.index)
    table = index.events()
    chosen = choose(table, arguments)
    shown = fold(chosen, arguments.top)
    parts = sorted({part.file for part in index.done()})
    words = (
        f'{len(shown)} of {chosen.num_rows} chosen events, {table.num_rows} in all, '
        f'in {len(parts)} files'
    )
    sections = [
        page.Section('events', 'Events', page.grid(_figure(index, item) for item in shown)),
        page.Section('files', 'Files', _files(table.to_pydict()['file'], parts, index)),
    ]
    text = page.render('The strangest of an archive', words, sections)
    files.write(arguments.out, text)
    print(f'{words}; see {arguments.out}')
    return 0


def _figure(index: Index, item: Shown) -> str:
    row = item.row
    link = html.escape(f'{address(row["file"])}#t={row["time"]:.1f}')
    name = html.escape(f'{Path(row["file"]).name}#t={row["time"]:.1f}')
    picture = b64encode(index.thumbnail(row['thumbnail'])).decode()
    around = f', on {row["surroundings"]}' if row['surroundings'] else ''
    lasting = row['last'] - row['first']
    words = (
        f'evidence {row["evidence"]:.1f}, score {row["score"]:.2f}, '
        f'{100 * row["size"]:.2f} % of the picture{around}, {row["frames"]} frames'
        + (f' in {lasting:.1f} s' if lasting > 0 else '')
        + (f', {len(item.others)} more like it' if item.others else '')
    )
    return (
        f'<figure><a href="{link}"><img alt="{name}" '
        f'src="data:image/jpeg;base64,{picture}"></a>'
        f'<figcaption><a href="{link}">{name}</a><br>{html.escape(words)}</figcaption></figure>'
    )


def address(file: str) -> str:
    """Return what a browser opens for a file of an archive."""
    path = Path(file)
    return path.as_uri() if '://' not in file and path.is_absolute() else file


def _files(events: Sequence[str], files: Sequence[str], index: Index) -> str:
    from collections import Counter

    from road_anomaly_ros.evaluation import page

    counts = Counter(events)
    rows: list[list[Any]] = [
        [file, str(counts[file])] for file in sorted(files, key=lambda name: (-counts[name], name))
    ]
    failed = [[failure['file'], failure['reason']] for failure in index.failures().values()]
    lost = page.heading('Nothing came of') + page.table(['file', 'reason'], failed)
    return page.table(['file', 'events'], rows) + (lost if failed else '')
