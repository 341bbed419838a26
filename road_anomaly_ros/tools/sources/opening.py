# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Which kind of source a path is."""

from __future__ import annotations

import glob
import re
from pathlib import Path

from road_anomaly_ros.files import home
from road_anomaly_ros.tools.pictures import RAW_SUFFIXES, is_picture, natural_key
from road_anomaly_ros.tools.sources.base import Source
from road_anomaly_ros.tools.sources.images import ImageSource
from road_anomaly_ros.tools.sources.rendered import PREFIX, RenderedSource
from road_anomaly_ros.tools.sources.stream import is_stream, open_stream


def open_source(path: str | Path, topic: str | None = None) -> Source:
    """Open a video, an image, a folder of images, a bag or `rendered:SEED?name=value&...`.

    Images may also be named by `*` and `?` or as `image%04d.png`; a camera is `/dev/video0` or an
    address such as `rtsp://...`, a video on standard input `-`. `topic` chooses among the image
    topics of a bag and may be left out where there is one. Raises ValueError, one line, for what
    is none of these or cannot be read.
    """
    if str(path).startswith(PREFIX):
        source: Source = RenderedSource(str(path))
    elif is_stream(str(path)):
        source = open_stream(str(path))
    else:
        source = _open_path(home(path), topic)
    if topic is not None and source.kind != 'bag':
        source.close()
        raise ValueError(
            f'a topic can be chosen in a bag only, {source.name} is of kind {source.kind}'
        )
    return source


def _named(path: Path) -> list[Path]:
    """Return the files that a pattern with `*`, `?` or one `%04d` names, in natural order."""
    numbered = re.fullmatch(r'(.*)%0?\d*d(.*)', path.name)
    if numbered:
        wanted = re.compile(rf'{re.escape(numbered[1])}\d+{re.escape(numbered[2])}')
        files = [file for file in path.parent.glob('*') if wanted.fullmatch(file.name)]
    else:
        files = [Path(name) for name in glob.glob(str(path), recursive=True)]
    return sorted(files, key=lambda file: natural_key(str(file)))


def _open_path(path: Path, topic: str | None) -> Source:
    if not path.exists():
        pictures = [file for file in _named(path) if is_picture(file)]
        if pictures:
            return ImageSource(path, pictures)
        cut_off = path.parent / f'.{path.name}.partial' / path.name
        hint = f'; a recording that was cut off lies in {cut_off}' if cut_off.exists() else ''
        raise ValueError(
            f'expected a video, an image, a folder of images or a bag, found nothing '
            f'at {path}{hint}'
        )
    if path.suffix.lower() in RAW_SUFFIXES:
        raise ValueError(
            f'{path}: expected a picture, this is a camera raw file; develop it to '
            'JPEG, PNG or TIFF first'
        )
    # Imported where needed: a person who opens a video should not wait for the bag library.
    from road_anomaly_ros.tools.bag_files import is_bag

    if is_bag(path):
        from road_anomaly_ros.tools.sources.bag import BagSource

        return BagSource(path, topic)
    if path.is_dir() or is_picture(path):
        return ImageSource(path)
    from road_anomaly_ros.tools.sources.video import VideoSource

    return VideoSource(str(path))
