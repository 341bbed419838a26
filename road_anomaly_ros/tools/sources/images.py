# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Image files: one, or a folder of them in the order a person would count."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from road_anomaly_ros.tools.encodings import ImageRefused, decode_file, further_pictures
from road_anomaly_ros.tools.pictures import listed, some
from road_anomaly_ros.tools.sources.base import Frame, Source

FURTHER = 'all but the first of one file'
FOLDER_FPS = 10.0  # rate given to pictures without a clock
_STEP_NS = round(1e9 / FOLDER_FPS)


class ImageSource(Source):
    """One image, all images of a folder (not of its sub-folders) in natural order, or `files`.

    The images may differ in size: each keeps its own. Those that cannot be read are counted in
    `refused`, and so are other files and folders; stamps are 0, 0.1, 0.2 ... seconds by position
    among the images. Names of `files` in several folders begin where the folders differ.
    """

    def __init__(self, path: Path, files: Sequence[Path] = ()) -> None:
        folder = path.is_dir() or bool(files)
        found, others = listed(path) if path.is_dir() else ([path], [])
        files = files or found
        if not files:
            names = some(other.name for other, _ in others)
            raise ValueError(
                f'expected images in the folder {path}, found none among '
                f'{len(others)} files ({names or "it is empty"})'
            )
        super().__init__(
            name=str(path),
            kind='folder' if folder else 'image',
            count=len(files),
            fps=FOLDER_FPS if folder else None,
        )
        self._files = files
        self._base = os.path.commonpath([file.parent for file in files])
        for other, reason in others:
            self.leave_out(reason, other.name)

    def __iter__(self) -> Iterator[Frame]:
        for index, file in itertools.islice(enumerate(self._files), self.start, None):
            try:
                raw = file.read_bytes()
                image, more = decode_file(raw), further_pictures(raw)
            except (ImageRefused, OSError) as error:
                if self.kind == 'image':
                    raise ValueError(f'{file}: {error}') from None
                self.leave_out(getattr(error, 'reason', 'unreadable'), self._name(file))
                continue
            if more:
                self.leave_out(FURTHER, self._name(file))
            yield Frame(image, index * _STEP_NS, self._name(file))

    def _name(self, file: Path) -> str:
        return str(file.relative_to(self._base))


def position(frame: Frame) -> int:
    """Return the place of a picture of an `ImageSource` among its files."""
    return frame.stamp_ns // _STEP_NS
