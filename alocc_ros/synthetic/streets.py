# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The ground: one road of constant curvature, perhaps a second one across it, and lots beside.

Everything is a closed formula of a point in the plane, so ground is painted, labelled and built
upon without any map image, and lane marks stay sharp at any distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alocc_ros.labels import OCC3D

LOT = 16.0  # m of road to one lot
LOTS = 32  # on each side of a road
_DRIVEABLE = OCC3D.names.index("driveable_surface")
_FLAT = OCC3D.names.index("other_flat")
_SIDEWALK = OCC3D.names.index("sidewalk")
_TERRAIN = OCC3D.names.index("terrain")


@dataclass(frozen=True)
class Road:
    """The cross-section of a road, symmetric about its middle.

    Attributes:
        lanes: on each side of the middle.
        lane_width, median, parking, verge, sidewalk: m; a verge is the strip of grass between
            kerb and sidewalk.
    """

    lanes: int
    lane_width: float
    median: float
    parking: float
    verge: float
    sidewalk: float

    @property
    def half(self) -> float:
        """m, from the middle to the kerb."""
        return self.median / 2 + self.lanes * self.lane_width + self.parking

    def lane(self, number: int) -> float:
        """m, from the middle to the middle of a lane, 0 next to the middle."""
        return self.median / 2 + (number + 0.5) * self.lane_width

    @property
    def reserve(self) -> float:
        """m, from the middle to where the lots begin."""
        return self.half + self.verge + self.sidewalk


