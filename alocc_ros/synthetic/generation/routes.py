# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Lines that vehicles follow: along a lane of a road, or turning from one road into the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alocc_ros.synthetic.streets import Streets


@dataclass(frozen=True)
class Route:
    """A line to follow: [n, 3] x, y (m), heading (rad, unwrapped), every STEP m; map."""

    line: np.ndarray

    STEP = 0.25

    @staticmethod
    def through(points: np.ndarray) -> Route:
        """The route through dense points [n, 2] m."""
        steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
        along = np.concatenate([[0.0], np.cumsum(steps)])
        u = np.arange(0.0, along[-1], Route.STEP)
        x, y = np.interp(u, along, points[:, 0]), np.interp(u, along, points[:, 1])
        heading = np.unwrap(np.arctan2(np.gradient(y), np.gradient(x)))
        # A vehicle does not turn its wheels at once.
        kernel = np.ones(13) / 13
        heading = np.convolve(np.pad(heading, 6, mode="edge"), kernel, mode="valid")
        return Route(np.stack([x, y, heading], axis=1))

    def poses_at(self, distance: np.ndarray) -> np.ndarray:  # [k] m -> [k, 3]
        """x, y, heading at distances from the start of the route."""
        position = np.clip(np.asarray(distance) / self.STEP, 0.0, len(self.line) - 1.001)
        i = position.astype(int)
        return self.line[i] + (position - i)[:, None] * (self.line[i + 1] - self.line[i])

    @property
    def length(self) -> float:
        """m."""
        return (len(self.line) - 1) * self.STEP


@dataclass(frozen=True)
class RoutePlanner:
    """Routes on the roads of a scene.

    Attributes:
        streets: the roads.
        driving_side: -1 where one drives on the right, 1 on the left.
    """

    streets: Streets
    driving_side: float

    def along_main(self, lane: int, direction: int, start: float, end: float) -> Route:
        """Along a lane of the main road between two stations (m); direction 1 or -1."""
        s = np.arange(start, end, 0.5)
        d = direction * self.driving_side * self.streets.main.lane(lane)
        points = self.streets.point(s, d)[:, :2]
        return Route.through(points if direction > 0 else points[::-1])

    def along_side(self, lane: int, direction: int, start: float, end: float) -> Route:
        """The same on the side road."""
        s = np.arange(start, end, 0.5)
        d = direction * self.driving_side * self.streets.side.lane(lane)
        points = self.streets.side_point(s, d)[:, :2]
        return Route.through(points if direction > 0 else points[::-1])

    def turning(self, lane: int, turn: int) -> Route:
        """From a lane of the main road into the side road; turn 1: left, -1: right."""
        streets, sigma = self.streets, self.driving_side
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
        return Route.through(np.concatenate([before, after]))
