# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The pictures of one image topic of a bag."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from road_anomaly_ros.tools.bags import COMPRESSED, IMAGE, BagReader
from road_anomaly_ros.tools.encodings import (
    ImageRefused,
    check_photograph,
    decode_compressed,
    decode_image,
)
from road_anomaly_ros.tools.salvage import Record
from road_anomaly_ros.tools.sources.base import Frame, Source
from road_anomaly_ros.tools.video_topics import (
    FFMPEG,
    FOXGLOVE,
    KEY_FRAME,
    VideoDecoder,
    packet_of,
    to_rgb,
)

KINDS = (
    IMAGE,
    COMPRESSED,
    FFMPEG,
    FOXGLOVE,
    *(kind.replace('/msg/', '/') for kind in (IMAGE, COMPRESSED, FFMPEG, FOXGLOVE)),
)
_NOTHING = np.empty((0, 0, 3), np.uint8)  # until a picture is decoded
_TRANSPORT = re.compile('/(compressed|ffmpeg|foxglove)$')
_RATE_SAMPLE = 50  # records looked at to tell the rate


class BagSource(Source):
    """Pictures of an image topic or a video topic with stamp and frame of their headers.

    A header without a stamp takes the time of recording. Messages that hold no usable picture are
    counted in `refused`, and so are those of a video that build on pictures that never came.
    """

    def __init__(self, path: Path, topic: str | None = None) -> None:
        self._reader = BagReader(path)
        try:
            self.topic = self._choose(path, topic)
            kind = self._reader.topics(KINDS)[self.topic]
            super().__init__(
                name=str(path),
                kind='bag',
                topic=self.topic,
                topics=tuple(self._reader.topics(KINDS)),
                fps=self._rate(),
                count=self._reader.counts[self.topic, kind],
                camera_info=self._info(),
            )
        except BaseException:
            self._reader.close()
            raise

    def _choose(self, path: Path, topic: str | None) -> str:
        found = list(self._reader.topics(KINDS))
        if not found:
            raise ValueError(
                f'{path}: expected a topic with images, found only '
                f'{sorted({kind for _, kind in self._reader.counts})}'
            )
        if topic is not None and topic not in found:
            raise ValueError(f'{path}: no image topic {topic!r}; choose one of {found}')
        refusals = {name: self._refusal(name) for name in found}
        photographs = [name for name in found if not refusals[name]]
        if topic is None and len(photographs) > 1:
            raise ValueError(
                f'{path}: expected a choice between {len(photographs)} image topics; '
                f'add --topic with one of {photographs}'
            )
        chosen = topic or (photographs or found)[0]
        if refusals[chosen]:
            others = f'it has {photographs}' if photographs else 'this bag has none'
            raise ValueError(f'{path}: {chosen}: {refusals[chosen]}; {others}')
        return chosen

    def _refusal(self, topic: str) -> str:
        """Return why the first message of a topic is no photograph, '' where it may be one."""
        for record in self._reader.records([topic]):
            try:
                message = self._reader.decode(record)
                layout = getattr(message, 'encoding', '') or getattr(message, 'format', '')
                check_photograph(layout, topic)
            except ImageRefused as refusal:
                return str(refusal)
            except ValueError:  # damaged; the next one may tell
                continue
            return ''
        return ''

    def _info(self) -> Any:
        """Return the first camera_info beside the pictures, None where there is none."""
        place = _TRANSPORT.sub('', str(self.topic)).rpartition('/')[0]
        for record in self._reader.records([f'{place}/camera_info']):
            if not record.kind.endswith('/CameraInfo'):
                break
            with contextlib.suppress(ValueError):  # damaged; the next one may tell
                fields = vars(self._reader.decode(record))  # K and D in ROS 1, k and d in ROS 2
                return SimpleNamespace(**{name.lower(): value for name, value in fields.items()})
        return None

    def _rate(self) -> float | None:
        stamps = []
        for record in self._reader.records([str(self.topic)]):
            stamps.append(record.stamp_ns)
            if len(stamps) == _RATE_SAMPLE:
                break
        span = stamps[-1] - stamps[0] if stamps else 0
        return (len(stamps) - 1) * 1e9 / span if span > 0 else None

    def __iter__(self) -> Iterator[Frame]:
        decoder: VideoDecoder[Frame] = VideoDecoder()
        for index, record in enumerate(self._reader.records([str(self.topic)])):
            try:
                yield from self._frames(record, index, decoder)
            except ImageRefused as refusal:
                self.leave_out(refusal.reason, str(index))
            except (ValueError, AttributeError):  # a bag may define its types without a field
                self.leave_out('undecodable', str(index))
        with contextlib.suppress(ImageRefused):
            yield from self._shown(decoder.finish())
        for lost in decoder.lost:
            self.leave_out(KEY_FRAME, lost.name)
        self.problem, self.incomplete = self._reader.problem, self._reader.incomplete

    def _frames(self, record: Record, index: int, decoder: VideoDecoder[Frame]) -> Iterator[Frame]:
        message = self._reader.decode(record)
        packet = packet_of(message)
        if packet is not None:  # those before `start` are decoded too: others build on them
            stamp_ns = packet.stamp_ns or record.stamp_ns
            frame = Frame(_NOTHING, stamp_ns, str(index), packet.frame_id)
            yield from self._shown(decoder.decode(packet, frame))
            return
        if index < self.start:
            return
        if record.kind.endswith('CompressedImage'):
            image = decode_compressed(message.data, message.format)
        else:
            image = decode_image(message)
        stamp = message.header.stamp
        stamp_ns = stamp.sec * 1_000_000_000 + stamp.nanosec
        yield Frame(image, stamp_ns or record.stamp_ns, str(index), message.header.frame_id)

    def _shown(self, decoded: list[tuple[Frame, Any]]) -> Iterator[Frame]:
        for frame, picture in decoded:
            if int(frame.name) >= self.start:
                yield replace(frame, image=to_rgb(picture))

    def close(self) -> None:
        """Close the bag; safe to call twice."""
        self._reader.close()
