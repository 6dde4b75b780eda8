# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""How a scene is put together: the street, the town beside it, traffic, people, works.

Everything random about a scene is drawn here, in an order that never changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from alocc_ros.labels import OCC3D
from alocc_ros.synthetic import shapes
from alocc_ros.synthetic.shapes import Built, Part
from alocc_ros.synthetic.streets import plan
from alocc_ros.synthetic.world import LEAD_IN, TICK, Scene, Thing, Weather

REACH = 130.0  # m along the streets that is built up, beyond what the vehicle drives
_LABEL = {name: number for number, name in enumerate(OCC3D.names)}


@dataclass(frozen=True)
class _Route:
    """A line to move along: [n, 3] x, y, heading (unwrapped) every 0.25 m."""

    line: np.ndarray

    STEP = 0.25

    def at(self, u: np.ndarray) -> np.ndarray:  # [k] m -> [k, 3]
        position = np.clip(np.asarray(u) / self.STEP, 0.0, len(self.line) - 1.001)
        i = position.astype(int)
        return self.line[i] + (position - i)[:, None] * (self.line[i + 1] - self.line[i])

    @property
    def length(self) -> float:
        return (len(self.line) - 1) * self.STEP


def _route(points: np.ndarray) -> _Route:  # [n, 2] m, dense
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    u = np.arange(0.0, along[-1], _Route.STEP)
    x, y = np.interp(u, along, points[:, 0]), np.interp(u, along, points[:, 1])
    heading = np.unwrap(np.arctan2(np.gradient(y), np.gradient(x)))
    # A vehicle does not turn its wheels at once.
    kernel = np.ones(13) / 13
    heading = np.convolve(np.pad(heading, 6, mode="edge"), kernel, mode="valid")
    return _Route(np.stack([x, y, heading], axis=1))


