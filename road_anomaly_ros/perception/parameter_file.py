# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""YAML files of settings, plain or as ROS writes them: values of nodes under ros__parameters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from road_anomaly_ros.files import read_yaml

NODE = 'anomaly_node'
VALUES = 'ros__parameters'
EMPTY = ['none']  # how ROS, which knows no empty list, writes one
# Parameters that concern the node and not the chain; those of rclpy with all that lies below.
NODE_ONLY = frozenset(
    (
        'autostart',
        'cameras',
        'image_transport',
        'reliability',
        'max_pixels',
        'max_batch',
        'jpeg_quality',
        'debug_topics',
        'stale_after',
        'anomaly_tolerance',
        'fallback_to_cpu',
    )
)
FOREIGN = ('qos_overrides.', 'use_sim_time', 'start_type_description_service')


def read(path: Path) -> Mapping[str, object]:
    """Return the tree of a YAML file; ValueError, one line, for what is no mapping in YAML."""
    try:
        tree = read_yaml(path)
    except FileNotFoundError:
        raise ValueError(f'expected a configuration file, found nothing at {path}') from None
    except OSError as error:
        raise ValueError(
            f'{path}: expected a YAML file, it cannot be read ({error.strerror})'
        ) from None
    tree = {} if tree is None else tree
    if not isinstance(tree, Mapping):
        raise ValueError(f'{path}: expected names with values, got {type(tree).__name__}')
    return tree


def sections(tree: Mapping[str, object], above: str = '') -> dict[str, dict[str, object]]:
    """Return the values under ros__parameters by node, flat; empty for files of another form."""
    found: dict[str, dict[str, object]] = {}
    for name, inner in tree.items():
        if not isinstance(inner, Mapping):
            continue
        if VALUES in inner:
            values = inner[VALUES]
            found[_joined(above, name)] = flat(values) if isinstance(values, Mapping) else {}
        found.update(sections(inner, _joined(above, name)) if name != VALUES else {})
    return found


def matches(section: str, node: str) -> bool:
    """Tell whether a section such as '/**' or 'front/anomaly_node' is for a node's full name."""
    pattern = re.escape('/' + section.strip('/'))
    pattern = pattern.replace(r'/\*\*', r'(/\w+)*').replace(r'\*', r'\w+')
    return re.fullmatch(pattern, node) is not None


def chain_values(tree: Mapping[str, object], path: Path) -> dict[str, object]:
    """Return what a file of ROS parameters says about the chain, flat.

    Taken are the sections of every `anomaly_node`, or the only one. What concerns the node alone
    is left out. Raises ValueError where it is not clear which section is meant.
    """
    found = sections(tree)
    mine = [name for name in found if name.strip('/').split('/')[-1] in (NODE, '*', '**')]
    if not mine and len(found) == 1:
        mine = list(found)
    if not mine:
        raise ValueError(f"{path} holds parameters of {sorted(found)}, none of '/**' or {NODE}")
    values: dict[str, object] = {}
    for name in mine:
        values.update(found[name])
    return {
        name: [] if value == EMPTY else value
        for name, value in values.items()
        if name not in NODE_ONLY and not name.startswith(FOREIGN)
    }


def remarks(paths: Iterable[Path], node: str) -> list[str]:
    """Return one line for each file of parameters that has none for the node of this name."""
    found = []
    for path in paths:
        names = list(sections(read(path)))
        if names and not any(matches(name, node) for name in names):
            found.append(
                f'{path} has no effect: it is for {", ".join(names)}, this node is '
                f"{node}; write '/**:' there for every node"
            )
    return found


def check(path: Path) -> None:
    """Raise ValueError, one line, where ROS would refuse a file of parameters."""
    tree = read(path)
    found = sections(tree)
    if tree and not found:
        raise ValueError(
            f"{path}: expected parameters of nodes ('/**:', below it "
            f"'{VALUES}:', below it names with values), got {sorted(tree)[:3]}"
        )
    for values in found.values():
        for name, value in values.items():
            if value is None or (isinstance(value, list) and not _of_one_kind(value)):
                raise ValueError(
                    f'{path}: {name}: expected a value or a list of one kind, got {value!r}'
                )


def _of_one_kind(values: list[object]) -> bool:
    kinds = {type(value) for value in values if not _may_be_number(value)}
    return len(kinds) <= 1 and kinds <= {bool, int, float, str}


def _may_be_number(value: object) -> bool:
    """Tell whether this text is a number to ROS: YAML 1.1 takes 1e-3 for a text."""
    number = re.compile(r'[-+]?[\d.]+([eE][-+]?\d+)?')
    return isinstance(value, str) and number.fullmatch(value) is not None


def flat(tree: Mapping[str, object], above: str = '') -> dict[str, object]:
    """Return nested values under their full names."""
    found: dict[str, object] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            found.update(flat(value, f'{above}{name}.'))
        else:
            found[f'{above}{name}'] = value
    return found


def _joined(above: str, name: object) -> str:
    return f'{above.rstrip("/")}/{str(name).strip("/")}' if above else str(name)
