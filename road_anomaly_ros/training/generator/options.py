# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Everything that decides what the generator draws, beside the folders it reads."""

from __future__ import annotations

import dataclasses

from road_anomaly_ros.perception.registry import option


@dataclasses.dataclass(frozen=True)
class GeneratorOptions:
    """Knobs of the cut-paste generator; names as in the published configuration where it has one.

    The defaults differ from the published code in three points, each with a switch back:
    `scale_from_paste_y`, `contact` and `match_region`.
    """

    seed: int = option(
        0, 'Base seed; image i is drawn from SHA-256 of "seed::i".', low=0, high=2**31 - 1
    )
    clean_ratio: float = option(0.0, 'Share of images left without any object.', low=0.0, high=1.0)
    p_has_anomaly: float = option(
        1.0, 'Probability of objects in an image that is not clean.', low=0.0, high=1.0
    )
    instances_min: int = option(1, 'Fewest objects per image.', low=0, high=100)
    instances_max: int = option(1, 'Most objects per image.', low=0, high=100)
    target_labels: tuple[str, ...] = option(
        ('road:0.7', 'sidewalk:0.3'), 'Classes that objects stand on, NAME:WEIGHT or ID:WEIGHT.'
    )
    forbidden_labels: tuple[str, ...] = option(
        ('person', 'rider', 'car', 'truck', 'bus', 'train', 'motorcycle', 'bicycle'),
        'Classes that no object may cover; names that the layout lacks are passed over.',
    )
    contact: str = option(
        'foot',
        "What must lie on the target class: the object's 'foot' (its lowest tenth), or "
        "the whole 'box' as published.",
        choices=('foot', 'box'),
    )
    min_target_fraction: float = option(
        0.8, 'Share of the foot or the box that must be of the target class.', low=0.0, high=1.0
    )
    max_tries: int = option(50, 'Places tried before an object is left out.', low=1, high=10_000)
    scale_from_paste_y: bool = option(
        True,
        'Size by perspective from the row of the foot; false draws the size from a row that '
        'is independent of the place, as published.',
    )
    horizon: float = option(
        0.4, 'Row of the horizon as a share of the height.', low=-1.0, high=0.95
    )
    height_min: float = option(
        0.3, 'Least height of an object, in distances foot to horizon.', low=0.01, high=10.0
    )
    height_max: float = option(
        0.9, 'Largest height of an object, in the same unit.', low=0.01, high=10.0
    )
    scale_min: float = option(0.35, 'Published size: scale at the top row.', low=0.01, high=20.0)
    scale_max: float = option(
        1.25, 'Published size: scale at the bottom row.', low=0.01, high=20.0
    )
    area_min: float = option(
        0.01, 'Published size: least box area as a share of the image.', low=0.0, high=1.0
    )
    area_max: float = option(0.18, 'Largest box area as a share of the image.', low=0.0, high=1.0)
    flip: float = option(0.0, 'Probability of mirroring an object.', low=0.0, high=1.0)
    match_lab: bool = option(True, 'Match colours in Lab instead of RGB.')
    match_mean: bool = option(True, 'Match the mean colour to that of the place.')
    match_std: bool = option(False, 'Match the contrast to that of the place.')
    match_strength: float = option(
        0.5,
        'How far colours are moved to those of the place; 1 is as published.',
        low=0.0,
        high=1.0,
    )
    match_region: str = option(
        'object',
        "Pixels whose colours are compared: those of the 'object', or the whole 'box' "
        'as published.',
        choices=('object', 'box'),
    )
    match_blur: bool = option(True, 'Soften objects that are sharper than the scene.')
    feather_px: int = option(
        1, 'Width of the soft edge; 4 is as published for 2048x1024.', low=0, high=64, unit='px'
    )
    shadow: float = option(0.4, 'Darkness of the contact shadow, 0 for none.', low=0.0, high=1.0)
    ignore_unlabelled: bool = option(
        True, 'Mark pixels without a label 255 in the anomaly mask; false marks them 0.'
    )
    vary: float = option(
        0.0,
        'Probability of changing an object strongly in colour, texture and outline, so that '
        'few cut-outs teach more.',
        low=0.0,
        high=1.0,
    )
    procedural: float = option(
        0.0,
        'Share of objects drawn by rule (shapes with textures) instead of cut-outs.',
        low=0.0,
        high=1.0,
    )
    mirror: float = option(0.0, 'Probability of mirroring a background.', low=0.0, high=1.0)
    zoom: float = option(
        1.0,
        'Backgrounds are magnified by 1 to this factor and cut to their size.',
        low=1.0,
        high=8.0,
    )
    restyle: float = option(
        0.0,
        'Probability of giving the classes of a background other colours and grain, each '
        'its own, so that an unusual look alone is not taken for an anomaly.',
        low=0.0,
        high=1.0,
    )
    weather: float = option(
        0.0,
        'Probability of changing the finished image as a whole: exposure, tint, haze, blur, '
        'noise, compression.',
        low=0.0,
        high=1.0,
    )
    image_format: str = option(
        'jpg', 'File format of the images: jpg (quality 95) or png.', choices=('jpg', 'png')
    )

    def __post_init__(self) -> None:
        for low, high in (
            ('instances_min', 'instances_max'),
            ('height_min', 'height_max'),
            ('scale_min', 'scale_max'),
            ('area_min', 'area_max'),
        ):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(
                    f'expected {low} <= {high}, got {getattr(self, low)} > {getattr(self, high)}'
                )
        if not sum(weight for _, weight in self.targets()) > 0:
            raise ValueError('target_labels: expected at least one class with a positive weight')

    def targets(self) -> list[tuple[str, float]]:
        """Return the classes to stand on with their weights; ValueError for other forms."""
        found = []
        for item in self.target_labels:
            name, sign, weight = item.partition(':')
            try:
                found.append((name.strip(), float(weight) if sign else 1.0))
            except ValueError:
                raise ValueError(f'target_labels: expected NAME:WEIGHT, got {item!r}') from None
            if found[-1][1] < 0:
                raise ValueError(f'target_labels: expected weights of at least 0, got {item!r}')
        return found
