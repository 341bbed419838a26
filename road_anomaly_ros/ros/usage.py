# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What `--help` prints for executables that take ROS arguments only; rclpy ignores the word."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # nothing slow before the signals are in our hands
    from road_anomaly_ros.perception.registry import Option

WIDTH = 99


def asked(args: Sequence[str]) -> bool:
    """Tell whether help is asked for, before the arguments that are for ROS."""
    own = args[: args.index('--ros-args')] if '--ros-args' in args else args
    return any(word in ('-h', '--help') for word in own)


def text(name: str, what: str, examples: str, options: Iterable[Option]) -> str:
    """Return the help of the executable `name`: what it does, examples, its parameters."""
    lines = [
        f'usage: {name} [--ros-args [-p NAME:=VALUE] [-r FROM:=TO] [--params-file FILE]]',
        '',
        what.strip(),
        '',
        examples.strip('\n'),
        '',
        'parameters:',
    ]
    for item in options:
        value = list(item.default) if isinstance(item.default, tuple) else item.default
        lines.append(f'  {item.name} ({value})')
        lines += textwrap.wrap(
            item.text + (f' [{item.unit}]' if item.unit else ''),
            WIDTH,
            initial_indent='      ',
            subsequent_indent='      ',
        )
    return '\n'.join(lines) + '\n'
