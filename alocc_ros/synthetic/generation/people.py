# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Pedestrians, cyclists, and two-wheelers in racks."""

from __future__ import annotations

import numpy as np

from alocc_ros.synthetic.assets.people import bicycle, motorcycle, pedestrian
from alocc_ros.synthetic.generation.site import MAIN, Site

_FAR = 500.0  # m along the main road; scenes of 20 s are not built up beyond


def add_people(site: Site) -> None:
    """Pedestrians on the sidewalks and, at a red light, on the crossing; racks; cyclists."""
    random = site.random
    busy = random.uniform(0.3, 1.6)
    for road, start, end in site.built_up():
        # Where the vehicle drives on and on there are people as well.
        further = max(0.0, end - _FAR) if road == MAIN else 0.0
        longer = 1 + further / 190
        for side in (-1, 1):
            walkers = longer * (7 * busy if road == MAIN else 3 * busy)
            for _ in range(random.poisson(walkers * site.rare)):
                _add_pedestrian(site, road, side, max(start, -50), min(end, 140 + further))
            for _ in range(random.poisson(0.8 * longer * site.rare)):
                _add_rack(site, road, side, max(start, -50), min(end, 120 + further))
    _add_cyclists(site)
    if site.ego.red_until > 0:
        _add_crossing_pedestrians(site)


def _add_pedestrian(site: Site, road: int, side: int, start: float, end: float) -> None:
    """Somebody walking or standing on a sidewalk, who does not step onto a road."""
    random, section = site.random, site.road(road)
    s = random.uniform(start, end)
    d = side * (
        section.half + section.verge + random.uniform(1.1, max(section.sidewalk - 0.4, 1.2))
    )
    walks = random.random() < 0.75
    direction = random.choice([-1, 1])
    speed = direction * random.uniform(0.8, 1.9) if walks else 0.0
    poses = site.pose_on(road, s + speed * site.times, d) + (0, 0, np.pi * (direction < 0))
    ends = poses[[0, len(poses) // 2, -1]]
    if any(site.kerb_distance(x, y) < 0.3 for x, y, _ in ends):
        return  # it would cross the other road without a look
    if not walks:
        poses = poses[:1] + (0, 0, random.uniform(0, 6.28))
        if not site.claim(poses[0, 0], poses[0, 1], 0.4):
            return
    site.add_actor("pedestrian", pedestrian(random, stride=0.28 if walks else 0.05), poses)


def _add_rack(site: Site, road: int, side: int, start: float, end: float) -> None:
    """Bicycles and motorcycles side by side, without riders."""
    random, section = site.random, site.road(road)
    s = random.uniform(start, end)
    if not site.clear_of_junction(road, s, 3.0):
        return
    for i in range(random.integers(1, 5)):
        pose = site.pose_on(road, s + 0.75 * i, side * (section.half + section.verge + 0.5))
        pose[2] += np.pi / 2 + random.normal(0, 0.1)
        if site.claim(pose[0], pose[1], 0.35):
            if random.random() < 0.75:
                site.add_actor("bicycle", bicycle(random, ridden=False), pose, "alone")
            else:
                site.add_actor("motorcycle", motorcycle(random, ridden=False), pose, "alone")


def _add_cyclists(site: Site) -> None:
    """Cyclists on the main road, clear of the ego vehicle."""
    random, streets, ego = site.random, site.streets, site.ego
    for direction in (-1, 1):
        for _ in range(random.poisson(0.9 * site.rare)):
            s = random.uniform(-40, 90)
            d = direction * site.driving_side * (streets.main.half - streets.main.parking - 0.55)
            speed = 0.0 if ego.red_until > 0 else random.uniform(3.0, 6.5)
            along = s + direction * speed * site.times
            poses = streets.point(along, d) + (0, 0, np.pi * (direction < 0))
            nearest = np.hypot(*(poses[:, :2] - ego.poses[: len(poses), :2]).T).min()
            crosses = ego.turn and direction > 0 and (along > streets.side_at - 12).any()
            blocked = not site.is_free(poses[0, 0], poses[0, 1], 0.8) and not speed
            if nearest > 2.2 and not crosses and not blocked:
                site.add_actor("bicycle", bicycle(random, ridden=True), poses, "rider")


def _add_crossing_pedestrians(site: Site) -> None:
    """People who cross the main road in front of those that wait."""
    random, streets, red_until = site.random, site.streets, site.ego.red_until
    half = streets.main.half + 1.0
    for _ in range(random.integers(1, 7)):
        speed = random.uniform(1.0, 1.8) * random.choice([-1, 1])
        s = streets.side_at - streets.side.half - random.uniform(2.2, 4.4)
        arrive = random.uniform(-2.0, max(red_until - 3.0, 0.0))
        across = np.clip(speed * (site.times - arrive), -half, half)
        away = red_until - 1.0
        if abs(speed * (away - arrive)) < half and arrive < away:
            across = across - speed * away + speed * arrive + np.sign(speed) * half
            across = np.clip(across, -half, half)
        poses = streets.point(np.full_like(across, s), across)
        poses[:, 2] += np.pi / 2 * np.sign(speed)
        site.add_actor("pedestrian", pedestrian(random), poses)
