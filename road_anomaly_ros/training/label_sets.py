# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Labels of other data sets in the 19 Cityscapes classes, where one label may allow several.

A pixel of a training frame carries a code: 0 .. 18 is a class, 255 nothing, and every other value
a row of `SETS`: one of several classes, and whether whoever drew the label would have called a
strange thing by it too (IDD's 'living things' holds cows), so that it vouches for no pixel.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from road_anomaly_ros.perception.labels import CITYSCAPES, CITYSCAPES_IDS

CLASSES = CITYSCAPES
IGNORE = 255
_FIRST_SET = 32

# name: classes it allows, whether it vouches that nothing strange is there
SETS: Mapping[str, tuple[tuple[int, ...], bool]] = {
    'structure': ((2, 3), True),
    'barrier': ((3, 4), True),
    'signal': ((6, 7), True),
    'plants': ((8, 9), True),
    'ground beside': ((1, 9), True),
    'vehicle': ((13, 14, 15, 16), True),
    'cyclist': ((12, 18), True),
    'far': ((2, 3, 8), True),
    'roadside': ((3, 4, 5, 6, 7), True),
    'living': ((11, 12), False),
    'traffic': ((13, 14, 15, 16, 17, 18), False),
    'two-wheeler rider': ((12, 17, 18), True),
}
CODES = {
    **{name: index for index, name in enumerate(CLASSES)},
    **{name: _FIRST_SET + index for index, name in enumerate(SETS)},
    'ignore': IGNORE,
}


def allowed() -> np.ndarray:
    """Return bool [256,19]: the classes that each code allows; none for 255 and unused codes."""
    table = np.zeros((256, len(CLASSES)), bool)
    table[np.arange(len(CLASSES)), np.arange(len(CLASSES))] = True
    for index, (classes, _) in enumerate(SETS.values()):
        table[_FIRST_SET + index, list(classes)] = True
    return table


def vouched() -> np.ndarray:
    """Return bool [256]: the code says that nothing strange is there."""
    table = np.zeros(256, bool)
    table[: len(CLASSES)] = True
    for index, (_, sure) in enumerate(SETS.values()):
        table[_FIRST_SET + index] = sure
    return table


def _table(names: Mapping[int, str]) -> np.ndarray:
    table = np.full(256, IGNORE, np.uint8)
    for index, name in names.items():
        table[index] = CODES[name]
    return table


def _ids(*names: str) -> np.ndarray:
    return _table(dict(enumerate(names)))


def _vistas() -> np.ndarray:
    """Label ids of Mapillary Vistas 1.2 (66 classes); animals, boats and the like are ignored."""
    groups = {
        'road': (7, 8, 10, 13, 14, 23, 24, 41),
        'sidewalk': (2, 9, 11, 15),
        'fence': (3,),
        'barrier': (4, 5),
        'wall': (6,),
        'building': (17,),
        'structure': (16, 18),
        'person': (19,),
        'rider': (20, 21, 22),
        'sky': (27,),
        'terrain': (26, 29),
        'vegetation': (25, 30),
        'pole': (44, 45, 46, 47),
        'traffic light': (48,),
        'traffic sign': (49, 50),
        'bicycle': (52,),
        'bus': (54,),
        'car': (55,),
        'motorcycle': (57,),
        'train': (58,),
        'truck': (61,),
        'vehicle': (56, 60),
    }
    return _table({index: name for name, ids in groups.items() for index in ids})


# From the value in a label file to a code, by layout.
TABLES: Mapping[str, np.ndarray] = {
    'trainids': _ids(*CLASSES),
    'camvid': _ids(
        'sky',
        'structure',
        'pole',
        'road',
        'sidewalk',
        'plants',
        'signal',
        'barrier',
        'vehicle',
        'person',
        'cyclist',
    ),
    'idd_lite': _ids('road', 'ground beside', 'living', 'traffic', 'roadside', 'far', 'sky'),
    'cityscapes': _table(dict(zip(CITYSCAPES_IDS, CLASSES, strict=True))),
    'bdd100k': _ids(*CLASSES),
    'vistas': _vistas(),
    'idd': _ids(
        'road',
        'road',
        'sidewalk',
        'ground beside',
        'living',
        'rider',
        'motorcycle',
        'bicycle',
        'traffic',
        'car',
        'truck',
        'bus',
        'traffic',
        'sidewalk',
        'wall',
        'fence',
        'barrier',
        'ignore',
        'traffic sign',
        'traffic light',
        'pole',
        'ignore',
        'building',
        'structure',
        'vegetation',
        'ignore',
    ),
    'unlabelled': np.full(256, IGNORE, np.uint8),
}


def codes_of(layout: str, labels: np.ndarray, teacher: np.ndarray | None = None) -> np.ndarray:
    """Return the codes uint8 [H,W] of a layout's labels; a sure `teacher` chooses among them.

    `teacher` holds Cityscapes train ids, 255 where unsure. What it says counts where the label
    allows it, and where there is no label at all.
    """
    codes = TABLES[layout][labels]
    if teacher is None:
        return codes
    may = allowed()
    may[IGNORE] = True
    sure = (teacher < len(CLASSES)) & may[codes, np.minimum(teacher, len(CLASSES) - 1)]
    return np.where(sure, teacher, codes)
