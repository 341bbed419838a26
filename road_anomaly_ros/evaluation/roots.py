# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Which data sets one run measures: the words of --dataset, or a YAML file that names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from road_anomaly_ros import files
from road_anomaly_ros.evaluation.layouts import LAYOUTS, layout_named
from road_anomaly_ros.remarks import one_line

SUFFIXES = ('.yaml', '.yml')
_WORD = '[NAME=][LAYOUT:]DIR'
_FORM = 'NAME: DIR, NAME: LAYOUT:DIR or NAME: {layout: LAYOUT, folder: DIR} in every line'


@dataclass(frozen=True)
class Root:
    """One data set: its name in the results, its layout, and where it lies."""

    name: str
    layout: str
    folder: Path


def parse(word: str) -> Root:
    """Read '[NAME=][LAYOUT:]DIR'; the layout is by default the one that the folder's name tells.

    The name is by default the layout. ValueError, one line, for other forms.
    """
    name, sign, rest = word.partition('=')
    if not sign or '/' in name or ':' in name:
        name, rest = '', word
    return _root(name, rest, Path(), f'--dataset {word}')


def read(path: Path) -> list[Root]:
    """Read a mapping from names to folders; relative ones begin at the file.

    A folder is 'DIR', 'LAYOUT:DIR' or {layout, folder}. ValueError, one line, for other files.
    """
    try:
        tree = files.read_yaml(path)
    except OSError as error:
        raise ValueError(
            f'{path}: expected a file that names data sets: {error.strerror}'
        ) from None
    except ValueError as error:
        raise ValueError(f'{path}: expected YAML with {_FORM} ({one_line(error)})') from None
    if not isinstance(tree, Mapping) or not tree:
        raise ValueError(f'{path}: expected {_FORM}')
    return [
        _root(str(name), _text(entry, f'{path}, {name}'), path.parent, f'{path}, {name}')
        for name, entry in tree.items()
    ]


def distinct(roots: Sequence[Root]) -> list[Root]:
    """Return the roots; ValueError where two would share a name in the results."""
    names = [root.name for root in roots]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ValueError(
            f'two data sets are called {doubled[0]!r}; give each its own name, '
            f'--dataset {_WORD} or NAME in a YAML file'
        )
    return list(roots)


def _text(entry: Any, where: str) -> str:
    if isinstance(entry, str):
        return entry
    if isinstance(entry, Mapping) and set(entry) <= {'layout', 'folder'} and 'folder' in entry:
        layout = f'{entry["layout"]}:' if 'layout' in entry else ''
        return f'{layout}{entry["folder"]}'
    raise ValueError(f'{where}: expected {_FORM}')


def _root(name: str, text: str, base: Path, where: str) -> Root:
    layout, sign, folder = text.partition(':')
    if not sign or '/' in layout:
        layout, folder = '', text
    if not folder:
        raise ValueError(f'{where}: expected a folder, {_WORD}')
    path = base / files.home(folder)
    found = layout or layout_named(name) or layout_named(path.resolve().name)
    if found is None:
        raise ValueError(
            f'{where}: {path.name!r} tells no layout; name it, LAYOUT:{folder} with '
            f'one of {list(LAYOUTS)}'
        )
    if found not in LAYOUTS:
        raise ValueError(f'{where}: unknown layout {found!r}; choose one of {list(LAYOUTS)}')
    return Root(name or found, found, path)
