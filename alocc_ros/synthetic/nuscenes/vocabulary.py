# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""nuScenes' categories, attributes and visibility levels, and which of them an actor has."""

from __future__ import annotations

import numpy as np

from alocc_ros.synthetic.scene import Actor, Scene

# nuScenes' names in the order of their numbers.
CATEGORIES = (
    "noise",
    "animal",
    "human.pedestrian.adult",
    "human.pedestrian.child",
    "human.pedestrian.construction_worker",
    "human.pedestrian.personal_mobility",
    "human.pedestrian.police_officer",
    "human.pedestrian.stroller",
    "human.pedestrian.wheelchair",
    "movable_object.barrier",
    "movable_object.debris",
    "movable_object.pushable_pullable",
    "movable_object.trafficcone",
    "static_object.bicycle_rack",
    "vehicle.bicycle",
    "vehicle.bus.bendy",
    "vehicle.bus.rigid",
    "vehicle.car",
    "vehicle.construction",
    "vehicle.emergency.ambulance",
    "vehicle.emergency.police",
    "vehicle.motorcycle",
    "vehicle.trailer",
    "vehicle.truck",
    "flat.driveable_surface",
    "flat.other",
    "flat.sidewalk",
    "flat.terrain",
    "static.manmade",
    "static.other",
    "static.vegetation",
    "vehicle.ego",
)


ATTRIBUTES = (
    "vehicle.moving",
    "vehicle.stopped",
    "vehicle.parked",
    "cycle.with_rider",
    "cycle.without_rider",
    "pedestrian.moving",
    "pedestrian.standing",
    "pedestrian.sitting_lying_down",
)


VISIBILITY_LEVELS = ("0-40", "40-60", "60-80", "80-100")


_CATEGORY_OF = {
    "car": "vehicle.car",
    "truck": "vehicle.truck",
    "bus": "vehicle.bus.rigid",
    "trailer": "vehicle.trailer",
    "construction": "vehicle.construction",
    "motorcycle": "vehicle.motorcycle",
    "bicycle": "vehicle.bicycle",
    "pedestrian": "human.pedestrian.adult",
    "barrier": "movable_object.barrier",
    "cone": "movable_object.trafficcone",
    "bin": "movable_object.pushable_pullable",
}


def category_of(actor: Actor) -> str:
    """nuScenes' name of what an actor is."""
    if actor.detail == "worker":
        return "human.pedestrian.construction_worker"
    return _CATEGORY_OF[actor.kind]


def attributes_of(actor: Actor, speed: float) -> list[str]:
    """Names of the attributes of an actor that moves with ``speed`` m/s."""
    category = category_of(actor)
    if category in ("vehicle.bicycle", "vehicle.motorcycle"):
        return ["cycle.with_rider" if actor.detail == "rider" else "cycle.without_rider"]
    if category.startswith("human."):
        return ["pedestrian.moving" if speed > 0.2 else "pedestrian.standing"]
    if category.startswith("vehicle."):
        if speed > 0.2:
            return ["vehicle.moving"]
        return ["vehicle.parked" if len(actor.poses) == 1 else "vehicle.stopped"]
    return []


def visibility_of(actor: Actor, distance: float, points: int) -> str:
    """Token of the level of a box ``distance`` m away that holds some LiDAR points.

    It is told by the share of the points that a free view would give.
    """
    length, width, height = actor.size
    area = 0.5 * (length + width) * height * 0.6
    beam = np.radians(1.333) * np.radians(360 / 1084)
    share = points * beam * max(distance, 3.0) ** 2 / area
    return str(1 + int(np.searchsorted([0.4, 0.6, 0.8], share)))


def describe(scene: Scene) -> str:
    """A few words about a scene."""
    streets, weather = scene.streets, scene.weather
    kind = "straight" if streets.side is None else "crossing"
    if streets.side is not None and (streets.side_from == 0 or streets.side_to == 0):
        kind = "tee"
    if streets.side is None and abs(streets.curvature) > 1e-3:
        kind = "curve"
    light = "rain" if weather.wet > 0.5 else "sun" if weather.shadow > 0.6 else "clouds"
    moving = sum(a.moves for a in scene.actors)
    return f"Synthetic {kind}, {light}, {len(scene.actors)} things, {moving} of them moving"
