# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Objects to paste: a folder of RGBA cut-outs, or the instances of a COCO annotation file."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from road_anomaly_ros.tools.encodings import read_picture, read_stored

# Things of COCO that are strange on a road, as the published configuration lists them.
STRANGE = (
    'dog',
    'cat',
    'horse',
    'cow',
    'sheep',
    'bear',
    'zebra',
    'giraffe',
    'chair',
    'couch',
    'bed',
    'dining table',
    'microwave',
    'refrigerator',
    'toaster',
    'banana',
    'apple',
    'sandwich',
)
_ASPECT, _AREA, _SOLIDITY = (0.3, 3.0), (0.002, 0.20), 0.2

Cutout = tuple[np.ndarray, np.ndarray]  # RGB uint8 [h,w,3], alpha float32 [h,w]


class FolderCutouts:
    """RGBA PNG or WebP files, also in folders below, one per kind.

    The kind is the folder, or at the top the name without its trailing number.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self.paths = Path(folder), cutout_files(Path(folder))
        self._read = functools.lru_cache(maxsize=2048)(self._load)

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        """Return the file's path below the folder, without its ending."""
        return self.paths[index].relative_to(self._folder).with_suffix('').as_posix()

    def __getitem__(self, index: int) -> Cutout:
        """Return colours and alpha of one cut-out; ValueError, in one line, when unreadable."""
        return self._read(index)

    def _load(self, index: int) -> Cutout:
        image = read_stored(self.paths[index])
        if image is None or image.ndim != 3 or image.shape[2] != 4 or image.dtype != np.uint8:
            raise ValueError(f'{self.paths[index]}: expected an RGBA PNG or WebP of 8 bits')
        alpha = image[..., 3].astype(np.float32) / 255
        return _trimmed(cv2.cvtColor(image[..., :3], cv2.COLOR_BGR2RGB), alpha)


def cutout_files(folder: Path) -> list[Path]:
    """Return the cut-outs in `folder` and below it, by path; ValueError where there is none."""
    found = sorted(
        path
        for path in folder.rglob('*')
        if path.suffix.lower() in ('.png', '.webp') and not path.name.startswith('.')
    )
    if not found:
        raise ValueError(f'{folder}: expected RGBA cut-outs (PNG or WebP), found none')
    return found


@dataclasses.dataclass(frozen=True)
class _Instance:
    image: Path
    size: tuple[int, int]
    segmentation: Any
    name: str


class CocoCutouts:
    """Instances of COCO that pass the published filters, cut out when asked for.

    Box inside the image, width / height in [0.3, 3], mask in [0.002, 0.2] of the image, largest
    contour at least 0.2 of its hull; crowds are left out.
    """

    def __init__(
        self, annotations: Path, images: Path, categories: Sequence[str] = STRANGE
    ) -> None:
        tree = _read_json(Path(annotations))
        names = {item['id']: item['name'] for item in tree['categories']}
        wanted = {index for index, name in names.items() if name in categories}
        if not wanted:
            raise ValueError(f'{annotations}: has none of the categories {list(categories)}')
        files = {item['id']: item for item in tree['images']}
        try:
            found = [
                _instance(item, files[item['image_id']], names, Path(images))
                for item in sorted(tree['annotations'], key=lambda item: item['id'])
                if item['category_id'] in wanted and not item.get('iscrowd')
            ]
        except KeyError as error:
            raise ValueError(
                f'{annotations}: expected instances of COCO, one lacks its {error}'
            ) from None
        self._instances = [item for item in found if item is not None]
        if not self._instances:
            raise ValueError(f'{annotations}: no instance passes the filters on size and shape')
        self._read = functools.lru_cache(maxsize=256)(self._load)

    def __len__(self) -> int:
        return len(self._instances)

    def name(self, index: int) -> str:
        """Return category and number of the annotation."""
        return self._instances[index].name

    def __getitem__(self, index: int) -> Cutout:
        """Return colours and alpha of one instance; ValueError when its image is unreadable."""
        return self._read(index)

    def _load(self, index: int) -> Cutout:
        item = self._instances[index]
        image = read_picture(item.image, upright=False)  # as its masks lie
        if image.shape[:2] != item.size:
            height, width = item.size
            raise ValueError(
                f'{item.image}: expected {width}x{height} as its annotations say, got '
                f'{image.shape[1]}x{image.shape[0]}'
            )
        return _trimmed(image, mask_of(item.segmentation, item.size).astype(np.float32))


def _read_json(path: Path) -> Any:
    try:
        tree = json.loads(path.read_text(encoding='utf-8'))
        if all(isinstance(tree[key], list) for key in ('images', 'annotations', 'categories')):
            return tree
    except (ValueError, KeyError, TypeError):
        pass
    raise ValueError(
        f'{path}: expected COCO annotations (JSON with images, annotations and categories)'
    )


def _instance(item: dict, file: dict, names: dict, images: Path) -> _Instance | None:
    size = (int(file['height']), int(file['width']))
    x, y, width, height = item['bbox']
    inside = x >= 0 and y >= 0 and x + width <= size[1] and y + height <= size[0]
    if not inside or height <= 0 or not _ASPECT[0] <= width / height <= _ASPECT[1]:
        return None
    mask = mask_of(item['segmentation'], size)
    if not _AREA[0] <= mask.mean() <= _AREA[1] or _solidity(mask) < _SOLIDITY:
        return None
    name = f'{names[item["category_id"]].replace(" ", "_")}_{item["id"]}'
    return _Instance(images / file['file_name'], size, item['segmentation'], name)


def mask_of(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """Return the mask bool [H,W] of COCO polygons or uncompressed run lengths (column order)."""
    if isinstance(segmentation, dict):
        counts = segmentation['counts']
        if isinstance(counts, str):
            raise ValueError('COCO: compressed run lengths are not understood; expected polygons')
        values = np.arange(len(counts)) % 2 == 1
        return np.repeat(values, counts).reshape(size[1], size[0]).T
    mask = np.zeros(size, np.uint8)
    corners = [
        np.asarray(part, np.float64).reshape(-1, 2).round().astype(np.int32)
        for part in segmentation
    ]
    cv2.fillPoly(mask, corners, 1)
    return mask > 0


def _solidity(mask: np.ndarray) -> float:
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    largest = max(contours, key=cv2.contourArea, default=None)
    if largest is None:
        return 0.0
    hull = cv2.contourArea(cv2.convexHull(largest))
    return cv2.contourArea(largest) / hull if hull > 0 else 0.0


def _trimmed(colours: np.ndarray, alpha: np.ndarray) -> Cutout:
    """Cut to the box of alpha > 0.5; an object without any such pixel stays as it is."""
    inside = alpha > 0.5
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if not len(rows):
        return colours, alpha
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.ascontiguousarray(colours[box]), np.ascontiguousarray(alpha[box])
