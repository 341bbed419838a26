# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How data sets lie on disk and what their labels mean; `LAYOUTS` is the place to add one."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from road_anomaly_ros.files import read_yaml
from road_anomaly_ros.perception.labels import CAMVID, CITYSCAPES, CITYSCAPES_IDS, IDD_LITE
from road_anomaly_ros.tools.encodings import read_picture
from road_anomaly_ros.tools.pictures import is_picture

IGNORE = 255
ANOMALY_TRACK, OBSTACLE_TRACK = (500, 100), (50, 10)  # least predicted, least true size in px
_ENDINGS = ('', '_labels_semantic', '_labels')  # of label files, after the image's stem
_LOSSLESS = ('.png', '.bmp', '.webp', '.tif', '.tiff')  # a label must keep its values
_BINARY = {0: 0, 1: 1, IGNORE: IGNORE}


@dataclasses.dataclass(frozen=True)
class Sample:
    """The files of one image; `anomaly` or `classes` is None where there is no such label."""

    name: str
    image: Path
    anomaly: Path | None = None
    classes: Path | None = None

    def read_image(self) -> np.ndarray:
        """Return uint8 RGB [H,W,3] as stored, not turned; ValueError when it is unreadable."""
        return read_picture(self.image, upright=False)


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where a data set keeps its files and what the values of its labels mean."""

    name: str
    text: str  # what a folder of this layout holds
    find: Callable[[Path], list[Sample]]  # empty where the folder is of another layout
    values: Mapping[int, int] = dataclasses.field(default_factory=dict)  # raw to 0, 1, 255
    class_names: tuple[str, ...] = ()
    class_values: Mapping[int, int] = dataclasses.field(default_factory=dict)  # raw to 0 .. K-1
    class_names_of: Callable[[Path], Mapping[int, str]] | None = None  # where folders differ
    sizes: tuple[int, int] = ANOMALY_TRACK

    def of(self, root: Path) -> Layout:
        """Return the layout with the classes of one folder, where each folder has its own."""
        if self.class_names_of is None:
            return self
        names = self.class_names_of(root)
        return dataclasses.replace(
            self, class_names=tuple(names.values()), class_values=_places(names)
        )


def layout_named(name: str) -> str | None:
    """Return the layout of a folder that is called so, as publishers and mirrors call theirs.

    'RoadObsticle21', 'FS_LostFound_full' and 'fs_static' are such names. None for other ones.
    """
    plain = _plain(name)
    plain = _KNOWN_AS.get(plain, plain)
    return next((layout for layout in LAYOUTS if _plain(layout) == plain), None)


def _plain(name: str) -> str:
    plain = re.sub(r'[^a-z0-9]', '', name.lower())
    return re.sub(r'(val|validation|full)$', '', plain)


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(filter(is_picture, folder.iterdir()))


def _label_of(stem: str, folder: Path) -> Path:
    """Return the label file of an image; where none exists, the name that it should have."""
    candidates = [
        folder / f'{stem}{ending}{suffix}' for suffix in _LOSSLESS for ending in _ENDINGS
    ]
    return next((path for path in candidates if path.is_file()), candidates[0])


def paired(root: Path) -> list[Sample]:
    """Find images/ and labels_masks/ with equal stems."""
    folder = root / 'labels_masks'
    if not folder.is_dir():
        return []
    return [
        Sample(path.stem, path, _label_of(path.stem, folder))
        for path in _pictures(root / 'images')
    ]


def segment_me(root: Path) -> list[Sample]:
    """Find a track of SegmentMeIfYouCan; where validation images are named so, only those count.

    The labels of the test images are not public.
    """
    samples = paired(root)
    public = [sample for sample in samples if sample.name.startswith('validation')]
    return public or samples


def road_anomaly(root: Path) -> list[Sample]:
    """Find frames/NAME.jpg with frames/NAME.labels/labels_semantic.png, or the paired folders."""
    frames = _pictures(root / 'frames')
    return [
        Sample(path.stem, path, path.with_suffix('.labels') / 'labels_semantic.png')
        for path in frames
    ] or paired(root)


def fishyscapes(root: Path) -> list[Sample]:
    """Find NNNN_NAME_labels.png with NAME_leftImg8bit.png below, or the paired folders."""
    labels = sorted(root.rglob('[0-9]*_labels.png'))
    if (root / 'images').is_dir() or not labels:
        return paired(root)
    images = {
        path.name.removesuffix('_leftImg8bit.png'): path
        for path in root.rglob('*_leftImg8bit.png')
    }
    found = []
    for path in labels:
        stem = path.name.removesuffix('_labels.png')
        beside = path.with_name(f'{stem}_rgb.png')
        scene = re.sub(r'^\d+_', '', stem)
        found.append(Sample(stem, images.get(scene, beside), path))
    return found


def lost_and_found(root: Path) -> list[Sample]:
    """Find leftImg8bit/ and gtCoarse/ with labelIds."""
    return [
        Sample(name, image, root / 'gtCoarse' / below / f'{name}_gtCoarse_labelIds.png')
        for name, image, below in _left_images(root, 'gtCoarse')
    ]


def cityscapes(root: Path) -> list[Sample]:
    """Find leftImg8bit/ and gtFine/ with labelIds."""
    return [
        Sample(name, image, classes=root / 'gtFine' / below / f'{name}_gtFine_labelIds.png')
        for name, image, below in _left_images(root, 'gtFine')
    ]


def _left_images(root: Path, truth: str) -> list[tuple[str, Path, Path]]:
    base = root / 'leftImg8bit'
    if not (root / truth).is_dir():
        return []
    return [
        (path.name.removesuffix('_leftImg8bit.png'), path, path.relative_to(base).parent)
        for path in sorted(base.rglob('*_leftImg8bit.png'))
    ]


def class_pairs(root: Path) -> list[Sample]:
    """Find images/ and labels/ with equal stems, and no anomaly masks."""
    folder = root / 'labels'
    if not folder.is_dir() or (root / 'labels_masks').is_dir():
        return []
    return [
        Sample(path.stem, path, classes=folder / f'{path.stem}.png')
        for path in _pictures(root / 'images')
    ]


def synthetic(root: Path) -> list[Sample]:
    """Find what `road-anomaly synthesize` wrote, classes too where it says what they are."""
    if not (root / 'config.yaml').is_file() or not (root / 'instances').is_dir():
        return []
    known, folder = drawn_classes(root), root / 'labels'
    return [
        dataclasses.replace(sample, classes=folder / f'{sample.name}.png' if known else None)
        for sample in paired(root)
    ]


def drawn_classes(root: Path) -> dict[int, str]:
    """Return the names of the label ids in a folder of `road-anomaly synthesize`.

    Folders that do not tell them are CamVid's or unknown: empty. ValueError for damaged settings.
    """
    path = root / 'config.yaml'
    try:
        settings = read_yaml(path)
        names = settings.get('classes') or (
            dict(enumerate(CAMVID)) if settings.get('layout') == 'camvid' else {}
        )
        return {int(index): str(name) for index, name in names.items()}
    except (AttributeError, TypeError, ValueError):
        raise ValueError(
            f"{path}: expected the settings of 'road-anomaly synthesize', with "
            'classes as ids and names; draw the images anew'
        ) from None


def _places(names: Mapping[int, str]) -> dict[int, int]:
    """Return class values of ids that are named; gaps between them are ids without a class."""
    return {
        **dict.fromkeys(range(max(names, default=-1) + 1), IGNORE),
        IGNORE: IGNORE,
        **{raw: place for place, raw in enumerate(names)},
    }


_LOST_IDS = {
    0: IGNORE,
    1: 0,
    **dict.fromkeys(range(2, 201), 1),
    **dict.fromkeys(range(201, 256), IGNORE),
}
_FINE_IDS = {
    **dict.fromkeys(range(256), IGNORE),
    **{raw: index for index, raw in enumerate(CITYSCAPES_IDS)},
}
LAYOUTS: Mapping[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout(
            'folder',
            'images/ and labels_masks/ with equal stems, 0 inlier, 1 anomaly, 255 ignore',
            paired,
            _BINARY,
            sizes=OBSTACLE_TRACK,
        ),
        Layout(
            'synthetic',
            "the output of 'road-anomaly synthesize'",
            synthetic,
            _BINARY,
            sizes=OBSTACLE_TRACK,
            class_names_of=drawn_classes,
        ),
        Layout(
            'road_anomaly',
            'frames/NAME.jpg with NAME.labels/, or images/ and labels_masks/',
            road_anomaly,
            {**_BINARY, 2: 1},
        ),
        Layout(
            'road_anomaly21',
            'images/ and labels_masks/ of the SegmentMeIfYouCan anomaly track',
            segment_me,
            _BINARY,
        ),
        Layout(
            'road_obstacle21',
            'images/ and labels_masks/ of the SegmentMeIfYouCan obstacle track',
            segment_me,
            _BINARY,
            sizes=OBSTACLE_TRACK,
        ),
        Layout(
            'fishyscapes_lost_and_found',
            'images/ and labels_masks/, or NNNN_NAME_labels.png and NAME_leftImg8bit.png below it',
            fishyscapes,
            _BINARY,
            sizes=OBSTACLE_TRACK,
        ),
        Layout(
            'fishyscapes_static',
            'images/ and labels_masks/, or NAME_labels.png beside NAME_rgb.png',
            fishyscapes,
            _BINARY,
        ),
        Layout(
            'lost_and_found',
            'leftImg8bit/ and gtCoarse/ with labelIds',
            lost_and_found,
            _LOST_IDS,
            sizes=OBSTACLE_TRACK,
        ),
        Layout(
            'cityscapes',
            'leftImg8bit/ and gtFine/ with labelIds',
            cityscapes,
            class_names=CITYSCAPES,
            class_values=_FINE_IDS,
        ),
        Layout(
            'trainids',
            'images/ and labels/ with the 19 train ids of Cityscapes',
            class_pairs,
            class_names=CITYSCAPES,
            class_values=_places(dict(enumerate(CITYSCAPES))),
        ),
        Layout(
            'camvid',
            'images/ and labels/ with the ids of the 11 classes',
            class_pairs,
            class_names=CAMVID,
            class_values=_places(dict(enumerate(CAMVID))),
        ),
        Layout(
            'idd_lite',
            'images/ and labels/ with the ids of the 7 groups of IDD-Lite',
            class_pairs,
            class_names=IDD_LITE,
            class_values=_places(dict(enumerate(IDD_LITE))),
        ),
    )
}
_KNOWN_AS = {
    'roadobsticle21': 'roadobstacle21',
    'fslostfound': 'fishyscapeslostandfound',
    'fslostandfound': 'fishyscapeslostandfound',
    'fishyscapeslostfound': 'fishyscapeslostandfound',
    'fsstatic': 'fishyscapesstatic',
}
