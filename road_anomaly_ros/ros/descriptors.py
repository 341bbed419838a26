# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Options of a small node as described, bounded parameters that are read at its start."""

from __future__ import annotations

import sys
from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

from road_anomaly_ros.perception.registry import Option, build_options, options_of

T = TypeVar('T')


def describe(item: Option) -> ParameterDescriptor:
    """Return text, range and choices of an option as ROS shows them; read-only."""
    choices = f'one of {list(item.choices)}' if item.choices else ''
    described = ParameterDescriptor(
        name=item.name,
        description=item.text + (f' [{item.unit}]' if item.unit else ''),
        additional_constraints=choices,
        read_only=True,
    )
    if item.low is None and item.high is None:
        return described
    if item.kind is float:
        low = -sys.float_info.max if item.low is None else item.low
        high = sys.float_info.max if item.high is None else item.high
        described.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    elif item.kind is int:
        low = -(2**63) if item.low is None else int(item.low)
        high = 2**63 - 1 if item.high is None else int(item.high)
        described.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
    return described


def declare(node: Any, owner: type[T]) -> T:
    """Declare the options of the dataclass `owner` on `node`; returns them with what was given.

    Values are cast where that is safe (rclpy refuses the integer 1 for a double). Raises
    ValueError or TypeError naming the parameter and what was expected.
    """
    given = {name: parameter.value for name, parameter in node._parameter_overrides.items()}
    known = options_of(owner)
    options = build_options(
        owner, {item.name: given[item.name] for item in known if item.name in given}
    )
    for item in known:
        node.declare_parameter(
            item.name, getattr(options, item.name), describe(item), ignore_override=True
        )
    return options
