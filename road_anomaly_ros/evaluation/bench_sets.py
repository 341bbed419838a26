# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What `road-anomaly benchmark` measures on: drawn images, real frames, classes of other roads.

Only folders that training does not read count: validation splits, `real_anomalies`, and the
drives of `training.held_out`. What DATA does not hold is left out and told.
"""

from __future__ import annotations

import os
from pathlib import Path

from road_anomaly_ros.evaluation.layouts import layout_named
from road_anomaly_ros.evaluation.running import Job, progress
from road_anomaly_ros.training.generator.options import GeneratorOptions
from road_anomaly_ros.training.generator.writer import Sources, synthesize
from road_anomaly_ros.training.held_out import held_out

SEED = 1
REAL, WEB, CLASSES = 'real', 'web', 'classes'  # folders of OUT
CAMVID, IDD = 'CamVid val', 'IDD-Lite (roads of the training)'
_TITLES = {'road_anomaly': 'RoadAnomaly', 'fishyscapes_static': 'Fishyscapes Static'}


def draw(backgrounds: Path | str, objects: Path, out: Path, count: int) -> Path:
    """Draw the images that are missing, as `road-anomaly synthesize --seed 1` does."""
    with progress('drawn', count) as advance:
        synthesize(
            Sources(backgrounds, objects),
            GeneratorOptions(seed=SEED),
            count,
            out,
            processes=os.cpu_count() or 1,
            advance=advance,
        )
    return out


def real(data: Path, out: Path, frames: int) -> list[Job]:
    """Return the data sets of DATA/real_anomalies, whose folders are named like their layouts."""
    base = data / 'real_anomalies'
    found = []
    for folder in sorted(base.iterdir()) if _there(base) else ():
        layout = layout_named(folder.name)
        if layout is not None and folder.is_dir():
            found.append(
                Job(
                    folder, layout, out / REAL, _TITLES.get(layout, folder.name), max_frames=frames
                )
            )
    return found


def web(data: Path, out: Path, frames: int) -> list[Job]:
    """Draw DATA/objects_web/val on roads of two continents and return the two data sets."""
    if not _there(data / 'objects_web' / 'val'):
        return []
    places = [
        (CAMVID, 'camvid', data / 'camvid' / 'val', ''),
        (IDD, 'idd_lite', idd_lite(data, out), 'idd_lite:'),
    ]
    jobs = []
    for name, short, scenes, prefix in places:
        if scenes is not None:
            folder = draw(
                f'{prefix}{scenes}',
                data / 'objects_web' / 'val',
                out / f'{WEB}_{short}',
                min(frames, _count(scenes)),
            )
            jobs.append(Job(folder, 'synthetic', out / WEB, f'on {name}', max_frames=frames))
    return jobs


def _count(folder: Path) -> int:
    return sum(1 for _ in (folder / 'images').iterdir())


def idd_lite(data: Path, out: Path) -> Path | None:
    """Return a folder of links to the frames of IDD-Lite that are kept for measuring, or None."""
    source, folder = data / 'idd_lite' / 'train', out / 'idd_lite_held_out'
    if not _there(source):
        return None
    for part in ('images', 'labels'):
        (folder / part).mkdir(parents=True, exist_ok=True)
        for path in sorted((source / part).iterdir()):
            link = folder / part / path.name
            if held_out('idd_lite', path) and not link.is_symlink():
                link.symlink_to(path.resolve())
    return folder if _count(folder) else None


def classes(data: Path, out: Path, frames: int) -> list[Job]:
    """Return the data sets on which the classes are measured, CamVid first."""
    places = [
        ('camvid', data / 'camvid' / 'val', CAMVID),
        ('idd_lite', idd_lite(data, out), IDD),
        ('trainids', data / 'cityscapes_samples', 'Cityscapes samples'),
    ]
    return [
        Job(folder, layout, out / CLASSES, name, max_frames=frames)
        for layout, folder, name in places
        if folder is not None and _there(folder)
    ]


def _there(folder: Path) -> bool:
    if folder.is_dir():
        return True
    print(f'{folder} is not there; its figures are left out')
    return False
