# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Measure distances and the estimated pitch on rendered drives, whose camera is exactly known."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from road_anomaly_ros.perception.contract import AnomalyObject
from road_anomaly_ros.perception.geometry import GeometryOptions, Mounting, PitchEstimate, locate
from road_anomaly_ros.rendering import Drive, DriveOptions
from road_anomaly_ros.tools import drive_metres

SEEDS = (1, *range(101, 111))
FRAMES, SIZE = 150, (360, 480)
WRONG = (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0)  # degrees by which the pitch that is given is wrong
LEAST_PIXELS = 30  # of an obstacle
OPTIONS = GeometryOptions(max_range=200.0)
NEAR, FAR = 30.0, 60.0  # metres


class Range(NamedTuple):
    """One distance: the true one in metres, the relative error, whether truth is in bounds."""

    truth: float
    error: float
    inside: bool


@dataclasses.dataclass
class Estimates:
    """How a pitch wrong by some degrees was corrected, over all drives."""

    errors: list[float] = dataclasses.field(default_factory=list)  # degrees, every frame
    last: list[float] = dataclasses.field(default_factory=list)  # degrees, once a drive
    frames: list[int] = dataclasses.field(default_factory=list)  # before it was believed
    given: list[Range] = dataclasses.field(default_factory=list)
    corrected: list[Range] = dataclasses.field(default_factory=list)


class Seen:
    """The obstacles of one frame with their true distances."""

    def __init__(self, drive: Drive, index: int) -> None:
        view = drive[index]
        self.image, self._instances = view.image, view.instances.astype(np.int32)
        self._model = drive_metres.model_of(drive, SIZE)
        self._objects, self._truth = [], {}
        for number in np.unique(self._instances[self._instances > 0]).tolist():
            mask = self._instances == number
            rows, columns = np.nonzero(mask)
            if len(rows) >= LEAST_PIXELS:
                box = columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1
                whole = AnomalyObject(number, box, (0.0, 0.0), len(rows), 1.0, 1.0, 1.0, 0)
                self._objects.append(whole)
                self._truth[number] = drive_metres.near_side(drive, index, view.depth, mask)

    def ranges(self, mounting: Mounting) -> Iterator[Range]:
        """Return the distances of the obstacles in full view, by a mounting."""
        for place in locate(self._objects, self._instances, self._model, mounting, OPTIONS):
            if not place.cut:
                true = self._truth[place.id]
                inside = place.nearest <= true <= place.farthest
                yield Range(true, abs(place.distance - true) / true, inside)


def tilted(mounting: Mounting, degrees: float) -> Mounting:
    """Return a mounting whose pitch is wrong."""
    return dataclasses.replace(mounting, pitch=mounting.pitch + math.radians(degrees))


def measure(seed: int, exact: dict[float, list[Range]], found: dict[float, Estimates]) -> None:
    """Add the figures of one drive, by the degrees by which its pitch is wrong."""
    drive = Drive(DriveOptions(width=SIZE[1], height=SIZE[0], frames=FRAMES, seed=seed))
    model, true = drive_metres.model_of(drive, SIZE), drive_metres.mounting(drive)
    estimates = {wrong: PitchEstimate() for wrong in WRONG}
    begun: dict[float, int] = {}
    for index in range(FRAMES):
        seen, camera = Seen(drive, index), drive.camera(index)
        now = Mounting(camera.elevation, pitch=camera.pitch)
        for wrong in (0.0, -0.5, 0.5):
            exact[wrong] += seen.ranges(tilted(now, wrong))
        for wrong, estimate in estimates.items():
            given = tilted(true, wrong)
            told = estimate.add(seen.image, index / drive.options.fps, model, given)
            if told is not given:
                begun.setdefault(wrong, index)
                found[wrong].errors.append(abs(math.degrees(told.pitch - true.pitch)))
                found[wrong].given += seen.ranges(given)
                found[wrong].corrected += seen.ranges(told)
    for wrong in WRONG:
        found[wrong].frames.append(begun.get(wrong, FRAMES))
        found[wrong].last.append(found[wrong].errors[-1])


def middle(ranges: list[Range], low: float, high: float) -> str:
    """Return the median error of the distances between two in metres."""
    errors = [one.error for one in ranges if low <= one.truth < high]
    return f'{100 * np.median(errors):.1f} % ({len(errors)})'


def main() -> None:
    """Print all figures."""
    exact: dict[float, list[Range]] = defaultdict(list)
    found: dict[float, Estimates] = defaultdict(Estimates)
    for seed in SEEDS:
        measure(seed, exact, found)
    print('exact mounting:', middle(exact[0.0], 0, NEAR), 'near,', middle(exact[0.0], NEAR, FAR))
    for wrong in (-0.5, 0.5):
        print(f'{wrong:+} degrees: inside {np.mean([one.inside for one in exact[wrong]]):.1%}')
    for wrong, got in found.items():
        print(
            f'{wrong:+} degrees: pitch wrong by {np.median(got.errors):.2f} in the median, '
            f'{np.quantile(got.errors, 0.95):.2f} in 95 %, at the end {np.median(got.last):.2f} '
            f'and {max(got.last):.2f} at most, from frame {np.median(got.frames):.0f} '
            f'({max(got.frames)}) on; to {FAR:g} m {middle(got.given, 0, FAR)} as given, '
            f'{middle(got.corrected, 0, FAR)} corrected'
        )


if __name__ == '__main__':
    main()
