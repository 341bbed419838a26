# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Road scenes with label maps to paste on: rendered, or in the layouts of public data sets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from road_anomaly_ros.perception.labels import (
    CAMVID,
    CITYSCAPES,
    CITYSCAPES_IDS,
    IDD_LITE,
    counted_as,
    plain_name,
)
from road_anomaly_ros.tools.encodings import read_picture, read_stored
from road_anomaly_ros.tools.pictures import is_picture
from road_anomaly_ros.training.generator import rendered
from road_anomaly_ros.training.generator.view import View

_EVALUATED = dict(zip(CITYSCAPES_IDS, CITYSCAPES, strict=True))
# What the ids of a folder with images/ and labels/ mean, by the word before its path.
_CLASSES = {'camvid': CAMVID, 'idd_lite': IDD_LITE, 'trainids': CITYSCAPES}


class Scene(Protocol):
    """Something to paste on."""

    @property
    def name(self) -> str:
        """Return what the manifest calls the scene; equal names mean equal pictures."""

    def read(self) -> View:
        """Return the picture; ValueError, one line, if it is bad."""


@dataclasses.dataclass(frozen=True)
class Background:
    """One recorded scene: the files of image and label map."""

    name: str
    image: Path
    labels: Path

    def read(self) -> View:
        """Return the picture, which holds nothing unknown; ValueError, one line, if it is bad."""
        image = read_picture(self.image, upright=False)  # as its labels lie
        labels = read_stored(self.labels)
        if labels is None:
            raise ValueError(f'{self.labels}: expected a readable image')
        if labels.ndim != 2 or labels.dtype != np.uint8 or labels.shape != image.shape[:2]:
            raise ValueError(
                f'{self.labels}: expected uint8 labels of shape {image.shape[:2]}, '
                f'got {labels.dtype} {labels.shape}'
            )
        return View(image, labels, np.zeros_like(labels))


@dataclasses.dataclass(frozen=True)
class Backgrounds:
    """The scenes of a folder with the names of their label ids."""

    scenes: Sequence[Scene]
    names: Mapping[int, str]
    layout: str

    def ids(self, name: str) -> tuple[int, ...]:
        """Return the label ids of a class, given by name or id; empty where there is none.

        A class that the layout lacks is the one that holds it there, a bus a car of CamVid; but
        what counts as vegetation is no ground to stand on, so verges of CamVid are none.
        """
        if name.lstrip('-').isdigit():
            return (int(name),)
        (place,) = counted_as((name,), tuple(self.names.values()))
        if place is None:
            return ()
        index, found = list(self.names.items())[place]
        if plain_name(found) == 'vegetation' and plain_name(name) != 'vegetation':
            return ()
        return (index,)

    def unlabelled(self, labels: np.ndarray) -> np.ndarray:
        """Return bool [H,W], true where the label is none of the known classes."""
        known = np.zeros(256, bool)
        known[list(self.names)] = True
        return ~known[labels]


def read_backgrounds(source: Path | str) -> Backgrounds:
    """Find the scenes of a folder, sorted by name; ValueError where it has neither layout.

    CamVid: images/ and labels/ with files of the same stem; 'idd_lite:FOLDER' and
    'trainids:FOLDER' are the same with other ids. Cityscapes: leftImg8bit/ and gtFine/ at the
    top, or the folder leftImg8bit/SPLIT itself; labelIds and labelTrainIds are understood. A
    source 'rendered:SEED?name=value&...' is no folder but asks for rendered scenes.
    """
    if str(source).startswith(rendered.PREFIX):
        return Backgrounds(rendered.scenes(str(source)), dict(enumerate(CITYSCAPES)), 'rendered')
    word, sign, path = str(source).partition(':')
    named = bool(sign) and word in _CLASSES
    layout, folder = (word, Path(path)) if named else ('camvid', Path(source))
    if (folder / 'images').is_dir() and (folder / 'labels').is_dir():
        return _paired(folder, layout)
    if named:
        raise ValueError(f'{folder}: expected images/ and labels/ in it, as {word}: asks for')
    if 'leftImg8bit' in folder.parts or (folder / 'leftImg8bit').is_dir():
        return _cityscapes(folder)
    raise ValueError(
        f'{folder}: expected images/ and labels/ (CamVid layout) or leftImg8bit/ and '
        'gtFine/ (Cityscapes layout) in it'
    )


def _paired(folder: Path, layout: str) -> Backgrounds:
    images = sorted(filter(is_picture, (folder / 'images').iterdir()))
    scenes = tuple(
        Background(path.stem, path, folder / 'labels' / f'{path.stem}.png') for path in images
    )
    return _checked(scenes, dict(enumerate(_CLASSES[layout])), layout, folder / 'images')


def _cityscapes(folder: Path) -> Backgrounds:
    base = folder if (folder / 'leftImg8bit').is_dir() else None
    images = folder / 'leftImg8bit' if base else folder
    if base is None:
        base = Path(*folder.parts[: folder.parts.index('leftImg8bit')])
    scenes, train_ids = [], True
    for path in sorted(images.rglob('*_leftImg8bit.png')):
        stem = path.name.removesuffix('_leftImg8bit.png')
        below = path.relative_to(base / 'leftImg8bit').parent
        labels = base / 'gtFine' / below / f'{stem}_gtFine_labelTrainIds.png'
        if not labels.is_file():
            labels = labels.with_name(f'{stem}_gtFine_labelIds.png')
            train_ids = False
        scenes.append(Background(stem, path, labels))
    names = dict(enumerate(_EVALUATED.values())) if train_ids else _EVALUATED
    return _checked(tuple(scenes), names, 'cityscapes', images)


def _checked(
    scenes: tuple[Background, ...], names: Mapping[int, str], layout: str, where: Path
) -> Backgrounds:
    if not scenes:
        raise ValueError(f'{where}: expected JPEG or PNG images, found none')
    missing = [scene.labels for scene in scenes if not scene.labels.is_file()]
    if missing:
        raise ValueError(
            f'{missing[0]}: expected a label map for every image, found none here '
            f'({len(missing)} of {len(scenes)} are missing)'
        )
    return Backgrounds(scenes, names, layout)
