# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Moving and waiting vehicles: around the ego vehicle, in the other lanes, on the side road."""

from __future__ import annotations

import numpy as np

from alocc_ros.synthetic.assets.people import motorcycle
from alocc_ros.synthetic.assets.vehicles import bus, car, construction_vehicle, trailer, truck
from alocc_ros.synthetic.generation.routes import Route
from alocc_ros.synthetic.generation.site import Site
from alocc_ros.synthetic.primitives import ActorModel


def add_traffic(site: Site, density: float) -> None:
    """Vehicles on the lanes of both roads; ``density`` 1 is normal traffic."""
    random, ego, main = site.random, site.ego, site.streets.main
    red = ego.red_until > 0
    # Before and behind the ego vehicle, on its route, with its speed.
    if not red and random.random() < 0.65:
        gap = random.uniform(9.0, 28.0)
        for _ in range(random.integers(1, 4)):
            _add_vehicle(site, ego.route, ego.along + gap + 3.0)
            gap += random.uniform(14.0, 25.0)
    if random.random() < 0.6:
        gap = random.uniform(9.0, 24.0)
        for _ in range(random.integers(1, 3)):
            _add_vehicle(site, ego.route, ego.along - gap - 3.0)
            gap += random.uniform(15.0, 28.0)
    waits = red or bool(ego.turn)
    for lane in range(main.lanes):
        if lane != ego.lane:
            along = site.routes.along_main(lane, 1, -120.0, ego.reach)
            _fill_lane(site, along, waits, 120.0, density)
        origin = ego.reach - 90.0
        oncoming = site.routes.along_main(lane, -1, -160.0, origin)
        _fill_lane(site, oncoming, waits, origin, density, oncoming=True)
    if site.streets.side is not None:
        _add_cross_traffic(site)


def _random_vehicle(random: np.random.Generator, heavy: float) -> tuple[str, ActorModel, str]:
    """(kind, model, detail) of a motor vehicle; ``heavy``: chance that it is no car."""
    if random.random() > heavy:
        return "car", car(random), ""
    kind = random.choice(["truck", "bus", "motorcycle", "construction"], p=[0.42, 0.22, 0.3, 0.06])
    if kind == "truck":
        return "truck", truck(random), ""
    if kind == "bus":
        return "bus", bus(random), ""
    if kind == "motorcycle":
        return "motorcycle", motorcycle(random, ridden=True), "rider"
    return "construction", construction_vehicle(random), ""


def _add_vehicle(site: Site, route: Route, along: np.ndarray, heavy: float = 0.25) -> float:
    """One vehicle at these positions ([K] m) along the route; returns its length (m)."""
    kind, model, detail = _random_vehicle(site.random, site.chance(heavy))
    length = model.size[0]
    site.add_actor(kind, model, route.poses_at(along), detail)
    if kind == "truck" and site.random.random() < site.chance(0.3):
        towed = trailer(site.random)
        gap = length / 2 + towed.size[0] / 2 + 0.4
        site.add_actor("trailer", towed, route.poses_at(along - gap))
        length += towed.size[0] + 0.4
    return length


def _fill_lane(
    site: Site, route: Route, waits: bool, origin: float, density: float, oncoming: bool = False
) -> None:
    """A stream with one speed, or a queue at the crossing.

    Args:
        site: where to add them.
        route: the lane.
        waits: whether there is a queue, where there is a crossing.
        origin: m along the route at which station 0 of the main road lies.
        density: 1 is normal traffic.
        oncoming: whether the lane runs against the main road.
    """
    random, streets, ego = site.random, site.streets, site.ego
    if streets.side is not None and waits:
        far = streets.side_at + streets.side.half + 6.0
        stop_line = origin - far if oncoming else origin + ego.stop_line
        go = ego.red_until if ego.red_until > 0 else 1e9
        since = np.maximum(0.0, site.times - go - 0.5)
        moved = np.minimum(0.75 * since**2, 7.0 * since)
        _add_queue(site, route, stop_line, moved, random.integers(0, 4))
        return
    speed = random.uniform(4.0, 14.0)
    u = random.uniform(0.0, 40.0)
    while u < route.length - 40.0:
        along = u + speed * (site.times - site.times[0])
        if along[-1] < route.length - 5.0 and random.random() < 0.75 * density:
            _add_vehicle(site, route, along)
        u += random.uniform(22.0, 55.0)


def _add_queue(site: Site, route: Route, stop_line: float, moved: np.ndarray, count: int) -> None:
    """Vehicles one behind the other before a line, which then have moved by [K] m."""
    at = stop_line - 4.0
    for _ in range(count):
        before = len(site.actors)
        length = _add_vehicle(site, route, at + moved, heavy=0.2)
        first = site.actors[before].size[0]
        at -= length + site.random.uniform(1.8, 3.5) + max(0.0, first - 5.0) * 0.5


def _add_cross_traffic(site: Site) -> None:
    random, streets, red_until = site.random, site.streets, site.ego.red_until
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
            route = site.routes.along_side(lane, direction, low, high)
            origin = -comes_from
            if red_until > 0 and leaves > 50:
                speed = random.uniform(5.0, 11.0)
                last = origin + half + 8.0 - speed * (red_until - 1.0)
                u = last
                while u < origin + half + 60.0:
                    along = u + speed * site.times
                    inside = along[0] > 0 and along[-1] < route.length - 3.0
                    if inside and random.random() < 0.7:
                        _add_vehicle(site, route, along, heavy=0.2)
                    u += random.uniform(13.0, 35.0)
            else:
                still = np.zeros_like(site.times)
                _add_queue(site, route, origin - half, still, random.integers(0, 4))
