# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Messages of bag files that were cut off or packed: read from the front, up to the break."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import NamedTuple

import zstandard

SUFFIXES = ('.mcap', '.db3')
PACKED = '.zstd'  # what rosbag2 adds to the name of a file that it compresses
_MAGIC = b'\x28\xb5\x2f\xfd'  # no serialised message begins so
_MOST_BYTES = 1 << 29  # of a message: four times the largest picture
_CDR = 'cdr'


class Record(NamedTuple):
    """One stored message, not yet decoded."""

    topic: str
    kind: str  # message type, such as 'sensor_msgs/msg/Image'
    stamp_ns: int  # time of recording
    data: bytes  # serialised message


def is_storage(path: Path) -> bool:
    """Tell by its name whether a file holds messages, packed or not."""
    return Path(path.name.removesuffix(PACKED)).suffix in SUFFIXES


def unpack(path: Path, folder: Path) -> Path:
    """Unpack a file that ends with PACKED into a folder, up to a break; returns the file."""
    target = folder / path.name.removesuffix(PACKED)
    damage = contextlib.suppress(zstandard.ZstdError)  # who reads the file will notice the end
    with path.open('rb') as packed, target.open('wb') as file, damage:
        zstandard.ZstdDecompressor().copy_stream(packed, file)
    return target


def unpacked(data: bytes) -> bytes:
    """Return a message as it was before it was packed; what cannot be unpacked as it is."""
    if data[:4] == _MAGIC:
        with contextlib.suppress(zstandard.ZstdError):
            if zstandard.frame_content_size(data) <= _MOST_BYTES:
                return zstandard.ZstdDecompressor().decompress(data, max_output_size=_MOST_BYTES)
    return data


def salvage(path: Path) -> Generator[Record, None, bool]:
    """Yield the messages of a damaged .mcap or .db3 file as stored, up to the break.

    The generator's value tells whether there was none: the file is whole.
    """
    try:
        yield from _read_mcap(path) if path.suffix == '.mcap' else _read_sqlite(path)
    except OSError:
        raise
    except Exception:  # whatever the decoders make of the damage, this is where the file ends
        return False
    return True


def survey(path: Path) -> tuple[Counter[tuple[str, str]], bool]:
    """Return how many messages a file has by topic and type, and whether it is whole."""
    counts: Counter[tuple[str, str]] = Counter()
    records = salvage(path)
    while True:
        try:
            record = next(records)
        except StopIteration as end:
            return counts, end.value
        counts[record.topic, record.kind] += 1


def _read_mcap(path: Path) -> Iterator[Record]:
    from mcap.records import Channel, Message, Schema
    from mcap.stream_reader import StreamReader

    schemas: dict[int, str] = {}
    channels: dict[int, tuple[str, str]] = {}
    with path.open('rb') as stream:
        for record in StreamReader(stream, record_size_limit=path.stat().st_size).records:
            if isinstance(record, Schema):
                schemas[record.id] = record.name
            elif isinstance(record, Channel):
                kind, form = schemas.get(record.schema_id, ''), record.message_encoding
                channels[record.id] = (record.topic, kind if form == _CDR else f'{kind} ({form})')
            elif isinstance(record, Message) and record.channel_id in channels:
                yield Record(*channels[record.channel_id], record.log_time, record.data)


def _read_sqlite(path: Path) -> Iterator[Record]:
    # immutable: a damaged file must not be "repaired" by writing to it, and no journal is awaited
    source = sqlite3.connect(
        f'{path.resolve().as_uri()}?immutable=1', uri=True, check_same_thread=False
    )
    try:
        # Else SQLite refuses a file that is shorter than its header says.
        source.execute('PRAGMA writable_schema = ON')
        topics = {
            key: (name, kind)
            for key, name, kind in source.execute('SELECT id, name, type FROM topics')
        }
        # By id, not by time: the index of times lies scattered over the file.
        for topic, stamp, data in source.execute(
            'SELECT topic_id, timestamp, data FROM messages ORDER BY id'
        ):
            if topic in topics:
                yield Record(*topics[topic], stamp, data)
    finally:
        source.close()
