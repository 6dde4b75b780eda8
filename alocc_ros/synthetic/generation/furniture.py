# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Trees, lamps, signs, signals, bins and shelters between the kerb and the houses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from alocc_ros.synthetic.assets import furniture, vegetation
from alocc_ros.synthetic.generation.site import MAIN, Site
from alocc_ros.synthetic.primitives import mirrored

# Adds an object at x, y, heading [3] on one side of a road (1: left, -1: right).
_Add = Callable[[Site, np.ndarray, int], None]


def add_furniture(site: Site) -> None:
    """Signals at the crossing, then rows of everything else along the roads."""
    random = site.random
    if site.streets.side is not None:
        _add_traffic_lights(site)
    for road, start, end in site.built_up():
        section = site.road(road)
        row = partial(_add_row, site, road, start, end)
        for side in (-1, 1):
            kerb = section.half + 0.55
            row(side, kerb, random.uniform(22, 38), _add_lamp)
            if random.random() < 0.7:
                row(side, kerb + section.verge * 0.3, random.uniform(7, 18), add_tree)
            row(side, kerb, random.uniform(30, 70), _add_sign)
            row(side, section.reserve - 0.5, random.uniform(25, 80), _add_bin)
            if random.random() < 0.35:
                row(side, kerb, random.uniform(2.0, 4.0), _add_bollard)
            if random.random() < 0.3:
                row(side, section.reserve - 1.1, 90.0, _add_shelter)
        if section.median > 1.1 and random.random() < 0.6:
            step, plant = random.choice([6.0, 10.0]), random.choice([0, 1, 2])
            row(1, 0.0, step, (add_tree, add_bush, _add_hedge)[plant])


def _add_traffic_lights(site: Site) -> None:
    random, streets = site.random, site.streets
    for direction in (-1, 1):
        s = streets.side_at - direction * (streets.side.half + 4.0)
        d = direction * site.driving_side * (streets.main.half + 0.7)
        x, y, heading = site.pose_on(MAIN, s, d)
        if site.claim(x, y, 0.3):
            arm = random.choice([0.0, streets.main.half * 0.6])
            parts = furniture.traffic_light(arm, site.ego.red_until <= 0)
            facing = heading + np.pi * (direction < 0)
            if site.driving_side > 0:  # the arm reaches over the road
                parts = [mirrored(p) for p in parts]
            site.add_static("manmade", parts, np.array([x, y, facing]))


def _add_row(
    site: Site, road: int, start: float, end: float, side: int, d: float, step: float, add: _Add
) -> None:
    """Objects about every ``step`` m along a road, ``d`` m from its middle."""
    s = start + site.random.uniform(0, step)
    while s < end:
        if site.clear_of_junction(road, s, 2.0):
            pose = site.pose_on(road, s, side * d)
            if site.kerb_distance(pose[0], pose[1]) > 0.2 or d == 0.0:
                add(site, pose, side)
        s += step * site.random.uniform(0.8, 1.25)


def add_tree(site: Site, pose: np.ndarray, side: int) -> None:
    """A tree, if there is room."""
    if site.claim(pose[0], pose[1], 0.7):
        site.add_static("vegetation", vegetation.tree(site.random), pose)


def add_bush(site: Site, pose: np.ndarray, side: int) -> None:
    """Shrubs, if there is room."""
    if site.claim(pose[0], pose[1], 0.5):
        site.add_static("vegetation", vegetation.bush(site.random, 3.0), pose)


def _add_hedge(site: Site, pose: np.ndarray, side: int) -> None:
    if site.claim(pose[0], pose[1], 0.5):
        site.add_static("vegetation", vegetation.hedge(site.random, 5.0), pose)


def _add_lamp(site: Site, pose: np.ndarray, side: int) -> None:
    if site.claim(pose[0], pose[1], 0.3):
        pose = pose + (0, 0, np.pi * (side > 0))
        site.add_static("manmade", furniture.lamp(site.random), pose)


def _add_sign(site: Site, pose: np.ndarray, side: int) -> None:
    if site.claim(pose[0], pose[1], 0.4):
        pose = pose + (0, 0, np.pi * (side != site.driving_side))
        site.add_static("manmade", furniture.sign(site.random), pose)


def _add_bin(site: Site, pose: np.ndarray, side: int) -> None:
    if site.claim(pose[0], pose[1], 0.6):
        turn = site.random.uniform(0, 6.28)
        site.add_actor("bin", furniture.litter_bin(site.random), pose + (0, 0, turn))


def _add_bollard(site: Site, pose: np.ndarray, side: int) -> None:
    if site.claim(pose[0], pose[1], 0.3):
        site.add_static("manmade", furniture.bollard(site.random), pose)


def _add_shelter(site: Site, pose: np.ndarray, side: int) -> None:
    if site.claim(pose[0], pose[1], 2.4):
        pose = pose + (0, 0, np.pi * (side > 0))
        site.add_static("manmade", furniture.shelter(site.random), pose)
