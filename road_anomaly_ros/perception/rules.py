# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The rules by which a bright region is no obstacle, in the order of `objects.find`.

Whether a rule removes a region is decided by `find` alone, with the rules after it switched off;
here stand the options that belong to each rule, and its words.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from road_anomaly_ros.perception import evidence
from road_anomaly_ros.perception.contract import AnomalyObject
from road_anomaly_ros.perception.object_options import COMPONENTS, OFF, SEGMENTS, ObjectOptions


@dataclasses.dataclass(frozen=True)
class Region:
    """One region of a score [H, W] and the threshold that is in force."""

    item: AnomalyObject
    size: tuple[int, int]  # (H, W)
    threshold: float

    @property
    def foot(self) -> float:
        """Its lower edge, from the top, in image heights."""
        return (self.item.box[1] + self.item.box[3]) / self.size[0]

    @property
    def pixels(self) -> int:
        """H x W."""
        return self.size[0] * self.size[1]


@dataclasses.dataclass(frozen=True)
class Rule:
    """What removes a region: `off` switches it off, `knobs` set it, `says` tells why it holds."""

    says: Callable[[ObjectOptions, Region], str]
    off: dict[str, Any] = dataclasses.field(default_factory=dict)
    knobs: tuple[str, ...] = ()


def _too_low(options: ObjectOptions, region: Region) -> str:
    return f'its highest score is not above the threshold {region.threshold:.3g}'


def _speck(options: ObjectOptions, region: Region) -> str:
    return f'objects.opening={options.opening} removes it as a speck'


def _too_small(options: ObjectOptions, region: Region) -> str:
    least = evidence.least_area_at(region.foot, region.pixels, options)
    return (
        f'objects.min_area={options.min_area}: smaller than the {least:.0f} pixels that are asked '
        f'for in an image of this size{_where(options)}'
    )


def _too_faint(options: ObjectOptions, region: Region) -> str:
    least = evidence.least_evidence_at(region.foot, region.pixels, options)
    return (
        f'objects.min_evidence={options.min_evidence:g}: its scores lie above the threshold by '
        f'less than the {least:.3g} in all (objects.evidence={options.evidence}) that are asked '
        f'for in an image of this size{_where(options)}'
    )


def _off_ground(options: ObjectOptions, region: Region) -> str:
    return (
        f'objects.on_drivable={options.on_drivable}: less than {100 * options.contact:.0f} % '
        f'(objects.contact) of the ground within {options.ring:g} image heights (objects.ring) '
        'is drivable'
    )


def _where(options: ObjectOptions) -> str:
    return f' at its row (objects.far_area={options.far_area:g})' if options.far_area < 1 else ''


RULES = (
    Rule(_too_low, knobs=('threshold', 'low_threshold', 'connectivity')),
    Rule(_speck, {'opening': 0, 'closing': 0}),
    Rule(_too_small, {'min_area': 0}, ('reference_area', 'far_area', 'horizon')),
    Rule(_too_faint, {'min_evidence': 0.0}, ('evidence', 'reference_area', 'far_area', 'horizon')),
    Rule(_off_ground, {'on_drivable': OFF}, ('contact', 'ring')),
)


def loose(options: ObjectOptions, count: int) -> ObjectOptions:
    """Return options by which every component is an obstacle, the first `count` of them listed."""
    off = {name: value for rule in RULES for name, value in rule.off.items()}
    return dataclasses.replace(options, mode=COMPONENTS, max_objects=count, **off)


def steps(options: ObjectOptions) -> Iterator[tuple[Rule, ObjectOptions]]:
    """Yield the rules of components, each with the options that hold up to it, none beyond.

    Segments have rules of their own, of which `beyond` tells.
    """
    chosen = loose(options, options.max_objects)
    for rule in () if options.mode == SEGMENTS else RULES:
        chosen = dataclasses.replace(chosen, **{name: getattr(options, name) for name in rule.off})
        yield rule, chosen


def beyond(options: ObjectOptions, region: Region) -> str:
    """Tell why a region that no rule of components removes is no obstacle."""
    if options.mode == COMPONENTS:
        return 'the chain removes it after obstacles were found'
    least = evidence.least_area_at(region.foot, region.pixels, options)
    return (
        f'objects.mode={options.mode}: it lies in no segment of {least:.0f} pixels to '
        f'{100 * options.max_area_frac:g} % of the image (objects.max_area_frac) with a mean '
        f'above the threshold {region.threshold:.3g}, or a stranger one stands for it '
        f'(objects.nms_iou={options.nms_iou:g})'
    )
