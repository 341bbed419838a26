# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Cut clips around the strangest events of an index; bags stay bags, videos videos.

CLIPS gets a numbered clip for each event, the surest first, and clips.csv that tells of which
event each is. Of folders of pictures the pictures themselves are copied.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import itertools
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from road_anomaly_ros.remarks import one_line
from road_anomaly_ros.tools.chain import add_out
from road_anomaly_ros.tools.pictures import some

if TYPE_CHECKING:
    from road_anomaly_ros.fleet.choosing import Shown

EXAMPLES = """
examples:
  road-anomaly mine export index --top 200 -o clips
  road-anomaly mine export index --top 20 -o clips --before 5 --after 5 --around road
"""
EXIT_INCOMPLETE = 1
COLUMNS = ('clip', 'file', 'begin', 'end', 'time', 'evidence', 'score', 'surroundings')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    from road_anomaly_ros.fleet import choosing

    add_out(parser, 'folder for the clips', 'CLIPS')
    parser.add_argument(
        '--before', metavar='S', type=float, default=2.0, help='seconds before it is seen first'
    )
    parser.add_argument(
        '--after', metavar='S', type=float, default=2.0, help='seconds after it is seen last'
    )
    choosing.add_arguments(parser, 'most clips')


def main(arguments: argparse.Namespace) -> int:
    """Run the command; returns 0, 1 where some clip could not be cut."""
    from road_anomaly_ros.fleet.choosing import choose, fold
    from road_anomaly_ros.fleet.index import Index

    out: Path = arguments.out
    if out.is_dir() and any(out.iterdir()):
        raise ValueError(f'{out}: expected an empty folder for the clips, got one with files')
    shown = fold(choose(Index(arguments.index).events(), arguments), arguments.top)
    out.mkdir(parents=True, exist_ok=True)
    lost = 0
    with (out / 'clips.csv').open('w', newline='', encoding='utf-8') as file:
        table = csv.DictWriter(file, COLUMNS, extrasaction='ignore')
        table.writeheader()
        for number, item in enumerate(shown, start=1):
            begin = round(max(0.0, item.row['first'] - arguments.before), 6)
            end = round(item.row['last'] + arguments.after, 6)
            try:
                name = _cut(item, out, f'{number:04d}', begin, end)
            except (ValueError, OSError) as error:
                lost += 1
                print(f'no clip {number}: {one_line(error)}', file=sys.stderr)
                continue
            table.writerow({**item.row, 'clip': name, 'begin': begin, 'end': end})
    print(f'{len(shown) - lost} clips in {out}')
    return EXIT_INCOMPLETE if lost else 0


def _cut(item: Shown, out: Path, number: str, begin: float, end: float) -> str:
    """Write one clip; returns its name. Raises ValueError for a file that is gone."""
    from road_anomaly_ros.tools.pictures import is_picture

    path = Path(item.row['file'])
    if '://' in item.row['file']:
        raise ValueError(f'{item.row["file"]} is remote; fetch it first and mine it here')
    if not path.exists() and not item.row['file'].startswith('rendered:'):
        raise ValueError(f'{path} is there no longer')
    if item.row['topic']:
        return _cut_bag(path, out / f'{number}_{path.stem}', item.row, begin, end)
    if path.is_dir() or (path.exists() and is_picture(path)):
        return _copy_pictures(item.row, out / f'{number}_{path.stem}', begin, end)
    return _cut_video(item.row, out / f'{number}_{path.stem}.mp4', begin, end)


def _cut_bag(path: Path, target: Path, row: dict[str, Any], begin: float, end: float) -> str:
    """Copy all topics, byte by byte, as a camera of the bag dates them.

    Those whose type neither the bag nor this package defines are left out and told.
    """
    from road_anomaly_ros.tools.bag_files import ROS1
    from road_anomaly_ros.tools.bags import BagReader, BagWriter

    if path.suffix == ROS1:
        raise ValueError(f'{path} is of ROS 1; make a rosbag2 of it with rosbags-convert first')
    with contextlib.closing(BagReader(path)) as reader:
        times = [record.stamp_ns for record in itertools.islice(reader.records([row['topic']]), 1)]
        if not times:
            raise ValueError(f'{path} has no message on {row["topic"]} any more')
        first, last = times[0] + round(begin * 1e9), times[0] + round(end * 1e9)
        latched, unknown = reader.latched(), set()
        with contextlib.closing(BagWriter(target)) as writer:
            for topic, kind in sorted(reader.counts):
                types = reader.types(kind)
                if kind in types.fielddefs:
                    writer.add_topic(topic, kind, types=types, latched=topic in latched)
                else:
                    unknown.add(topic)
            for record in reader.records():
                if record.topic in unknown:
                    continue
                # What was latched before the clip holds in it.
                if first <= record.stamp_ns <= last or (
                    record.topic in latched and record.stamp_ns < first
                ):
                    stamp = max(first, record.stamp_ns)
                    writer.write_raw(record.topic, record.kind, record.data, stamp)
    if unknown:
        print(f'{target.name} lacks {some(sorted(unknown))}: of unknown types', file=sys.stderr)
    return target.name


def _frames(row: dict[str, Any], begin: float, end: float) -> Iterator[Any]:
    from road_anomaly_ros.tools.sources import open_source
    from road_anomaly_ros.tools.sources.images import ImageSource

    folder = Path(row['file'])
    with ImageSource(folder) if folder.is_dir() else open_source(row['file']) as source:
        until = itertools.takewhile(lambda frame: frame.stamp <= end, source)
        yield from (frame for frame in until if frame.stamp >= begin)


def _copy_pictures(row: dict[str, Any], target: Path, begin: float, end: float) -> str:
    path = Path(row['file'])
    names = [frame.name for frame in _frames(row, begin, end)]
    if not names:
        raise ValueError(f'{path} has no picture there any more')
    target.mkdir()
    for name in names:
        shutil.copy2(path / name if path.is_dir() else path, target)
    return target.name


def _cut_video(row: dict[str, Any], target: Path, begin: float, end: float) -> str:
    """Encode the frames anew, at the rate of the video."""
    from road_anomaly_ros.tools.overlay_video import VideoSink
    from road_anomaly_ros.tools.sources import open_source

    with open_source(row['file']) as source:
        clip = VideoSink(target, source.fps)
    for frame in _frames(row, begin, end):
        clip.append(frame.image, frame.stamp_ns)
    clip.finish()
    if not target.exists():
        raise ValueError(f'{row["file"]} has no frame there any more')
    return target.name
