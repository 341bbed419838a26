# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""From class names alone to colours, drivable classes and what a class is in another label set."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Mapping, Sequence

from road_anomaly_ros.perception.contract import LabelSet

Color = tuple[int, int, int]

# The colours of the Cityscapes publication.
_CITYSCAPES: dict[str, Color] = {
    'road': (128, 64, 128),
    'sidewalk': (244, 35, 232),
    'building': (70, 70, 70),
    'wall': (102, 102, 156),
    'fence': (190, 153, 153),
    'pole': (153, 153, 153),
    'traffic light': (250, 170, 30),
    'traffic sign': (220, 220, 0),
    'vegetation': (107, 142, 35),
    'terrain': (152, 251, 152),
    'sky': (70, 130, 180),
    'person': (220, 20, 60),
    'rider': (255, 0, 0),
    'car': (0, 0, 142),
    'truck': (0, 0, 70),
    'bus': (0, 60, 100),
    'train': (0, 80, 100),
    'motorcycle': (0, 0, 230),
    'bicycle': (119, 11, 32),
    'lane marking': (255, 255, 255),
    'parking': (250, 170, 160),
    'void': (0, 0, 0),
}
CITYSCAPES = tuple(_CITYSCAPES)[:19]  # the evaluated classes; the place is the train id
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
CAMVID = (
    'sky',
    'building',
    'pole',
    'road',
    'pavement',
    'tree',
    'sign symbol',
    'fence',
    'car',
    'pedestrian',
    'bicyclist',
)
IDD_LITE = (
    'drivable',
    'non-drivable',
    'living things',
    'vehicles',
    'roadside objects',
    'far objects',
    'sky',
)
_SYNONYMS = {
    'pavement': 'sidewalk',
    'tree': 'vegetation',
    'nature': 'vegetation',
    'sign': 'traffic sign',
    'sign symbol': 'traffic sign',
    'signsymbol': 'traffic sign',
    'pedestrian': 'person',
    'human': 'person',
    'people': 'person',
    'bicyclist': 'rider',
    'cyclist': 'rider',
    'bike': 'bicycle',
    'motorbike': 'motorcycle',
    'lane markings': 'lane marking',
    'lanemarking': 'lane marking',
    'road marking': 'lane marking',
    'roadmarking': 'lane marking',
    'column pole': 'pole',
    'street': 'road',
    'drivable': 'road',
    'drivable area': 'road',
}
# What a class counts as in a label set that has no class of its own for it, first come. CamVid's
# 'bicyclist' is the rider with the bicycle, its 'tree' holds verges, its 'building' walls.
_COARSER: dict[str, tuple[str, ...]] = {
    'sidewalk': ('non drivable',),
    'terrain': ('non drivable', 'vegetation'),
    'building': ('far objects',),
    'vegetation': ('far objects',),
    'wall': ('roadside objects', 'building'),
    'fence': ('roadside objects',),
    'pole': ('roadside objects',),
    'traffic light': ('roadside objects', 'traffic sign'),
    'traffic sign': ('roadside objects',),
    'person': ('living things',),
    'rider': ('living things', 'person'),
    'car': ('vehicles',),
    **dict.fromkeys(('truck', 'bus', 'train'), ('vehicles', 'car')),
    **dict.fromkeys(('motorcycle', 'bicycle'), ('vehicles', 'rider')),
    'lane marking': ('road',),
    'parking': ('road',),
}
# Sidewalks and terrain can be driven on, but what stands there blocks nobody.
_DRIVABLE = frozenset({'road', 'lane marking', 'parking'})
_GOLDEN_RATIO = 0.618033988749895


def names_of(count: int) -> tuple[str, ...]:
    """Return names for `count` classes of a checkpoint that stores none: 19 are Cityscapes'."""
    if count == len(CITYSCAPES):
        return CITYSCAPES
    return tuple(f'class {index}' for index in range(count))


def label_set(names: Sequence[str] | Mapping[int, str]) -> LabelSet:
    """Return names, colours (RGB, 0..255) and drivable classes of known class names.

    `names` is a sequence, or a mapping from 0 .. K-1. Colours are those of Cityscapes where the
    name is known there, else evenly spread and the same at every call. ValueError for gaps in ids.
    """
    if isinstance(names, Mapping):
        if sorted(names) != list(range(len(names))):
            raise ValueError(f'expected class ids 0 .. {len(names) - 1}, got {sorted(names)[:8]}')
        names = [names[index] for index in range(len(names))]
    plain = [plain_name(name) for name in names]
    return LabelSet(
        names=tuple(str(name) for name in names),
        colors=_colors(plain),
        drivable=tuple(index for index, name in enumerate(plain) if name in _DRIVABLE),
    )


def plain_name(name: str) -> str:
    """Return the one spelling under which a class is known, whatever data set named it."""
    text = re.sub(r'[\s_/-]+', ' ', str(name)).strip().lower()
    return _SYNONYMS.get(text, text)


def counted_as(names: Sequence[str], wanted: Sequence[str]) -> tuple[int | None, ...]:
    """Return for every class of `names` the index of the class of `wanted` that it counts as.

    Spellings do not matter; a class that `wanted` lacks counts as the coarser one that holds it
    (Cityscapes to CamVid or to the groups of IDD-Lite); None where there is none.
    """
    known = {plain_name(name): index for index, name in reversed(list(enumerate(wanted)))}
    found = []
    for name in map(plain_name, names):
        choices = (name, *_COARSER.get(name, ()))
        found.append(next((known[choice] for choice in choices if choice in known), None))
    return tuple(found)


def _colors(plain: Sequence[str]) -> tuple[Color, ...]:
    taken: set[Color] = set()
    found = []
    for index, name in enumerate(plain):
        color = _CITYSCAPES.get(name)
        turn = index
        while color is None or color in taken:
            color = _spread(turn)
            turn += len(plain)
        taken.add(color)
        found.append(color)
    return tuple(found)


def _spread(index: int) -> Color:
    hue = (index * _GOLDEN_RATIO) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.55 + 0.15 * (index % 3), 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)
