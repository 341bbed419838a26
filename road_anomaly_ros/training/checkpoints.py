# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The state of a training run on disk: whose folder it is, and what was saved."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from road_anomaly_ros import files
from road_anomaly_ros.training import parallel

NAME = 'checkpoint.pt'


def check_folder(out: Path, resume: bool, made: Collection[str]) -> None:
    """Raise ValueError where a run would replace another one, or files `made` elsewhere."""
    if (out / NAME).is_file():
        if not resume:
            raise ValueError(
                f'{out} holds a run already; continue it with --resume or choose another folder'
            )
        return
    for name in made:
        if (out / name).exists():
            raise ValueError(
                f'{out / name} is of no run that can be continued and would be replaced; choose '
                'another folder'
            )


def alone(out: Path) -> contextlib.AbstractContextManager[None]:
    """Make a folder and keep other runs away; the members of one that torchrun starts share it."""
    if not parallel.by_torchrun():
        return files.alone(out)
    out.mkdir(parents=True, exist_ok=True)
    return contextlib.nullcontext()


def read(path: Path, device: torch.device, parts: Collection[str]) -> dict[str, Any]:
    """Return what was saved; ValueError, one line, where the file is damaged or another's."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception:  # torch, zip and pickle raise all kinds on damaged files
        state = None
    if not isinstance(state, dict) or not set(parts) <= state.keys():
        raise ValueError(
            f'{path}: expected the checkpoint of a run of this command, it is damaged or of '
            'something else; begin anew in another folder'
        )
    return state
