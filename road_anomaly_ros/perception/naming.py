# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Full names of options: `objects.min_area` of a group, `scorers.s2.tau` of a method.

No name is the beginning of another: tools such as `ros2 param dump` make a tree of the dots, in
which the choice `scorer` cannot hold options as well.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping

FOLDERS = {
    'segmenter': 'segmenters',
    'scorer': 'scorers',
    'refinement': 'refinement',
    'segments': 'segment_sources',
    'tracker': 'tracking',
}
# Until 0.2 options of methods stood under the name of the choice.
_NEW = {kind: FOLDERS[kind] for kind in ('segmenter', 'scorer', 'segments')}


class FormerName(FutureWarning):
    """An option was given under a name that the next release will not know."""


def prefix(kind: str, method: str) -> str:
    """Return what the full names of a method's options begin with: `scorers.s2.`."""
    return f'{FOLDERS[kind]}.{method}.'


def current(name: str) -> str:
    """Return the full name that an option has now; other names as they are."""
    first, dot, rest = name.partition('.')
    return f'{_NEW[first]}.{rest}' if dot and first in _NEW else name


def renamed(values: Mapping[str, object]) -> dict[str, object]:
    """Return values under their current names; raises ValueError where both names are given."""
    found: dict[str, object] = {}
    for name, value in values.items():
        if current(name) in found or (name != current(name) and current(name) in values):
            raise ValueError(f'{name} is the former name of {current(name)}: give one of them')
        found[current(name)] = value
    return found


def told(values: Mapping[str, object]) -> dict[str, object]:
    """Return `renamed` values with one FormerName that lists the former names."""
    found = renamed(values)
    text = remark(values)
    if text:
        warnings.warn(text, FormerName, stacklevel=3)
    return found


def remark(names: Iterable[str]) -> str:
    """Return one line about those of `names` that are former ones; empty without any."""
    former = [name for name in names if name != current(name)]
    listed = ', '.join(f'{name} is called {current(name)} now' for name in former)
    return f'{listed}; the next release does not know the former name' if former else ''
