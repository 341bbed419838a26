# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Labelled data sets: images with the labels of their layout, checked and in one convention.

Whatever a data set stores, what leaves this file is 0 (inlier), 1 (anomaly) and 255 (ignored), and
class ids 0 .. K-1 with 255 (ignored) where the layout knows classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from road_anomaly_ros.evaluation.layouts import IGNORE, LAYOUTS, Layout, Sample
from road_anomaly_ros.files import sha256
from road_anomaly_ros.remarks import one_line
from road_anomaly_ros.tools.encodings import ImageRefused, peek_size


@dataclasses.dataclass(frozen=True)
class Histogram:
    """Pixels of a data set by their meaning, and where it has none of a kind."""

    inlier: int = 0
    anomaly: int = 0
    ignored: int = 0

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram(
            self.inlier + other.inlier, self.anomaly + other.anomaly, self.ignored + other.ignored
        )

    @classmethod
    def of(cls, label: np.ndarray) -> Histogram:
        """Count an anomaly label of 0, 1 and 255."""
        counts = np.bincount(label.ravel(), minlength=256)
        return cls(int(counts[0]), int(counts[1]), int(counts[IGNORE]))


@dataclasses.dataclass(frozen=True)
class DataSet:
    """The samples of one folder, in the order of their names, and how to read their labels."""

    layout: Layout
    root: Path
    samples: tuple[Sample, ...]

    def __len__(self) -> int:
        return len(self.samples)

    def anomaly(self, index: int) -> np.ndarray | None:
        """Return uint8 [H,W] of 0, 1, 255; None where the layout has no anomalies."""
        path = self.samples[index].anomaly
        return None if path is None else _named(path, read_label(path), self.layout.values)

    def classes(self, index: int) -> np.ndarray | None:
        """Return class ids uint8 [H,W], 255 ignored; None where the layout has no classes.

        Anomalies are ignored where both labels exist: no class is right for them.
        """
        sample = self.samples[index]
        if sample.classes is None:
            return None
        found = _named(sample.classes, read_label(sample.classes), self.layout.class_values)
        if sample.anomaly is not None:
            found[self.anomaly(index) != 0] = IGNORE
        return found

    def fingerprint(self) -> str:
        """Return a hash of names, image sizes in bytes and labels: equal where the data are."""
        parts: list[str | bytes] = [self.layout.name]
        for sample in self.samples:
            labels = filter(None, (sample.anomaly, sample.classes))
            parts += [f'\0{sample.name}\0{sample.image.stat().st_size}']
            parts += [bytes.fromhex(sha256(path)) for path in labels]
        return sha256(*parts)[:16]

    def unused(self) -> list[Path]:
        """Return the files beside images and labels that no sample uses, hidden ones not counted.

        Beside labels only those count that belong to none of the images by their names.
        """
        used, images, labels = set[Path | None](), set[Path](), set[Path]()
        for sample in self.samples:
            images.add(sample.image.parent)
            used |= {sample.image, sample.anomaly, sample.classes}
            for path in filter(None, (sample.anomaly, sample.classes)):
                if path.is_file() and sample.name in _beginnings(path.stem):
                    labels.add(path.parent)
        names = {sample.name for sample in self.samples}
        files = [
            path
            for folder in images | labels
            for path in folder.iterdir()
            if folder in images or not names & _beginnings(path.stem)
        ]
        return sorted(
            path
            for path in files
            if path.is_file() and path not in used and not path.name.startswith('.')
        )

    def check(self) -> Iterator[Histogram]:
        """Read every label once and yield its histogram.

        ValueError, one line, for a label that is missing, of another size than its image, or
        that holds values the layout does not know.
        """
        for index, sample in enumerate(self.samples):
            size = _image_size(sample.image)
            for path in filter(None, (sample.anomaly, sample.classes)):
                _check_file(sample, path, size)
            self.classes(index)
            label = self.anomaly(index)
            yield Histogram() if label is None else Histogram.of(label)


