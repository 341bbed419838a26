# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One image from its number alone: background, objects, places, truth."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import cv2
import numpy as np

from road_anomaly_ros.files import sha256
from road_anomaly_ros.training.generator import blend, restyle, variation
from road_anomaly_ros.training.generator.backgrounds import Backgrounds
from road_anomaly_ros.training.generator.cutouts import Cutout
from road_anomaly_ros.training.generator.options import GeneratorOptions
from road_anomaly_ros.training.generator.placement import Ground, Place
from road_anomaly_ros.training.generator.view import View, drawn_cut, shown

IGNORE = 255


class Cutouts(Protocol):
    """Objects by number."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Cutout: ...

    def name(self, index: int) -> str:
        """Return what the manifest calls an object."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """One drawn image with its truth; all arrays [H,W] beside the image."""

    image: np.ndarray  # uint8 RGB [H,W,3]
    mask: np.ndarray  # uint8 0 inlier, 1 anomaly, 255 ignored
    instances: np.ndarray  # uint8 0 none, else the object's number from far to near
    labels: np.ndarray  # uint8, as the background has them
    record: dict[str, Any]  # the manifest's line


@dataclasses.dataclass(frozen=True)
class _Object:
    name: str
    place: Place
    target: str
    cutout: Cutout


def image_seed(base: int, name: str) -> int:
    """Return the first 8 hex digits of SHA-256 of 'base::name' as an integer."""
    return int(sha256(f'{base}::{name}')[:8], 16)


class Generator:
    """Image number `index` is a function of the options, the sources and `index`, nothing else."""

    def __init__(
        self, backgrounds: Backgrounds, cutouts: Cutouts | None, options: GeneratorOptions
    ) -> None:
        self.backgrounds, self.cutouts, self.options = backgrounds, cutouts, options
        self._targets = [
            (name, backgrounds.ids(name), weight)
            for name, weight in options.targets()
            if backgrounds.ids(name)
        ]
        if not self._targets:
            raise ValueError(
                f'target_labels: none of {list(options.target_labels)} is a class of '
                f'the {backgrounds.layout} layout ({backgrounds.names})'
            )
        self._forbidden = tuple(
            index for name in options.forbidden_labels for index in backgrounds.ids(name)
        )

    def __getitem__(self, index: int) -> Sample:
        """Draw image `index`; scenes repeat in order when there are fewer than images."""
        scene = self.backgrounds.scenes[index % len(self.backgrounds.scenes)]
        seed = image_seed(self.options.seed, str(index))
        looks = np.random.default_rng([seed, 1])  # apart: objects stay where they were without
        view, options = self._viewed(looks, scene.read())
        objects = self._choose(
            np.random.default_rng(seed), Ground(view.labels, self._forbidden), options
        )
        mask = self._truth(view)
        instances, before = view.unknown.copy(), int(view.unknown.max())
        pasted, sharpness = view.image.copy(), blend.sharpness_of(view.image)
        for number, item in enumerate(objects, before + 1):
            self._paste(pasted, item, sharpness, mask, instances, number)
        if looks.random() < self.options.weather:
            pasted = restyle.weathered(looks, pasted, options.horizon)
        record = {
            'index': index,
            'background': scene.name,
            'seed': seed,
            'objects': [
                *_unknown_lines(before, instances),
                *(
                    _line(item, number, instances)
                    for number, item in enumerate(objects, before + 1)
                ),
            ],
        }
        return Sample(pasted, mask, instances, view.labels, record)

    def _viewed(self, rng: np.random.Generator, view: View) -> tuple[View, GeneratorOptions]:
        """Return a scene as it is shown, and the options with the horizon of what is shown."""
        options = self.options
        if options.zoom > 1 or options.mirror > 0:
            height, width = view.labels.shape
            cut = drawn_cut(rng, (height, width), zoom=options.zoom, mirror=options.mirror)
            view = shown(view, cut)
            horizon = min(max(cut.horizon(options.horizon, height), -1.0), 0.95)
            options = dataclasses.replace(options, horizon=horizon)
        if rng.random() < options.restyle:
            view = view._replace(image=restyle.restyled(rng, view.image, view.labels))
        return view, options

    def _truth(self, view: View) -> np.ndarray:
        ignored = self.options.ignore_unlabelled
        mask = np.where(ignored & self.backgrounds.unlabelled(view.labels), IGNORE, 0)
        mask[view.unknown > 0] = 1
        return mask.astype(np.uint8)

    def _choose(
        self, rng: np.random.Generator, ground: Ground, options: GeneratorOptions
    ) -> list[_Object]:
        """Draw objects and places, far ones first, so that near ones cover them."""
        if self.cutouts is None:
            return []
        clean = rng.random() < options.clean_ratio
        if rng.random() >= options.p_has_anomaly or clean:
            return []
        count = rng.integers(options.instances_min, options.instances_max + 1)
        found = [self._one(rng, ground, options, self.cutouts) for _ in range(count)]
        return sorted(
            (item for item in found if item is not None),
            key=lambda item: item.place.y + item.place.size.height,
        )

    def _one(
        self, rng: np.random.Generator, ground: Ground, options: GeneratorOptions, cutouts: Cutouts
    ) -> _Object | None:
        kind, cutout = self._cutout(rng, cutouts)
        if not (cutout[1] > 0.5).any():
            return None
        weights = np.array([weight for _, _, weight in self._targets])
        first = int(rng.choice(len(weights), p=weights / weights.sum()))
        others = [target for target in self._targets if target is not self._targets[first]]
        for name, ids, _ in (self._targets[first], *others):
            place = ground.find(rng, ids[0], cutout[1], options)
            if place is not None:
                return _Object(kind, place, name, cutout)
        return None

    def _cutout(self, rng: np.random.Generator, cutouts: Cutouts) -> tuple[str, Cutout]:
        index, other = rng.integers(len(cutouts), size=2)
        name, cutout = cutouts.name(index), cutouts[index]
        if rng.random() < self.options.procedural:
            name, cutout = 'drawn', variation.drawn(rng, cutouts[other])
        elif rng.random() < self.options.vary:
            cutout = variation.varied(rng, cutout, cutouts[other])
        if rng.random() < self.options.flip:
            cutout = cutout[0][:, ::-1], cutout[1][:, ::-1]
        return name, cutout

    def _paste(
        self,
        image: np.ndarray,
        item: _Object,
        sharpness: float,
        mask: np.ndarray,
        instances: np.ndarray,
        number: int,
    ) -> None:
        x, y, size = item.place
        shape = (size.width, size.height)
        way = cv2.INTER_AREA if size.scale < 1 else cv2.INTER_LINEAR
        patch, alpha = (cv2.resize(part, shape, interpolation=way) for part in item.cutout)
        box = np.s_[y : y + size.height, x : x + size.width]
        patch, alpha = blend.prepared(patch, alpha, image[box], sharpness, self.options)
        if self.options.shadow > 0:
            blend.cast_shadow(image, alpha, (x, y), self.options.shadow, instances == 0)
        blend.composite(image, patch, alpha, (x, y))
        covered = alpha > 0.5
        mask[box][covered], instances[box][covered] = 1, number


def _line(item: _Object, number: int, instances: np.ndarray) -> dict[str, Any]:
    x, y, size = item.place
    return {
        'id': number,
        'object': item.name,
        'on': item.target,
        'box': [x, y, size.width, size.height],
        'scale': round(size.scale, 6),
        'visible': int((instances == number).sum()),
    }


def _unknown_lines(count: int, instances: np.ndarray) -> list[dict[str, Any]]:
    """Return a line for each unknown thing 1 .. `count` that the background came with."""
    lines = []
    for number in range(1, count + 1):
        visible = (instances == number).astype(np.uint8)
        lines.append(
            {
                'id': number,
                'object': 'of the scene',
                'on': '',
                'box': list(cv2.boundingRect(visible)),
                'scale': 1.0,
                'visible': int(visible.sum()),
            }
        )
    return lines
