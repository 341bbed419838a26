# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Names of topics as image_transport makes them, and what a user may override of their QoS."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from rclpy.qos import QoSPolicyKind
from rclpy.qos_overriding_options import QoSOverridingOptions

COMPRESSED, FFMPEG, FOXGLOVE = '/compressed', '/ffmpeg', '/foxglove'
SIZES = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH)
DEFAULT_POLICIES = (*SIZES, QoSPolicyKind.RELIABILITY)


def message_class(kind: str) -> type | None:
    """Return the class of 'package/msg/Name', None where it is not installed."""
    package, _, name = kind.partition('/msg/')
    try:
        return getattr(importlib.import_module(f'{package}.msg'), name)
    except (ImportError, AttributeError, TypeError):  # TypeError of a type without a name
        return None


def compressed(node: Any, base: str, suffix: str = COMPRESSED) -> str:
    """Return the topic of the compressed pictures of `base`, which follows `base` when remapped.

    A rule for the compressed topic itself wins.
    """
    own = f'{base}{suffix}'
    if node.resolve_topic_name(own) != node.resolve_topic_name(own, only_expand=True):
        return own
    name = node.resolve_topic_name(base)
    return name if name.endswith(suffix) else f'{name}{suffix}'


def overriding(
    node: Any, topic: str, role: str, policies: Sequence[QoSPolicyKind] = DEFAULT_POLICIES
) -> QoSOverridingOptions | None:
    """Return which policies of a 'publisher' or 'subscription' are overridden by parameters.

    None where none was given: each would be one more parameter, and one that nobody can set.
    """
    beginning = f'qos_overrides.{node.resolve_topic_name(topic)}.{role}.'
    given = any(name.startswith(beginning) for name in getattr(node, '_parameter_overrides', {}))
    return QoSOverridingOptions(policies) if given else None
