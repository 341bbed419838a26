# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The road frames of a training: public data sets in their own layouts, and rendered scenes."""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from road_anomaly_ros.files import home
from road_anomaly_ros.tools.encodings import read_picture, read_stored
from road_anomaly_ros.tools.pictures import some
from road_anomaly_ros.training import label_sets
from road_anomaly_ros.training.generator.rendered import render
from road_anomaly_ros.training.held_out import held_out

IGNORE = label_sets.IGNORE
USE, SKIP, ONLY = HELD_OUT = ('use', 'skip', 'only')  # the frames of training.held_out
IMAGES = ('.jpg', '.jpeg', '.png', '.webp')
_REFERENCE = 448.0  # width in pixels at which a scale of 1 shows a whole frame


@dataclasses.dataclass(frozen=True)
class Frame:
    """One frame: `image` uint8 RGB [H,W,3], `codes` uint8 [H,W] as in label_sets.

    `unknown` bool [H,W] marks things that are of no class and known to be (rendered obstacles).
    """

    image: np.ndarray
    codes: np.ndarray
    unknown: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Source:
    """Frames of one kind, the share of the crops taken from them, and how they are scaled.

    `zoom` (low, high) is in units of crop widths to frame widths: at 1 a crop of 448 pixels shows
    the whole width.
    """

    name: str
    frames: Sequence[Frame]
    weight: float
    zoom: tuple[float, float]

    def scale(self, rng: np.random.Generator, frame: Frame) -> float:
        """Draw the factor from frame pixels to crop pixels."""
        low, high = self.zoom
        return low * (high / low) ** rng.random() * _REFERENCE / frame.codes.shape[1]


class LazyFrames(Sequence):
    """Frames read when asked for; those of small data sets stay in memory."""

    def __init__(self, readers: Sequence[Callable[[], Frame]], *, kept: int = 4000) -> None:
        self._readers = readers
        self._read = functools.lru_cache(maxsize=kept)(lambda index: readers[index]())

    def __len__(self) -> int:
        return len(self._readers)

    def __getitem__(self, index: int) -> Frame:
        return self._read(int(index))


def parse_source(text: str) -> Source:
    """Return the frames that 'LAYOUT:FOLDER[,teacher=FOLDER][,weight=W][,zoom=LOW-HIGH]...' names.

    Layouts: those of label_sets.TABLES. ValueError, one line, for anything that is not there.
    """
    head, *rest = text.split(',')
    layout, colon, folder = head.partition(':')
    if not colon or layout not in label_sets.TABLES:
        raise ValueError(
            f'--data: expected LAYOUT:FOLDER with a layout of '
            f'{sorted(label_sets.TABLES)}, got {text!r}'
        )
    settings = dict(part.partition('=')[::2] for part in rest)
    strange = sorted(set(settings) - {'teacher', 'weight', 'zoom', 'held_out'})
    if strange:
        raise ValueError(
            '--data: expected teacher=, weight=, zoom= or held_out= after the '
            f'folder, got {strange[0]!r}'
        )
    teacher = home(settings['teacher']) if 'teacher' in settings else None
    if layout == 'unlabelled' and teacher is None:
        raise ValueError(f'--data: {text!r} needs teacher=FOLDER, it has no labels of its own')
    try:
        weight = float(settings.get('weight', 1))
        low, _, high = settings.get('zoom', '0.8-2.6').partition('-')
        zoom = (float(low), float(high or low))
    except ValueError:
        raise ValueError(f'--data: weight and zoom are numbers, got {text!r}') from None
    if not (0 <= weight < math.inf and 0 < zoom[0] <= zoom[1] < 100):
        raise ValueError(f'--data: expected weight >= 0 and 0 < LOW <= HIGH < 100, got {text!r}')
    kept = settings.get('held_out', USE)
    if kept not in HELD_OUT:
        raise ValueError(f'--data: expected held_out= one of {list(HELD_OUT)}, got {kept!r}')
    frames = read_frames(layout, home(folder), teacher, kept=kept)
    return Source(f'{layout} {Path(folder).name}', frames, weight, zoom)


def read_frames(
    layout: str, folder: Path, teacher: Path | None = None, *, kept: str = USE
) -> LazyFrames:
    """Find images and labels of a layout below `folder`; ValueError where there are none.

    Only the first frame is read here: a large data set is read while training goes on.
    """
    pairs = _pairs(layout, folder)
    if kept != USE:
        pairs = [pair for pair in pairs if held_out(layout, pair[0]) == (kept == ONLY)]
    if not pairs:
        raise ValueError(
            f'{folder}: expected images in the layout {layout!r} ({_LAYOUTS[layout]}), found none'
        )
    if teacher is not None:
        pairs = _taught(pairs, folder, teacher)
    readers = [
        functools.partial(
            _read, layout, image, labels, teacher / f'{image.stem}.png' if teacher else None
        )
        for image, labels in pairs
    ]
    frames = LazyFrames(readers)
    frames[0]
    return frames