@dataclass
class Builder:
    """Puts a scene together, in an order that never changes (so seeds keep their meaning)."""

    random: np.random.Generator
    duration: float
    things: list[Thing] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    owner: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    taken: list[tuple[float, float, float]] = field(default_factory=list)  # x, y, radius

    def build(self, seed: int) -> Scene:
        """The scene that is then called that of ``seed``."""
        random = self.random
        self.streets = plan(random)
        self.weather = _weather(random)
        self.times = np.arange(-LEAD_IN, self.duration + LEAD_IN + TICK, TICK)
        self.side_of_driving = -1.0 if random.random() < 0.6 else 1.0  # -1: on the right
        self.ego = self._drive()
        self.density = random.uniform(0.4, 1.3)
        self._works()
        self._traffic()
        self._parked()
        self._people()
        self._furniture()
        self._town()
        sway = np.array(
            [
                (random.uniform(0.001, 0.005), random.uniform(1.0, 3.0), random.uniform(0, 6)),
                (random.uniform(0.001, 0.005), random.uniform(1.0, 3.0), random.uniform(0, 6)),
            ]
        )
        return Scene(
            seed=seed,
            duration=self.duration,
            streets=self.streets,
            weather=self.weather,
            things=tuple(self.things),
            parts=tuple(self.parts),
            owner=np.array(self.owner, dtype=np.int64),
            labels=np.array(self.labels, dtype=np.uint8),
            ego=self.ego,
            sway=sway,
        )

    # -- placing ---------------------------------------------------------------------------

    def _add(
        self, kind: str, label: str, built: Built, poses: np.ndarray, detail: str = ""
    ) -> None:
        parts, size = built
        poses = np.atleast_2d(np.asarray(poses, dtype=np.float64))
        self.things.append(Thing(kind, _LABEL[label], size, poses, detail))
        self.parts += parts
        self.owner += [len(self.things) - 1] * len(parts)
        self.labels += [_LABEL[label]] * len(parts)

    def _stand(self, label: str, parts: list[Part], pose: np.ndarray) -> None:
        """Something of the town: it has no box."""
        x, y, yaw = (float(v) for v in pose)
        self.parts += shapes.placed(parts, x, y, yaw)
        self.owner += [-1] * len(parts)
        self.labels += [_LABEL[label]] * len(parts)

    def _free(self, x: float, y: float, radius: float, take: bool = True) -> bool:
        near = any((x - a) ** 2 + (y - b) ** 2 < (radius + r) ** 2 for a, b, r in self.taken)
        if not near and take:
            self.taken.append((x, y, radius))
        return not near

    def _kerb(self, x: float, y: float) -> float:
        point = torch.tensor([x, y], dtype=torch.float64)
        return float(self.streets.kerb_distance(point[:1], point[1:])[0])

    def _swept(self, x: float, y: float, radius: float) -> bool:
        """Whether the vehicle itself comes within ``radius`` of a place."""
        return bool((np.hypot(self.ego[:, 0] - x, self.ego[:, 1] - y) < radius).any())

    # -- who drives where --------------------------------------------------------------------

    def _main_route(self, lane: int, direction: int, start: float, end: float) -> _Route:
        """Along a lane of the main road between two stations; direction 1 or -1."""
        s = np.arange(start, end, 0.5)
        d = direction * self.side_of_driving * self.streets.main.lane(lane)
        points = self.streets.point(s, d)[:, :2]
        return _route(points if direction > 0 else points[::-1])

    def _side_route(self, lane: int, direction: int, start: float, end: float) -> _Route:
        s = np.arange(start, end, 0.5)
        d = direction * self.side_of_driving * self.streets.side.lane(lane)
        points = self.streets.side_point(s, d)[:, :2]
        return _route(points if direction > 0 else points[::-1])

    def _turning_route(self, lane: int, turn: int) -> _Route:
        """From a lane of the main road into the side road; turn 1: left, -1: right."""
        streets, sigma = self.streets, self.side_of_driving
        d = sigma * streets.main.lane(lane)
        # In the axes of the crossing: t along the main road, n along the side road. Whoever
        # heads along turn * n keeps to the side sigma of it, which is at -turn * sigma in t.
        t_lane = -turn * sigma * streets.side.lane(0)
        radius = 7.0 if turn == sigma else 11.0
        angle = np.linspace(0, np.pi / 2, 40)
        arc_t = t_lane - radius + radius * np.sin(angle)
        arc_n = d + turn * radius * (1 - np.cos(angle))
        x0, y0, heading = streets.point(np.asarray(streets.side_at), 0.0)
        c, s = np.cos(heading), np.sin(heading)
        before = streets.point(np.arange(-60.0, streets.side_at + t_lane - radius, 0.5), d)[:, :2]
        after_n = d + turn * (radius + np.arange(0.5, 170.0, 0.5))
        t = np.concatenate([arc_t, np.full(len(after_n), t_lane)])
        n = np.concatenate([arc_n, after_n])
        after = np.stack([x0 + c * t - s * n, y0 + s * t + c * n], axis=1)
        return _route(np.concatenate([before, after]))

    def _drive(self) -> np.ndarray:
        """Chooses the vehicle's own route and speed; sets what others have to heed."""
        random, streets = self.random, self.streets
        self.ego_lane = int(random.integers(streets.main.lanes))
        self.red_until = -1.0  # s, as long as those on the main road wait
        self.turn = 0
        self.ego_route = self._main_route(self.ego_lane, 1, -60.0, 420.0)
        cruise = random.uniform(3.5, 13.0)
        stops: list[tuple[float, float]] = []  # route position, s until which one waits there
        if streets.side is not None:
            self.stop_line = streets.side_at - streets.side.half - 6.0
            chance = random.random()
            if chance < 0.35:
                turns = [
                    t for t in (-1, 1) if (streets.side_to if t > 0 else -streets.side_from) > 50
                ]
                self.turn = int(random.choice(turns))
                if self.turn == self.side_of_driving:
                    self.ego_lane = streets.main.lanes - 1
                else:
                    self.ego_lane = 0
                self.ego_route = self._turning_route(self.ego_lane, self.turn)
            if chance > 0.7 or (self.turn and random.random() < 0.3):
                self.red_until = random.uniform(0.3, 1.1) * self.duration
                stops.append((60.0 + self.stop_line - 2.5, self.red_until))
        elif random.random() < 0.25:
            at = random.uniform(15.0, 80.0)
            stops.append((60.0 + at, random.uniform(0.4, 0.9) * self.duration))
        start_speed = 0.0 if random.random() < 0.12 else cruise * random.uniform(0.6, 1.0)
        hesitation = random.uniform(0.0, 0.5) * self.duration if start_speed == 0.0 else 0.0
        arc = 60.0 + streets.side_at - 12.0 if self.turn else np.inf
        u, v, line = 60.0, start_speed, []
        if stops and start_speed > 0 and random.random() < 0.4:  # it stands there already
            u, v = stops[0][0], 0.0
        for time in self.times:
            line.append(u)
            target = cruise if time >= hesitation or start_speed > 0 else 0.0
            if arc - 25 < u < arc + 28:
                target = min(target, 4.5 + max(0.0, arc - u) * 0.25)
            for at, until in stops:
                if time < until and u <= at + 0.5:
                    target = min(target, np.sqrt(2 * 1.5 * max(0.0, at - u)))
            v += float(np.clip(target - v, -4.0 * TICK, 1.6 * TICK))
            v = max(v, 0.0)
            u += v * TICK
        self.ego_along = np.array(line)
        return self.ego_route.at(self.ego_along)

    def _vehicle(self, heavy: float = 0.25) -> tuple[str, str, Built, str]:
        """(kind, label, parts and size, detail) of something with an engine."""
        random = self.random
        if random.random() > heavy:
            return "car", "car", shapes.car(random), ""
        kind = random.choice(
            ["truck", "bus", "motorcycle", "construction"], p=[0.42, 0.22, 0.3, 0.06]
        )
        if kind == "truck":
            return "truck", "truck", shapes.truck(random), ""
        if kind == "bus":
            return "bus", "bus", shapes.bus(random), ""
        if kind == "motorcycle":
            return "motorcycle", "motorcycle", shapes.motorcycle(random, ridden=True), "rider"
        return "construction", "construction_vehicle", shapes.construction_vehicle(random), ""

    def _add_moving(self, route: _Route, along: np.ndarray, heavy: float = 0.25) -> float:
        """One vehicle at these positions along the route; returns its length."""
        kind, label, built, detail = self._vehicle(heavy)
        length = built[1][0]
        self._add(kind, label, built, route.at(along), detail)
        if kind == "truck" and self.random.random() < 0.3:
            tow = shapes.trailer(self.random)
            gap = length / 2 + tow[1][0] / 2 + 0.4
            self._add("trailer", "trailer", tow, route.at(along - gap))
            length += tow[1][0] + 0.4
        return length

    def _traffic(self) -> None:
        random, streets = self.random, self.streets
        waits = self.red_until > 0
        # Before and behind us, on our route, with our speed.
        if not waits and random.random() < 0.65:
            gap = random.uniform(9.0, 28.0)
            for _ in range(random.integers(1, 4)):
                self._add_moving(self.ego_route, self.ego_along + gap + 3.0)
                gap += random.uniform(14.0, 25.0)
        if random.random() < 0.6:
            gap = random.uniform(9.0, 24.0)
            for _ in range(random.integers(1, 3)):
                self._add_moving(self.ego_route, self.ego_along - gap - 3.0)
                gap += random.uniform(15.0, 28.0)
        for lane in range(streets.main.lanes):
            if lane != self.ego_lane:
                self._lane(
                    self._main_route(lane, 1, -120.0, 420.0), waits or bool(self.turn), 120.0
                )
            oncoming = self._main_route(lane, -1, -160.0, 330.0)
            self._lane(oncoming, waits or bool(self.turn), 330.0, oncoming=True)
        if streets.side is not None:
            self._cross_traffic()

    def _lane(self, route: _Route, waits: bool, zero: float, oncoming: bool = False) -> None:
        """A stream with one speed, or a queue; ``zero``: where station 0 lies on the route."""
        random, streets = self.random, self.streets
        if streets.side is not None and waits:
            far = streets.side_at + streets.side.half + 6.0
            line = zero - far if oncoming else zero + self.stop_line
            go = self.red_until if self.red_until > 0 else 1e9
            ride = np.maximum(0.0, self.times - go - 0.5)
            moved = np.minimum(0.75 * ride**2, 7.0 * ride)
            self._queue(route, line, moved, random.integers(0, 4))
            return
        speed = random.uniform(4.0, 14.0)
        u = random.uniform(0.0, 40.0)
        while u < route.length - 40.0:
            along = u + speed * (self.times - self.times[0])
            if along[-1] < route.length - 5.0 and random.random() < 0.75 * self.density:
                self._add_moving(route, along)
            u += random.uniform(22.0, 55.0)

    def _queue(self, route: _Route, line: float, moved: np.ndarray, count: int) -> None:
        at = line - 4.0
        for _ in range(count):
            before = len(self.things)
            length = self._add_moving(route, at + moved, heavy=0.2)
            lengths = [t.size[0] for t in self.things[before:]]
            at -= length + self.random.uniform(1.8, 3.5) + max(0.0, lengths[0] - 5.0) * 0.5

    def _cross_traffic(self) -> None:
        random, streets = self.random, self.streets
        half = streets.main.half + 5.5
        for direction in (-1, 1):
            start, end = streets.side_from, streets.side_to
            comes_from = start if direction > 0 else -end
            if comes_from > -50:  # nobody comes out of the missing arm of a tee
                continue
            leaves = end if direction > 0 else -start
            for lane in range(streets.side.lanes):
                low, high = (
                    (comes_from, max(leaves, 0.0))
                    if direction > 0
                    else (-max(leaves, 0.0), -comes_from)
                )
                route = self._side_route(lane, direction, low, high)
                zero = -comes_from
                if self.red_until > 0 and leaves > 50:
                    speed = random.uniform(5.0, 11.0)
                    last = zero + half + 8.0 - speed * (self.red_until - 1.0)
                    u = last
                    while u < zero + half + 60.0:
                        along = u + speed * self.times
                        if (
                            along[0] > 0
                            and along[-1] < route.length - 3.0
                            and random.random() < 0.7
                        ):
                            self._add_moving(route, along, heavy=0.2)
                        u += random.uniform(13.0, 35.0)
                else:
                    still = np.zeros_like(self.times)
                    self._queue(route, zero - half, still, random.integers(0, 4))

    # -- what stands at the kerb ---------------------------------------------------------------

    def _place(self, road: int, s: float, d: float) -> np.ndarray:
        """x, y, heading at (s, d) of the main (0) or side road (1)."""
        streets = self.streets
        return (streets.point if road == 0 else streets.side_point)(np.asarray(s), d)

    def _roads(self) -> list[tuple[int, float, float]]:
        """(number, from, to) of the stretches that are built up."""
        roads = [(0, -90.0, 60.0 + float(self.ego_along[-1] - 60.0) * (not self.turn) + REACH)]
        if self.streets.side is not None:
            roads.append((1, max(self.streets.side_from, -110.0), min(self.streets.side_to, 110.0)))
        return roads

    def _parked(self) -> None:
        random = self.random
        for road, start, end in self._roads():
            section = self.streets.main if road == 0 else self.streets.side
            for side in (-1, 1):
                if section.parking <= 0:
                    continue
                fill = random.uniform(0.15, 0.9)
                s = start + random.uniform(0, 5)
                while s < end:
                    chance = random.random()
                    built: Built
                    if chance < 0.8:
                        kind, label, built, detail = "car", "car", shapes.car(random), "parked"
                    elif chance < 0.88:
                        kind, label, built, detail = (
                            "truck",
                            "truck",
                            shapes.truck(random),
                            "parked",
                        )
                    elif chance < 0.91:
                        kind, label, built, detail = (
                            "trailer",
                            "trailer",
                            shapes.trailer(random),
                            "",
                        )
                    elif chance < 0.93:
                        kind, label, built, detail = "bus", "bus", shapes.bus(random), "parked"
                    else:
                        built = shapes.motorcycle(random, ridden=False)
                        kind, label, detail = "motorcycle", "motorcycle", "alone"
                    length, width, _ = built[1]
                    d = side * (section.half - 0.25 - width / 2)
                    x, y, heading = self._place(road, s + length / 2, d)
                    heading += np.pi * (side != self.side_of_driving) + random.normal(0, 0.02)
                    clear = self._kerb_clear(road, s + length / 2, length / 2)
                    if (
                        clear
                        and random.random() < fill
                        and self._free(x, y, max(width, 0.45 * length) * 0.7, take=False)
                    ):
                        self._add(kind, label, built, np.array([x, y, heading]), detail)
                        for part in (-0.35, 0.0, 0.35):
                            px = x + np.cos(heading) * part * length
                            py = y + np.sin(heading) * part * length
                            self.taken.append((px, py, max(width / 2, 0.2 * length)))
                    s += length + random.uniform(0.7, 1.8) + (random.random() < 0.12) * 8

    def _kerb_clear(self, road: int, s: float, reach: float) -> bool:
        """Whether the kerb is straight here: no crossing, no mouth of a side road."""
        if self.streets.side is None:
            return True
        if road == 0:
            return abs(s - self.streets.side_at) > self.streets.side.half + 11.0 + reach
        return abs(s) > self.streets.main.half + 11.0 + reach

    def _works(self) -> None:
        """Building sites on the road, and barriers along it."""
        random, streets = self.random, self.streets
        main = streets.main
        rows = [random.choice([-1, 1]) * (main.half + 0.4)] if random.random() < 0.4 else []
        if main.median > 1.0 and random.random() < 0.45:
            rows.append(0.0)
        for d in rows:  # barriers on the median or at the kerb
            start = random.uniform(-30, 60)
            for s in np.arange(start, start + random.uniform(20, 60), 2.05):
                if self._kerb_clear(0, s, 0):
                    place = self._place(0, s, d + random.normal(0, 0.04))
                    self._barrier(place)
                    self.taken.append((place[0], place[1], 1.0))
        for _ in range(random.poisson(0.5)):  # cones at the kerb, for whatever reason
            s0, side = random.uniform(-10, 70), random.choice([-1, 1])
            for s in s0 + 2.5 * np.arange(random.integers(3, 9)):
                place = self._place(0, s, side * (main.half - main.parking + 0.25))
                if self._kerb_clear(0, s, 0) and not self._swept(place[0], place[1], 1.5):
                    self._add("cone", "traffic_cone", shapes.traffic_cone(random), place)
                    self.taken.append((place[0], place[1], 0.3))
        for _ in range(int(random.choice([0, 1, 2, 3], p=[0.25, 0.4, 0.25, 0.1]))):
            side, s0, length = (
                random.choice([-1, 1]),
                random.uniform(-20, 90),
                random.uniform(12, 35),
            )
            if not all(self._kerb_clear(0, s, 2.0) for s in (s0 - 8, s0, s0 + length)):
                continue
            inner = main.half - (main.parking if main.parking > 0 else 0.0)
            on_road = main.parking > 0 and random.random() < 0.6
            edge = inner + 0.3 if on_road else main.half + main.verge + main.sidewalk + 0.5
            deep = (main.parking if on_road else 7.0) - 0.4
            middle = self._place(0, s0 + length / 2, side * (edge + deep / 2))
            if not self._free(middle[0], middle[1], length * 0.3, take=False):
                continue
            for s in np.arange(s0, s0 + length, 2.05):
                place = self._place(0, s, side * edge)
                if not self._swept(place[0], place[1], 1.6):
                    self._barrier(place)
            for i in range(random.integers(3, 9)):
                place = self._place(0, s0 - 2.0 - 1.6 * i, side * (edge + 0.25 * i))
                if not self._swept(place[0], place[1], 1.5):
                    cone = shapes.traffic_cone(random)
                    self._add("cone", "traffic_cone", cone, place + (0, 0, random.uniform(0, 3)))
            machine = shapes.construction_vehicle(random)
            s = s0 + random.uniform(0.3, 0.7) * length
            place = self._place(0, s, side * (edge + max(deep / 2, 1.8)))
            if self._free(place[0], place[1], 3.0) and not self._swept(place[0], place[1], 3.0):
                turn = random.normal(0, 0.15) if on_road else random.uniform(0, 6.28)
                self._add("construction", "construction_vehicle", machine, place + (0, 0, turn))
            for _ in range(random.integers(0, 4)):
                place = self._place(
                    0,
                    s0 + random.uniform(0, length),
                    side * (edge + random.uniform(0.6, max(deep, 1.0))),
                )
                if self._free(place[0], place[1], 0.5):
                    worker = shapes.pedestrian(random, worker=True, stride=0.1)
                    self._add(
                        "pedestrian",
                        "pedestrian",
                        worker,
                        place + (0, 0, random.uniform(0, 6.28)),
                        "worker",
                    )
            for along in np.arange(s0, s0 + length, 2.0):
                place = self._place(0, along, side * (edge + deep / 2))
                self.taken.append((place[0], place[1], deep / 2))

    def _barrier(self, place: np.ndarray) -> None:
        self._add("barrier", "barrier", shapes.barrier(self.random), place)

    def _people(self) -> None:
        random, streets = self.random, self.streets
        busy = random.uniform(0.3, 1.6)
        for road, start, end in self._roads():
            section = streets.main if road == 0 else streets.side
            point = streets.point if road == 0 else streets.side_point
            for side in (-1, 1):
                for _ in range(random.poisson(7 * busy if road == 0 else 3 * busy)):
                    s = random.uniform(max(start, -50), min(end, 140))
                    d = side * (
                        section.half
                        + section.verge
                        + random.uniform(1.1, max(section.sidewalk - 0.4, 1.2))
                    )
                    walks = random.random() < 0.75
                    direction = random.choice([-1, 1])
                    speed = direction * random.uniform(0.8, 1.9) if walks else 0.0
                    poses = point(s + speed * self.times, d) + (0, 0, np.pi * (direction < 0))
                    ends = poses[[0, len(poses) // 2, -1]]
                    if any(self._kerb(x, y) < 0.3 for x, y, _ in ends):
                        continue  # it would cross the other road without a look
                    if not walks:
                        poses = poses[:1] + (0, 0, random.uniform(0, 6.28))
                        if not self._free(poses[0, 0], poses[0, 1], 0.4):
                            continue
                    someone = shapes.pedestrian(random, stride=0.28 if walks else 0.05)
                    self._add("pedestrian", "pedestrian", someone, poses)
                for _ in range(random.poisson(0.8)):
                    s = random.uniform(max(start, -50), min(end, 120))
                    if not self._kerb_clear(road, s, 3.0):
                        continue
                    for i in range(random.integers(1, 5)):  # a rack
                        place = self._place(
                            road, s + 0.75 * i, side * (section.half + section.verge + 0.5)
                        )
                        place[2] += np.pi / 2 + random.normal(0, 0.1)
                        if self._free(place[0], place[1], 0.35):
                            if random.random() < 0.75:
                                self._add(
                                    "bicycle",
                                    "bicycle",
                                    shapes.bicycle(random, ridden=False),
                                    place,
                                    "alone",
                                )
                            else:
                                bike = shapes.motorcycle(random, ridden=False)
                                self._add("motorcycle", "motorcycle", bike, place, "alone")
        self._cyclists()
        if self.red_until > 0:
            self._crossing_people()

    def _cyclists(self) -> None:
        random, streets = self.random, self.streets
        for direction in (-1, 1):
            for _ in range(random.poisson(0.9)):
                s = random.uniform(-40, 90)
                d = (
                    direction
                    * self.side_of_driving
                    * (streets.main.half - streets.main.parking - 0.55)
                )
                speed = 0.0 if self.red_until > 0 else random.uniform(3.0, 6.5)
                line = s + direction * speed * self.times
                poses = streets.point(line, d) + (0, 0, np.pi * (direction < 0))
                near = np.hypot(*(poses[:, :2] - self.ego[: len(poses), :2]).T).min()
                crosses = self.turn and direction > 0 and (line > streets.side_at - 12).any()
                blocked = not self._free(poses[0, 0], poses[0, 1], 0.8, take=False) and not speed
                if near > 2.2 and not crosses and not blocked:
                    self._add(
                        "bicycle", "bicycle", shapes.bicycle(random, ridden=True), poses, "rider"
                    )

    def _crossing_people(self) -> None:
        """People who cross in front of those that wait."""
        random, streets = self.random, self.streets
        half = streets.main.half + 1.0
        for _ in range(random.integers(1, 7)):
            speed = random.uniform(1.0, 1.8) * random.choice([-1, 1])
            s = streets.side_at - streets.side.half - random.uniform(2.2, 4.4)
            arrive = random.uniform(-2.0, max(self.red_until - 3.0, 0.0))
            across = np.clip(speed * (self.times - arrive), -half, half)
            away = self.red_until - 1.0
            if abs(speed * (away - arrive)) < half and arrive < away:
                across = across - speed * away + speed * arrive + np.sign(speed) * half
                across = np.clip(across, -half, half)
            poses = streets.point(np.full_like(across, s), across)
            poses[:, 2] += np.pi / 2 * np.sign(speed)
            self._add("pedestrian", "pedestrian", shapes.pedestrian(random), poses)

    def _furniture(self) -> None:
        """Trees, lamps, signs, bins and shelters between kerb and houses."""
        random, streets = self.random, self.streets
        if streets.side is not None:
            for direction in (-1, 1):
                s = streets.side_at - direction * (streets.side.half + 4.0)
                d = direction * self.side_of_driving * (streets.main.half + 0.7)
                x, y, heading = self._place(0, s, d)
                if self._free(x, y, 0.3):
                    light = shapes.traffic_light(
                        random.choice([0.0, streets.main.half * 0.6]), self.red_until <= 0
                    )
                    # The arm reaches over the road.
                    facing = heading + np.pi * (direction < 0)
                    if self.side_of_driving > 0:
                        light = [_mirrored(p) for p in light]
                    self._stand("manmade", light, np.array([x, y, facing]))
        for road, start, end in self._roads():
            section = streets.main if road == 0 else streets.side
            for side in (-1, 1):
                kerb = section.half + 0.55
                self._row(road, side, kerb, start, end, random.uniform(22, 38), self._lamp)
                if random.random() < 0.7:
                    self._row(
                        road,
                        side,
                        kerb + section.verge * 0.3,
                        start,
                        end,
                        random.uniform(7, 18),
                        self._tree,
                    )
                self._row(road, side, kerb, start, end, random.uniform(30, 70), self._sign)
                self._row(
                    road, side, section.reserve - 0.5, start, end, random.uniform(25, 80), self._bin
                )
                if random.random() < 0.35:
                    self._row(road, side, kerb, start, end, random.uniform(2.0, 4.0), self._bollard)
                if random.random() < 0.3:
                    self._row(road, side, section.reserve - 1.1, start, end, 90.0, self._shelter)
            if section.median > 1.1 and random.random() < 0.6:
                step, kind = random.choice([6.0, 10.0]), random.choice([0, 1, 2])
                plant = (self._tree, self._bush, self._hedge)[kind]
                self._row(road, 1, 0.0, start, end, step, plant)

    def _row(
        self,
        road: int,
        side: int,
        d: float,
        start: float,
        end: float,
        step: float,
        what: Callable[[np.ndarray, int], None],
    ) -> None:
        s = start + self.random.uniform(0, step)
        while s < end:
            if self._kerb_clear(road, s, 2.0):
                place = self._place(road, s, side * d)
                if self._kerb(place[0], place[1]) > 0.2 or d == 0.0:
                    what(place, side)
            s += step * self.random.uniform(0.8, 1.25)

    def _lamp(self, place: np.ndarray, side: int) -> None:
        if self._free(place[0], place[1], 0.3):
            self._stand("manmade", shapes.lamp(self.random), place + (0, 0, np.pi * (side > 0)))

    def _tree(self, place: np.ndarray, side: int) -> None:
        if self._free(place[0], place[1], 0.7):
            self._stand("vegetation", shapes.tree(self.random), place)

    def _bush(self, place: np.ndarray, side: int) -> None:
        if self._free(place[0], place[1], 0.5):
            self._stand("vegetation", shapes.bush(self.random, 3.0), place)

    def _hedge(self, place: np.ndarray, side: int) -> None:
        if self._free(place[0], place[1], 0.5):
            self._stand("vegetation", shapes.hedge(self.random, 5.0), place)

    def _sign(self, place: np.ndarray, side: int) -> None:
        if self._free(place[0], place[1], 0.4):
            turn = np.pi * (side != self.side_of_driving)
            self._stand("manmade", shapes.sign(self.random), place + (0, 0, turn))

    def _bin(self, place: np.ndarray, side: int) -> None:
        if self._free(place[0], place[1], 0.6):
            turn = self.random.uniform(0, 6.28)
            self._add("bin", "others", shapes.litter_bin(self.random), place + (0, 0, turn))

    def _bollard(self, place: np.ndarray, side: int) -> None:
        if self._free(place[0], place[1], 0.3):
            self._stand("manmade", shapes.bollard(self.random), place)

    def _shelter(self, place: np.ndarray, side: int) -> None:
        if self._free(place[0], place[1], 2.4):
            self._stand("manmade", shapes.shelter(self.random), place + (0, 0, np.pi * (side > 0)))

    # -- houses --------------------------------------------------------------------------------

    def _town(self) -> None:
        random, streets = self.random, self.streets
        green = random.uniform(0.1, 0.6)  # share of lots without a house
        for road, start, end in self._roads():
            section = streets.main if road == 0 else streets.side
            for side in (-1, 1):
                setback = random.uniform(0.3, 6.0)
                s = start + random.uniform(0, 8)
                while s < end:
                    length, depth = random.uniform(9, 26), random.uniform(8, 16)
                    empty = random.random() < green
                    if empty:
                        self._garden(road, side, s, length, section.reserve)
                    else:
                        d = section.reserve + setback + random.uniform(0, 1.5) + depth / 2
                        self._house(road, side, s + length / 2, d, length, depth)
                    if setback > 2.5 and random.random() < 0.5:
                        self._front(road, side, s + length / 2, section.reserve + 0.5, length)
                    s += length + random.choice([0.4, random.uniform(1, 6)])
                # A second row closes the view between the houses.
                for s in np.arange(start - 20, end + 20, 24.0):
                    depth, length = random.uniform(10, 18), random.uniform(14, 22)
                    d = section.reserve + random.uniform(28, 42) + depth / 2
                    if random.random() < 0.6:
                        self._house(road, side, s, d, length, depth)
                    else:
                        for _ in range(3):
                            place = self._place(road, s + random.uniform(-9, 9), side * d)
                            if self._kerb(place[0], place[1]) > 8:
                                self._tree(place, side)
        # The ends of the streets do not look into nothing.
        for road, start, end in self._roads():
            for s in (start - 60.0, end + 60.0):
                for d in np.arange(-60, 61, 20.0):
                    place = self._place(road, s + random.uniform(-12, 12), d)
                    parts = shapes.building(random, 19.0, 14.0)
                    far = self._kerb(place[0], place[1]) > 11
                    if (far or abs(s) > 150) and self._free(place[0], place[1], 8.0):
                        self._stand("manmade", parts, place + (0, 0, np.pi / 2))
                    if self._free(place[0], place[1] + 8.0, 3.0):
                        self._stand("vegetation", shapes.tree(random), place + (0, 8.0, 0))

    def _house(self, road: int, side: int, s: float, d: float, length: float, depth: float) -> None:
        place = self._place(road, s, side * d)
        yaw = place[2] + np.pi * (side > 0)  # the front looks to the road
        parts = shapes.building(self.random, length, depth)
        corners = [
            (
                place[0] + np.cos(yaw) * a * length / 2 - np.sin(yaw) * b * depth / 2,
                place[1] + np.sin(yaw) * a * length / 2 + np.cos(yaw) * b * depth / 2,
            )
            for a in (-1, 0, 1)
            for b in (-1, 1)
        ]
        walk = max(self.streets.main.reserve - self.streets.main.half, 2.0)
        if any(self._kerb(x, y) < walk for x, y in corners):
            return
        # Discs along the length stand for the footprint.
        radius = depth / 2 * 0.95
        spots = np.linspace(-1, 1, max(1, int(np.ceil(length / depth)) + 1)) * max(
            length / 2 - radius, 0
        )
        centres = [(place[0] + np.cos(yaw) * t, place[1] + np.sin(yaw) * t) for t in spots]
        if all(self._free(x, y, radius, take=False) for x, y in centres):
            self.taken += [(x, y, radius) for x, y in centres]
            self._stand("manmade", parts, np.array([place[0], place[1], yaw]))

    def _front(self, road: int, side: int, s: float, d: float, length: float) -> None:
        """A hedge, a wall or bushes along the sidewalk."""
        place = self._place(road, s, side * d)
        if not self._kerb_clear(road, s, length / 2) or self._kerb(place[0], place[1]) < 1.5:
            return
        kind = self.random.integers(3)
        if kind == 0:
            self._stand("vegetation", shapes.hedge(self.random, length * 0.8), place)
        elif kind == 1:
            self._stand("manmade", shapes.wall(self.random, length * 0.8), place)
        else:
            self._stand("vegetation", shapes.bush(self.random, length * 0.6), place)

    def _garden(self, road: int, side: int, s: float, length: float, d: float) -> None:
        """A lot without a house: trees and bushes, or on hard ground vehicles."""
        random = self.random
        for _ in range(random.integers(2, 7)):
            along, deep = s + random.uniform(0, length), d + random.uniform(2.0, 22.0)
            place = self._place(road, along, side * deep)
            if self._kerb(place[0], place[1]) < 3.0:
                continue
            ground = int(self.streets.labels(*torch.tensor(place[:2, None]))[0])
            if ground in (_LABEL["driveable_surface"], _LABEL["other_flat"]):
                if random.random() < 0.75:
                    self._left_standing(place + (0, 0, np.pi / 2 + random.normal(0, 0.03)))
            elif random.random() < 0.6:
                self._tree(place, side)
            else:
                self._bush(place, side)

    def _left_standing(self, place: np.ndarray) -> None:
        """A vehicle off the road."""
        random = self.random
        if not self._free(place[0], place[1], 2.4):
            return
        if random.random() < 0.85:
            self._add("car", "car", shapes.car(random), place, "parked")
        elif random.random() < 0.5:
            self._add("trailer", "trailer", shapes.trailer(random), place)
        else:
            machine = shapes.construction_vehicle(random)
            self._add("construction", "construction_vehicle", machine, place)


def _mirrored(part: Part) -> Part:
    """The part on the other side of the x axis."""
    return shapes.replace(
        part,
        y=(-part.y[1], -part.y[0]),
        slope_y=(-part.slope_y[1], -part.slope_y[0]),
        origin=(part.origin[0], -part.origin[1]),
        yaw=-part.yaw,
    )


def _weather(random: np.random.Generator) -> Weather:
    kind = random.choice(
        ["sunny", "hazy", "overcast", "low", "dusk", "rain"], p=[0.34, 0.16, 0.2, 0.14, 0.08, 0.08]
    )
    elevation = np.radians(
        {"low": random.uniform(9, 20), "dusk": random.uniform(4, 9)}.get(
            kind, random.uniform(28, 70)
        )
    )
    azimuth = random.uniform(0, 2 * np.pi)
    sun = (
        float(np.cos(elevation) * np.cos(azimuth)),
        float(np.cos(elevation) * np.sin(azimuth)),
        float(np.sin(elevation)),
    )
    sun_colour, sky, horizon, haze, visibility, clouds, exposure, noise, wet, shadow = {
        "sunny": (
            (2.3, 2.2, 2.0),
            (0.2, 0.38, 0.75),
            (0.62, 0.74, 0.9),
            (0.6, 0.7, 0.82),
            900.0,
            0.35,
            1.0,
            0.008,
            0.0,
            1.0,
        ),
        "hazy": (
            (1.5, 1.45, 1.35),
            (0.45, 0.55, 0.72),
            (0.8, 0.82, 0.85),
            (0.75, 0.77, 0.8),
            220.0,
            0.6,
            1.05,
            0.01,
            0.0,
            0.75,
        ),
        "overcast": (
            (0.35, 0.35, 0.36),
            (0.7, 0.72, 0.76),
            (0.82, 0.83, 0.85),
            (0.75, 0.76, 0.78),
            420.0,
            1.0,
            1.35,
            0.012,
            0.15,
            0.3,
        ),
        "low": (
            (2.0, 1.5, 0.95),
            (0.28, 0.4, 0.62),
            (0.95, 0.75, 0.5),
            (0.75, 0.65, 0.5),
            450.0,
            0.4,
            1.1,
            0.012,
            0.0,
            0.9,
        ),
        "dusk": (
            (0.5, 0.3, 0.18),
            (0.1, 0.14, 0.26),
            (0.55, 0.36, 0.25),
            (0.28, 0.24, 0.24),
            350.0,
            0.6,
            1.7,
            0.022,
            0.0,
            0.4,
        ),
        "rain": (
            (0.15, 0.15, 0.16),
            (0.5, 0.53, 0.57),
            (0.6, 0.62, 0.65),
            (0.55, 0.57, 0.6),
            130.0,
            1.0,
            1.4,
            0.016,
            0.8,
            0.15,
        ),
    }[str(kind)]
    return Weather(
        sun=sun,
        sun_colour=sun_colour,
        sky_colour=sky,
        horizon_colour=horizon,
        haze_colour=haze,
        visibility=visibility * random.uniform(0.7, 1.4),
        clouds=float(np.clip(clouds + random.uniform(-0.25, 0.25), 0.0, 1.0)),
        exposure=exposure * random.uniform(0.8, 1.25),
        noise=noise * random.uniform(0.6, 1.5),
        wet=wet,
        shadow=shadow,
    )
