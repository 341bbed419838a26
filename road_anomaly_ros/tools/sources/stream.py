# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Cameras, addresses and pipes, opened by OpenCV where a person has typed one."""

from __future__ import annotations

import re
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import cv2

from road_anomaly_ros.remarks import Remark
from road_anomaly_ros.tools.sources.base import Frame, Source
from road_anomaly_ros.tools.sources.video import VideoSource, open_capture

PIPE, PIPE_KIND = '-', 'pipe'
_ADDRESS = re.compile(r'(rtsps?|rtmps?|https?|udp|tcp|srt)://')
_CAMERA = re.compile(r'/dev/video\d+')
_SECRET = re.compile(r'(?<=://)[^/]*@')
_OPEN_MS = _READ_MS = 5000
_FIRST_DELAY, _LONGEST_DELAY = 0.5, 10.0  # seconds between attempts to connect
GIVE_UP_S = 120.0


def is_stream(text: str) -> bool:
    """Tell whether this names a camera, an address on a network or a pipe, and no file."""
    return text == PIPE or bool(_ADDRESS.match(text) or _CAMERA.fullmatch(text))


def is_live(text: str) -> bool:
    """Tell whether this names a stream that goes on whether its pictures are taken or not."""
    return text != PIPE and is_stream(text)


def open_stream(text: str) -> Source:
    """Open what `is_stream` names; raises ValueError, one line, where nothing comes.

    What announces its end, such as a file that is served, is read like a file.
    """
    if text == PIPE:
        return PipeSource()
    address = _ADDRESS.match(text)
    capture = connect(text)
    announced = capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0
    if announced and address is not None and address[1].startswith('http'):
        return VideoSource(without_secret(text), capture)
    return LiveSource(text, capture)


def connect(text: str) -> Any:
    """Return an open capture of a camera or an address; ValueError where there is none."""
    name = without_secret(text)
    if _CAMERA.fullmatch(text):
        return open_capture(
            text, f'{name}: expected a camera, none answers; is it plugged in and free?'
        )
    options = [
        *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _OPEN_MS),
        *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, _READ_MS),
    ]
    wrong = (
        f'{name}: expected a video stream, none comes from there; check address, user and '
        'password, and whether the camera is on'
    )
    return open_capture(text, wrong, cv2.CAP_FFMPEG, options)


def without_secret(address: str) -> str:
    """Return an address as it may be shown and stored: without user and password."""
    return _SECRET.sub('***@', address)


class PipeSource(VideoSource):
    """The frames of a video on standard input, every one of them."""

    def __init__(self) -> None:
        wrong = 'standard input: expected a video, such as MPEG-TS, MJPEG or Matroska'
        if sys.stdin is None or sys.stdin.isatty():
            raise ValueError(f'{wrong}; nothing is piped into this command')
        super().__init__('standard input', open_capture('pipe:0', wrong, cv2.CAP_FFMPEG))
        self.kind, self.count = PIPE_KIND, None

    def close(self) -> None:
        """Leave it to the process's end: a reader may wait in it for ever."""


class LiveSource(Source):
    """A camera or a stream without an end, stamped with the time of arrival.

    A connection that breaks is made anew with growing pauses, which `gaps` counts, and given up
    after `give_up_s` seconds, which `problem` then says.
    """

    def __init__(
        self,
        address: str,
        capture: Any,
        *,
        give_up_s: float = GIVE_UP_S,
        connect: Callable[[str], Any] = connect,
    ) -> None:
        fps = capture.get(cv2.CAP_PROP_FPS)
        super().__init__(
            without_secret(address), 'stream', fps if 0 < fps <= 240 else None, live=True
        )
        self._address, self._capture = address, capture
        self._give_up_s, self._connect = give_up_s, connect
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        try:
            while not self._closed.is_set():
                found, image = self._capture.read()
                if found:
                    picture = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
                    yield Frame(picture, time.time_ns(), str(index))
                    index += 1
                elif not self._reconnect(index):
                    break
        finally:
            self._capture.release()

    def _reconnect(self, frames: int) -> bool:
        self._capture.release()
        self.gaps += 1
        warnings.warn(
            f'{self.name} broke off after {frames} frames (gap {self.gaps}), trying again',
            Remark,
            stacklevel=2,
        )
        delay, begin = _FIRST_DELAY, time.monotonic()
        while not self._closed.wait(delay):
            try:
                self._capture = self._connect(self._address)
                return True
            except ValueError:
                delay = min(2 * delay, _LONGEST_DELAY)
            if time.monotonic() - begin > self._give_up_s:
                self.problem = f'{self.name} was given up, silent for {self._give_up_s:g} s'
                self.incomplete = True
                return False
        return False

    def close(self) -> None:
        """End the iteration, which lets go of the camera; safe to call twice."""
        self._closed.set()
