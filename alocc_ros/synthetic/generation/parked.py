# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Vehicles parked at the kerb, and left standing off the road."""

from __future__ import annotations

import numpy as np

from alocc_ros.synthetic.assets.people import motorcycle
from alocc_ros.synthetic.assets.vehicles import bus, car, construction_vehicle, trailer, truck
from alocc_ros.synthetic.generation.site import Site
from alocc_ros.synthetic.primitives import ActorModel


def add_parked_vehicles(site: Site) -> None:
    """Fills the parking lanes of the roads that have some."""
    random = site.random
    for road, start, end in site.built_up():
        section = site.road(road)
        for side in (-1, 1):
            if section.parking <= 0:
                continue
            fill = random.uniform(0.15, 0.9)
            s = start + random.uniform(0, 5)
            while s < end:
                kind, model, detail = _random_vehicle(site)
                length, width, _ = model.size
                d = side * (section.half - 0.25 - width / 2)
                x, y, heading = site.pose_on(road, s + length / 2, d)
                heading += np.pi * (side != site.driving_side) + random.normal(0, 0.02)
                if (
                    site.clear_of_junction(road, s + length / 2, length / 2)
                    and random.random() < fill
                    and site.is_free(x, y, max(width, 0.45 * length) * 0.7)
                ):
                    site.add_actor(kind, model, np.array([x, y, heading]), detail)
                    for part in (-0.35, 0.0, 0.35):
                        px = x + np.cos(heading) * part * length
                        py = y + np.sin(heading) * part * length
                        site.occupy(px, py, max(width / 2, 0.2 * length))
                s += length + random.uniform(0.7, 1.8) + (random.random() < 0.12) * 8


def _random_vehicle(site: Site) -> tuple[str, ActorModel, str]:
    """(kind, model, detail) of a parked vehicle."""
    random, other = site.random, site.chance(0.2)
    chance = random.random()
    if chance < 1 - other:
        return "car", car(random), "parked"
    if chance < 1 - 0.6 * other:
        return "truck", truck(random), "parked"
    if chance < 1 - 0.45 * other:
        return "trailer", trailer(random), ""
    if chance < 1 - 0.35 * other:
        return "bus", bus(random), "parked"
    return "motorcycle", motorcycle(random, ridden=False), "alone"


def add_off_road_vehicle(site: Site, pose: np.ndarray) -> None:
    """A car, a trailer or a construction vehicle at x, y, heading [3], if there is room."""
    random = site.random
    if not site.claim(pose[0], pose[1], 2.4):
        return
    if random.random() < 1 - site.chance(0.15):
        site.add_actor("car", car(random), pose, "parked")
    elif random.random() < 0.5:
        site.add_actor("trailer", trailer(random), pose)
    else:
        site.add_actor("construction", construction_vehicle(random), pose)
