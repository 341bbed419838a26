# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Output folders in which everything appears at once, complete, and nobody's files are lost."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from road_anomaly_ros import files

SUMMARY = 'summary.json'
TOOL = 'road-anomaly'
_PARTIAL = '.partial'


class Staging:
    """Files are made in a hidden folder inside `out` and moved to their final names at the end.

    `out` may be new, empty, or hold the results of an earlier run, which its summary.json lists:
    those are replaced, other files are left alone. A file of ours that no summary lists, a path
    that is no folder, or a folder that another run is writing to is refused with ValueError.
    """

    def __init__(self, out: Path, planned: Iterable[str]) -> None:
        if out.exists() and not out.is_dir():
            raise ValueError(f'{out}: expected a folder for the results, this is a file')
        self.out, self.folder = out, out / _PARTIAL
        self._created = not out.exists()
        out.mkdir(parents=True, exist_ok=True)
        self._lock: int | None = files.lock(out)
        try:
            self._earlier = _outputs(out)
            self._refuse_foreign([*planned, SUMMARY])
            self._clear()
            self.folder.mkdir()
        except BaseException:
            self._release()
            raise

    def _clear(self) -> None:
        """Remove what a killed run left: the lock says that nobody works on it any more."""
        if self.folder.exists():
            print(
                f'warning: {self.folder} of a run that was killed is removed; nothing in it was '
                'complete',
                file=sys.stderr,
            )
            shutil.rmtree(self.folder, ignore_errors=True)

    def _refuse_foreign(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self._earlier and os.path.lexists(self.out / name):
                raise ValueError(
                    f'{self.out / name} is not from an earlier run and would be '
                    f'replaced; choose another folder or move it away'
                )

    def path(self, name: str) -> Path:
        """Return where the output `name` is to be made."""
        return self.folder / name

    def publish(self, names: Iterable[str], summary: Mapping[str, Any]) -> None:
        """Write the summary, then move all to its place; what an earlier run left is removed."""
        made = [*names, SUMMARY]
        document = {'tool': TOOL, 'outputs': made, **summary}
        files.write_json(self.path(SUMMARY), document)
        old = self.folder / 'earlier'
        old.mkdir()
        for name in self._earlier:
            if os.path.lexists(self.out / name):
                os.replace(self.out / name, old / name)
        for name in made:
            os.replace(self.path(name), self.out / name)
        self._release()

    def discard(self) -> None:
        """Remove what was made so far, and `out` itself if this run created it; safe to repeat."""
        self._release()
        if self._created and self.out.is_dir() and not any(self.out.iterdir()):
            self.out.rmdir()

    def _release(self) -> None:
        if self._lock is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            os.close(self._lock)
            self._lock = None


def _outputs(out: Path) -> list[str]:
    """Return the names that an earlier run lists in its summary; empty where there is none."""
    try:
        summary = json.loads((out / SUMMARY).read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return []
    if not isinstance(summary, dict) or summary.get('tool') != TOOL:
        return []
    names = summary.get('outputs', [])
    return [
        name
        for name in names
        if isinstance(name, str) and name and '/' not in name and not name.startswith('.')
    ]
