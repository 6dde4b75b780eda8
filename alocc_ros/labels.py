# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Class lists and colours of the benchmarks.

Occ3D and OpenOcc differ in order and count, so a grid without its class list means nothing:
the list travels with the model record and goes out with every grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

_COLOURS: dict[str, tuple[int, int, int]] = {
    "others": (120, 120, 120),
    "barrier": (255, 120, 50),
    "bicycle": (255, 192, 203),
    "bus": (255, 220, 0),
    "car": (0, 150, 245),
    "construction_vehicle": (0, 220, 220),
    "motorcycle": (200, 180, 0),
    "pedestrian": (255, 40, 40),
    "traffic_cone": (255, 240, 150),
    "trailer": (135, 60, 0),
    "truck": (160, 32, 240),
    "driveable_surface": (225, 0, 235),
    "other_flat": (139, 137, 137),
    "sidewalk": (75, 0, 75),
    "terrain": (150, 240, 80),
    "manmade": (225, 225, 240),
    "vegetation": (0, 175, 0),
    "free": (255, 255, 255),
}

_OBSTACLE_FREE = {"driveable_surface", "other_flat", "sidewalk", "terrain", "free"}


@dataclass(frozen=True)
class ClassList:
    """The classes of one benchmark; a label is an index into ``names``.

    Attributes:
        name: ``occ3d`` or ``openocc``.
        names: class names in label order; the last one is ``free``.
        flow: labels for which the benchmark scores flow (moving things).
    """

    name: str
    names: tuple[str, ...]
    flow: tuple[int, ...]

    @property
    def free(self) -> int:
        """The label of empty space."""
        return len(self.names) - 1

    @cached_property
    def colours(self) -> np.ndarray:  # [classes, 3] uint8, R G B
        """One colour a class."""
        return np.array([_COLOURS[n] for n in self.names], dtype=np.uint8)

    @cached_property
    def is_obstacle(self) -> np.ndarray:  # [classes] bool
        """Classes that a planner must not drive into (everything but ground and free space)."""
        return np.array([n not in _OBSTACLE_FREE for n in self.names])

    @cached_property
    def is_ground(self) -> np.ndarray:  # [classes] bool
        """Classes that one can stand on: driveable surface, other flat, sidewalk, terrain."""
        return np.array([n in _OBSTACLE_FREE and n != "free" for n in self.names])


OCC3D = ClassList(
    "occ3d",
    (
        "others",
        "barrier",
        "bicycle",
        "bus",
        "car",
        "construction_vehicle",
        "motorcycle",
        "pedestrian",
        "traffic_cone",
        "trailer",
        "truck",
        "driveable_surface",
        "other_flat",
        "sidewalk",
        "terrain",
        "manmade",
        "vegetation",
        "free",
    ),
    flow=(2, 3, 4, 5, 6, 7, 9, 10),
)
OPENOCC = ClassList(
    "openocc",
    (
        "car",
        "truck",
        "trailer",
        "bus",
        "construction_vehicle",
        "bicycle",
        "motorcycle",
        "pedestrian",
        "traffic_cone",
        "barrier",
        "driveable_surface",
        "other_flat",
        "sidewalk",
        "terrain",
        "manmade",
        "vegetation",
        "free",
    ),
    flow=(0, 1, 2, 3, 4, 5, 6, 7),
)
CLASS_LISTS = {c.name: c for c in (OCC3D, OPENOCC)}


@cache
def label_map(source: ClassList, target: ClassList, missing: int) -> np.ndarray:  # [256] uint8
    """Labels of ``source`` as those of ``target``, by class name; to be indexed with labels.

    Args:
        source: what the labels mean that are looked up.
        target: what the results mean.
        missing: the result for a class that ``target`` has not, and for what is no class.
    """
    found = np.full(256, missing, dtype=np.uint8)
    for label, name in enumerate(source.names):
        if name in target.names:
            found[label] = target.names.index(name)
    found.flags.writeable = False
    return found
