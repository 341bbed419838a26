# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Videos with their truth: rendered drives, and folders of frames beside masks of their things."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from road_anomaly_ros.evaluation.datasets import read_label
from road_anomaly_ros.files import home
from road_anomaly_ros.tools.encodings import read_picture
from road_anomaly_ros.tools.pictures import is_picture, natural_key, some
from road_anomaly_ros.tools.sources import Frame, Source, open_source
from road_anomaly_ros.tools.sources.rendered import PREFIX

IGNORED = 0xFFFF  # of a truth: neither a thing nor none
FPS = 10.0  # of folders, unless told
_MOTS_VOID, _VOID = 10_000, 255


def _mots(stored: np.ndarray) -> np.ndarray:
    """Class times 1000 plus number, 10000 is ignored."""
    return np.where(stored == _MOTS_VOID, IGNORED, stored)


def _davis(stored: np.ndarray) -> np.ndarray:
    """Numbers of things; 255 is void, but the thing where it is the only value beside 0."""
    alone = not np.any((stored > 0) & (stored < _VOID))
    return np.where(stored == _VOID, 1 if alone else IGNORED, stored)


def _binary(stored: np.ndarray) -> np.ndarray:
    """1 are things, told apart where they do not touch; 255 is void."""
    parts, _ = ndimage.label(stored == 1, np.ones((3, 3), bool))
    return np.where(stored == _VOID, IGNORED, parts)


# Folder of frames, folder of masks, what the masks hold, whether they know which thing is which.
_PAIRS: tuple[tuple[str, str, Callable[[np.ndarray], np.ndarray], bool], ...] = (
    ('images', 'instances', _mots, True),
    ('image_02', 'instances', _mots, True),
    ('img1', 'instances', _mots, True),
    ('JPEGImages', 'Annotations', _davis, True),
    ('images', 'labels_masks', _binary, False),
)


class MaskedSource(Source):
    """Frames of a folder, each with the mask of its stem, which `convert` reads."""

    def __init__(self, frames: Path, masks: Path, convert: Callable[..., Any], fps: float) -> None:
        files = sorted(
            filter(is_picture, frames.iterdir()), key=lambda file: natural_key(file.name)
        )
        super().__init__(name=str(frames), kind='folder', fps=fps, count=len(files))
        self._files, self._masks, self._convert = files, masks, convert

    def __iter__(self) -> Iterator[Frame]:
        for index, file in enumerate(self._files):
            mask = self._masks / f'{file.stem}.png'
            image, truth = (read_picture(file, upright=False), self._convert(read_label(mask)))
            if truth.shape != image.shape[:2]:
                raise ValueError(
                    f'{mask}: expected the size of its frame, {image.shape[1]}x{image.shape[0]}, '
                    f'got {truth.shape[1]}x{truth.shape[0]}; masks are never resized'
                )
            stamp = round(index * 1e9 / (self.fps or FPS))
            yield Frame(image, stamp, file.name, truth=truth.astype(np.uint16))


def open_sequences(name: str, fps: float = FPS, *, named: bool = False) -> list[Source]:
    """Return the rendered drive of that name, or the sequences of a folder, at least one.

    A folder holds two, of frames and of masks (`images` and `instances` as in MOTS, `JPEGImages`
    and `Annotations` as in DAVIS, `images` and `labels_masks` with 0, 1 and 255), with files of
    equal stems, or equal folders of such. Truths [H, W] uint16 number the things, 0 is none; with
    `named` only those will do whose numbers last from frame to frame.
    Raises ValueError, one line, for what is neither.
    """
    if name.startswith(PREFIX):
        return [open_source(name)]
    root = home(name)
    pairs = [pair for pair in _PAIRS if pair[3] or not named]
    for frames, masks, convert, _ in pairs:
        if (root / frames).is_dir() and (root / masks).is_dir():
            folders = [root / frames, *sorted((root / frames).rglob('*/'))]
            both = [(one, root / masks / one.relative_to(root / frames)) for one in folders]
            both = [pair for pair in both if any(map(is_picture, pair[0].iterdir()))]
            found: list[Source] = [
                MaskedSource(one, beside, convert, fps) for one, beside in both if beside.is_dir()
            ]
            if found:
                left = [str(one) for one, beside in both if not beside.is_dir()]
                if left:
                    print(
                        f'warning: {len(left)} sequences without masks are left out: {some(left)}',
                        file=sys.stderr,
                    )
                return found
    kinds = ', '.join(f'{frames}/ and {masks}/' for frames, masks, *_ in pairs)
    kinds = ', '.join(f'{frames}/ and {masks}/' for frames, masks, *_ in pairs)
    raise ValueError(
        f"{name}: expected a drive such as 'rendered:1?frames=150', "
        f'or a folder with pictures in {kinds}'
    )


def split(truth: np.ndarray | None, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the things [H, W], 0 for none, and where there is no telling, bool [H, W]."""
    if truth is None:
        raise ValueError(f"{name}: expected frames with their truth; name 'rendered:1'")
    ignored = truth == IGNORED
    return np.where(ignored, 0, truth), ignored
