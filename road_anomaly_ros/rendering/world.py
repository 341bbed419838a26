# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The endless street of one seed: what stands in each block, who moves, what lies on the road."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from road_anomaly_ros.rendering import facades, obstacles, people, vegetation, vehicles
from road_anomaly_ros.rendering.canvas import (
    BICYCLE,
    BUILDING,
    CAR,
    FENCE,
    PERSON,
    POLE,
    RIDER,
    TRAFFIC_LIGHT,
    TRAFFIC_SIGN,
    UNLABELLED,
    VEGETATION,
    WALL,
)
from road_anomaly_ros.rendering.style import Style
from road_anomaly_ros.rendering.things import Board, Thing, solid

BLOCK = 24.0
VIEW = 150.0
OBSTACLE_VIEW = 44.0
_CLUSTER, _FIRST_CLUSTER = 66.0, 44.0


class World:
    """Static and moving things of one drive, made block by block when first seen."""

    def __init__(self, seed: int, style: Style, with_obstacles: bool) -> None:
        """Remember the seed; nothing is built yet."""
        self._seed, self._style, self._with_obstacles = seed, style, with_obstacles
        self._block = lru_cache(maxsize=64)(self._build_block)
        self._draw = lru_cache(maxsize=1024)(self._draw_slot)
        self._cluster = lru_cache(maxsize=16)(self._build_cluster)

    @property
    def ego_x(self) -> float:
        """Middle of the lane that the camera drives in."""
        inner = [x for x in self._style.lane_centers if x * self._style.side > 0]
        return min(inner, key=abs)

    def things(self, station: float, time: float) -> list[Thing]:
        """Everything near a camera at `station` metres and `time` seconds."""
        first, last = int((station - 12) // BLOCK), int((station + VIEW) // BLOCK)
        found: list[Thing] = []
        for number in range(first, last + 1):
            found.extend(self._block(number))
        found.extend(self._traffic(station, time))
        found.extend(self._walkers(station, time))
        if self._with_obstacles:
            found.extend(self._obstacles(station))
        return found

    def _build_block(self, number: int) -> list[Thing]:
        """Houses, trees, fences, poles, parked cars of one block of the street."""
        rng = np.random.default_rng((81, self._seed, number + 1_000_000_000))
        begin, things = number * BLOCK, []
        for side in (-1, 1):
            things += self._frontage(rng, begin, side)
            things += self._greenery(rng, begin, side)
            things += self._furniture(rng, begin, side)
            things += self._parked(rng, begin, side)
        return things

    def _frontage(self, rng: np.random.Generator, begin: float, side: int) -> list[Thing]:
        """Houses of one side of a block."""
        style = self._style
        chance = {'city': 0.93, 'suburb': 0.7, 'country': 0.06}[style.setting]
        setback = {'city': 0.2, 'suburb': 6.0, 'country': 14.0}[style.setting]
        things, at = [], begin
        while at < begin + BLOCK - 5:
            length = min(float(rng.uniform(8, 14)), begin + BLOCK - at)
            if rng.random() < chance:
                inner = style.half_road + style.pavement + setback + rng.uniform(0, 0.6)
                gap = 0.0 if style.setting == 'city' and rng.random() < 0.7 else 1.5
                things.append(self._house(rng, at, length - gap, side, inner))
            at += length
        return things

    def _house(
        self, rng: np.random.Generator, begin: float, length: float, side: int, inner: float
    ) -> Thing:
        """House with front, gable towards the camera, and roof."""
        variant = int(rng.integers(facades.VARIANTS))
        high, deep, half = facades.storeys(variant) * 2.9 + 0.2, 8.0, length / 2
        top, eaves = high + float(rng.uniform(-1.2, 3.6)), high - 0.12
        near, far, gable = -deep / 2, deep / 2, facades.gable(variant)
        wall = ((near, high, half), (near, high, -half), (near, 0, -half), (near, 0, half))
        end = ((near, high, -half), (far, high, -half), (far, 0, -half), (near, 0, -half))
        shown = [(facades.house_front(variant), wall), (gable, end)]
        if top - high > 0.3:
            peak = ((-0.2, top, -half), (0.2, top, -half), (far, eaves, -half))
            tiles = ((0, top, half), (0, top, -half), (near, high, -half), (near, high, half))
            shown += [(gable, (*peak, (near, eaves, -half))), (facades.roof(variant), tiles)]
        faces = tuple((texture, _facing(side, corners)) for texture, corners in shown)
        middle, size = side * (inner + deep / 2), (deep, high, length)
        light = self._style.light
        return solid(faces, middle, begin + half, 0.0, size, BUILDING, light, layer=4)

    def _greenery(self, rng: np.random.Generator, begin: float, side: int) -> list[Thing]:
        """Trees, bushes, hedges and fences behind the pavement."""
        style, things = self._style, []
        edge = style.half_road + style.pavement
        in_town = style.setting == 'city'
        for at in np.arange(begin, begin + BLOCK, 6.0 if not in_town else 12.0):
            if rng.random() < style.trees * (0.5 if in_town else 1.0):
                things.append(self._tree(rng, float(at + rng.uniform(0, 4)), side, edge, in_town))
            if not in_town and rng.random() < 0.6 * style.trees:
                texture = vegetation.bush(int(rng.integers(12)))
                high = float(rng.uniform(0.9, 2.6))
                things.append(
                    Board(
                        texture,
                        side * float(edge + rng.uniform(1, 9)),
                        float(at + rng.uniform(0, 6)),
                        high * texture.aspect,
                        high,
                        VEGETATION,
                        layer=2,
                        radius=0.3,
                    )
                )
        if not in_town and rng.random() < 0.75:
            things += self._boundary(rng, begin, side, edge)
        return things

    def _tree(
        self, rng: np.random.Generator, s: float, side: int, edge: float, in_town: bool
    ) -> Thing:
        style = self._style
        kinds = (
            [v for v in range(vegetation.VARIANTS) if v % 4 == style.season]
            if (rng.random() < 0.75)
            else range(vegetation.VARIANTS)
        )
        texture = vegetation.tree(int(rng.choice(list(kinds))))
        high = float(rng.uniform(4.5, 7) if in_town else rng.uniform(5, 12))
        x = edge - 0.8 if in_town else edge + rng.uniform(0.8, 8)
        if in_town and style.pavement < 2.5:
            x = edge + 0.1
        return Board(
            texture,
            side * float(x),
            s,
            high * texture.aspect,
            high,
            VEGETATION,
            layer=2,
            radius=0.25,
            shade=float(rng.uniform(0.8, 1.15)),
        )

    def _boundary(
        self, rng: np.random.Generator, begin: float, side: int, edge: float
    ) -> list[Thing]:
        """Fence, wall, guard rail or hedge along the block."""
        hedge = rng.random() < 0.35
        kind = self._style.fence if rng.random() < 0.7 else int(rng.integers(8))
        texture = vegetation.hedge(kind) if hedge else facades.fence(kind)
        label = VEGETATION if hedge else WALL if facades.is_wall(kind) else FENCE
        high, x = float(rng.uniform(0.8, 1.5)), edge + (0.5 if self._style.pavement else 1.6)
        faces = ((texture, _facing(side, ((0, high, 4), (0, high, -4), (0, 0, -4), (0, 0, 4)))),)
        size, light = (0.1, high, 8.0), self._style.light
        return [
            solid(faces, side * x, float(s + 4), 0.0, size, label, light, layer=3)
            for s in np.arange(begin, begin + BLOCK, 8.0)
        ]

    def _furniture(self, rng: np.random.Generator, begin: float, side: int) -> list[Thing]:
        """Lamp posts, signs, signals and bollards."""
        style, things = self._style, []
        x = side * (style.half_road + (0.45 if style.pavement else 0.9))
        kind = style.fence
        if int(begin // BLOCK) % 2 == (side > 0) and style.setting != 'country':
            s = begin + 5.0
            things.append(Board(people.post(kind), x, s, 0.16, 7.5, POLE, radius=0.1))
            things.append(
                Board(people.lamp_arm(int(side < 0)), x - 0.8 * side, s, 1.7, 0.55, POLE, y=7.3)
            )
        if rng.random() < 0.45:
            things += self._signpost(rng, x, begin + float(rng.uniform(8, 20)))
        if style.setting == 'city' and rng.random() < 0.2:
            for s in np.arange(begin, begin + 12, 2.0):
                things.append(Board(people.post(1), x, float(s), 0.14, 0.95, POLE, radius=0.08))
        return things

    def _signpost(self, rng: np.random.Generator, x: float, s: float) -> list[Thing]:
        signal = rng.random() < 0.25 and self._style.setting == 'city'
        high = 2.6 if signal else float(rng.uniform(2.0, 2.6))
        post = Board(people.post(int(rng.integers(2))), x, s, 0.09, high + 0.2, POLE, radius=0.06)
        if signal:
            head = Board(
                people.signal(int(rng.choice((0, 2)))),
                x,
                s - 0.1,
                0.36,
                1.0,
                TRAFFIC_LIGHT,
                y=high - 0.4,
            )
        else:
            side = float(rng.uniform(0.6, 0.95))
            head = Board(
                people.sign(int(rng.integers(people.SIGNS))),
                x,
                s - 0.1,
                side,
                side,
                TRAFFIC_SIGN,
                y=high - 0.3,
            )
        return [post, head]

    def _parked(self, rng: np.random.Generator, begin: float, side: int) -> list[Thing]:
        """Parked cars where the street has room for them."""
        if not self._style.parking:
            return []
        things, x = [], side * (self._style.half_road - 1.05)
        for s in np.arange(begin + 3, begin + BLOCK, 6.0):
            if rng.random() < 0.3 + 0.5 * self._style.traffic:
                things.append(
                    self._car(
                        int(rng.integers(4)),
                        int(rng.integers(10)),
                        x,
                        float(s),
                        side * self._style.side < 0,
                    )
                )
        return things

    def _car(self, shape: int, paint: int, x: float, s: float, oncoming: bool) -> Thing:
        length, width, height = vehicles.size(shape)
        return solid(
            vehicles.vehicle(shape, paint),
            x,
            s,
            np.pi if oncoming else 0.0,
            (width, height, length),
            CAR,
            self._style.light,
        )

    def _traffic(self, station: float, time: float) -> list[Thing]:
        """Moving cars and bicycles: lanes of slots that travel at one speed each."""
        style, things = self._style, []
        lanes = [(x, x * style.side < 0) for x in style.lane_centers]
        for lane, (x, oncoming) in enumerate(lanes):
            speed = -11.0 if oncoming else style.speed * (1.0 if x == self.ego_x else 1.12)
            offset = 22.0 if x == self.ego_x else 0.0
            nearest = station + (9.0 if x == self.ego_x else -4.0)
            for slot, s in _slots(station, time, speed, 34.0, offset):
                chance, ahead, aside, variant = self._draw(82, lane, slot)
                s += 16 * ahead - 8
                if chance < style.traffic * 0.75 and nearest < s < station + VIEW:
                    things.append(
                        self._car(variant % 4, variant // 4, x + 0.4 * aside - 0.2, s, oncoming)
                    )
        return things

    def _draw_slot(self, salt: int, lane: int, slot: int) -> tuple[float, float, float, int]:
        """Three fixed numbers in [0, 1) and a variant in [0, 40) for a slot of a lane."""
        rng = np.random.default_rng((salt, self._seed, lane, slot + 1_000_000_000))
        chance, ahead, aside = rng.random(3).tolist()
        return chance, ahead, aside, int(rng.integers(40))

    def _walkers(self, station: float, time: float) -> list[Thing]:
        """Pedestrians on the pavements, bicyclists at the edge of the road."""
        style, things = self._style, []
        for lane, (side, speed, riding) in enumerate(
            ((-1, 1.3, 0), (-1, -1.2, 0), (1, 1.2, 0), (1, -1.4, 0), (-1, -4.5, 1), (1, 4.5, 1))
        ):
            walk = max(style.pavement, 1.0)
            for slot, s in _slots(station, time, speed, 42.0 if riding else 15.0, 7.0 * lane):
                chance, ahead, aside, variant = self._draw(83, lane, slot)
                s += 12 * ahead - 6
                if (
                    chance > style.people * (0.5 if riding else 0.8)
                    or not station + 1 < s < station + 80
                ):
                    continue
                x = side * (
                    style.half_road
                    + (0.5 + aside * max(walk - 0.8, 0.1) if not riding else -0.5 - style.parking)
                )
                rate = 7.0 if riding else 1.8
                phase = int((time * rate * 4 + variant * 3) % people.PHASES)
                things.append(self._person(variant, phase, float(x), s, bool(riding)))
        return things

    def _person(self, variant: int, phase: int, x: float, s: float, riding: bool) -> Thing:
        if riding:
            return Board(
                people.bicyclist(variant % people.RIDERS, phase),
                x,
                s,
                1.5,
                1.8,
                RIDER,
                radius=0.25,
                part_label=BICYCLE,
            )
        high = 1.6 + 0.025 * (variant % 9)
        return Board(
            people.pedestrian(variant % people.WALKERS, phase),
            x,
            s,
            high / 2,
            high,
            PERSON,
            radius=0.16,
        )

    def _obstacles(self, station: float) -> list[Thing]:
        """Unknown things that are near enough to be seen."""
        first = int((station - _FIRST_CLUSTER) // _CLUSTER)
        near = [
            thing
            for number in (first, first + 1)
            if number >= 0
            for thing in self._cluster(number)
        ]
        return [thing for thing in near if station + 0.5 < thing.s < station + OBSTACLE_VIEW]

    def _build_cluster(self, number: int) -> list[Thing]:
        """Two or three unknown things close together; ids count from 1 along the road."""
        rng = np.random.default_rng((84, self._seed, number))
        order = np.random.default_rng((85, self._seed)).permutation(len(obstacles.KINDS))
        begin = _FIRST_CLUSTER + number * _CLUSTER
        count = 3 if rng.random() < 0.5 else 2
        things: list[Thing] = []
        flank = int(rng.choice((-1, 1)))
        for place in range(count):
            kind = obstacles.KINDS[order[(number * 3 + place) % len(order)]]
            s = begin + place * 5.5 + float(rng.uniform(0, 1.5))
            flank = -flank
            style = self._style
            limit = style.half_road - (style.parking + 0.6 if style.parking else 0.8)
            x = float(np.clip(self.ego_x + flank * rng.uniform(1.6, 2.0), -limit, limit))
            things.append(self._obstacle(rng, kind, x, s, 1 + number * 3 + place))
        return things

    def _obstacle(
        self, rng: np.random.Generator, kind: str, x: float, s: float, instance: int
    ) -> Thing:
        scale = float(rng.uniform(0.9, 1.1))
        if kind in obstacles.BOXES:
            faces, size = obstacles.boxes(kind, int(rng.integers(6)))
            return solid(
                faces,
                x,
                s,
                float(rng.uniform(-0.7, 0.7)),
                size,
                UNLABELLED,
                self._style.light,
                instance,
            )
        texture, width, height = obstacles.blob(kind, int(rng.integers(6)))
        return Board(
            texture,
            x,
            s,
            width * scale,
            height * scale,
            UNLABELLED,
            instance=instance,
            radius=0.35 * width,
        )


def _facing(side: int, corners: tuple) -> np.ndarray:
    """Corners [4, 3] of a face on the right of the road (side 1), or of its image on the left."""
    face = np.array(corners, float)
    return face if side > 0 else face[[1, 0, 3, 2]] * (-1, 1, 1)


def _slots(
    station: float, time: float, speed: float, spacing: float, offset: float
) -> list[tuple[int, float]]:
    """Slots (number, station) of a lane moving at `speed`, near and ahead of the camera."""
    moved = speed * time + offset
    first = int(np.floor((station - 10 - moved) / spacing))
    last = int(np.ceil((station + VIEW - moved) / spacing))
    return [(slot, slot * spacing + moved) for slot in range(first, last + 1)]
