# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One HTML page of results that needs nothing beside it, also without network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from road_anomaly_ros import __version__, files
from road_anomaly_ros.evaluation import causes, sections, videos
from road_anomaly_ros.evaluation.frames import Shown, pictures
from road_anomaly_ros.evaluation.material import Group, Material, Row
from road_anomaly_ros.evaluation.page import Section, render

NAME = 'report.html'


def write(
    material: Material, out: Path, *, title: str, frames: int = 4, data: Path | None = None
) -> Path:
    """Write the page, complete or not at all, and return its path."""
    path = out if out.suffix.lower() in ('.html', '.htm') else out / NAME
    files.write(path, page(material, title, _shown(material, frames, data)))
    return path


def _shown(
    material: Material, count: int, data: Path | None
) -> list[tuple[Group, Row, Sequence[Shown], str]]:
    """Return the frames of the best method of every data set with anomalies."""
    found = []
    for group in material.groups:
        row = next((row for row in group.rows if row.figure('AP') is not None), None)
        if row is not None and count:
            found.append((group, row, *pictures(group, row, count, data)))
    return found


def page(
    material: Material, title: str, shown: Sequence[tuple[Group, Row, Sequence[Shown], str]] = ()
) -> str:
    """Return the page; parts that have nothing to show are left out."""
    parts = [
        Section('summary', 'Summary', sections.summary(material)),
        Section('results', 'Results', sections.tables(material) if material.groups else ''),
        Section('videos', 'Videos', videos.section(material.videos)),
        Section('papers', 'Beside the papers', sections.published(material)),
        Section('curves', 'Curves', sections.curves(material)),
        Section('sweeps', 'Sweeps', sections.sweeps(material)),
        Section('frames', 'Best and worst frames', causes.pictures(shown)),
        Section('failures', 'What is missed', causes.failures(material)),
        Section('time', 'Time per stage', causes.times(material)),
        Section('calibration', 'Calibration', causes.calibration(material)),
        Section('environment', 'Environment', causes.environment(material)),
    ]
    kept = [part for part in parts if part.body]
    data = ', '.join(dict.fromkeys(group.name for group in material.groups))
    return render(title, f'road_anomaly_ros {__version__}{"; " if data else ""}{data}', kept)
