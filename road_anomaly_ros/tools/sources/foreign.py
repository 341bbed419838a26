# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures with anomaly maps that some other method has left in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from road_anomaly_ros.perception.segmenters.external import MAP_SUFFIXES, read_map
from road_anomaly_ros.tools.pictures import natural_key
from road_anomaly_ros.tools.sources.base import Frame, Source

_MISSING = 'without an anomaly map'


class WithAnomalyMaps(Source):
    """The pictures of `inner`, each with its map from `folder` (npy, npz or grey images).

    A map belongs to the picture of the same name without suffix. Where the first picture finds
    none of its name, and there are as many maps as files or the pictures are no files, they are
    taken in natural order. Pictures without a map, or with one that cannot be read, are left out
    and counted in `refused`.
    """

    def __init__(self, inner: Source, folder: Path) -> None:
        files = (
            [path for path in folder.iterdir() if path.suffix.lower() in MAP_SUFFIXES]
            if folder.is_dir()
            else []
        )
        if not files:
            raise ValueError(
                f'expected a folder with anomaly maps ({", ".join(MAP_SUFFIXES)}), '
                f'found none at {folder}'
            )
        super().__init__(
            inner.name,
            inner.kind,
            inner.fps,
            inner.count,
            inner.topic,
            inner.problem,
            inner.incomplete,
            inner.refused,
            inner.left_out,
        )
        self._inner = inner
        self._files = sorted(files, key=lambda file: natural_key(file.name))

    def __iter__(self) -> Iterator[Frame]:
        stems = {file.stem: file for file in self._files}
        by_name = True
        for index, frame in enumerate(self._inner):
            stem = Path(frame.name).stem
            if index == 0:
                files = self.kind in ('folder', 'image')
                by_name = stem in stems or (files and len(self._files) != self.count)
            in_order = self._files[index] if index < len(self._files) else None
            file = stems.get(stem) if by_name else in_order
            if file is None:
                self.leave_out(_MISSING, frame.name)
                continue
            try:
                anomaly = read_map(file)
            except ValueError:
                self.leave_out('with an unreadable anomaly map', frame.name)
                continue
            yield replace(frame, anomaly=anomaly)
        self.problem, self.incomplete = self._inner.problem, self._inner.incomplete

    def close(self) -> None:
        """Let go of the pictures' files."""
        self._inner.close()
