# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The index of an archive on disk: one Parquet file and one archive of thumbnails per task.

INDEX/
  index.json           what it was made with: version, settings, fingerprint
  parts/KEY-START.parquet   the events of one stretch of one file, with what it was in its metadata
  thumbnails/KEY-START.zip  their pictures, JPEG, named by the events' column `thumbnail`
  failed/KEY-START.json     why a stretch gave nothing
  events.parquet       all parts as one table, written at the end

Each appears under its name once it is whole: thumbnails first, then the part.
"""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from road_anomaly_ros import files

VERSION = 1
EVENTS, SETTINGS = 'events.parquet', 'index.json'
_PART = b'road_anomaly_part'
SCHEMA = pa.schema(
    [
        ('file', pa.string()),  # path or address
        ('topic', pa.string()),  # of a bag, else ''
        ('start', pa.int64()),  # first frame of the stretch it was found in
        ('event', pa.int32()),  # 1, 2 ... within the stretch: a track, or an obstacle of one frame
        ('frame', pa.int64()),  # where it is strangest, counted from the beginning of the file
        ('time', pa.float64()),  # seconds from the first frame of the file to that frame
        ('stamp', pa.float64()),  # seconds of the camera's clock then
        ('first', pa.float64()),  # seconds from the first frame: seen first ...
        ('last', pa.float64()),  # ... and last
        ('frames', pa.int32()),  # in how many it was seen
        ('x', pa.int32()),  # box in pixels
        ('y', pa.int32()),
        ('w', pa.int32()),
        ('h', pa.int32()),
        ('width', pa.int32()),  # of the picture
        ('height', pa.int32()),
        ('area', pa.int32()),  # pixels
        ('size', pa.float32()),  # share of the picture, 0 ... 1
        ('score', pa.float32()),  # 95th percentile inside; higher is stranger
        ('evidence', pa.float32()),  # sum over its frames of -1 ... 1; higher is surer
        ('surroundings', pa.string()),  # known class around it, '' where none is
        ('hash', pa.uint64()),  # of its look: near-duplicates differ in few bits
        ('thumbnail', pa.string()),  # ARCHIVE/NAME below thumbnails/
        ('fingerprint', pa.string()),  # of model and settings
    ]
)


@dataclass(frozen=True)
class Part:
    """What is known of one stretch that was mined."""

    key: str  # of the item
    file: str
    start: int  # first frame
    parts: tuple[int, ...] = (0,)  # first frames of all stretches of the file
    frames: int = 0
    seconds: float = 0.0  # spent by the worker
    refused: Mapping[str, int] = field(default_factory=dict)
    problem: str = ''  # why the file ended early, '' where it did not

    @property
    def name(self) -> str:
        """Name of its files, without suffix."""
        return part_name(self.key, self.start)


def part_name(key: str, start: int) -> str:
    """Return the name of the files of a stretch, without suffix."""
    return f'{key}-{start:09d}'


def key_of(name: str) -> str:
    """Return the key of the item that a stretch of this name is of."""
    return name.partition('-')[0]


class Index:
    """An index that is being written or read; `add` from one thread of one process only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parts, self.thumbnails, self.failed = (
            path / name for name in ('parts', 'thumbnails', 'failed')
        )

    def open(self, settings: Mapping[str, Any]) -> list[str]:
        """Begin, or go on with what is there; returns the names of parts that were damaged.

        These are removed. Raises ValueError for an index of other settings, and for a folder with
        something else.
        """
        tree = {'version': VERSION, **settings}
        file = self.path / SETTINGS
        if file.exists():
            before = self.settings()
            changed = sorted(
                name for name in {*tree, *before} if tree.get(name) != before.get(name)
            )
            if changed:
                raise ValueError(
                    f'{self.path} was made with another {", ".join(changed)}; give the same, or '
                    'choose another folder'
                )
        elif self.path.is_dir() and any(self.path.iterdir()):
            raise ValueError(f'{self.path}: expected an index or an empty folder, got other files')
        for folder in (self.parts, self.thumbnails, self.failed):
            folder.mkdir(parents=True, exist_ok=True)
            for rest in folder.glob('.*'):  # of a process that was killed
                rest.unlink()
        files.write_json(file, tree)
        return self._remove_damaged()

    def _remove_damaged(self) -> list[str]:
        damaged = []
        for file in sorted(self.parts.glob('*.parquet')):
            try:
                _part(file)
            except ValueError:
                damaged.append(str(file))
                self.remove(file.stem)
        return damaged

    def settings(self) -> dict[str, Any]:
        """Return what the index was made with; raises ValueError where there is none."""
        try:
            tree: dict[str, Any] = json.loads((self.path / SETTINGS).read_text(encoding='utf-8'))
            version = tree['version']
        except (OSError, KeyError, TypeError, ValueError):
            raise ValueError(
                f'{self.path}: expected an index made by road-anomaly mine, found none'
            ) from None
        if version != VERSION:
            raise ValueError(f'{self.path}: expected version {VERSION}, got {version}')
        return tree

    def done(self) -> Iterator[Part]:
        """Yield what is known of every stretch that is whole."""
        yield from map(_part, sorted(self.parts.glob('*.parquet')))

    def add(
        self, part: Part, events: Sequence[Mapping[str, Any]], pictures: Mapping[str, bytes]
    ) -> None:
        """Keep the events of a stretch with their thumbnails."""
        archive = self.thumbnails / f'{part.name}.zip'
        if pictures:
            files.write(archive, lambda file: _pack(file, pictures))
        schema = SCHEMA.with_metadata({_PART: json.dumps(asdict(part))})
        table = pa.Table.from_pylist(list(events), schema=schema)
        path = self.parts / f'{part.name}.parquet'
        files.write(path, lambda file: pq.write_table(table, file, compression='zstd'))
        (self.failed / f'{part.name}.json').unlink(missing_ok=True)

    def fail(self, name: str, file: str, reason: str) -> None:
        """Keep the reason why a stretch gave nothing."""
        files.write_json(self.failed / f'{name}.json', {'file': file, 'reason': reason})

    def failures(self) -> dict[str, dict[str, str]]:
        """Return file and reason of all stretches that gave nothing, by their names."""
        found = {}
        for file in sorted(self.failed.glob('*.json')):
            with contextlib.suppress(ValueError):  # cut off by a crash; it is tried again
                tree = json.loads(file.read_text(encoding='utf-8'))
                found[file.stem] = {'file': tree['file'], 'reason': tree['reason']}
        return found

    def remove(self, name: str) -> None:
        """Take out a stretch, of a file that has changed."""
        (self.parts / f'{name}.parquet').unlink(missing_ok=True)
        (self.thumbnails / f'{name}.zip').unlink(missing_ok=True)
        (self.failed / f'{name}.json').unlink(missing_ok=True)

    def merge(self) -> int:
        """Write all parts as one table in order of file and frame; returns its rows.

        Parts are read one by one, so that memory does not grow with them.
        """
        parts = sorted((part.file, part.start, part.name) for part in self.done())
        rows = 0

        def put(file: BinaryIO) -> None:
            nonlocal rows
            with pq.ParquetWriter(file, SCHEMA, compression='zstd') as writer:
                for _, _, name in parts:
                    table = pq.read_table(self.parts / f'{name}.parquet', partitioning=None)
                    rows += table.num_rows
                    if table.num_rows:
                        writer.write_table(table.cast(SCHEMA))

        files.write(self.path / EVENTS, put)
        return rows

    def events(self) -> pa.Table:
        """Return the merged table; raises ValueError where it was not written yet."""
        self.settings()
        file = self.path / EVENTS
        if not file.exists():
            raise ValueError(f'{file} is missing: mining did not end; run road-anomaly mine again')
        return pq.read_table(file, partitioning=None)

    def thumbnail(self, name: str) -> bytes:
        """Return the JPEG named by an event, b'' where there is none."""
        archive, _, member = name.partition('/')
        try:
            with zipfile.ZipFile(self.thumbnails / Path(archive).name) as file:
                return file.read(member)
        except (OSError, KeyError, zipfile.BadZipFile):
            return b''


def _part(file: Path) -> Part:
    """Return what a file of events is about; ValueError, one line, where it is damaged."""
    try:
        tree = json.loads(pq.read_metadata(file).metadata[_PART])
        return Part(**{**tree, 'parts': tuple(tree['parts'])})
    except (pa.ArrowException, KeyError, TypeError, ValueError):
        raise ValueError(
            f'{file} is damaged; run road-anomaly mine again, which makes it anew'
        ) from None


def strongest(table: pa.Table) -> pa.Table:
    """Return events from the surest to the least sure; equal ones in order of file and frame."""
    order = pc.sort_indices(
        table,
        sort_keys=[
            ('evidence', 'descending'),
            ('score', 'descending'),
            ('file', 'ascending'),
            ('frame', 'ascending'),
            ('event', 'ascending'),
        ],
    )
    return table.take(order)


def _pack(file: BinaryIO, pictures: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(file, 'w', zipfile.ZIP_STORED) as archive:
        for name, data in sorted(pictures.items()):
            archive.writestr(zipfile.ZipInfo(name), data)
