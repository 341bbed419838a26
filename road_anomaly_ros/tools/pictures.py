# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Which files are pictures: decided here for every command, by what is in them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

# What calls itself so is taken for a picture even where its content is damaged.
SUFFIXES = (
    '.avif',
    '.bmp',
    '.gif',
    '.heic',
    '.heif',
    '.jfif',
    '.jp2',
    '.jpe',
    '.jpeg',
    '.jpg',
    '.pbm',
    '.pgm',
    '.png',
    '.pnm',
    '.ppm',
    '.tif',
    '.tiff',
    '.webp',
)
# TIFF files whose first picture is a thumbnail.
RAW_SUFFIXES = ('.arw', '.cr2', '.dng', '.nef', '.orf', '.pef', '.rw2', '.srw')
HEIF, AVIF = 'HEIF', 'AVIF'
MAX_PIXELS = 1 << 26  # 8192 x 8192: beyond every camera of a vehicle
NO_PICTURE, FOLDER = 'no picture', 'folder'
_HEAD = 64  # bytes that tell what a file is
_BEGINNINGS = re.compile(
    rb'\xff\xd8\xff|\x89PNG\r\n|GIF8[79]a|BM.{4}\0{4}|II[*+]\0|MM\0[*+]|RIFF.{4}WEBP'
    rb'|\0\0\0\x0cjP  |\xff\x4f\xff\x51|P[1-6]\s',
    re.DOTALL,
)
_VIDEOS = re.compile(rb'.{4}ftyp|\x1aE\xdf\xa3|RIFF.{4}AVI |FLV\x01|\0\0\x01[\xba\xb3]', re.DOTALL)
_HEIF_BRANDS = frozenset((b'heic', b'heix', b'heim', b'heis', b'hevc', b'hevx', b'hevm', b'hevs'))


def container(head: bytes) -> str:
    """Return HEIF or AVIF where a file begins like one of them, else ''."""
    if head[4:8] != b'ftyp':
        return ''
    end = min(int.from_bytes(head[:4], 'big'), len(head))
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, end, 4))}
    if brands & {b'avif', b'avis'}:
        return AVIF
    return HEIF if brands & _HEIF_BRANDS or head[8:12] in (b'mif1', b'msf1') else ''


def is_picture(path: Path) -> bool:
    """Tell whether a file is a picture by its content, or claims to be by its suffix.

    Hidden files are none, and neither is a video that claims to be a picture.
    """
    if path.name.startswith('.') or not path.is_file() or path.suffix.lower() in RAW_SUFFIXES:
        return False
    head = _head(path)
    if container(head) or _BEGINNINGS.match(head):
        return True
    return path.suffix.lower() in SUFFIXES and not _VIDEOS.match(head)


def _head(path: Path) -> bytes:
    try:
        with path.open('rb') as file:
            return file.read(_HEAD)
    except OSError:
        return b''


def natural_key(text: str) -> tuple[object, ...]:
    """Return a sort key under which `frame_2` comes before `frame_10`."""
    parts = re.findall(r'\d+|\D+', text)
    numbers_first = [
        (0, int(part), '') if part.isdecimal() else (1, 0, part.lower()) for part in parts
    ]
    return tuple(numbers_first), text


def listed(folder: Path) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Return the pictures of a folder in natural order, and the rest with the reason for each.

    Hidden files and folders count as not there.
    """
    pictures, others = [], []
    for path in sorted(folder.iterdir(), key=lambda item: natural_key(item.name)):
        if is_picture(path):
            pictures.append(path)
        elif not path.name.startswith('.'):
            others.append((path, _why_not(path)))
    return pictures, others


def _why_not(path: Path) -> str:
    if path.is_dir():
        return FOLDER
    return 'camera raw' if path.suffix.lower() in RAW_SUFFIXES else NO_PICTURE


def some(names: Iterable[str], most: int = 5) -> str:
    """Return the first names of a list, and how many more there are."""
    found = list(names)
    more = f' and {len(found) - most} more' if len(found) > most else ''
    return ', '.join(found[:most]) + more
