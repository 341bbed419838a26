# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Names of topics as image_transport makes them."""

from __future__ import annotations

from typing import Any

COMPRESSED = '/compressed'


def compressed(node: Any, base: str) -> str:
    """Return the topic of the compressed pictures of `base`, which follows `base` when remapped.

    A rule for the compressed topic itself wins.
    """
    own = f'{base}{COMPRESSED}'
    if node.resolve_topic_name(own) != node.resolve_topic_name(own, only_expand=True):
        return own
    name = node.resolve_topic_name(base)
    return name if name.endswith(COMPRESSED) else f'{name}{COMPRESSED}'
