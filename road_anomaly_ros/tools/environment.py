# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a figure was measured on, and how figures are condensed."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from road_anomaly_ros import __version__

_LIBRARIES = ('torch', 'torchvision', 'transformers', 'numpy', 'opencv-python-headless', 'rosbags')


def versions() -> dict[str, str]:
    """Return the versions of this package, Python and the libraries that figures depend on."""
    found = {'road_anomaly_ros': __version__, 'python': platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine(device: Any = None) -> dict[str, Any]:
    """Return processor, usable cores, torch threads and, on CUDA, the name of the GPU."""
    import torch

    found: dict[str, Any] = {
        'cpu': _cpu_name(),
        'cores': len(os.sched_getaffinity(0)),
        'threads': torch.get_num_threads(),
        'system': platform.platform(),
    }
    if device is not None and device.type == 'cuda':
        found['gpu'] = torch.cuda.get_device_name(device)
    return found


def record(device: Any = None) -> dict[str, Any]:
    """Return machine, versions and load, as they stand beside every figure."""
    return {**machine(device), **versions(), 'load_at_start': round(os.getloadavg()[0], 2)}


def heading(made_on: Mapping[str, Any]) -> str:
    """Return what the figures were measured on, in one line."""
    where = made_on.get('gpu') or made_on['cpu']
    return (
        f'{where}, {made_on["cores"]} cores, {made_on["threads"]} threads, '
        f'torch {made_on["torch"]}, load {made_on["load_at_start"]:g}'
    )


def _cpu_name() -> str:
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    except OSError:
        lines = []
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.processor() or platform.machine()


def peak_memory_mb() -> float:
    """Return the highest resident memory of this process so far, in MiB."""
    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def percentiles(times: Sequence[float]) -> dict[str, float]:
    """Return the median and the 99th percentile, rounded to a microsecond if in milliseconds."""
    if not len(times):
        return {}
    p50, p99 = np.percentile(times, [50, 99])
    return {'p50': round(float(p50), 3), 'p99': round(float(p99), 3)}


def by_stage(rows: Iterable[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Return percentiles per stage from one mapping of milliseconds per frame."""
    columns: dict[str, list[float]] = {}
    for row in rows:
        for stage, spent in row.items():
            columns.setdefault(stage, []).append(spent)
    return {stage: percentiles(times) for stage, times in columns.items()}
