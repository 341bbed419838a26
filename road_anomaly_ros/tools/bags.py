# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Bags without a ROS distribution: a reader that gets past damage, a writer, image messages."""

from __future__ import annotations

import contextlib
import errno
import functools
import re
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rosbags.highlevel import AnyReader
from rosbags.interfaces import (
    Nodetype,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer, WriterError
from rosbags.rosbag2.storage_mcap import McapWriter
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from road_anomaly_ros.remarks import one_line
from road_anomaly_ros.tools import detection_topics, video_topics
from road_anomaly_ros.tools.bag_files import METADATA, ROOT, Listing, storage_files
from road_anomaly_ros.tools.salvage import (
    PACKED,
    Record,
    is_storage,
    salvage,
    survey,
    unpack,
    unpacked,
)

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED = 'sensor_msgs/msg/CompressedImage'
STORAGES = ('mcap', 'sqlite3')
# The newest metadata that Humble reads too.
_METADATA_VERSION = 8
_NOTHING = {'string': '', 'bool': False, 'float32': 0.0, 'float64': 0.0}
_FOREVER = QosTime(9223372036, 854775807)
_LATCHED = Qos(
    QosHistory.KEEP_LAST,
    1,
    QosReliability.RELIABLE,
    QosDurability.TRANSIENT_LOCAL,
    _FOREVER,
    _FOREVER,
    QosLiveliness.AUTOMATIC,
    _FOREVER,
    False,
)


@functools.cache
def type_store() -> Any:
    """Return the types used where a bag brings none: Humble's, of video and of detections."""
    types = get_typestore(Stores.ROS2_HUMBLE)
    known = {**video_topics.DEFINITIONS, **detection_topics.DEFINITIONS}
    for kind, definition in known.items():
        types.register(get_types_from_msg(definition, kind))
    return types


class BagReader:
    """A rosbag2 folder, a single .mcap or .db3 file of one, packed or not, or a rosbag1 .bag.

    What is damaged is read up to the break. `problem` says in one line what is damaged or missing
    when the folder is compared with its metadata.yaml, which `incomplete` then tells; all of it is
    known once `records` were read to the end. Messages come unpacked. Raises ValueError for what
    is no bag or holds no message that can be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._problems: list[str] = []
        self._parts: list[AnyReader | Path] = []
        self._made: list[tempfile.TemporaryDirectory[str]] = []  # links and unpacked files
        self.counts: Counter[tuple[str, str]] = Counter()
        self._listed = Listing.of(path)
        missing = self._listed.missing(path)
        try:
            self._parts = [self._open(self._present(missing) if missing else path)]
        except Exception as error:  # rosbags lets errors of YAML, SQLite and zstd through
            self._open_damaged(error)
        self._problems += self._listed.complaints(path, missing, self.counts.total())

    @property
    def incomplete(self) -> bool:
        """Whether something is damaged or missing."""
        return bool(self._problems)

    @property
    def problem(self) -> str | None:
        """What is damaged or missing, in one line; None where nothing is."""
        return '; '.join(self._problems) or None

    def _present(self, missing: Collection[str]) -> Path:
        """Return a folder with links to the files that are there and metadata that agree."""
        folder = self._folder()
        present = [name for name in self._listed.files if name not in missing]
        for name in present:
            (folder / name).symlink_to((self.path / name).resolve())
        tree = dict(self._listed.tree or {})
        tree['relative_file_paths'] = present
        (folder / METADATA).write_text(yaml.safe_dump({ROOT: tree}), encoding='utf-8')
        return folder

    def _folder(self) -> Path:
        self._made.append(tempfile.TemporaryDirectory())
        return Path(self._made[-1].name)

    def _open(self, path: Path) -> AnyReader:
        reader = AnyReader([path], default_typestore=type_store())
        reader.open()
        stored = list(_stored(reader))
        if not any(connection.msgcount for connection in stored):
            stored = reader.connections  # an MCAP file need not count its messages
        for connection in stored:
            self.counts[connection.topic, connection.msgtype] += connection.msgcount
        return reader

    def _open_damaged(self, error: Exception) -> None:
        why = one_line(error)
        files = storage_files(self.path) if self.path.is_dir() else [self.path]
        for file in files:
            name = file.name
            if file.suffix == PACKED:
                file = unpack(file, self._folder())
            try:
                self._parts.append(self._open(file))
            except Exception as error:  # as above
                whole = False
                if is_storage(file):  # rosbags refuses some in which nothing lacks
                    self._parts.append(file)
                    counts, whole = survey(file)
                    self.counts += counts
                if not whole:
                    reason = one_line(error)
                    self._problems.append(f'{name} is damaged and breaks off early ({reason})')
        if not self.counts:
            self.close()
            raise ValueError(
                f'{self.path}: expected a bag with messages, nothing can be read: {why}'
            )

    def topics(self, kinds: Collection[str]) -> dict[str, str]:
        """Return name and type of the topics that are of one of these types."""
        return {topic: kind for topic, kind in sorted(self.counts) if kind in kinds}

    def latched(self) -> set[str]:
        """Return the topics whose publishers kept their last message for late subscribers."""
        connections = [
            connection
            for part in self._parts
            if isinstance(part, AnyReader)
            for connection in part.connections
        ]
        return {
            connection.topic
            for connection in connections
            if any(
                qos.durability == QosDurability.TRANSIENT_LOCAL
                for qos in getattr(connection.ext, 'offered_qos_profiles', ())
            )
        }

    def records(self, topics: Collection[str] | None = None) -> Iterator[Record]:
        """Yield stored messages, of these topics only if given, in order of recording."""
        count = 0
        for record in self._records(topics):
            count += 1
            yield record._replace(data=unpacked(record.data))
        expected = self._listed.messages(topics)
        if count < expected and not self._problems:
            self._problems.append(
                f'only {count} of the {expected} messages that {METADATA} counts can be read'
            )

    def _records(self, topics: Collection[str] | None) -> Iterator[Record]:
        for part in self._parts:
            if isinstance(part, Path):
                yield from (
                    record for record in salvage(part) if topics is None or record.topic in topics
                )
                continue
            try:
                yield from self._whole(part, topics)
            except Exception as error:  # rosbags lets errors of SQLite, zstd and struct through
                reason = f'the bag breaks off: {one_line(error)}'
                self._problems += [reason] if reason not in self._problems else []

    def _whole(self, reader: AnyReader, topics: Collection[str] | None) -> Iterator[Record]:
        chosen = [
            connection
            for connection in reader.connections
            if topics is None or connection.topic in topics
        ]
        if chosen:
            for connection, stamp, data in reader.messages(chosen):
                yield Record(connection.topic, connection.msgtype, stamp, data)

    def decode(self, record: Record) -> Any:
        """Return the message of a record, an object with its fields; raises ValueError."""
        knows = self._knows(record.kind)
        try:
            if knows is not None:
                return knows.deserialize(record.data, record.kind)
            return type_store().deserialize_cdr(record.data, record.kind)
        except Exception as error:  # damaged bytes make every kind of error in the decoder
            raise ValueError(
                f'a message on {record.topic} cannot be decoded: {one_line(error)}'
            ) from None

    def types(self, kind: str) -> Any:
        """Return a store of rosbags that knows a type, the common one where the bag does not."""
        knows = self._knows(kind)
        return type_store() if knows is None else knows.typestore

    def _knows(self, kind: str) -> AnyReader | None:
        parts = (part for part in self._parts if isinstance(part, AnyReader))
        return next((part for part in parts if kind in part.typestore.fielddefs), None)

    def close(self) -> None:
        """Close the files; safe to call twice."""
        parts, self._parts = self._parts, []
        for part in parts:
            if isinstance(part, AnyReader):
                part.close()
        for folder in self._made:
            folder.cleanup()


def _stored(reader: AnyReader) -> Iterator[Any]:
    """Yield the connections with the counts of the files, not those of a bag's metadata."""
    for part in reader.readers:
        storage: Any = getattr(part, 'storage', part)
        for file in getattr(storage, 'storages', [storage]):
            yield from file.connections


def check_name(folder: Path, storage: str) -> None:
    """Raise ValueError where SQLite would write to another file than that of a bag."""
    found = re.search('[#%?]', str(folder.absolute()))
    if storage == 'sqlite3' and found:
        raise ValueError(
            f'{folder}: expected a name without {found[0]!r}, which means something to SQLite; '
            'choose another one, or mcap as storage'
        )


class BagWriter:
    """A new rosbag2 folder, complete once `close` returned; topics appear when written to.

    With sqlite3 it must be used from one thread only.
    """

    def __init__(self, folder: Path, storage: str = STORAGES[0]) -> None:
        check_name(folder, storage)
        plugin = StoragePlugin.MCAP if storage == 'mcap' else StoragePlugin.SQLITE3
        self._writer = Writer(folder, version=_METADATA_VERSION, storage_plugin=plugin)
        if storage == 'mcap':
            self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        self._writer.open()
        self._connections: dict[tuple[str, str], Any] = {}  # by topic and type

    def write(self, topic: str, kind: str, message: Any, stamp_ns: int) -> None:
        """Append a message of type `kind`, made by `image_message` or from `type_store()`."""
        self.write_raw(topic, kind, type_store().serialize_cdr(message, kind), stamp_ns)

    def add_topic(
        self, topic: str, kind: str, *, types: Any = None, latched: bool = False
    ) -> None:
        """Announce a topic whose type only `types`, a rosbags type store, knows, or a latched one.

        Raises KeyError when the store does not know the type.
        """
        self._connections[topic, kind] = self._writer.add_connection(
            topic,
            kind,
            typestore=types or type_store(),
            offered_qos_profiles=[_LATCHED] if latched else (),
        )

    def write_raw(self, topic: str, kind: str, data: bytes | memoryview, stamp_ns: int) -> None:
        """Append an already serialised message; raises OSError when the disk is full."""
        try:
            if (topic, kind) not in self._connections:
                self.add_topic(topic, kind)
            self._writer.write(self._connections[topic, kind], stamp_ns, data)
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
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(sqlite3.connect(file)) as database,
        ):
            database.execute('SELECT count(*) FROM topics')


