# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Image files: one, or a folder of them in the order a person would count."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from road_anomaly_ros.tools.encodings import ImageRefused, decode_file
from road_anomaly_ros.tools.sources.base import Frame, Source

SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp')
FOLDER_FPS = 10.0                       # rate given to pictures without a clock
_STEP_NS = round(1e9 / FOLDER_FPS)


def natural_key(text: str) -> tuple[object, ...]:
    """Return a sort key under which `frame_2` comes before `frame_10`."""
    parts = re.findall(r'\d+|\D+', text)
    numbers_first = [(0, int(part), '') if part.isdecimal() else (1, 0, part.lower())
                     for part in parts]
    return tuple(numbers_first), text


def is_image(path: Path) -> bool:
    """Tell by its name whether a file is an image."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith('.')


class ImageSource(Source):
    """One image, or all images of a folder (not of its sub-folders) in natural order.

    The images may differ in size: each keeps its own. Those that cannot be read are counted in
    `refused`; stamps are 0, 0.1, 0.2 ... seconds by position in the folder.
    """

    def __init__(self, path: Path) -> None:
        folder = path.is_dir()
        files = [path]
        if folder:
            files = sorted(filter(is_image, path.iterdir()),
                           key=lambda file: natural_key(file.name))
        if not files:
            raise ValueError(f'expected images in the folder {path}, found none that end in '
                             f'{", ".join(SUFFIXES)}')
        super().__init__(name=str(path), kind='folder' if folder else 'image', count=len(files),
                         fps=FOLDER_FPS if folder else None)
        self._files = files

    def __iter__(self) -> Iterator[Frame]:
        for index, file in enumerate(self._files):
            try:
                image = decode_file(file.read_bytes())
            except (ImageRefused, OSError) as error:
                if self.kind == 'image':
                    raise ValueError(f'{file}: {error}') from None
                self.refused[getattr(error, 'reason', 'unreadable')] += 1
                continue
            yield Frame(image, index * _STEP_NS, file.name)
