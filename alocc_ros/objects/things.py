# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""An object, and how large those of a class are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np


@dataclass(frozen=True)
class Thing:
    """What is known of a class before anything is seen.

    Attributes:
        length, width: m, the largest footprint of one object; what is longer or wider is several.
        shortest, narrowest: m, the smallest footprint that a cut may leave over.
        columns: cells seen from above that an object has at least; fewer are noise.
        kind: classes of one kind are taken for each other now and then.
    """

    length: float
    width: float
    shortest: float
    narrowest: float
    columns: int = 2
    kind: str = ""


# By class name; of all class lists. Voxels are up to one resolution (0.4 m) larger than what is
# in them. Barriers stand in rows, in which nothing tells one from the next but their length.
THINGS: Mapping[str, Thing] = MappingProxyType(
    {
        "car": Thing(6.1, 2.9, 3.2, 1.5, columns=4, kind="vehicle"),
        "truck": Thing(12.5, 3.6, 4.6, 1.8, columns=6, kind="vehicle"),
        "bus": Thing(19.0, 3.6, 8.0, 2.1, columns=6, kind="vehicle"),
        "trailer": Thing(14.5, 3.6, 3.2, 1.8, columns=4, kind="vehicle"),
        "construction_vehicle": Thing(11.0, 4.4, 3.6, 1.8, columns=4, kind="vehicle"),
        "motorcycle": Thing(3.1, 1.9, 1.5, 0.7, columns=2, kind="two-wheeler"),
        "bicycle": Thing(2.5, 1.3, 1.3, 0.4, columns=2, kind="two-wheeler"),
        "pedestrian": Thing(1.3, 1.3, 0.5, 0.5, columns=1, kind="pedestrian"),
        "traffic_cone": Thing(1.3, 1.3, 0.7, 0.7, columns=1, kind="cone"),
        "barrier": Thing(3.0, 1.3, 1.2, 0.5, columns=2, kind="barrier"),
    }
)


@dataclass(frozen=True)
class DetectedObject:
    """One object at one instant; positions, directions and velocity in the frame of the grid.

    Attributes:
        label: class, index into the names of the class list.
        centre: [3] float64 m, the middle of its box.
        size: length (along ``yaw``), width and height, m; the box holds the voxels entirely.
        yaw: rad, about z, from x towards y. Of what moves, where it goes; else along the longer
            side of the footprint, and which end is the front is a guess unless
            ``heading_known``.
        heading_known: it moves, or has moved while it was tracked.
        velocity: [2] float64 m/s (vx, vy) over ground; NaN for models without flow.
        confidence: in [0, 1], mean over its voxels; NaN where the network was not asked for it.
        voxels: how many it has.
        columns: [n] int64 its cells seen from above: x index times the cells along y, plus the
            y index.
        visible: in this result. False: tracked over a result that has no voxels of it; the box is
            where it should be by now.
        id: of the track, from 1; the same in every result. 0: not tracked.
        age: results in which the track was seen, this one included; 0: not tracked.
    """

    label: int
    centre: np.ndarray
    size: tuple[float, float, float]
    yaw: float
    heading_known: bool
    velocity: np.ndarray
    confidence: float
    voxels: int
    columns: np.ndarray
    visible: bool = True
    id: int = 0
    age: int = 0

    @property
    def speed(self) -> float:
        """m/s over ground; NaN for models without flow."""
        return float(np.hypot(*self.velocity))

    def corners(self) -> np.ndarray:  # [4, 2] m
        """The footprint, counter-clockwise from the front left."""
        length, width, _ = self.size
        ahead = np.array([np.cos(self.yaw), np.sin(self.yaw)]) * length / 2
        left = np.array([-np.sin(self.yaw), np.cos(self.yaw)]) * width / 2
        signs = ((1, 1), (-1, 1), (-1, -1), (1, -1))
        return self.centre[:2] + np.stack([a * ahead + b * left for a, b in signs])
