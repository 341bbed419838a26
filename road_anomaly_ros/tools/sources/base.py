# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What every source of pictures offers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from road_anomaly_ros.tools.pictures import some

_MOST_NAMES = 100  # of what was left out for one reason


@dataclass(frozen=True)
class Frame:
    """One picture with what is known of it."""

    image: np.ndarray  # [H, W, 3] uint8 RGB
    stamp_ns: int  # time of the picture in the source's own clock
    name: str  # file name, or number within the source
    frame_id: str = ''  # coordinate frame of the camera, where the source knows it
    truth: np.ndarray | None = None  # true obstacles [H, W], 0 none, where they are known
    anomaly: np.ndarray | None = None  # anomaly map [h, w] made elsewhere, where there is one
    depth: np.ndarray | None = None  # [H, W] metres along the optical axis, inf for sky

    @property
    def stamp(self) -> float:
        """Time of the picture in seconds."""
        return self.stamp_ns * 1e-9


@dataclass
class Source:
    """Pictures in their order; iterate once. Single damaged pictures are left out and counted.

    Once the iteration is over `problem` says in one line why it ended early, or is None, and
    `incomplete` whether pictures lack that ought to be there; `refused` counts what was left out
    by reason, and `left_out` names the first hundred of each.
    """

    name: str
    kind: str  # 'video', 'image', 'folder', 'bag', 'pipe', 'stream' or 'rendered'
    fps: float | None = None  # pictures per second as recorded; None where unknown
    count: int | None = None  # how many pictures are announced; None where nobody says
    topic: str | None = None
    topics: tuple[str, ...] = ()  # with pictures, of a bag
    problem: str | None = None
    incomplete: bool = False
    refused: Counter[str] = field(default_factory=Counter)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    start: int = 0  # pictures passed over at the beginning; set it before iterating
    live: bool = False  # goes on whether its pictures are taken or not
    gaps: int = 0  # how often a live one broke off and came back
    drive: Any = None  # rendering.Drive of the kind 'rendered'
    camera_info: Any = None  # sensor_msgs/CameraInfo of the pictures, where a bag has one

    def __iter__(self) -> Iterator[Frame]:
        raise NotImplementedError

    def leave_out(self, reason: str, name: str) -> None:
        """Count and name something that gives no picture."""
        self.refused[reason] += 1
        names = self.left_out.setdefault(reason, [])
        if len(names) < _MOST_NAMES:
            names.append(name)

    def omissions(self) -> list[str]:
        """Return one line per reason: how many pictures were left out, and the first of them."""
        return [
            f'{count} {reason}: {some(self.left_out.get(reason, ()))}'
            for reason, count in self.refused.items()
        ]

    def close(self) -> None:
        """Let go of files; safe to call twice."""

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
