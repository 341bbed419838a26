# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Video files through OpenCV; stamps come from the container, so a variable rate is kept."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import cv2

from road_anomaly_ros.tools.pictures import MAX_PIXELS
from road_anomaly_ros.tools.sources.base import Frame, Source

T = TypeVar('T')

# Containers round their number of frames; fewer than this share missing is no break.
_TOLERANCE = 0.01
_COVER = 0x400  # FFmpeg's mark of a picture that is no video
TRACK = 'another video track'


def open_capture(
    address: str, wrong: str, backend: int = cv2.CAP_ANY, options: Sequence[int] = ()
) -> Any:
    """Return an open cv2.VideoCapture; ValueError with the text `wrong` where it cannot be had."""
    # OpenCV and FFmpeg write lines of their own about what is damaged; ours says it once.
    os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        capture = cv2.VideoCapture(address, backend, list(options))
    finally:
        cv2.utils.logging.setLogLevel(level)
    if not capture.isOpened():
        raise ValueError(wrong)
    return capture


def for_libraries(path: str | os.PathLike[str]) -> str:
    """Return the path of a file as OpenCV and FFmpeg take it; ValueError where they cannot.

    A name such as 'http:x.mp4' is an address to FFmpeg, and one that is no UTF-8 ends the process
    in OpenCV.
    """
    found = os.path.abspath(path)
    try:
        found.encode()
    except UnicodeEncodeError:
        raise ValueError(f'{found!r}: expected a name in UTF-8; rename it') from None
    return found


def _asked(path: str, question: Callable[[Any], T], otherwise: T) -> T:
    """Return what PyAV says to a question about a file; `otherwise` where it cannot."""
    try:
        import av
    except ImportError:
        return otherwise
    level = av.logging.get_level()
    av.logging.set_level(av.logging.PANIC)  # what is damaged is told by us
    try:
        with av.open(path) as file:
            return question(file)
    except (av.FFmpegError, OSError, ValueError):
        return otherwise
    finally:
        av.logging.set_level(level)


def _reaches_its_end(file: Any) -> bool:
    """Tell whether something, such as sound, goes on until the end that a file announces.

    Containers without a number of frames announce a length, which that of the sound may be.
    """
    packets = (packet for packet in file.demux() if packet.pts is not None)
    ends = ((packet.pts + (packet.duration or 0)) * packet.time_base for packet in packets)
    length = (file.duration or 0) / 1_000_000
    return bool(length) and max(ends, default=0) >= (1 - _TOLERANCE) * length


def _tracks(file: Any) -> int:
    """Return how many pictures there are at a time, covers not counted."""
    return sum(not stream.disposition & _COVER for stream in file.streams.video)


class VideoSource(Source):
    """The frames of a video file, upright; what breaks off early ends with a `problem`."""

    def __init__(self, name: str, capture: Any = None) -> None:
        """Take the file of that name, or what an open `capture` reads."""
        self._path = for_libraries(name) if capture is None else ''
        self._capture = capture or open_capture(
            self._path,
            f'{name}: expected a video, but it cannot be opened; it is no video, '
            'has an unknown codec, or was cut off before its index was written',
        )
        pixels = math.prod(
            self._read(side) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        if pixels > MAX_PIXELS:
            raise ValueError(f'{name}: expected at most {MAX_PIXELS} pixels, got {pixels:.0f}')
        fps, count = self._read(cv2.CAP_PROP_FPS), int(self._read(cv2.CAP_PROP_FRAME_COUNT))
        super().__init__(
            name=name,
            kind='video',
            fps=fps if 0 < fps <= 1000 else None,
            count=count if count > 0 else None,
        )
        for number in range(1, _asked(self._path, _tracks, 1)):
            self.leave_out(TRACK, str(number))

    def _read(self, name: int) -> float:
        value = self._capture.get(name)
        return value if math.isfinite(value) else 0.0

    def __iter__(self) -> Iterator[Frame]:
        index, before = 0, -1
        while self._capture.grab():
            before = self._stamp(index, before)
            index += 1
            if index <= self.start:
                continue
            found, image = self._capture.retrieve()
            if not found:
                index -= 1
                break
            yield Frame(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), before, str(index - 1))
        self._judge(index)

    def _stamp(self, index: int, before: int) -> int:
        """Return the container's time, or one counted from the rate where it tells none."""
        stamp = round(self._read(cv2.CAP_PROP_POS_MSEC) * 1e6)
        if stamp > before and (index == 0 or stamp > 0):
            return stamp
        return before + round(1e9 / (self.fps or 25.0)) if index else 0

    def _judge(self, frames: int) -> None:
        if frames == 0:
            raise ValueError(f'{self.name}: expected a video, found no frame that can be decoded')
        missing = (self.count or 0) - frames
        if missing > max(1, _TOLERANCE * frames) and not _asked(
            self._path, _reaches_its_end, False
        ):
            self.incomplete = True
            self.problem = f'the video breaks off after {frames} of {self.count} frames'

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._capture.release()
