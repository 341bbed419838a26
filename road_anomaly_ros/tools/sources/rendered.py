# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The rendered drive as a source, named `rendered:SEED?frames=150&width=480&height=360`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl

from road_anomaly_ros.perception.registry import build_options
from road_anomaly_ros.tools.sources.base import Frame, Source

PREFIX = 'rendered:'


class RenderedSource(Source):
    """The frames of the rendered drive, each with its ground truth."""

    def __init__(self, text: str) -> None:
        from road_anomaly_ros.rendering import Drive

        self.options = parse_options(text)
        super().__init__(
            name=text,
            kind='rendered',
            fps=float(self.options.fps),
            count=self.options.frames,
            drive=Drive(self.options),
        )

    def __iter__(self) -> Iterator[Frame]:
        for index, view in itertools.islice(enumerate(self.drive), self.start, None):
            stamp = round(index * 1e9 / self.options.fps)
            yield Frame(
                view.image, stamp, str(index), 'camera', truth=view.instances, depth=view.depth
            )


def parse_options(text: str) -> Any:
    """Return the DriveOptions that `rendered:SEED?name=value&...` asks for; raises ValueError."""
    from road_anomaly_ros.rendering import DriveOptions

    seed, _, query = text.removeprefix(PREFIX).partition('?')
    values: dict[str, Any] = dict(parse_qsl(query, keep_blank_values=True))
    return build_options(DriveOptions, {'seed': seed, **values} if seed else values, PREFIX)