def open_dataset(root: Path, layout: str) -> DataSet:
    """Return the data set in `root`; ValueError, one line, for an unknown or another layout."""
    if layout not in LAYOUTS:
        raise ValueError(f'unknown layout {layout!r}; choose one of {list(LAYOUTS)}')
    if not root.is_dir():
        raise ValueError(
            f'{root}: expected the folder of a data set, found '
            f'{"a file" if root.exists() else "nothing"}'
        )
    chosen = LAYOUTS[layout]
    samples = chosen.find(root)
    if not samples:
        fitting = [name for name, other in LAYOUTS.items() if name != layout and other.find(root)]
        remedy = f'choose --layout {" or ".join(fitting)}' if fitting else 'see --layout in --help'
        raise ValueError(
            f'{root}: expected {chosen.text} (layout {layout}), found no image of '
            f'that kind; {remedy}'
        )
    return DataSet(chosen.of(root), root, tuple(sorted(samples, key=lambda sample: sample.name)))


def read_label(path: Path) -> np.ndarray:
    """Return the stored values [H,W] of a label picture: grey, 16 bit, 1 bit or palette indices.

    A colour picture is taken where its channels agree. ValueError for other ones, and for values
    that are no ids from 0 to 65535.
    """
    try:
        with Image.open(path) as picture:
            label = np.asarray(picture)
    except FileNotFoundError:
        raise ValueError(f'{path}: expected a label for every image, found none here') from None
    except Exception:  # Pillow's plug-ins raise all kinds on damaged files
        raise ValueError(f'{path}: expected a readable label picture') from None
    if label.ndim == 3:
        if not (label[..., :3] == label[..., :1]).all():
            raise ValueError(
                f'{path}: expected label ids in one channel, this is a picture in colour'
            )
        label = label[..., 0]
    values = label.astype(np.float64)
    strange = values[~((values >= 0) & (values <= 0xFFFF) & (values == np.floor(values)))]
    if strange.size:
        raise ValueError(f'{path}: expected ids from 0 to 65535 as labels, got {strange[0]:g}')
    return label.astype(np.uint16)


def relabelled(raw: np.ndarray, values: Mapping[int, int]) -> np.ndarray:
    """Return uint8 labels for stored ones of any shape; ValueError for values not in `values`."""
    table = np.full(1 << 16, IGNORE, np.uint8)
    table[list(values)] = list(values.values())
    index = np.asarray(raw).astype(np.uint16)
    present = np.flatnonzero(np.bincount(index.ravel(), minlength=1 << 16))
    strange = np.setdiff1d(present, list(values)).tolist()
    if strange:
        kinds = ', '.join(map(str, sorted(values)[:6])) + (', ..' if len(values) > 6 else '')
        raise ValueError(f'expected the values {kinds}, got {strange[:6]}')
    return table[index]


def _beginnings(stem: str) -> set[str]:
    """Return the names of images that a label of this stem may be of: 'a_b' and 'a' for 'a_b'."""
    parts = stem.split('_')
    return {'_'.join(parts[:count]) for count in range(1, len(parts) + 1)}


def _named(path: Path, raw: np.ndarray, values: Mapping[int, int]) -> np.ndarray:
    try:
        return relabelled(raw, values)
    except ValueError as error:
        raise ValueError(f'{path}: {error}; is this the right --layout?') from None


def _image_size(path: Path) -> tuple[int, int]:
    try:
        height, width = peek_size(path.read_bytes())
        return width, height
    except (ImageRefused, OSError) as error:
        raise ValueError(f'{path}: expected a readable image; {one_line(error)}') from None


def _check_file(sample: Sample, path: Path, size: tuple[int, int]) -> None:
    if not path.is_file():
        raise ValueError(f'{path}: expected a label for {sample.image.name}, found none here')
    found = _image_size(path)
    if found != size:
        raise ValueError(
            f'{path}: expected the size of its image, {size[0]}x{size[1]}, got '
            f'{found[0]}x{found[1]}; labels are never resized'
        )
