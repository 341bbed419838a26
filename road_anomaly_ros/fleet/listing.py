# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What an archive holds: videos, bags and folders of pictures, local or remote."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from road_anomaly_ros.files import home, sha256
from road_anomaly_ros.remarks import one_line
from road_anomaly_ros.tools.bag_files import METADATA, ROS1, is_bag
from road_anomaly_ros.tools.pictures import RAW_SUFFIXES, SUFFIXES, is_picture, natural_key
from road_anomaly_ros.tools.salvage import is_storage
from road_anomaly_ros.tools.sources.rendered import PREFIX

BAG, VIDEO, PICTURES, RENDERED = 'bag', 'video', 'pictures', 'rendered'
_VIDEOS = '3gp avi flv m2ts m4v mjpeg mkv mov mp4 mpeg mpg mts ts webm wmv y4m'
VIDEO_SUFFIXES = frozenset(f'.{name}' for name in _VIDEOS.split())
_NOTHING = 'nothing there'
_MOST_NAMES = 20  # of what was left out for one reason


@dataclass(frozen=True)
class Item:
    """One file, bag or folder of pictures of an archive."""

    uri: str  # path, or address with its protocol
    kind: str  # 'video', 'bag', 'pictures' or 'rendered'
    size: int = 0  # bytes
    files: tuple[str, ...] = ()  # names below `uri` where it is a folder

    @property
    def key(self) -> str:
        """Name of its results: 16 hex digits of address, size and files."""
        text = '\0'.join([self.uri, str(self.size), *self.files])
        return sha256(text)[:16]


@dataclass
class Listing:
    """The items in order of their addresses, and what is none of them."""

    items: list[Item] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)  # how many by reason
    left_out: dict[str, list[str]] = field(default_factory=dict)  # the first names by reason
    missing: int = 0  # of what is left out: what was asked for and is not there

    def leave_out(self, reason: str, uri: str) -> None:
        """Count and name something that cannot be mined."""
        self.refused[reason] += 1
        names = self.left_out.setdefault(reason, [])
        if len(names) < _MOST_NAMES:
            names.append(uri)


def find(sources: Iterable[str], lists: Iterable[Path] = ()) -> Listing:
    """Return what lies at paths, globs, addresses of fsspec and in text files of them.

    Folders are searched to any depth; one with pictures is one item, and so is a bag of several
    files. What cannot be found or reached is left out with the reason. Raises ValueError where
    nothing can be mined.
    """
    listing = Listing()
    names = [*sources, *(line for path in lists for line in _lines(path))]
    for name in names:
        try:
            _add(name, listing)
        except Exception as error:  # every protocol of fsspec has errors of its own
            listing.leave_out(one_line(error), name)
            listing.missing += 1
    listing.items = sorted(set(listing.items), key=lambda item: natural_key(item.uri))
    if not listing.items:
        why = '; '.join(f'{reason} ({listing.left_out[reason][0]})' for reason in listing.refused)
        raise ValueError(f'expected videos, bags or pictures, found none: {why or "no source"}')
    return listing


def is_gone(uri: str) -> bool:
    """Tell whether nothing lies at a path or an address; False where nobody can tell."""
    if '://' not in uri:
        return not Path(uri).exists()
    from fsspec.core import url_to_fs

    try:
        system, path = url_to_fs(uri)
        system.info(path)
    except FileNotFoundError:
        return True
    except Exception:  # every protocol of fsspec has errors of its own
        return False
    return False


def _lines(path: Path) -> list[str]:
    lines = home(path).read_text(encoding='utf-8', errors='surrogateescape').splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith('#')]


def _add(name: str, listing: Listing) -> None:
    if name.startswith(PREFIX):
        listing.items.append(Item(name, RENDERED))
    elif '://' in name:
        _add_remote(name, listing)
    else:
        path = str(home(name))
        found = [path] if Path(path).exists() else sorted(glob.glob(path, recursive=True))
        if not found:
            listing.leave_out(_NOTHING, name)
            listing.missing += 1
        for match in found:
            _add_local(Path(match), listing)


