# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Road works: barriers, traffic cones, construction vehicles and workers."""

from __future__ import annotations

import numpy as np

from alocc_ros.synthetic.assets.furniture import barrier, traffic_cone
from alocc_ros.synthetic.assets.people import pedestrian
from alocc_ros.synthetic.assets.vehicles import construction_vehicle
from alocc_ros.synthetic.generation.site import MAIN, Site

_BARRIER_PITCH = 2.05  # m from one barrier of a row to the next


def add_road_works(site: Site) -> None:
    """Rows of barriers and of cones, and building sites, along the main road."""
    random = site.random
    _add_barrier_rows(site)
    for _ in range(random.poisson(0.5 * site.rare)):
        _add_cone_row(site)
    building_sites = random.choice([0, 1, 2, 3], p=[0.25, 0.4, 0.25, 0.1])
    for _ in range(round(building_sites * site.rare)):
        _add_building_site(site)


def _add_barrier_rows(site: Site) -> None:
    """On the median or at the kerb."""
    random, main = site.random, site.streets.main
    rows = [random.choice([-1, 1]) * (main.half + 0.4)] if random.random() < 0.4 else []
    if main.median > 1.0 and random.random() < 0.45:
        rows.append(0.0)
    for d in rows:
        start = random.uniform(-30, 60)
        for s in np.arange(start, start + random.uniform(20, 60), _BARRIER_PITCH):
            if site.clear_of_junction(MAIN, s, 0):
                pose = site.pose_on(MAIN, s, d + random.normal(0, 0.04))
                site.add_actor("barrier", barrier(random), pose)
                site.occupy(pose[0], pose[1], 1.0)


def _add_cone_row(site: Site) -> None:
    """Traffic cones at the kerb."""
    random, main = site.random, site.streets.main
    s0, side = random.uniform(-10, 70), random.choice([-1, 1])
    for s in s0 + 2.5 * np.arange(random.integers(3, 9)):
        pose = site.pose_on(MAIN, s, side * (main.half - main.parking + 0.25))
        if site.clear_of_junction(MAIN, s, 0) and not site.near_ego(pose[0], pose[1], 1.5):
            site.add_actor("cone", traffic_cone(random), pose)
            site.occupy(pose[0], pose[1], 0.3)


def _add_building_site(site: Site) -> None:
    """Barriers, cones, a machine and workers, on the parking lane or beside the road."""
    random, main = site.random, site.streets.main
    side, s0, length = random.choice([-1, 1]), random.uniform(-20, 90), random.uniform(12, 35)
    if not all(site.clear_of_junction(MAIN, s, 2.0) for s in (s0 - 8, s0, s0 + length)):
        return
    inner = main.half - (main.parking if main.parking > 0 else 0.0)
    on_road = main.parking > 0 and random.random() < 0.6
    edge = inner + 0.3 if on_road else main.half + main.verge + main.sidewalk + 0.5
    deep = (main.parking if on_road else 7.0) - 0.4
    middle = site.pose_on(MAIN, s0 + length / 2, side * (edge + deep / 2))
    if not site.is_free(middle[0], middle[1], length * 0.3):
        return
    for s in np.arange(s0, s0 + length, _BARRIER_PITCH):
        pose = site.pose_on(MAIN, s, side * edge)
        if not site.near_ego(pose[0], pose[1], 1.6):
            site.add_actor("barrier", barrier(random), pose)
    for i in range(random.integers(3, 9)):
        pose = site.pose_on(MAIN, s0 - 2.0 - 1.6 * i, side * (edge + 0.25 * i))
        if not site.near_ego(pose[0], pose[1], 1.5):
            cone = traffic_cone(random)
            site.add_actor("cone", cone, pose + (0, 0, random.uniform(0, 3)))
    machine = construction_vehicle(random)
    s = s0 + random.uniform(0.3, 0.7) * length
    pose = site.pose_on(MAIN, s, side * (edge + max(deep / 2, 1.8)))
    if site.claim(pose[0], pose[1], 3.0) and not site.near_ego(pose[0], pose[1], 3.0):
        turn = random.normal(0, 0.15) if on_road else random.uniform(0, 6.28)
        site.add_actor("construction", machine, pose + (0, 0, turn))
    for _ in range(random.integers(0, 4)):
        along = s0 + random.uniform(0, length)
        pose = site.pose_on(MAIN, along, side * (edge + random.uniform(0.6, max(deep, 1.0))))
        if site.claim(pose[0], pose[1], 0.5):
            worker = pedestrian(random, worker=True, stride=0.1)
            pose = pose + (0, 0, random.uniform(0, 6.28))
            site.add_actor("pedestrian", worker, pose, "worker")
    for along in np.arange(s0, s0 + length, 2.0):
        pose = site.pose_on(MAIN, along, side * (edge + deep / 2))
        site.occupy(pose[0], pose[1], deep / 2)
