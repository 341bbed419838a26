# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What every test may use: shared data, golden vectors, tiny images, seeds. Imports no ROS."""

from __future__ import annotations

import functools
import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest

from road_anomaly_ros.ros import transport

ROOT = Path(__file__).resolve().parent.parent

# Tests import helpers from here by name, under any of pytest's import modes.
sys.path.insert(0, str(ROOT / 'test'))


def shared_dir() -> Path | None:
    """Return the folder of real data and golden vectors beside the repository, or None."""
    folder = ROOT.parent / 'shared'
    return folder if folder.is_dir() else None


def split_cases(arrays) -> dict[str, dict[str, np.ndarray]]:
    """Turn {'case__array': value} into {'case': {'array': value}}; case '' without '__'."""
    cases: dict[str, dict[str, np.ndarray]] = {}
    for key in arrays:
        case, separator, name = key.partition('__')
        if not separator:
            case, name = '', key
        cases.setdefault(case, {})[name] = arrays[key]
    return cases


@functools.cache
def load_golden(name: str) -> dict[str, dict[str, np.ndarray]]:
    """Return the cases of one golden file, or skip the calling test when it is not there."""
    folder = shared_dir()
    if folder is None or not (folder / 'golden' / f'{name}.npz').is_file():
        pytest.skip(f'../shared/golden/{name}.npz is not beside this repository')
    with np.load(folder / 'golden' / f'{name}.npz') as arrays:
        return split_cases(arrays)


@pytest.fixture(scope='session')
def golden():
    """Loader: `golden('semantic_map')['a']['class_logits']`."""
    return load_golden


@pytest.fixture(scope='session')
def shared() -> Path:
    """The folder `../shared`; tests that need it are skipped elsewhere."""
    folder = shared_dir()
    if folder is None:
        pytest.skip('../shared is not beside this repository')
    return folder


@pytest.fixture(autouse=True)
def _seeds():
    random.seed(0)
    np.random.seed(0)
    if 'torch' in sys.modules:
        sys.modules['torch'].manual_seed(0)


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator that starts the same in every test."""
    return np.random.default_rng(0)


@pytest.fixture
def image(rng) -> np.ndarray:
    """A picture of 48 rows and 64 columns, uint8 RGB: sky, grey road, a red box on it."""
    picture = np.empty((48, 64, 3), np.uint8)
    picture[:20] = (120, 170, 220)
    picture[20:] = (90, 90, 95)
    picture[30:38, 24:36] = (200, 30, 20)
    noise = rng.integers(-6, 7, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def pytest_configure(config):
    """Keep the tests to themselves: no hub, no robot of others, one thread per worker."""
    os.environ['HF_HUB_OFFLINE'] = '1'
    os.environ['ROS_DOMAIN_ID'] = str(random.SystemRandom().randint(1, 101))
    for name in transport._REACH:
        os.environ.pop(name, None)
    transport.stay_local()
    if 'PYTEST_XDIST_WORKER' in os.environ:
        os.environ['OMP_NUM_THREADS'] = '1'
    if not config.pluginmanager.hasplugin('xdist'):
        config.addinivalue_line('markers', 'xdist_group(name): tests that share one worker')


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Give each file one worker (its models are loaded once) and all ROS tests the same one."""
    for item in items:
        path = item.path.relative_to(ROOT / 'test')
        ros = path.parts[0] in ('ros', 'launch') or item.get_closest_marker('ros') is not None
        if item.get_closest_marker('xdist_group') is None:
            item.add_marker(pytest.mark.xdist_group('ros' if ros else str(path)))
