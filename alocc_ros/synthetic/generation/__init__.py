# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""How a scene is generated: the roads, the ego drive, traffic, people, road works, surroundings.

Everything random about a scene is drawn here, in an order that never changes: a seed keeps its
scene.
"""

from __future__ import annotations

import numpy as np

from alocc_ros.synthetic.generation.buildings import add_buildings
from alocc_ros.synthetic.generation.ego import plan_ego_drive
from alocc_ros.synthetic.generation.furniture import add_furniture
from alocc_ros.synthetic.generation.parked import add_parked_vehicles
from alocc_ros.synthetic.generation.people import add_people
from alocc_ros.synthetic.generation.road_works import add_road_works
from alocc_ros.synthetic.generation.routes import RoutePlanner
from alocc_ros.synthetic.generation.site import Site
from alocc_ros.synthetic.generation.traffic import add_traffic
from alocc_ros.synthetic.generation.weather import random_weather
from alocc_ros.synthetic.scene import LEAD_IN, TICK, Scene
from alocc_ros.synthetic.streets import random_streets


def generate_scene(seed: int, duration: float = 20.0, rare: float = 1.0) -> Scene:
    """The scene of a seed, ``duration`` s long; the same one every time.

    ``rare``: so many times as much of what streets have little of (``Site.rare``).
    """
    random = np.random.default_rng([seed, 0xA10CC])
    streets = random_streets(random)
    weather = random_weather(random)
    times = np.arange(-LEAD_IN, duration + LEAD_IN + TICK, TICK)
    driving_side = -1.0 if random.random() < 0.6 else 1.0  # -1: on the right
    routes = RoutePlanner(streets, driving_side)
    ego = plan_ego_drive(random, routes, times, duration)
    density = random.uniform(0.4, 1.3)
    site = Site(random, times, routes, ego, rare)
    add_road_works(site)
    add_traffic(site, density)
    add_parked_vehicles(site)
    add_people(site)
    add_furniture(site)
    add_buildings(site)
    sway = np.array(
        [
            (random.uniform(0.001, 0.005), random.uniform(1.0, 3.0), random.uniform(0, 6)),
            (random.uniform(0.001, 0.005), random.uniform(1.0, 3.0), random.uniform(0, 6)),
        ]
    )
    return Scene(
        seed=seed,
        duration=duration,
        streets=streets,
        weather=weather,
        actors=tuple(site.actors),
        parts=tuple(site.parts),
        owner=np.array(site.owner, dtype=np.int64),
        labels=np.array(site.labels, dtype=np.uint8),
        ego=ego.poses,
        sway=sway,
    )