def _taught(
    pairs: list[tuple[Path, Path | None]], folder: Path, teacher: Path
) -> list[tuple[Path, Path | None]]:
    """Return the frames that have labels or something from the teacher; others are told."""
    known = {path.stem for path in teacher.glob('*.png')}
    if not any(image.stem in known for image, _ in pairs):
        raise ValueError(
            f'{teacher}: expected PNG files named as the images in {folder}, '
            'found none; they are what teacher= names'
        )
    kept = [(image, labels) for image, labels in pairs if labels or image.stem in known]
    left = [image.name for image, labels in pairs if not labels and image.stem not in known]
    if left:
        print(
            f'warning: {len(left)} of {len(pairs)} images in {folder} left out, {teacher} has '
            f'nothing for them: {some(left)}',
            file=sys.stderr,
        )
    return kept


_LAYOUTS = {
    'trainids': 'images/ and labels/ with Cityscapes train ids',
    'camvid': 'images/ and labels/',
    'idd_lite': 'images/ and labels/',
    'unlabelled': 'images directly in it',
    'cityscapes': 'leftImg8bit/train and gtFine/train',
    'idd': 'leftImg8bit/train and gtFine/train with _labellevel3Ids',
    'bdd100k': 'images/10k/train and labels/sem_seg/masks/train',
    'vistas': 'training/images and training/v1.2/labels',
}


def _pairs(layout: str, folder: Path) -> list[tuple[Path, Path | None]]:
    """Return (image, labels) of every frame, sorted by name; labels that are missing are told."""
    if layout == 'unlabelled':
        return [(path, None) for path in _pictures(folder)]
    if layout in ('cityscapes', 'idd'):
        ending = 'labelIds' if layout == 'cityscapes' else 'labellevel3Ids'
        images = _pictures(folder / 'leftImg8bit' / 'train', deep=True)
        found = [
            (
                path,
                folder
                / 'gtFine'
                / 'train'
                / path.parent.name
                / (f'{path.stem.removesuffix("_leftImg8bit")}_gtFine_{ending}.png'),
            )
            for path in images
        ]
    elif layout == 'bdd100k':
        labels = folder / 'labels' / 'sem_seg' / 'masks' / 'train'
        images = _pictures(folder / 'images' / '10k' / 'train')
        found = [(path, labels / f'{path.stem}.png') for path in images]
    elif layout == 'vistas':
        labels = folder / 'training' / 'v1.2' / 'labels'
        images = _pictures(folder / 'training' / 'images')
        found = [(path, labels / f'{path.stem}.png') for path in images]
    else:
        found = [
            (path, folder / 'labels' / f'{path.stem}.png') for path in _pictures(folder / 'images')
        ]
    missing = [labels for _, labels in found if not labels.is_file()]
    if missing:
        raise ValueError(
            f'{missing[0]}: expected a label PNG for every image, found none here '
            f'({len(missing)} of {len(found)} are missing)'
        )
    return list(found)


def _pictures(folder: Path, *, deep: bool = False) -> list[Path]:
    if not folder.is_dir():
        raise ValueError(f'{folder}: expected a folder with images; see --data in --help')
    return sorted(
        path
        for path in (folder.rglob('*') if deep else folder.iterdir())
        if path.suffix.lower() in IMAGES
    )


def _read(
    layout: str, image_path: Path, label_path: Path | None, teacher_path: Path | None
) -> Frame:
    image = read_picture(image_path, upright=False)  # as its labels lie
    size = image.shape[:2]
    labels = np.full(size, IGNORE, np.uint8) if label_path is None else _ids(label_path, size)
    known = label_sets.TABLES[layout] != IGNORE
    strange = np.setdiff1d(np.unique(labels), [*np.flatnonzero(known), IGNORE])
    if strange.size and layout in ('trainids', 'camvid', 'idd_lite', 'bdd100k'):
        raise ValueError(
            f'{label_path}: expected label ids 0..{known.sum() - 1} or 255, got {strange.tolist()}'
        )
    teacher = None
    if teacher_path is not None and teacher_path.is_file():
        teacher = _ids(teacher_path, size)
    codes = label_sets.codes_of(layout, labels, teacher)
    return Frame(image, codes)


def _ids(path: Path, size: tuple[int, ...]) -> np.ndarray:
    labels = read_stored(path)
    if labels is None:
        raise ValueError(f'{path}: expected a readable label PNG')
    if labels.shape != size or labels.dtype != np.uint8:
        raise ValueError(
            f'{path}: expected uint8 labels of shape {size}, got {labels.dtype} {labels.shape}'
        )
    return labels


def rendered_source(
    count: int,
    *,
    first_seed: int,
    weight: float,
    obstacles: bool = True,
    size: tuple[int, int] = (360, 640),
) -> Source:
    """Return `count` rendered scenes, one seed each from `first_seed` on, with their obstacles."""
    readers = [
        functools.partial(_rendered, first_seed + index, size, obstacles) for index in range(count)
    ]
    return Source('rendered', LazyFrames(readers), weight, (0.7, 2.0))


def _rendered(seed: int, size: tuple[int, int], obstacles: bool) -> Frame:
    scene = render(seed, size, obstacles=obstacles)
    return Frame(scene.image, label_sets.TABLES['trainids'][scene.labels], scene.instances > 0)