def _add_local(path: Path, listing: Listing) -> None:
    root = path.absolute()
    sizes = {}
    for file in [root] if root.is_file() else _files_below(root, listing):
        try:
            size = file.stat().st_size
            str(file).encode()
        except OSError as error:  # such as a link to a disk that is not there
            listing.leave_out(str(error.strerror), str(file))
            listing.missing += 1
        except UnicodeEncodeError:  # neither the index nor OpenCV can hold it
            listing.leave_out('name is no UTF-8, rename it', str(file))
            listing.missing += 1
        else:
            sizes[str(file)] = size
    _group(sizes, listing, local=True, alone=root.is_file())


def _files_below(root: Path, listing: Listing) -> Iterator[Path]:
    """Yield all files at any depth, also behind links, each folder once; hidden ones are none."""

    def refused(error: OSError) -> None:
        listing.leave_out(str(error.strerror), str(error.filename))
        listing.missing += 1

    seen = set()
    for folder, folders, names in os.walk(root, onerror=refused, followlinks=True):
        if (place := os.path.realpath(folder)) in seen:
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(name for name in folders if not name.startswith('.'))
        files = (Path(folder, name) for name in names if not name.startswith('.'))
        yield from (file for file in files if file.is_file() or not file.exists())


def _add_remote(uri: str, listing: Listing) -> None:
    from fsspec.core import url_to_fs

    system, path = url_to_fs(uri)
    if any(sign in path for sign in '*?['):
        found: dict[str, Any] = system.glob(path, detail=True)
        found = {name: info for name, info in found.items() if info['type'] == 'file'}
    else:
        found = system.find(path, detail=True)
    if not found:
        listing.leave_out(_NOTHING, uri)
        listing.missing += 1
    sizes = {system.unstrip_protocol(name): int(info['size'] or 0) for name, info in found.items()}
    alone = len(sizes) == 1 and system.isfile(path)
    _group(sizes, listing, local=False, alone=alone)


def _group(sizes: dict[str, int], listing: Listing, *, local: bool, alone: bool) -> None:
    """Make items of files with their sizes: bags and pictures by folder, the rest each alone."""
    folders: dict[str, list[str]] = {}
    for name in sizes:
        folders.setdefault(_parent(name), []).append(name)
    bags = {_parent(name) for name in sizes if PurePosixPath(name).name == METADATA}
    for folder, names in folders.items():
        if folder in bags and (not local or is_bag(Path(folder))):
            parts = [name for name in names if _is_part(name)]
            listing.items.append(_folder(folder, BAG, parts, sizes))
            names = [name for name in names if name not in parts]
        pictures = []
        for name in names:
            kind = kind_of(name, local)
            if kind == PICTURES:
                pictures.append(name)
            elif kind:
                listing.items.append(Item(name, kind, sizes[name]))
            else:
                listing.leave_out('no video, bag or picture', name)
        if alone:
            listing.items += [Item(name, PICTURES, sizes[name]) for name in pictures]
        elif pictures:
            listing.items.append(_folder(folder, PICTURES, pictures, sizes))


def _folder(folder: str, kind: str, names: Iterable[str], sizes: dict[str, int]) -> Item:
    ordered = sorted(names, key=natural_key)
    return Item(folder, kind, sum(sizes[name] for name in ordered), tuple(map(_basename, ordered)))


def _is_part(name: str) -> bool:
    """Tell whether a file of a bag's folder belongs to the bag; others may be anything."""
    return PurePosixPath(name).name == METADATA or is_storage(Path(name))


def _parent(name: str) -> str:
    return name.rpartition('/')[0]


def _basename(name: str) -> str:
    return name.rpartition('/')[2]


def kind_of(name: str, local: bool) -> str:
    """Return the kind of a file, '' for none; content tells what is a picture."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix == ROS1 or is_storage(Path(name)):
        return BAG
    if suffix in VIDEO_SUFFIXES:
        return VIDEO
    if suffix in RAW_SUFFIXES:
        return ''
    return PICTURES if (is_picture(Path(name)) if local else suffix in SUFFIXES) else ''
