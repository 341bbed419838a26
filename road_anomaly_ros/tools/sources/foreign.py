# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures with anomaly maps that some other method has left in a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from road_anomaly_ros.perception.segmenters.external import MAP_SUFFIXES, read_map
from road_anomaly_ros.tools import scales
from road_anomaly_ros.tools.pictures import natural_key
from road_anomaly_ros.tools.sources.base import Frame, Source
from road_anomaly_ros.tools.sources.images import position

_MISSING = 'without an anomaly map'
_TAKEN = 'with the anomaly map of another picture'


class WithAnomalyMaps(Source):
    """The pictures of `inner`, each with its map from `folder` (npy, npz or grey images).

    A map belongs to the picture of the same name without suffix. Where the first picture finds
    none of its name, and there are as many maps as files or the pictures are no files, they are
    taken in natural order. Maps of `run --save-scores png` are read with their scale. Pictures
    without a map, with one that another picture has, or with one that cannot be read, are left out
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
        self._stems = {file.stem: file for file in files}
        if len(self._stems) < len(files):
            doubled = next(file for file in files if file != self._stems[file.stem])
            raise ValueError(
                f'{folder}: expected one anomaly map for each picture, got {doubled.name} and '
                f'{self._stems[doubled.stem].name}; move one kind away'
            )
        super().__init__(**{item.name: getattr(inner, item.name) for item in fields(Source)})
        self._inner = inner
        self._files = sorted(files, key=lambda file: natural_key(file.name))
        self._scale = _scale(folder / scales.NAME)

    def __iter__(self) -> Iterator[Frame]:
        by_name, used = True, set[Path]()
        for index, frame in enumerate(self._inner):
            stem = Path(frame.name).stem
            if index == 0:
                files = self.kind in ('folder', 'image')
                by_name = stem in self._stems or (files and len(self._files) != self.count)
            number = position(frame) if files else int(frame.name)
            in_order = self._files[number] if number < len(self._files) else None
            file = self._stems.get(stem) if by_name else in_order
            if file is None or file in used:
                self.leave_out(_MISSING if file is None else _TAKEN, frame.name)
                continue
            used.add(file)
            try:
                anomaly = self._read(file)
            except ValueError:
                self.leave_out('with an unreadable anomaly map', frame.name)
                continue
            yield replace(frame, anomaly=anomaly)
        self.problem, self.incomplete = self._inner.problem, self._inner.incomplete

    def _read(self, file: Path) -> np.ndarray:
        if file.name not in self._scale:
            return read_map(file)
        return scales.restored(read_map(file), *self._scale[file.name])

    def close(self) -> None:
        """Let go of the pictures' files."""
        self._inner.close()


def _scale(path: Path) -> Mapping[str, tuple[float, float]]:
    """Return the scores of both ends of each map by its name; empty where no scale lies there."""
    try:
        maps = json.loads(path.read_text(encoding='utf-8'))['maps']
        return {name: (float(ends['low']), float(ends['high'])) for name, ends in maps.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(
            f"{path}: expected the scale of 'road-anomaly run --save-scores png', it is damaged"
        ) from None
