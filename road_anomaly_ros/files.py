# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Files that are complete or not there, one writer at a time, JSON without NaN, hashes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from road_anomaly_ros.remarks import one_line

_BLOCK = 1 << 20


def write(path: Path, content: bytes | str | Callable[[BinaryIO], object]) -> None:
    """Write a file that appears under its name only when complete; `content` may write itself.

    Folders are made. What stood there stays where writing fails; OSError carries the file's name.
    """
    partial = path.with_name(f'.{path.name}.partial')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if callable(content):
            with partial.open('wb') as file:
                content(file)
        else:
            partial.write_bytes(encoded(content) if isinstance(content, str) else content)
        os.replace(partial, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def home(path: str | Path) -> Path:
    """Return a path with its '~' expanded; where nobody is called so, it is the name of a file."""
    return Path(os.path.expanduser(path))


def encoded(text: str) -> bytes:
    """Return a text in UTF-8; names of files that are none keep the bytes that they have."""
    return text.encode('utf-8', 'surrogateescape')


def lock(path: Path) -> int:
    """Return a descriptor that keeps other runs away from a folder or file until it is closed.

    ValueError while another run has it.
    """
    held = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):  # else the file system knows no locks
            os.close(held)
            raise ValueError(
                f'{path}: another run is writing there; choose another place or wait for it'
            ) from None
    return held


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Make a folder and keep other runs away from it while entered; ValueError as of `lock`."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f'{folder}: expected a folder, this is a file')
    folder.mkdir(parents=True, exist_ok=True)
    held = lock(folder)
    try:
        yield
    finally:
        os.close(held)


def write_json(path: Path, document: Any) -> None:
    """Write nested values as `plain` makes them, complete or not at all."""
    write(path, json.dumps(plain(document), indent=1, allow_nan=False) + '\n')


def plain(value: Any) -> Any:
    """Return nested values as JSON knows them: NaN and infinities become null, tuples lists."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not abs(value) < float('inf'):
        return None
    return value


def read_yaml(path: Path) -> Any:
    """Return what a YAML file holds; OSError, or ValueError in one line for what is no YAML.

    A name that is given twice in one place is refused: YAML would take the last without a word.
    """
    import yaml

    try:
        text = path.read_text(encoding='utf-8')
        doubled = _doubled(yaml.compose(text, Loader=yaml.SafeLoader))
        tree = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError of dates, numbers and no text
        raise ValueError(f'{path} is no YAML: {one_line(error)}') from None
    if doubled:
        raise ValueError(f'{path}: {doubled} is there twice; give one of them')
    return tree


def _doubled(root: Any) -> str:
    """Return a key that a mapping below a node of YAML holds twice, '' where there is none."""
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen or not isinstance(getattr(node, 'value', None), list):
            continue
        seen.add(id(node))
        pairs = [item for item in node.value if isinstance(item, tuple)]
        names = [key.value for key, _ in pairs if isinstance(key.value, str)]
        for name in names:
            if names.count(name) > 1 and name != '<<':
                return str(name)
        waiting += [part for item in node.value for part in (item if pairs else [item])]
    return ''


def sha256(*parts: str | bytes | memoryview | Path) -> str:
    """Return the SHA-256, in hexadecimal, of texts, contents of files and buffers in a row."""
    state = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            with part.open('rb') as file:
                while block := file.read(_BLOCK):
                    state.update(block)
        else:
            state.update(encoded(part) if isinstance(part, str) else part)
    return state.hexdigest()