def _as_os_error(error: Exception, path: Path) -> OSError:
    return OSError(errno.ENOSPC, one_line(error), str(path))


def header(stamp_ns: int, frame_id: str) -> Any:
    """Return a std_msgs/Header."""
    types = type_store().types
    seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
    return types['std_msgs/msg/Header'](
        stamp=types['builtin_interfaces/msg/Time'](sec=seconds, nanosec=nanoseconds),
        frame_id=frame_id,
    )


def image_message(array: np.ndarray, encoding: str, *, stamp_ns: int, frame_id: str) -> Any:
    """Return a sensor_msgs/Image that holds `array` [H, W] or [H, W, C], little endian."""
    array = np.ascontiguousarray(array)
    return type_store().types[IMAGE](
        header=header(stamp_ns, frame_id),
        height=array.shape[0],
        width=array.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=array.strides[0],
        data=array.reshape(-1).view(np.uint8),
    )


def compressed_message(data: np.ndarray, layout: str, *, stamp_ns: int, frame_id: str) -> Any:
    """Return a sensor_msgs/CompressedImage that holds a JPEG or PNG, `data` uint8 [N]."""
    return type_store().types[COMPRESSED](
        header=header(stamp_ns, frame_id), format=layout, data=data
    )


def message_of(kind: str, values: Mapping[str, Any]) -> Any:
    """Return a message of a type in `type_store()` from plain values, nested like its fields.

    Fields that are not named are zero, false or empty. Raises KeyError for those it does not have.
    """
    layouts = dict(type_store().fielddefs[kind][1])
    filled = {name: _filled(layouts[name], value) for name, value in values.items()}
    rest = {name: _filled(layouts[name], None) for name in layouts.keys() - values.keys()}
    return type_store().types[kind](**filled, **rest)


def _filled(layout: Any, value: Any) -> Any:
    """Return a field of a message from a plain value; None is what it is by default."""
    form, about = layout
    if form == Nodetype.NAME:
        plain = value is None or isinstance(value, Mapping)
        return message_of(about, value or {}) if plain else value
    if form == Nodetype.BASE:
        return value if value is not None else _NOTHING.get(about[0], 0)
    (inner, kind), length = about
    if inner == Nodetype.BASE and kind[0] != 'string':
        default = np.zeros(length if form == Nodetype.ARRAY else 0)
        return np.asarray(default if value is None else value, kind[0])
    return [_filled((inner, kind), item) for item in value or ()]
