# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A model with the graph by which other engines compute it."""

from __future__ import annotations

import shutil
from pathlib import Path

from road_anomaly_ros.files import home
from road_anomaly_ros.perception.engines.base import Size
from road_anomaly_ros.perception.model_files import (
    model_directory,
    model_kind,
    resolve_model,
    weights_digest,
    weights_file,
)
from road_anomaly_ros.perception.segmenters import erfnet
from road_anomaly_ros.tools import tracing

ERFNET = 'erfnet'
_PARTS = ('.json', '.yaml', '.safetensors', '.bin', '.md', '.sha256')  # of a model's folder


def export(
    model: str,
    out: Path | None,
    *,
    segmenter: str | None = None,
    size: Size | None = None,
    half: bool = False,
) -> tuple[Path, float]:
    """Write the graph of a model beside it, or beside a copy in `out`.

    `segmenter` is its kind where no config.json tells; `size` (H, W) and `half` are those of
    `tracing.export`. Returns the graph's path and its largest difference from torch. PipelineError
    or ValueError where there can be none.
    """
    kind, weights = _found(model, segmenter)
    folder = weights if weights.is_dir() else weights.parent
    out = folder if out is None else home(out)
    if not _is_free(out, weights):
        raise ValueError(f'{out}: expected a new or empty folder, or one with this model')
    path, difference = tracing.export(kind, weights, out, size=size, half=half)
    if out.resolve() != folder.resolve():
        _copy(weights, out)
    return path, difference


def _found(model: str, segmenter: str | None) -> tuple[str, Path]:
    """Return the kind of a model, and the folder or file that its weights are in."""
    found = resolve_model(model)
    if segmenter == ERFNET or (isinstance(found, Path) and found.is_file()):
        return ERFNET, weights_file(model, erfnet.SUFFIXES, ERFNET)
    directory = model_directory(model)
    return segmenter or model_kind(directory), directory


def _is_free(out: Path, weights: Path) -> bool:
    if out.is_dir() and any(out.iterdir()):
        same = out / weights.name if weights.is_file() else out
        return weights_digest(same) == weights_digest(weights)
    return out.is_dir() or not out.exists()


def _copy(weights: Path, out: Path) -> None:
    """Copy what a model consists of; what a training left there stays where it is."""
    if weights.is_file():
        shutil.copyfile(weights, out / weights.name)
        return
    for path in sorted(weights.iterdir()):
        if path.is_file() and path.suffix in _PARTS:
            shutil.copyfile(path, out / path.name)
    if (weights / 'heads').is_dir():
        shutil.copytree(weights / 'heads', out / 'heads', dirs_exist_ok=True)
