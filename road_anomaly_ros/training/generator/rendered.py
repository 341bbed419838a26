# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Scenes of the package's own renderer as backgrounds."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import numpy as np

from road_anomaly_ros.perception.registry import build_options, option
from road_anomaly_ros.training.generator.view import View

if TYPE_CHECKING:
    from road_anomaly_ros.rendering import RenderedFrame

PREFIX = 'rendered:'
_FRAMES = 240  # length of the drive of which one frame is taken


@dataclasses.dataclass(frozen=True)
class RenderedOptions:
    """What 'rendered:SEED?name=value&...' may ask for."""

    seed: int = option(0, 'Seed of the first scene; the next ones follow.', low=0, high=2**62)
    scenes: int = option(100, 'Number of scenes.', low=1, high=1_000_000)
    width: int = option(480, 'Width of the images.', low=16, high=8192, unit='px')
    height: int = option(360, 'Height of the images.', low=16, high=8192, unit='px')
    obstacles: bool = option(False, "Put the renderer's own unknown things on the road.")


@dataclasses.dataclass(frozen=True)
class RenderedScene:
    """One frame of the drive of a seed."""

    seed: int
    size: tuple[int, int]  # (H, W)
    obstacles: bool

    @property
    def name(self) -> str:
        """Return what the scene is called; equal names mean equal pictures."""
        things = '' if self.obstacles else ' clear'
        return f'rendered {self.seed} {self.size[1]}x{self.size[0]}{things}'

    def read(self) -> View:
        """Render the scene; its own obstacles are the unknown things."""
        frame = render(self.seed, self.size, obstacles=self.obstacles)
        found = np.unique(frame.instances)
        numbers = np.searchsorted(np.union1d([0], found), frame.instances)
        return View(frame.image, frame.labels, numbers.astype(np.uint8))


def render(seed: int, size: tuple[int, int], *, obstacles: bool = False) -> RenderedFrame:
    """Return one frame of `size` (H, W), which depends on the seed only."""
    from road_anomaly_ros.rendering import Drive, DriveOptions

    drive = Drive(
        DriveOptions(width=size[1], height=size[0], frames=_FRAMES, seed=seed, obstacles=obstacles)
    )
    return drive[seed * 37 % _FRAMES]


def scenes(text: str) -> tuple[RenderedScene, ...]:
    """Return the scenes that 'rendered:SEED?name=value&...' asks for; ValueError for others."""
    seed, _, query = text.removeprefix(PREFIX).partition('?')
    values: dict[str, object] = dict(parse_qsl(query, keep_blank_values=True))
    options = build_options(
        RenderedOptions, {**values, **({'seed': seed} if seed else {})}, PREFIX
    )
    return tuple(
        RenderedScene(options.seed + number, (options.height, options.width), options.obstacles)
        for number in range(options.scenes)
    )
