# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The obstacles of a run with their masks, a line of JSON for each frame."""

from __future__ import annotations

import json
from pathlib import Path

from road_anomaly_ros.tools.rle import described
from road_anomaly_ros.tools.sinks import Done, Sink, seconds


class MaskSink(Sink):
    """One line of JSON per frame: its number, name and stamp, and its obstacles with masks."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._file = path.open('w', encoding='utf-8', buffering=1)

    def write(self, done: Done) -> None:
        """Append the line."""
        line = {
            'frame': done.index,
            'name': done.frame.name,
            'stamp': seconds(done.frame.stamp_ns),
            'objects': described(done.result),
        }
        self._file.write(json.dumps(line) + '\n')

    def finish(self) -> None:
        """Close the file."""
        self._file.close()
