# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What commands declare alike: the chain, options of a dataclass, numbers and sizes."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from road_anomaly_ros.perception.registry import build_options, options_of
from road_anomaly_ros.tools.pictures import MAX_PIXELS

if TYPE_CHECKING:
    from road_anomaly_ros.perception.config import PipelineConfig

T = TypeVar('T')


def add_chain_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --model, --scorer, --device, --config and --set."""
    chain = parser.add_argument_group('chain')
    chain.add_argument('--model', help="model: 'builtin', a directory, or a hub name")
    chain.add_argument('--scorer', help='anomaly score, such as eam, rba or s2')
    chain.add_argument('--device', help="'auto', 'cpu', 'cuda' or 'cuda:N'")
    chain.add_argument(
        '--config',
        metavar='FILE',
        help='YAML file with options of the chain, '
        'plain or as parameters of ROS, such as config/fast.yaml',
    )
    chain.add_argument(
        '--set',
        metavar='NAME=VALUE',
        action='append',
        default=[],
        help='one option by its full name, such as scorers.s2.tau=0.02; may be '
        'given several times and wins over the file',
    )


def chain_config(arguments: argparse.Namespace) -> PipelineConfig:
    """Return the checked settings that the arguments ask for, over those of the file.

    Raises ValueError or TypeError, one line, for unknown names and values out of range.
    """
    from road_anomaly_ros.perception.config import PipelineConfig, parse_assignments

    named = {
        name: getattr(arguments, name)
        for name in ('model', 'scorer', 'device')
        if getattr(arguments, name) is not None
    }
    config = PipelineConfig.from_any(arguments.config)
    return config.replace({**named, **parse_assignments(arguments.set)})


def add_out(
    parser: argparse.ArgumentParser, text: str, metavar: str = 'OUT', *, required: bool = True
) -> None:
    """Declare -o, where what a command makes is to lie."""
    parser.add_argument('-o', '--out', metavar=metavar, type=Path, required=required, help=text)


def add_input(parser: argparse.ArgumentParser) -> None:
    """Declare INPUT, where pictures come from."""
    parser.add_argument(
        'input',
        metavar='INPUT',
        help='video, image, folder of images, pattern such as image%%04d.png, rosbag2 (folder, '
        '.mcap or .db3), camera (/dev/video0), address (rtsp://..., http://...), - for a video on '
        "standard input, or 'rendered:SEED' for the rendered drive",
    )


def add_options(
    parser: argparse.ArgumentParser, owner: type, *, without: Collection[str] = ()
) -> None:
    """Declare one argument per option of the dataclass `owner`, but for those in `without`."""
    for item in options_of(owner):
        if item.name in without:
            continue
        default = ','.join(map(str, item.default)) if item.kind is tuple else item.default
        parser.add_argument(
            f'--{item.name.replace("_", "-")}',
            default=default,
            metavar=item.kind.__name__.upper(),
            help=f'{item.text} (default {default})'.replace('%', '%%'),
        )


def chosen_options(owner: type[T], arguments: argparse.Namespace) -> T:
    """Return `owner` filled from the arguments of its options' names."""
    return build_options(
        owner, {item.name: getattr(arguments, item.name) for item in options_of(owner)}
    )


def refuse_unused(
    arguments: argparse.Namespace,
    add_arguments: Callable[[argparse.ArgumentParser], None],
    names: Collection[str],
    where: str,
) -> None:
    """Raise ValueError where one of these options was given and would have no effect."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    for name in names:
        if getattr(arguments, name) != parser.get_default(name):
            raise ValueError(f'--{name.replace("_", "-")} has no effect {where}; leave it away')


def size(text: str) -> tuple[int, int]:
    """Read 'WIDTHxHEIGHT' as (W, H); for argparse's `type`."""
    try:
        width, height = (int(part) for part in text.lower().split('x'))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'expected WIDTHxHEIGHT such as 480x360, got {text!r}'
        ) from None
    if min(width, height) < 1:
        raise argparse.ArgumentTypeError(f'expected at least 1x1, got {text!r}')
    if width * height > MAX_PIXELS:
        raise argparse.ArgumentTypeError(f'expected at most {MAX_PIXELS} pixels, got {text!r}')
    return width, height


def above_zero(text: str) -> float:
    """Read a finite number above 0; for argparse's `type`."""
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f'expected a number above 0, got {text!r}')
    return value


def share(text: str) -> float:
    """Read a number between 0 and 1, both excluded; for argparse's `type`."""
    value = _number(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f'expected a number between 0 and 1, got {text!r}')
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def positive(text: str) -> int:
    """Read an int of at least 1; for argparse's `type`."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f'expected a whole number of at least 1, got {text!r}')
    return value
