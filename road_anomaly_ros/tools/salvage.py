# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Messages of bag files that were cut off: read from the front, up to the break."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SUFFIXES = ('.mcap', '.db3')


class Record(NamedTuple):
    """One stored message, not yet decoded."""

    topic: str
    kind: str  # message type, such as 'sensor_msgs/msg/Image'
    stamp_ns: int  # time of recording
    data: bytes  # serialised message


def salvage(path: Path) -> Iterator[Record]:
    """Yield the messages of a damaged .mcap or .db3 file as stored; ends silently at the break."""
    reader = _salvage_mcap if path.suffix == '.mcap' else _salvage_sqlite
    try:
        yield from reader(path)
    except OSError:
        raise
    except Exception:  # whatever the decoders make of the damage, this is where the file ends
        return


def _salvage_mcap(path: Path) -> Iterator[Record]:
    from mcap.records import Channel, Message, Schema
    from mcap.stream_reader import StreamReader

    schemas: dict[int, str] = {}
    channels: dict[int, tuple[str, str]] = {}
    with path.open('rb') as stream:
        for record in StreamReader(stream, record_size_limit=path.stat().st_size).records:
            if isinstance(record, Schema):
                schemas[record.id] = record.name
            elif isinstance(record, Channel):
                channels[record.id] = (record.topic, schemas.get(record.schema_id, ''))
            elif isinstance(record, Message) and record.channel_id in channels:
                yield Record(*channels[record.channel_id], record.log_time, record.data)


def _salvage_sqlite(path: Path) -> Iterator[Record]:
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
