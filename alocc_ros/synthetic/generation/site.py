# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""A scene under construction: the roads, what was placed so far, and where there is still room."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from alocc_ros.labels import OCC3D
from alocc_ros.synthetic.generation.ego import START, EgoDrive
from alocc_ros.synthetic.generation.routes import RoutePlanner
from alocc_ros.synthetic.primitives import ActorModel, Part, transformed
from alocc_ros.synthetic.scene import Actor
from alocc_ros.synthetic.streets import Road, Streets

MAIN, SIDE = 0, 1  # numbers of the roads
_LARGEST_CHANCE = 0.8  # of something rare, however much of it is wanted
BUILT_UP = 130.0  # m along the main road that is built up beyond what the ego vehicle drives
# Classes of actors that are called otherwise than their kind.
_CLASS_OF_KIND = {"construction": "construction_vehicle", "cone": "traffic_cone", "bin": "others"}


@dataclass
class Site:
    """Collects the actors and static parts of a scene.

    Attributes:
        random: where all numbers are drawn from.
        times: [K] s, every TICK: when moving actors have poses.
        routes: on the roads of the scene.
        ego: what the ego vehicle does.
        rare: how many times as many people, two-wheelers, cones, building sites, and vehicles that
            are no cars there are as on an ordinary street, where there is room. It changes what is
            made of the random numbers, not which are drawn for 1.
        actors, parts, owner, labels: as in ``Scene``.
        occupied: discs (x, y, radius in m) that are taken.
    """

    random: np.random.Generator
    times: np.ndarray
    routes: RoutePlanner
    ego: EgoDrive
    rare: float = 1.0
    actors: list[Actor] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    owner: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    occupied: list[tuple[float, float, float]] = field(default_factory=list)

    @property
    def streets(self) -> Streets:
        """The roads."""
        return self.routes.streets

    @property
    def driving_side(self) -> float:
        """-1 where one drives on the right, 1 on the left."""
        return self.routes.driving_side

    def add_actor(self, kind: str, model: ActorModel, poses: np.ndarray, detail: str = "") -> None:
        """Something with a box, at x, y, heading [3] or, at each of ``times``, [K, 3]."""
        label = OCC3D.names.index(_CLASS_OF_KIND.get(kind, kind))
        poses = np.atleast_2d(np.asarray(poses, dtype=np.float64))
        self.actors.append(Actor(kind, label, model.size, poses, detail))
        self.parts += model.parts
        self.owner += [len(self.actors) - 1] * len(model.parts)
        self.labels += [label] * len(model.parts)

    def add_static(self, class_name: str, parts: list[Part], pose: np.ndarray) -> None:
        """Static surroundings, which have no box, at x, y, heading [3]."""
        x, y, yaw = (float(v) for v in pose)
        self.parts += transformed(parts, x, y, yaw)
        self.owner += [-1] * len(parts)
        self.labels += [OCC3D.names.index(class_name)] * len(parts)

    # -- room ------------------------------------------------------------------------------

    def chance(self, ordinary: float) -> float:
        """The probability of something rare that has this one on an ordinary street."""
        return min(ordinary * self.rare, max(ordinary, _LARGEST_CHANCE))

    def is_free(self, x: float, y: float, radius: float) -> bool:
        """Whether a disc (m) meets none that is taken."""
        return not any((x - a) ** 2 + (y - b) ** 2 < (radius + r) ** 2 for a, b, r in self.occupied)

    def occupy(self, x: float, y: float, radius: float) -> None:
        """Takes a disc (m)."""
        self.occupied.append((x, y, radius))

    def claim(self, x: float, y: float, radius: float) -> bool:
        """Takes a disc (m) if it is free, and says whether it was."""
        free = self.is_free(x, y, radius)
        if free:
            self.occupy(x, y, radius)
        return free

    def kerb_distance(self, x: float, y: float) -> float:
        """m to the nearest kerb, negative on the carriageway."""
        point = torch.tensor([x, y], dtype=torch.float64)
        return float(self.streets.kerb_distance(point[:1], point[1:])[0])

    def near_ego(self, x: float, y: float, radius: float) -> bool:
        """Whether the ego vehicle ever comes within ``radius`` m of a place."""
        poses = self.ego.poses
        return bool((np.hypot(poses[:, 0] - x, poses[:, 1] - y) < radius).any())

    # -- roads -----------------------------------------------------------------------------

    def road(self, number: int) -> Road:
        """The cross-section of a road, MAIN or SIDE."""
        return self.streets.main if number == MAIN else self.streets.side

    def pose_on(self, road: int, s: float | np.ndarray, d: float) -> np.ndarray:
        """x, y, heading [..., 3] at ``s`` m along a road and ``d`` m to its left."""
        streets = self.streets
        return (streets.point if road == MAIN else streets.side_point)(np.asarray(s), d)

    def built_up(self) -> list[tuple[int, float, float]]:
        """(road, from, to in m) of the stretches that are built up."""
        driven = float(self.ego.along[-1] - START) * (not self.ego.turn)
        roads = [(MAIN, -90.0, 60.0 + driven + BUILT_UP)]
        if self.streets.side is not None:
            start, end = self.streets.side_from, self.streets.side_to
            roads.append((SIDE, max(start, -110.0), min(end, 110.0)))
        return roads

    def clear_of_junction(self, road: int, s: float, reach: float) -> bool:
        """Whether the kerb is straight ``reach`` m around: no crossing, no mouth of a road."""
        streets = self.streets
        if streets.side is None:
            return True
        if road == MAIN:
            return abs(s - streets.side_at) > streets.side.half + 11.0 + reach
        return abs(s) > streets.main.half + 11.0 + reach
