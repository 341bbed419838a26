# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Files that are there complete or not at all, JSON without NaN, and hashes of contents."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

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
            partial.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(partial, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


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


def sha256(*parts: str | bytes | memoryview | Path) -> str:
    """Return the SHA-256, in hexadecimal, of texts, contents of files and buffers in a row."""
    state = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            with part.open('rb') as file:
                while block := file.read(_BLOCK):
                    state.update(block)
        else:
            state.update(part.encode() if isinstance(part, str) else part)
    return state.hexdigest()
