# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The linters of a ROS distribution, where they are installed; ruff checks the same everywhere."""

from __future__ import annotations

import subprocess

import pytest
from conftest import ROOT

FOLDERS = [str(ROOT / name) for name in ('road_anomaly_ros', 'launch', 'test', 'setup.py')]


def lint(name: str):
    """Return the linter's main module, or skip when it or what it needs is missing."""
    pytest.importorskip(f'{name}', reason='comes with a ROS distribution')
    return pytest.importorskip(
        f'{name}.main', reason=f'{name} lacks its own dependencies', exc_type=ImportError
    )


def test_flake8():
    code, errors = lint('ament_flake8').main_with_errors(argv=FOLDERS)
    assert code == 0, '\n'.join(errors)


def test_pep257(capsys):
    # Which line the summary stands on and its mood are left open, as in pyproject.toml.
    code = lint('ament_pep257').main(argv=['--add-ignore', 'D213', 'D401', '--', *FOLDERS])
    assert code == 0, capsys.readouterr().err


def test_xmllint():
    pytest.importorskip('ament_xmllint', reason='comes with a ROS distribution')
    done = subprocess.run(
        ['ament_xmllint', str(ROOT / 'package.xml')], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
