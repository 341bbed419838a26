# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Bags without a ROS distribution: a reader that gets past damage, a writer, image messages."""

from __future__ import annotations

import contextlib
import errno
import functools
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.highlevel import AnyReader
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer, WriterError
from rosbags.rosbag2.storage_mcap import McapWriter
from rosbags.typesys import Stores, get_typestore

from road_anomaly_ros.tools.salvage import SUFFIXES, Record, salvage

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED = 'sensor_msgs/msg/CompressedImage'
STORAGES = ('mcap', 'sqlite3')
# The newest metadata that Humble reads too.
_METADATA_VERSION = 8
_FOREVER = QosTime(9223372036, 854775807)
_LATCHED = Qos(QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL,
               _FOREVER, _FOREVER, QosLiveliness.AUTOMATIC, _FOREVER, False)


@functools.cache
def type_store() -> Any:
    """Return the message types used where a bag does not bring its own; those of Humble."""
    return get_typestore(Stores.ROS2_HUMBLE)


def is_bag(path: Path) -> bool:
    """Tell by its name, or by what lies in the folder, whether this is a bag."""
    if path.is_dir():
        return (path / 'metadata.yaml').exists() or bool(_storage_files(path))
    return path.suffix in (*SUFFIXES, '.bag')


def _storage_files(folder: Path) -> list[Path]:
    from road_anomaly_ros.tools.sources.images import natural_key
    return sorted((file for file in folder.iterdir() if file.suffix in SUFFIXES),
                  key=lambda file: natural_key(file.name))


