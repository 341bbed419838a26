# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Scores of single images on disk: what is complete survives any end of the run, and is reused."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from road_anomaly_ros import files

SCORES = 'scores'
_WEIGHTS = ('.safetensors', '.bin', '.pt', '.pth', '.pkl', '.ckpt', '.tar', '.onnx')
_SETTINGS = ('config.json', 'preprocessor_config.json', 'head.json')
_BYTES_PER_PIXEL = 5  # float32 score and uint8 class


def digest(value: Any) -> str:
    """Return a short hash of plain values; equal values give equal hashes."""
    return files.sha256(json.dumps(value, sort_keys=True, default=str))[:16]


def file_hashes(folder: Path | None) -> dict[str, str]:
    """Return the SHA-256 of every file of a model's folder that its results depend on.

    Those are weights, graphs and settings; empty without a folder.
    """
    if folder is None or not folder.is_dir():
        return {}
    return {
        path.name: files.sha256(path)
        for path in sorted(folder.iterdir())
        if (path.suffix in _WEIGHTS or path.name in _SETTINGS) and path.is_file()
    }


class Scores:
    """One .npz per image and method below OUT/scores/; a file is there only when complete.

    The folder of a method carries a hash of all that its scores depend on, so that other settings
    never meet old scores.
    """

    def __init__(self, out: Path) -> None:
        self.out, self.folder = out, out / SCORES

    def path(self, key: str, index: int) -> Path:
        """Return where the scores of one image stand."""
        return self.folder / key / f'{index:06d}.npz'

    def has(self, key: str, index: int) -> bool:
        """Tell whether an image is done."""
        return self.path(key, index).is_file()

    def write(self, key: str, index: int, arrays: Mapping[str, Any]) -> None:
        """Store one image, complete or not at all; OSError names the file, as on a full disk."""
        files.write(self.path(key, index), lambda file: np.savez(file, **arrays))

    def read(self, key: str, index: int, name: str) -> np.ndarray:
        """Return one array of what was stored of an image."""
        with np.load(self.path(key, index)) as arrays:
            return arrays[name]


class Store(Scores):
    """The scores of a run, which has its folder alone; ValueError when another writes there."""

    def __init__(self, out: Path) -> None:
        if out.exists() and not out.is_dir():
            raise ValueError(f'{out}: expected a folder for the results, this is a file')
        out.mkdir(parents=True, exist_ok=True)
        super().__init__(out)
        self._lock = files.lock(out)

    def refuse_full_disk(self, pixels: int, methods: int) -> None:
        """Raise ValueError when the scores will not fit on the disk of `out`."""
        needed, free = pixels * methods * _BYTES_PER_PIXEL, shutil.disk_usage(self.out).free
        if needed > free:
            raise ValueError(
                f'{self.out}: scores need {needed / 2**30:.1f} GiB while they are '
                f'measured, {free / 2**30:.1f} GiB are free; choose another folder '
                'or fewer methods at a time'
            )

    def clear(self, key: str) -> None:
        """Remove the scores of one method."""
        shutil.rmtree(self.folder / key, ignore_errors=True)
        with contextlib.suppress(OSError):  # others are still in it
            self.folder.rmdir()

    def close(self) -> None:
        """Let others write to the folder."""
        os.close(self._lock)
