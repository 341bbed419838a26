# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A model with the graph by which other engines compute it."""

from __future__ import annotations

import shutil
from pathlib import Path

from road_anomaly_ros.perception.model_files import model_directory, weights_digest
from road_anomaly_ros.tools import tracing

_PARTS = ('.json', '.yaml', '.safetensors', '.bin', '.md', '.sha256')  # of a model's folder


def export(model: str, out: Path | None) -> tuple[Path, float]:
    """Write the graph of a model beside it, or beside a copy in `out`.

    Returns the graph's path and its largest difference from torch. PipelineError or ValueError
    where there can be none.
    """
    folder = model_directory(model)
    out = folder if out is None else out.expanduser()
    if not _is_free(out, folder):
        raise ValueError(f'{out}: expected a new or empty folder, or one with this model')
    path, difference = tracing.export(folder, out)
    if out.resolve() != folder.resolve():
        _copy(folder, out)
    return path, difference


def _is_free(out: Path, folder: Path) -> bool:
    if out.is_dir() and any(out.iterdir()):
        return weights_digest(out) == weights_digest(folder)
    return out.is_dir() or not out.exists()


def _copy(folder: Path, out: Path) -> None:
    """Copy what a model consists of; what a training left there stays where it is."""
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in _PARTS:
            shutil.copyfile(path, out / path.name)
    if (folder / 'heads').is_dir():
        shutil.copytree(folder / 'heads', out / 'heads', dirs_exist_ok=True)
