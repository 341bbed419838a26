# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The overlays as a video: H.264, which every browser plays, where PyAV is installed."""

from __future__ import annotations

import errno
import warnings
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from road_anomaly_ros.remarks import Remark, one_line
from road_anomaly_ros.tools.sinks import Done, Sink
from road_anomaly_ros.tools.sources.video import for_libraries, open_capture

_ENCODERS = ('libx264', 'libopenh264')
_TICKS = 90_000  # of the container's clock in a second


class VideoSink(Sink):
    """The overlays as MP4; the first frame gives the size, others are fitted with black borders.

    Frames come `fps` times a second or, where that is None, at their own times. Nothing is left
    where no frame was written.
    """

    def __init__(self, path: Path, fps: float | None) -> None:
        super().__init__(Path(for_libraries(path)))
        self._fps = None if fps is None else min(max(fps, 0.1), 240.0)
        self._writer: _H264 | _Mpeg4 | None = None
        self._size = (0, 0)
        self._begin = 0
        self._frames = 0

    def write(self, done: Done) -> None:
        """Append the overlay."""
        self.append(done.overlay, done.frame.stamp_ns)

    def append(self, picture: np.ndarray, stamp_ns: int) -> None:
        """Append a picture [H, W, 3] uint8 RGB."""
        if self._writer is None:
            height, width = picture.shape[:2]
            # The codecs store colours for 2x2 pixels, and MPEG-4 wants blocks of 16.
            self._size = max(16, width + width % 2), max(16, height + height % 2)
            self._writer = _writer(self.path, self._size, self._fps or 25.0)
            self._begin = stamp_ns
        passed = (stamp_ns - self._begin) * 1e-9
        time = passed if self._fps is None else self._frames / self._fps
        self._writer.write(fit(picture, self._size), time)
        self._frames += 1

    def finish(self) -> None:
        """Close the file and read its index back: OpenCV does not tell when the disk was full."""
        if self._writer is None:
            return
        self._writer.close()
        try:
            reader = open_capture(str(self.path), self.name)
        except ValueError:
            stored = 0
        else:
            stored = int(reader.get(cv2.CAP_PROP_FRAME_COUNT))
            reader.release()
        if stored != self._frames:
            raise OSError(
                errno.ENOSPC,
                f'only {stored} of {self._frames} frames could be stored, is the disk full?',
                self.name,
            )

    def figures(self) -> dict[str, Any]:
        """Return which codec the video is in."""
        return {} if self._writer is None else {'video_codec': self._writer.codec}


def _writer(path: Path, size: tuple[int, int], fps: float) -> _H264 | _Mpeg4:
    try:
        import av
    except ImportError:
        encoders = []
    else:
        encoders = [name for name in _ENCODERS if name in av.codecs_available]
    if encoders:
        return _H264(path, size, fps, encoders[0])
    warnings.warn(
        f'{path.name} is MPEG-4 Part 2, which browsers do not play; for H.264 '
        "pip install 'road_anomaly_ros[video]'",
        Remark,
        stacklevel=2,
    )
    return _Mpeg4(path, size, fps)


class _H264:
    codec = 'h264'

    def __init__(self, path: Path, size: tuple[int, int], fps: float, encoder: str) -> None:
        import av

        self._av, self._name = av, path.name
        try:
            self._file: Any = av.open(str(path), 'w', options={'movflags': 'faststart'})
        except av.FFmpegError as error:
            raise OSError(errno.EIO, one_line(error), path.name) from None
        self._stream: Any = self._file.add_stream(encoder, Fraction(fps).limit_denominator(1001))
        self._stream.width, self._stream.height = size
        self._stream.pix_fmt = 'yuv420p'
        self._stream.codec_context.time_base = Fraction(1, _TICKS)
        if encoder == 'libx264':
            self._stream.options = {'preset': 'veryfast', 'crf': '20'}
        self._last = -1

    def write(self, picture: np.ndarray, time: float) -> None:
        """Append an RGB picture at a time in seconds, later than the one before."""
        frame = self._av.VideoFrame.from_ndarray(picture, format='rgb24')
        self._last = max(round(time * _TICKS), self._last + 1)
        frame.pts, frame.time_base = self._last, Fraction(1, _TICKS)
        self._encode(frame)

    def _encode(self, frame: Any) -> None:
        try:
            self._file.mux(self._stream.encode(frame))
        except self._av.FFmpegError as error:
            raise OSError(errno.EIO, one_line(error), self._name) from None

    def close(self) -> None:
        """Write what is left, and the index."""
        self._encode(None)
        try:
            self._file.close()
        except self._av.FFmpegError as error:
            raise OSError(errno.EIO, one_line(error), self._name) from None


class _Mpeg4:
    codec = 'mpeg4'

    def __init__(self, path: Path, size: tuple[int, int], fps: float) -> None:
        self._writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'mp4v'), fps, size)
        if not self._writer.isOpened():
            raise OSError(errno.EIO, 'this OpenCV cannot write MPEG-4 video', path.name)

    def write(self, picture: np.ndarray, time: float) -> None:
        """Append an RGB picture, whose time the rate tells."""
        self._writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Write the index."""
        self._writer.release()


def fit(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return an RGB picture scaled down to fit into `size` (W, H) and centred on black."""
    width, height = size
    rows, columns = picture.shape[:2]
    if (columns, rows) == size:
        return picture
    factor = min(width / columns, height / rows)
    if factor < 1:
        rows, columns = max(1, round(rows * factor)), max(1, round(columns * factor))
        picture = cv2.resize(picture, (columns, rows), interpolation=cv2.INTER_AREA)
    canvas = np.zeros((height, width, 3), np.uint8)
    top, left = (height - rows) // 2, (width - columns) // 2
    canvas[top : top + rows, left : left + columns] = picture
    return canvas