class BagReader:
    """A rosbag2 folder, a single .mcap or .db3 file of one, or a rosbag1 .bag.

    What is damaged is read up to the break, and `problem` then says so in one line. Raises
    ValueError for what is no bag or holds no message that can be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem: str | None = None
        self._parts: list[AnyReader | Path] = []
        self.counts: Counter[tuple[str, str]] = Counter()
        try:
            self._parts = [self._open(path)]
        except Exception as error:      # rosbags lets errors of YAML, SQLite and zstd through
            self._open_damaged(error)

    def _open(self, path: Path) -> AnyReader:
        reader = AnyReader([path], default_typestore=type_store())
        reader.open()
        for connection in reader.connections:
            self.counts[connection.topic, connection.msgtype] += connection.msgcount
        return reader

    def _open_damaged(self, error: Exception) -> None:
        why = ' '.join(str(error).split())
        files = _storage_files(self.path) if self.path.is_dir() else [self.path]
        for file in files:
            try:
                self._parts.append(self._open(file))
            except Exception:           # as above
                if file.suffix in SUFFIXES:
                    self._parts.append(file)
                    self.counts.update((record.topic, record.kind) for record in salvage(file))
                self.problem = f'{file.name} is damaged and breaks off early ({why})'
        if not self.counts:
            self.close()
            raise ValueError(f'{self.path}: expected a bag with messages, nothing can be read: '
                             f'{why}')

    def topics(self, kinds: Collection[str]) -> dict[str, str]:
        """Return name and type of the topics that are of one of these types."""
        return {topic: kind for topic, kind in sorted(self.counts) if kind in kinds}

    def latched(self) -> set[str]:
        """Return the topics whose publishers kept their last message for late subscribers."""
        connections = [connection for part in self._parts if isinstance(part, AnyReader)
                       for connection in part.connections]
        return {connection.topic for connection in connections
                if any(qos.durability == QosDurability.TRANSIENT_LOCAL for qos in
                       getattr(connection.ext, 'offered_qos_profiles', ()))}

    def records(self, topics: Collection[str] | None = None) -> Iterator[Record]:
        """Yield stored messages, of these topics only if given, in order of recording."""
        for part in self._parts:
            if isinstance(part, Path):
                yield from (record for record in salvage(part)
                            if topics is None or record.topic in topics)
                continue
            try:
                yield from self._whole(part, topics)
            except Exception as error:  # rosbags lets errors of SQLite, zstd and struct through
                self.problem = f'the bag breaks off: {" ".join(str(error).split())}'

    def _whole(self, reader: AnyReader, topics: Collection[str] | None) -> Iterator[Record]:
        chosen = [connection for connection in reader.connections
                  if topics is None or connection.topic in topics]
        if chosen:
            for connection, stamp, data in reader.messages(chosen):
                yield Record(connection.topic, connection.msgtype, stamp, data)

    def decode(self, record: Record) -> Any:
        """Return the message of a record, an object with its fields; raises ValueError."""
        first = self._parts[0]
        try:
            if isinstance(first, AnyReader):
                return first.deserialize(record.data, record.kind)
            return type_store().deserialize_cdr(record.data, record.kind)
        except Exception as error:      # damaged bytes make every kind of error in the decoder
            raise ValueError(f'a message on {record.topic} cannot be decoded: '
                             f'{" ".join(str(error).split())}') from None

    def close(self) -> None:
        """Close the files; safe to call twice."""
        parts, self._parts = self._parts, []
        for part in parts:
            if isinstance(part, AnyReader):
                part.close()


class BagWriter:
    """A new rosbag2 folder, complete once `close` returned; topics appear when written to.

    With sqlite3 it must be used from one thread only.
    """

    def __init__(self, folder: Path, storage: str = STORAGES[0]) -> None:
        plugin = StoragePlugin.MCAP if storage == 'mcap' else StoragePlugin.SQLITE3
        self._writer = Writer(folder, version=_METADATA_VERSION, storage_plugin=plugin)
        if storage == 'mcap':
            self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        self._writer.open()
        self._connections: dict[str, Any] = {}

    def write(self, topic: str, kind: str, message: Any, stamp_ns: int) -> None:
        """Append a message of type `kind`, made by `image_message` or from `type_store()`."""
        self.write_raw(topic, kind, type_store().serialize_cdr(message, kind), stamp_ns)

    def add_topic(self, topic: str, kind: str, *, types: Any = None,
                  latched: bool = False) -> None:
        """Announce a topic whose type only `types`, a rosbags type store, knows, or a latched one.

        Raises KeyError when the store does not know the type.
        """
        self._connections[topic] = self._writer.add_connection(
            topic, kind, typestore=types or type_store(),
            offered_qos_profiles=[_LATCHED] if latched else ())

    def write_raw(self, topic: str, kind: str, data: bytes | memoryview, stamp_ns: int) -> None:
        """Append an already serialised message; raises OSError when the disk is full."""
        try:
            if topic not in self._connections:
                self.add_topic(topic, kind)
            self._writer.write(self._connections[topic], stamp_ns, data)
        except sqlite3.OperationalError as error:
            raise _as_os_error(error, self._writer.path) from error

    def flush(self) -> None:
        """Hand what was written to the system, so that it outlives the process; raises OSError.

        Costs a chunk of its own in an MCAP file, so not to be called for every message.
        """
        storage: Any = self._writer.storage
        try:
            if isinstance(storage, McapWriter):
                if storage.chunk.bio.tell():
                    storage.close_chunk()
                storage.bio.flush()
            else:
                storage.conn.commit()
        except sqlite3.OperationalError as error:
            raise _as_os_error(error, self._writer.path) from error

    def close(self) -> None:
        """Write the index and the metadata; raises OSError when the disk is full."""
        try:
            self._writer.close()
        except (sqlite3.OperationalError, WriterError) as error:
            raise _as_os_error(error, self._writer.path) from error

    def abort(self) -> None:
        """Close the files without completing them."""
        self._writer.abort()


def roll_back(folder: Path) -> None:
    """Let SQLite take back what a killed process has half written to the .db3 files of a folder.

    Readers open them without their journals and would see that half.
    """
    for file in folder.glob('*.db3'):
        with contextlib.suppress(sqlite3.Error), \
                contextlib.closing(sqlite3.connect(file)) as database:
            database.execute('SELECT count(*) FROM topics')


def _as_os_error(error: Exception, path: Path) -> OSError:
    return OSError(errno.ENOSPC, ' '.join(str(error).split()), str(path))


def header(stamp_ns: int, frame_id: str) -> Any:
    """Return a std_msgs/Header."""
    types = type_store().types
    seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
    return types['std_msgs/msg/Header'](
        stamp=types['builtin_interfaces/msg/Time'](sec=seconds, nanosec=nanoseconds),
        frame_id=frame_id)


def image_message(array: np.ndarray, encoding: str, *, stamp_ns: int, frame_id: str) -> Any:
    """Return a sensor_msgs/Image that holds `array` [H, W] or [H, W, C], little endian."""
    array = np.ascontiguousarray(array)
    return type_store().types[IMAGE](
        header=header(stamp_ns, frame_id), height=array.shape[0], width=array.shape[1],
        encoding=encoding, is_bigendian=0, step=array.strides[0],
        data=array.reshape(-1).view(np.uint8))


def compressed_message(data: np.ndarray, layout: str, *, stamp_ns: int, frame_id: str) -> Any:
    """Return a sensor_msgs/CompressedImage that holds a JPEG or PNG, `data` uint8 [N]."""
    return type_store().types[COMPRESSED](
        header=header(stamp_ns, frame_id), format=layout, data=data)
