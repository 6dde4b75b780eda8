# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The drive of the ego vehicle: its route, its speed, and where it waits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alocc_ros.synthetic.generation.routes import Route, RoutePlanner
from alocc_ros.synthetic.scene import TICK

START = 60.0  # m along its route where the ego vehicle is about time 0
_ROAD = 420.0  # m along the main road to which there are lanes, enough for 20 s
_AHEAD = 160.0  # m of road that is left at the end of a longer drive
_LONGEST_STOP = 30.0  # s; of a longer drive not a part, as of a short one


@dataclass(frozen=True)
class EgoDrive:
    """What the ego vehicle does; the others heed it.

    Attributes:
        lane: of the main road, 0 next to the middle.
        turn: into the side road; 1 left, -1 right, 0 it stays on the main road.
        red_until: s, the end of the red phase of the main road; -1 where there is none.
        stop_line: m along the main road; nan where nothing crosses it.
        reach: m along the main road to which there are lanes.
        route: the line that it follows.
        along: [K] m along the route at every TICK from -LEAD_IN.
        poses: [K, 3] x, y (m), heading (rad), map, at the same times.
    """

    lane: int
    turn: int
    red_until: float
    stop_line: float
    reach: float
    route: Route
    along: np.ndarray
    poses: np.ndarray


def plan_ego_drive(
    random: np.random.Generator, routes: RoutePlanner, times: np.ndarray, duration: float
) -> EgoDrive:
    """A random route and speed.

    Args:
        random: where numbers are drawn from.
        routes: of the scene's roads.
        times: [K] s, every TICK.
        duration: s, of the scene.
    """
    streets = routes.streets
    lane = int(random.integers(streets.main.lanes))
    red_until, turn, stop_line = -1.0, 0, float("nan")
    cruise, stop = random.uniform(3.5, 13.0), min(duration, _LONGEST_STOP)
    reach = max(_ROAD, cruise * duration + _AHEAD)
    route = routes.along_main(lane, 1, -START, reach)
    stops: list[tuple[float, float]] = []  # route position, s until which one waits there
    if streets.side is not None:
        stop_line = streets.side_at - streets.side.half - 6.0
        chance = random.random()
        if chance < 0.35:
            turns = [t for t in (-1, 1) if (streets.side_to if t > 0 else -streets.side_from) > 50]
            turn = int(random.choice(turns))
            lane = streets.main.lanes - 1 if turn == routes.driving_side else 0
            route = routes.turning(lane, turn)
        if chance > 0.7 or (turn and random.random() < 0.3):
            red_until = random.uniform(0.3, 1.1) * stop
            stops.append((START + stop_line - 2.5, red_until))
    elif random.random() < 0.25:
        at = random.uniform(15.0, 80.0)
        stops.append((START + at, random.uniform(0.4, 0.9) * stop))
    start_speed = 0.0 if random.random() < 0.12 else cruise * random.uniform(0.6, 1.0)
    hesitation = random.uniform(0.0, 0.5) * stop if start_speed == 0.0 else 0.0
    arc = START + streets.side_at - 12.0 if turn else np.inf
    u, v, along = START, start_speed, []
    if stops and start_speed > 0 and random.random() < 0.4:  # it stands there already
        u, v = stops[0][0], 0.0
    for time in times:
        along.append(u)
        target = cruise if time >= hesitation or start_speed > 0 else 0.0
        if arc - 25 < u < arc + 28:
            target = min(target, 4.5 + max(0.0, arc - u) * 0.25)
        for at, until in stops:
            if time < until and u <= at + 0.5:
                target = min(target, np.sqrt(2 * 1.5 * max(0.0, at - u)))
        v += float(np.clip(target - v, -4.0 * TICK, 1.6 * TICK))
        v = max(v, 0.0)
        u += v * TICK
    distance = np.array(along)
    poses = route.poses_at(distance)
    return EgoDrive(lane, turn, red_until, stop_line, reach, route, distance, poses)