@dataclass(frozen=True)
class Streets:
    """The roads and the ground of a scene, in the map (x along the main road at the start, y left).

    Attributes:
        main: the road that begins at the origin.
        curvature: 1/m, of the main road; never 0, see ``_STRAIGHT``.
        side: the road across it, or None.
        side_at: m along the main road.
        side_from, side_to: m along the side road (from the crossing, to the left); a tee ends at 0.
        lots: [2 roads, 2 sides (left, right), LOTS] label of the ground of each lot.
        lane_marks: colour of the middle line: 0 white, 1 yellow.
        median_label: what covers the median.
    """

    main: Road
    curvature: float
    side: Road | None
    side_at: float
    side_from: float
    side_to: float
    lots: np.ndarray
    lane_marks: int
    median_label: int

    def point(self, s: np.ndarray, d: np.ndarray | float) -> np.ndarray:
        """Map x, y, heading [..., 3] at ``s`` m along the main road and ``d`` m to its left."""
        k = self.curvature
        turn = k * np.asarray(s, dtype=np.float64)
        x = np.sin(turn) / k - d * np.sin(turn)
        y = (1 - np.cos(turn)) / k + d * np.cos(turn)
        return np.stack(np.broadcast_arrays(x, y, turn), axis=-1)

    def side_point(self, s: np.ndarray, d: np.ndarray | float) -> np.ndarray:
        """The same for the side road, which runs to the left of the main one."""
        x, y, turn = self.point(np.asarray(self.side_at), 0.0)
        s, d = np.broadcast_arrays(np.asarray(s, dtype=np.float64), d)
        c, si = np.cos(turn), np.sin(turn)
        return np.stack(
            [x - s * si - d * c, y + s * c - d * si, np.full_like(s, turn + np.pi / 2)], axis=-1
        )

    def main_coordinates(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """(s, d) of points with respect to the main road."""
        k = self.curvature
        a, b = k * x, 1 - k * y
        return torch.atan2(a, b) / k, (1 - torch.hypot(a, b)) / k

    def side_coordinates(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """(s, d) of points with respect to the side road."""
        x0, y0, turn = (float(v) for v in self.point(np.asarray(self.side_at), 0.0))
        c, si = np.cos(turn), np.sin(turn)
        return (x - x0) * -si + (y - y0) * c, -((x - x0) * c + (y - y0) * si)

    def kerb_distance(self, x: Tensor, y: Tensor) -> Tensor:
        """m to the nearest kerb, negative on the carriageway; corners are rounded."""
        _, d = self.main_coordinates(x, y)
        e = d.abs() - self.main.half
        if self.side is None:
            return e
        s_side, d_side = self.side_coordinates(x, y)
        e_side = d_side.abs() - self.side.half
        beyond = torch.maximum(s_side - self.side_to, self.side_from - s_side)
        e_side = torch.maximum(e_side, beyond)
        blend = 6.0  # m; the smooth minimum rounds corners to about this radius
        h = (blend - (e - e_side).abs()).clamp(min=0.0) / blend
        return torch.minimum(e, e_side) - h * h * blend * 0.25

    def labels(self, x: Tensor, y: Tensor) -> Tensor:
        """The class (Occ3D) of the ground at points, uint8."""
        return self.ground_at(x, y)[0]

    def ground_at(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(label uint8, kerb distance, s, d) of points; s, d are of the main road."""
        s, d = self.main_coordinates(x, y)
        e = self.kerb_distance(x, y)
        lots = torch.as_tensor(self.lots, device=x.device)

        def lot(road: int, s: Tensor, d: Tensor) -> Tensor:
            number = (torch.floor(s / LOT).long() + LOTS // 2).clamp(0, LOTS - 1)
            return lots[road, (d < 0).long(), number]

        label = lot(0, s, d)
        sidewalk_from, sidewalk_to = self.main.verge, self.main.verge + self.main.sidewalk
        if self.side is not None:
            s_side, d_side = self.side_coordinates(x, y)
            nearer = d_side.abs() - self.side.half < d.abs() - self.main.half
            nearer &= (s_side <= self.side_to) & (s_side >= self.side_from)
            label = torch.where(nearer, lot(1, s_side, d_side), label)
        label = torch.where(e < sidewalk_to, _SIDEWALK, label)
        label = torch.where(e < sidewalk_from, _TERRAIN, label)
        label = torch.where(e < 0, _DRIVEABLE, label)
        if self.main.median > 0:
            on_median = (d.abs() < self.main.median / 2) & ~self.in_crossing(x, y, s)
            label = torch.where(on_median, self.median_label, label)
        return label.to(torch.uint8), e, s, d

    def in_crossing(self, x: Tensor, y: Tensor, s: Tensor) -> Tensor:
        """True where the median and the lane marks of the main road are interrupted."""
        if self.side is None:
            return torch.zeros_like(s, dtype=torch.bool)
        _, d_side = self.side_coordinates(x, y)
        return d_side.abs() < self.side.half + 6.5


_STRAIGHT = 2e-4  # 1/m; float32 still resolves tenths of a millimetre across such a road


def random_streets(random: np.random.Generator) -> Streets:
    """A random layout."""
    layout = random.choice(["straight", "curve", "crossing", "tee"], p=[0.3, 0.25, 0.3, 0.15])
    main = _random_road(random, int(random.choice([1, 2, 3], p=[0.4, 0.45, 0.15])))
    curvature = _STRAIGHT
    if layout == "curve":
        curvature = random.choice([-1, 1]) / random.uniform(70, 220)
    side, reach = None, (0.0, 0.0)
    if layout in ("crossing", "tee"):
        side = _random_road(random, int(random.choice([1, 2], p=[0.6, 0.4])))
        reach = (-200.0, 200.0)
        if layout == "tee":
            reach = (0.0, 200.0) if random.random() < 0.5 else (-200.0, 0.0)
    labels = np.array([_TERRAIN, _SIDEWALK, _FLAT, _DRIVEABLE])
    shares = random.dirichlet([3.0, 1.5, 0.9, 0.6])
    lots = labels[random.choice(4, size=(2, 2, LOTS), p=shares)].astype(np.int64)
    return Streets(
        main=main,
        curvature=float(curvature),
        side=side,
        side_at=float(random.uniform(28.0, 75.0)),
        side_from=reach[0],
        side_to=reach[1],
        lots=lots,
        lane_marks=int(random.integers(2)),
        median_label=int(random.choice([_FLAT, _TERRAIN], p=[0.6, 0.4])),
    )


def _random_road(random: np.random.Generator, lanes: int) -> Road:
    return Road(
        lanes=lanes,
        lane_width=random.uniform(3.1, 3.7),
        median=random.uniform(1.2, 3.5) if lanes > 1 and random.random() < 0.45 else 0.0,
        parking=random.uniform(2.1, 2.5) if random.random() < 0.65 else 0.0,
        verge=random.uniform(0.8, 2.2) if random.random() < 0.4 else 0.0,
        sidewalk=random.uniform(1.8, 4.5),
    )
