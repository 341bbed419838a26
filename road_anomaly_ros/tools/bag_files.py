# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Which files make a bag, and what its metadata say must be there."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping
from pathlib import Path, PurePath
from typing import Any

import yaml

from road_anomaly_ros.tools.pictures import natural_key
from road_anomaly_ros.tools.salvage import PACKED, is_storage

METADATA = 'metadata.yaml'
ROOT = 'rosbag2_bagfile_information'  # of the tree in METADATA
ROS1 = '.bag'  # the suffix of bags of ROS 1


def is_bag(path: Path) -> bool:
    """Tell by its name, or by what lies in the folder, whether this is a bag."""
    if path.is_dir():
        return bool(storage_files(path)) or _tells_of_a_bag(path / METADATA)
    return is_storage(path) or path.suffix == ROS1


def _tells_of_a_bag(metadata: Path) -> bool:
    try:
        return ROOT.encode() in metadata.read_bytes()
    except OSError:
        return False


def storage_files(folder: Path) -> list[Path]:
    """Return the files with messages; one that was being packed counts once, as it was."""
    names = {file.name for file in folder.iterdir() if is_storage(file)}
    once = (
        name
        for name in names
        if name.removesuffix(PACKED) == name or name[: -len(PACKED)] not in names
    )
    return [folder / name for name in sorted(once, key=natural_key)]


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
            tree = yaml.safe_load(file.read_text(encoding='utf-8'))[ROOT]
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
    return storage_files(folder) if folder.is_dir() else []


def _gaps(names: Collection[str]) -> list[str]:
    """Return the names that lack in a series such as drive_0.mcap, drive_2.mcap."""
    series: dict[tuple[str, str], set[int]] = {}
    for name in names:
        if found := re.fullmatch(r'(.*_)(\d+)(\.\w+)', name.removesuffix(PACKED)):
            series.setdefault((found[1], found[3]), set()).add(int(found[2]))
    return [
        f'{head}{number}{tail}'
        for (head, tail), numbers in series.items()
        for number in range(max(numbers))
        if number not in numbers and len(numbers) > 1
    ]
