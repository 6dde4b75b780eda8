# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Houses along the roads, their front gardens, and the lots without a house."""

from __future__ import annotations

import numpy as np
import torch

from alocc_ros.labels import OCC3D
from alocc_ros.synthetic.assets.buildings import building, wall
from alocc_ros.synthetic.assets.vegetation import bush, hedge, tree
from alocc_ros.synthetic.generation.furniture import add_bush, add_tree
from alocc_ros.synthetic.generation.parked import add_off_road_vehicle
from alocc_ros.synthetic.generation.site import Site

_HARD_GROUND = tuple(OCC3D.names.index(n) for n in ("driveable_surface", "other_flat"))


def add_buildings(site: Site) -> None:
    """Two rows on each side of the roads, and what closes the view at their ends."""
    green = site.random.uniform(0.1, 0.6)  # share of lots without a house
    for road, start, end in site.built_up():
        for side in (-1, 1):
            _add_front_row(site, road, side, start, end, green)
            _add_second_row(site, road, side, start, end)
    for road, start, end in site.built_up():
        for s in (start - 60.0, end + 60.0):
            _close_view(site, road, s)


def _add_front_row(
    site: Site, road: int, side: int, start: float, end: float, green: float
) -> None:
    random, section = site.random, site.road(road)
    setback = random.uniform(0.3, 6.0)
    s = start + random.uniform(0, 8)
    while s < end:
        length, depth = random.uniform(9, 26), random.uniform(8, 16)
        if random.random() < green:
            _add_open_lot(site, road, side, s, length, section.reserve)
        else:
            d = section.reserve + setback + random.uniform(0, 1.5) + depth / 2
            _add_house(site, road, side, s + length / 2, d, length, depth)
        if setback > 2.5 and random.random() < 0.5:
            _add_fence(site, road, side, s + length / 2, section.reserve + 0.5, length)
        s += length + random.choice([0.4, random.uniform(1, 6)])


def _add_second_row(site: Site, road: int, side: int, start: float, end: float) -> None:
    """Closes the view between the houses."""
    random, section = site.random, site.road(road)
    for s in np.arange(start - 20, end + 20, 24.0):
        depth, length = random.uniform(10, 18), random.uniform(14, 22)
        d = section.reserve + random.uniform(28, 42) + depth / 2
        if random.random() < 0.6:
            _add_house(site, road, side, s, d, length, depth)
        else:
            for _ in range(3):
                pose = site.pose_on(road, s + random.uniform(-9, 9), side * d)
                if site.kerb_distance(pose[0], pose[1]) > 8:
                    add_tree(site, pose, side)


def _close_view(site: Site, road: int, s: float) -> None:
    """Houses and trees across the end of a road, so that it does not look into nothing."""
    random = site.random
    for d in np.arange(-60, 61, 20.0):
        pose = site.pose_on(road, s + random.uniform(-12, 12), d)
        parts = building(random, 19.0, 14.0)
        far = site.kerb_distance(pose[0], pose[1]) > 11
        if (far or abs(s) > 150) and site.claim(pose[0], pose[1], 8.0):
            site.add_static("manmade", parts, pose + (0, 0, np.pi / 2))
        if site.claim(pose[0], pose[1] + 8.0, 3.0):
            site.add_static("vegetation", tree(random), pose + (0, 8.0, 0))


def _add_house(
    site: Site, road: int, side: int, s: float, d: float, length: float, depth: float
) -> None:
    """A building with its front to the road, if there is room for it."""
    pose = site.pose_on(road, s, side * d)
    yaw = pose[2] + np.pi * (side > 0)  # the front looks to the road
    parts = building(site.random, length, depth)
    corners = [
        (
            pose[0] + np.cos(yaw) * a * length / 2 - np.sin(yaw) * b * depth / 2,
            pose[1] + np.sin(yaw) * a * length / 2 + np.cos(yaw) * b * depth / 2,
        )
        for a in (-1, 0, 1)
        for b in (-1, 1)
    ]
    main = site.streets.main
    sidewalk = max(main.reserve - main.half, 2.0)
    if any(site.kerb_distance(x, y) < sidewalk for x, y in corners):
        return
    # Discs along the length stand for the footprint.
    radius = depth / 2 * 0.95
    offsets = np.linspace(-1, 1, max(1, int(np.ceil(length / depth)) + 1)) * max(
        length / 2 - radius, 0
    )
    centres = [(pose[0] + np.cos(yaw) * t, pose[1] + np.sin(yaw) * t) for t in offsets]
    if all(site.is_free(x, y, radius) for x, y in centres):
        for x, y in centres:
            site.occupy(x, y, radius)
        site.add_static("manmade", parts, np.array([pose[0], pose[1], yaw]))


def _add_fence(site: Site, road: int, side: int, s: float, d: float, length: float) -> None:
    """A hedge, a wall or bushes along the sidewalk."""
    random, pose = site.random, site.pose_on(road, s, side * d)
    clear = site.clear_of_junction(road, s, length / 2)
    if not clear or site.kerb_distance(pose[0], pose[1]) < 1.5:
        return
    kind = random.integers(3)
    if kind == 0:
        site.add_static("vegetation", hedge(random, length * 0.8), pose)
    elif kind == 1:
        site.add_static("manmade", wall(random, length * 0.8), pose)
    else:
        site.add_static("vegetation", bush(random, length * 0.6), pose)


def _add_open_lot(site: Site, road: int, side: int, s: float, length: float, d: float) -> None:
    """A lot without a house: trees and bushes, or on hard ground vehicles."""
    random = site.random
    for _ in range(random.integers(2, 7)):
        along, deep = s + random.uniform(0, length), d + random.uniform(2.0, 22.0)
        pose = site.pose_on(road, along, side * deep)
        if site.kerb_distance(pose[0], pose[1]) < 3.0:
            continue
        ground = int(site.streets.labels(*torch.tensor(pose[:2, None]))[0])
        if ground in _HARD_GROUND:
            if random.random() < 0.75:
                heading = np.pi / 2 + random.normal(0, 0.03)
                add_off_road_vehicle(site, pose + (0, 0, heading))
        elif random.random() < 0.6:
            add_tree(site, pose, side)
        else:
            add_bush(site, pose, side)
