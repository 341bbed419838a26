# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What one pipeline holds of its device: loaded networks, kernels that failed; released at once.

Programs that Triton and numba compiled are theirs: they keep one copy per process and on disk,
Triton never unloads one, and none holds anything of an image.
"""

from __future__ import annotations

import errno
import gc
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch

from road_anomaly_ros.perception.contract import ForeignMaps, PipelineError, Segmenter
from road_anomaly_ros.remarks import one_line

T = TypeVar('T')
Stamp = tuple[Path, int, int, int, int, int]  # of a file: place, device, number, size, times

_log = logging.getLogger(__name__)
# How the libraries below say it, none of them by a type of its own.
_NO_MEMORY = (
    'out of memory',
    'alloc_failed',
    "can't allocate memory",
    'not enough memory',
    'insufficient memory',
    'failed to allocate',
)
_LIBRARIES = ('cv2', 'onnxruntime', 'triton')


class Resources:
    """One per pipeline: what was made for it, and what its device refused to run.

    Thread-safe. Nothing outlives `release`, after which it may be used anew.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._lock = threading.RLock()
        self._kept: dict[str, OrderedDict[Hashable, Any]] = {}
        self._faults: dict[str, str] = {}

    @property
    def faults(self) -> Mapping[str, str]:
        """Why kernels, or graphs of networks, are not used any more, by their names."""
        return dict(self._faults)

    def get(
        self,
        kind: str,
        key: Hashable,
        make: Callable[[], T],
        *,
        most: int = 1,
        close: Callable[[T], None] | None = None,
    ) -> T:
        """Return what `make` gave for `key`; of each `kind` the `most` last used are kept.

        `close` is called with what is let go of.
        """
        with self._lock:
            kept = self._kept.setdefault(kind, OrderedDict())
            if key not in kept:
                kept[key] = make(), close
                while len(kept) > most:
                    _close(*kept.popitem(last=False)[1])
            kept.move_to_end(key)
            found: T = kept[key][0]
            return found

    def drop(self, kind: str) -> None:
        """Let go of all that is kept of a kind."""
        with self._lock:
            for pair in self._kept.pop(kind, {}).values():
                _close(*pair)

    def fail(self, kernel: str, error: BaseException) -> None:
        """Note that a kernel cannot run here; only the words of the error are kept."""
        self._faults[kernel] = one_line(error)[:200]
        _log.warning(
            '%s does not run on this device, torch does its work: %s', kernel, self._faults[kernel]
        )

    def refuses(self, kernel: str) -> bool:
        """Tell whether a kernel has failed."""
        return kernel in self._faults

    def release(self) -> None:
        """Let go of all that was loaded, of the faults, and of the device's unused memory."""
        with self._lock:
            for kind in list(self._kept):
                self.drop(kind)
            self._faults.clear()
        relieve(self.device)


def _close(kept: Any, close: Callable[[Any], None] | None) -> None:
    if close is not None:
        close(kept)


class Released:
    """In the place of a network that was let go of: knows its classes, computes nothing."""

    def __init__(self, segmenter: Segmenter | ForeignMaps) -> None:
        self.kind: Any = segmenter.kind
        self.labels, self.feature_maps = segmenter.labels, segmenter.feature_maps
        self.model_dir, self.weights = segmenter.model_dir, segmenter.weights

    def __call__(self, *_: object, **__: object) -> NoReturn:
        """Raise PipelineError."""
        raise PipelineError('this pipeline was released; build another one')


def relieve(device: torch.device) -> None:
    """Give unused memory of a CUDA device back to it; does nothing for others.

    Call it where no failed batch is referenced any more, so outside of `except`.
    """
    if device.type == 'cuda':
        gc.collect()
        torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that the memory of a device, or of the host, is exhausted."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    library = type(error).__module__.partition('.')[0] in _LIBRARIES
    text = str(error).lower()
    return (library or isinstance(error, RuntimeError)) and any(
        words in text for words in _NO_MEMORY
    )


def untraced(error: Exception) -> Exception:
    """Return an error, and those behind it, without tracebacks: their frames hold the images."""
    left: list[BaseException | None] = [error]
    seen: set[int] = set()
    while left:
        part = left.pop()
        if part is not None and id(part) not in seen:
            seen.add(id(part))
            part.__traceback__ = None
            left += [part.__cause__, part.__context__]
    return error


def stamp(files: Iterable[Path]) -> tuple[Stamp, ...]:
    """Return what changes when one of some files is written or replaced; OSError where absent."""
    found = []
    for path in files:
        known = path.stat()
        found.append(
            (
                path.resolve(),
                known.st_dev,
                known.st_ino,
                known.st_size,
                known.st_mtime_ns,
                known.st_ctime_ns,
            )
        )
    return tuple(found)
