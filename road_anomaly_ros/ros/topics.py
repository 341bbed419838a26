# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Names of topics as image_transport makes them."""

from __future__ import annotations

import importlib
from typing import Any

COMPRESSED, FFMPEG, FOXGLOVE = '/compressed', '/ffmpeg', '/foxglove'


def message_class(kind: str) -> type | None:
    """Return the class of 'package/msg/Name', None where it is not installed."""
    package, _, name = kind.partition('/msg/')
    try:
        return getattr(importlib.import_module(f'{package}.msg'), name)
    except (ImportError, AttributeError):
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
