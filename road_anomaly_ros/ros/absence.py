# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Why no image comes, and what else the graph offers."""

from __future__ import annotations

import re
from typing import Any

from road_anomaly_ros.ros import loss, topics
from road_anomaly_ros.ros.inputs import BEST_EFFORT, Input
from road_anomaly_ros.ros.video import TRANSPORTS

_TRANSPORTED = re.compile(r'image_transport|CompressedImage')  # types of plug-ins' messages


class Absence:
    """Explains the silence of an input for images of `kind`; `base` is the topic of raw ones."""

    def __init__(self, node: Any, images: Input, kind: type, base: str) -> None:
        self._node, self._images, self._base = node, images, base
        self._type_name = f'{kind.__module__.split(".")[0]}/msg/{kind.__name__}'

    def reason(self) -> str:
        """Return in one line what is missing and what to do."""
        topic = self._images.name
        found = self._node.get_publishers_info_by_topic(topic)
        for publisher in found:
            kind = publisher.topic_type
            if kind != self._type_name:
                known = kind in {other for other, _ in TRANSPORTS.values()}
                remedy = f"remap '{self._base}'{self.others()}"
                return (
                    f'{topic} carries {kind}, expected {self._type_name}: '
                    f'{"choose image_transport to match" if known else remedy}'
                )
        if found and self._images.reliability == BEST_EFFORT:
            return (
                f'{topic} has a publisher of which nothing arrives: look at the camera '
                f'driver; {loss.REMEDIES}'
            )
        if found:
            return f'{topic} has a publisher that sends nothing: look at the camera driver'
        return self._other_transport() or (
            f"nobody publishes {topic}: start the camera or remap '{self._base}'{self.others()}"
        )

    def others(self) -> str:
        """Name other topics to choose from, which are not this node's; empty where none is."""
        others = sorted(
            name
            for name, kinds in self._node.get_topic_names_and_types()
            if self._type_name in kinds
            and name != self._images.name
            and self._node.count_publishers(name)
            and not name.startswith(self._node.get_fully_qualified_name() + '/')
        )
        return f'; images are published on {", ".join(others[:3])}' if others else ''

    def _other_transport(self) -> str:
        """Say in which other form the camera publishes its images; empty where it does not."""
        resolve = self._node.resolve_topic_name
        base, none = resolve(self._base), f'nobody publishes {self._images.name}, but'
        for transport, (_, suffix) in TRANSPORTS.items():
            name = base
            if suffix:
                name = resolve(topics.compressed(self._node, self._base, suffix))
            if self._node.count_publishers(name):
                return f"{none} the camera publishes {name}: set image_transport to '{transport}'"
        for name, kinds in self._node.get_topic_names_and_types():
            below = name.rpartition('/')[0] == base and self._node.count_publishers(name)
            if below and _TRANSPORTED.search(' '.join(kinds)):
                return (
                    f'{none} the camera publishes {name}, which this node cannot read: have it '
                    f'turned into raw images (image_transport republish)'
                )
        return ''
