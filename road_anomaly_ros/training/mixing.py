# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Known things in unusual places: regions of one crop laid over another, opaque or blended.

From 367 frames a network learns that whatever lies low in the middle is road, and calls a cow road
too. Regions of known classes at random places break the tie between place and class (copy-paste,
Ghiasi et al., CVPR 2021); where two textures are blended the target is blended as well (after
mixup, Zhang et al., ICLR 2018), so that what looks like no class is claimed fully by none. Nothing
but labelled pixels of known classes is ever laid over.
"""

from __future__ import annotations

import cv2
import numpy as np

Crop = tuple[np.ndarray, np.ndarray]
OPAQUE = 255


def unmixed(labels: np.ndarray) -> np.ndarray:
    """Return uint8 [3,h,w]: first label, second label, share of the first (255 = all)."""
    return np.stack([labels, labels, np.full_like(labels, OPAQUE)])


def mix(rng: np.random.Generator, crop: Crop, donor: Crop, *, most: int = 3,
        ghosts: float = .5) -> Crop:
    """Lay 1 to `most` regions of `donor` over `crop`, a share `ghosts` of them half transparent.

    Both are image uint8 [2h,2w,3] and labels uint8 [h,w]; returns image and labels uint8 [3,h,w]
    as `unmixed` has them.
    """
    image, labels = crop[0].copy(), unmixed(crop[1])
    for _ in range(rng.integers(1, most + 1)):
        mask, top, left = _region(rng, donor[1])
        share = rng.uniform(.35, .65) if rng.random() < ghosts else 0.0
        row = int(rng.integers(labels.shape[1])) - mask.shape[0] // 2
        column = int(rng.integers(labels.shape[2])) - mask.shape[1] // 2
        _lay(image, labels, donor, mask, (top, left), (row, column), share)
    return image, labels


def _region(rng: np.random.Generator, labels: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Return bool [a,b] and its corner in `labels`: a connected piece of one class, or a blob."""
    classes = np.unique(labels)
    classes = classes[classes != 255]
    if not len(classes) or rng.random() < .4:
        return _blob(rng, labels.shape)
    same = (labels == rng.choice(classes)).astype(np.uint8)
    _, parts, boxes, _ = cv2.connectedComponentsWithStats(same, connectivity=8)
    inside = np.flatnonzero(same)
    part = parts.flat[inside[rng.integers(len(inside))]]
    left, top, width, height, _ = boxes[part]
    if width * height > .35 * labels.size:
        return _blob(rng, labels.shape)
    return parts[top:top + height, left:left + width] == part, int(top), int(left)


def _blob(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, int, int]:
    sides = np.exp(rng.uniform(np.log(8), np.log(.5 * min(shape) + 8), 2))
    height, width = (int(min(side, limit)) for side, limit in zip(sides, shape, strict=True))
    noise = cv2.resize(rng.normal(0, 1, (5, 5)), (width, height), interpolation=cv2.INTER_CUBIC)
    y, x = np.mgrid[-1:1:height * 1j, -1:1:width * 1j]
    mask = x ** 2 + y ** 2 + .35 * noise < .8
    return mask, int(rng.integers(shape[0] - height + 1)), int(rng.integers(shape[1] - width + 1))


def _lay(image: np.ndarray, labels: np.ndarray, donor: Crop, mask: np.ndarray,
         source: tuple[int, int], target: tuple[int, int], share: float) -> None:
    """Blend donor pixels at `source` into `target`; `share` of what was there stays visible."""
    skip = [max(0, -target[axis]) for axis in (0, 1)]
    size = [min(mask.shape[axis], labels.shape[axis + 1] - target[axis]) - skip[axis]
            for axis in (0, 1)]
    if min(size) <= 0:
        return
    mask = mask[skip[0]:skip[0] + size[0], skip[1]:skip[1] + size[1]]
    (from_row, to_row), (from_column, to_column) = (
        (source[axis] + skip[axis], target[axis] + skip[axis]) for axis in (0, 1))
    here = np.s_[to_row:to_row + size[0], to_column:to_column + size[1]]
    there = np.s_[from_row:from_row + size[0], from_column:from_column + size[1]]
    first, second, kept = (plane[here] for plane in labels)
    donated = donor[1][there]
    if share:
        second[mask], kept[mask] = donated[mask], round(share * OPAQUE)
    else:
        first[mask], second[mask], kept[mask] = donated[mask], donated[mask], OPAQUE
    double = [slice(2 * part.start, 2 * part.stop) for part in here]
    doubled = [slice(2 * part.start, 2 * part.stop) for part in there]
    alpha = cv2.resize(mask.astype(np.float32), None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
    alpha = alpha[..., None] * (1 - share)
    old = image[double[0], double[1]]
    old[:] = old + alpha * (donor[0][doubled[0], doubled[1]].astype(np.float32) - old) + .5
