# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The rendered drive: a camera moving along a made-up street, with exact ground truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from road_anomaly_ros.perception.registry import option, options_of
from road_anomaly_ros.rendering.atmosphere import Sensor, Sky
from road_anomaly_ros.rendering.camera import Camera
from road_anomaly_ros.rendering.canvas import Canvas
from road_anomaly_ros.rendering.ground import Ground
from road_anomaly_ros.rendering.painter import paint_shadows, paint_things
from road_anomaly_ros.rendering.style import sample_style
from road_anomaly_ros.rendering.world import World


@dataclass(frozen=True)
class DriveOptions:
    """Size, length and seed of a rendered drive; a bad value raises ValueError or TypeError."""

    width: int = option(640, 'Width of the pictures.', low=16, high=8192, unit='px')
    height: int = option(360, 'Height of the pictures.', low=16, high=8192, unit='px')
    frames: int = option(120, 'Number of frames.', low=1, high=1_000_000)
    fps: float = option(15.0, 'Frames per second.', low=0.1, high=1000.0, unit='1/s')
    seed: int = option(0, 'Chooses street, light, traffic and obstacles.', low=0, high=2**63 - 1)
    obstacles: bool = option(True, 'Put things of unknown kinds on the road.')

    def __post_init__(self) -> None:
        """Check every option against its declared kind and range."""
        for known in options_of(type(self)):
            object.__setattr__(self, known.name, known.check(getattr(self, known.name)))


@dataclass(frozen=True)
class RenderedFrame:
    """One frame with its ground truth.

    image: uint8 RGB [H, W, 3]; labels: uint8 [H, W], train ids of Cityscapes, 255 unlabelled and
    obstacles; instances: uint16 [H, W], 0 none, else an obstacle id that is stable over the
    drive; depth: float32 [H, W] metres along the optical axis, inf for sky; camera_matrix:
    float64 [3, 3], pixel centres at whole numbers; stamp: seconds since the first frame.
    """

    image: np.ndarray
    labels: np.ndarray
    instances: np.ndarray
    depth: np.ndarray
    camera_matrix: np.ndarray
    stamp: float
    index: int


class Drive:
    """Sequence of RenderedFrame; frame i depends on the options' seed and on i only."""

    def __init__(self, options: DriveOptions | None = None) -> None:
        """Choose the street; pictures are made when asked for."""
        self.options = options or DriveOptions()
        self.style = sample_style(self.options.seed)
        self._world = World(self.options.seed, self.style, self.options.obstacles)

    def __len__(self) -> int:
        """Number of frames."""
        return self.options.frames

    def __iter__(self) -> Iterator[RenderedFrame]:
        """Render the frames in order."""
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> RenderedFrame:
        """Render one frame; negative indices count from the end, IndexError outside."""
        if not -len(self) <= index < len(self):
            raise IndexError(f'expected a frame in [0, {len(self)}), got {index}')
        index = int(index) % len(self)
        canvas, camera = self._paint(index)
        codes = canvas.codes
        return RenderedFrame(
            self._sensor.develop(canvas, index),
            (codes & 255).astype(np.uint8),
            (codes >> 8).astype(np.uint16),
            canvas.depth,
            camera.matrix,
            index / self.options.fps,
            index,
        )

    def camera(self, index: int) -> Camera:
        """Pose and geometry of the camera at a frame; projects road coordinates."""
        style, options = self.style, self.options
        time = index / options.fps
        station = style.speed * time
        rng = np.random.default_rng((91, options.seed))
        a, b, c = rng.uniform(0, 2 * np.pi, 3)
        bounce = np.sin(7.1 * time + a) + 0.6 * np.sin(11.3 * time + b)
        sway = 0.15 * np.sin(0.5 * time + c) - 0.15 * np.sin(c)
        return Camera(
            options.width,
            options.height,
            style.focal * max(options.width, options.height),
            style.camera_height + 0.012 * bounce,
            style.pitch + 0.0016 * bounce,
            self._world.ego_x + sway,
            station,
            lambda ahead: self._bend(station, ahead),
        )

    def _center(self, station: np.ndarray | float) -> tuple:
        """Sideways position and slope of the road's centre line."""
        position, slope = 0.0, 0.0
        for size, length, phase in self.style.bends:
            turn = 2 * np.pi / length
            position = position + size * np.sin(turn * station + phase)
            slope = slope + size * turn * np.cos(turn * station + phase)
        return position, slope

    def _bend(self, station: float, ahead: np.ndarray) -> np.ndarray:
        """How far the road has moved to the right `ahead` metres in front of the camera."""
        here, slope = self._center(station)
        return self._center(station + ahead)[0] - here - slope * ahead

    @cached_property
    def _ground(self) -> Ground:
        return Ground(self.style)

    @cached_property
    def _sky(self) -> Sky:
        width, height = self.options.width, self.options.height
        return Sky(self.style, width, height, self.style.focal * max(width, height))

    @cached_property
    def _sensor(self) -> Sensor:
        return Sensor(self.style, self.options.width, self.options.height, self.options.seed)

    def _paint(self, index: int) -> tuple[Canvas, Camera]:
        """Paint one frame back to front: sky, ground with shadows, things from outside in."""
        canvas = Canvas(self.options.width, self.options.height)
        camera, light = self.camera(index), self.style.light
        things = self._world.things(camera.station, index / self.options.fps)
        self._sky.paint(canvas, camera, float(self._center(camera.station)[1]))
        shade = paint_shadows(things, canvas, camera, light, 55.0)
        self._ground.paint(canvas, camera, shade)
        paint_things(things, canvas, camera)
        return canvas, camera
