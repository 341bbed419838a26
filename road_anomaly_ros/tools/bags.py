# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Bags without a ROS distribution: a reader that gets past damage, a writer, image messages."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import re
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePath
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
from road_anomaly_ros.tools.pictures import natural_key
from road_anomaly_ros.tools.salvage import SUFFIXES, Record, salvage

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED = 'sensor_msgs/msg/CompressedImage'
STORAGES = ('mcap', 'sqlite3')
METADATA = 'metadata.yaml'
_ROOT = 'rosbag2_bagfile_information'
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


def is_bag(path: Path) -> bool:
    """Tell by its name, or by what lies in the folder, whether this is a bag."""
    if path.is_dir():
        return (path / METADATA).exists() or bool(_storage_files(path))
    return path.suffix in (*SUFFIXES, '.bag')


def _storage_files(folder: Path) -> list[Path]:
    return sorted(
        (file for file in folder.iterdir() if file.suffix in SUFFIXES),
        key=lambda file: natural_key(file.name),
    )


@dataclasses.dataclass(frozen=True)
class Listing:
    """What the metadata.yaml of a bag says must be there; empty where there is none."""

    files: tuple[str, ...] = ()
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)  # messages by topic
    tree: Mapping[str, Any] | None = None
    damaged: bool = False

    @classmethod
    def of(cls, path: Path) -> Listing:
        """Read the metadata of a folder; never raises for what is wrong with them."""
        file = path / METADATA
        if not path.is_dir() or not file.exists():
            return cls()
        try:
            tree = yaml.safe_load(file.read_text(encoding='utf-8'))[_ROOT]
            topics = tree['topics_with_message_count']
            return cls(
                tuple(PurePath(name).name for name in tree['relative_file_paths']),
                {topic['topic_metadata']['name']: int(topic['message_count']) for topic in topics},
                tree,
            )
        except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError):
            return cls(damaged=True)

    def missing(self, folder: Path) -> list[str]:
        """Return the names of the files that are not there."""
        return [name for name in self.files if not (folder / name).exists()]

    def messages(self, topics: Collection[str] | None) -> int:
        """Return how many messages there must be, of these topics only if given."""
        return sum(
            count for topic, count in self.counts.items() if topics is None or topic in topics
        )

    def complaints(self, folder: Path, missing: Collection[str], found: int) -> list[str]:
        """Return in single lines what does not agree with the folder, `found` messages in all."""
        if self.damaged:
            return [f'{METADATA} is damaged and cannot tell whether files are missing']
        lines = []
        names = self.files or [file.name for file in _files_of(folder)]
        gaps = [*missing, *([] if self.files else _gaps(names))]
        if gaps:
            verb = 'is' if len(gaps) == 1 else 'are'
            lines.append(
                f'{", ".join(gaps)} {verb} missing, {len(names) - len(missing)} files of '
                f'the bag are there'
            )
        expected = self.messages(None)
        if found < expected:
            lines.append(f'{found} of {expected} messages can be read')
        strange = [
            file.name
            for file in _files_of(folder)
            if not {file.name, f'{file.name}.zstd'} & set(names)
        ]
        if strange:
            lines.append(f'{", ".join(strange)} left out, {METADATA} does not name it')
        return lines


def _files_of(folder: Path) -> list[Path]:
    return _storage_files(folder) if folder.is_dir() else []


def _gaps(names: Collection[str]) -> list[str]:
    """Return the names that lack in a series such as drive_0.mcap, drive_2.mcap."""
    series: dict[tuple[str, str], set[int]] = {}
    for name in names:
        if found := re.fullmatch(r'(.*_)(\d+)(\.\w+)', name):
            series.setdefault((found[1], found[3]), set()).add(int(found[2]))
    return [
        f'{head}{number}{tail}'
        for (head, tail), numbers in series.items()
        for number in range(max(numbers))
        if number not in numbers and len(numbers) > 1
    ]


class BagReader:
    """A rosbag2 folder, a single .mcap or .db3 file of one, or a rosbag1 .bag.

    What is damaged is read up to the break. `problem` says in one line what is damaged or missing
    when the folder is compared with its metadata.yaml, which `incomplete` then tells; all of it is
    known once `records` were read to the end. Raises ValueError for what is no bag or holds no
    message that can be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._problems: list[str] = []
        self._parts: list[AnyReader | Path] = []
        self._links: tempfile.TemporaryDirectory[str] | None = None
        self.counts: Counter[tuple[str, str]] = Counter()
        self._listed = Listing.of(path)
        missing = self._listed.missing(path)
        try:
            self._parts = [self._open(self._present(missing) if missing else path)]
        except Exception as error:  # rosbags lets errors of YAML, SQLite and zstd through
            self._open_damaged(error)
        complaints = self._listed.complaints(path, missing, self.counts.total())
        self._problems += complaints
        self.incomplete = bool(complaints)

    @property
    def problem(self) -> str | None:
        """What is damaged or missing, in one line; None where nothing is."""
        return '; '.join(self._problems) or None

    def _present(self, missing: Collection[str]) -> Path:
        """Return a folder with links to the files that are there and metadata that agree."""
        self._links = tempfile.TemporaryDirectory()
        folder = Path(self._links.name)
        present = [name for name in self._listed.files if name not in missing]
        for name in present:
            (folder / name).symlink_to((self.path / name).resolve())
        tree = dict(self._listed.tree or {})
        tree['relative_file_paths'] = present
        (folder / METADATA).write_text(yaml.safe_dump({_ROOT: tree}), encoding='utf-8')
        return folder

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
        files = _storage_files(self.path) if self.path.is_dir() else [self.path]
        for file in files:
            try:
                self._parts.append(self._open(file))
            except Exception:  # as above
                if file.suffix in SUFFIXES:
                    self._parts.append(file)
                    self.counts.update((record.topic, record.kind) for record in salvage(file))
                self._problems.append(f'{file.name} is damaged and breaks off early ({why})')
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
            yield record
        expected = self._listed.messages(topics)
        if count < expected and not self._problems:
            self._problems.append(
                f'only {count} of the {expected} messages that {METADATA} counts can be read'
            )
            self.incomplete = True

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
        first = self._parts[0]
        try:
            if isinstance(first, AnyReader):
                return first.deserialize(record.data, record.kind)
            return type_store().deserialize_cdr(record.data, record.kind)
        except Exception as error:  # damaged bytes make every kind of error in the decoder
            raise ValueError(
                f'a message on {record.topic} cannot be decoded: {one_line(error)}'
            ) from None

    def close(self) -> None:
        """Close the files; safe to call twice."""
        parts, self._parts = self._parts, []
        for part in parts:
            if isinstance(part, AnyReader):
                part.close()
        if self._links is not None:
            self._links.cleanup()


def _stored(reader: AnyReader) -> Iterator[Any]:
    """Yield the connections with the counts of the files, not those of a bag's metadata."""
    for part in reader.readers:
        storage: Any = getattr(part, 'storage', part)
        for file in getattr(storage, 'storages', [storage]):
            yield from file.connections


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

    def add_topic(
        self, topic: str, kind: str, *, types: Any = None, latched: bool = False
    ) -> None:
        """Announce a topic whose type only `types`, a rosbags type store, knows, or a latched one.

        Raises KeyError when the store does not know the type.
        """
        self._connections[topic] = self._writer.add_connection(
            topic,
            kind,
            typestore=types or type_store(),
            offered_qos_profiles=[_LATCHED] if latched else (),
        )

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
