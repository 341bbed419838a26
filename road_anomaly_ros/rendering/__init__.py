# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A rendered drive with exact ground truth: a camera for people without one.

    drive = Drive(DriveOptions(seed=3, frames=600))
    frame = drive[120]        # RenderedFrame: image, labels, instances, depth, camera, stamp

A seed chooses the street, its light, traffic and obstacles; frame i depends on the seed and on i
alone, so frames come in any order and again, bit by bit. Everything is drawn by code: no assets,
no GPU. Floors, from the street down to pixels:

- drive: what callers see; `style` draws the look of a drive from its seed.
- world: which things stand, move and lie where; the pictures of things are in `facades`,
  `vegetation`, `vehicles`, `people` and `obstacles`, the kinds of which no label set knows.
- painter: things to pixels, back to front, with shadows, out of boards and faces (`things`);
  `ground` the road, `atmosphere` sky, haze and sensor.
- canvas, camera, textures: image, depth and label codes; pinhole above a road; noise.

It imports `perception.registry` for its options and nothing else of the package. The fake camera,
the demo, the training generator and `bench` look through it.
"""

from road_anomaly_ros.rendering.drive import Drive, DriveOptions, RenderedFrame

__all__ = ['Drive', 'DriveOptions', 'RenderedFrame']
