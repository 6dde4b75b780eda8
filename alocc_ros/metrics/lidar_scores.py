# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Occupancy against a real LiDAR sweep: scores on a vehicle where nobody labelled anything.

Each return says two things: up to here is air, and here is something. A grid agrees where its first
voxel that is not free lies on the ray as far away as the return does. What is nearer than that is
something that is not there (a phantom: a planner brakes for it); where nothing is at the return,
something was missed. Classes are not looked at (docs/metrics.md, "Without labels").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from alocc_ros.grid import VoxelGrid
from alocc_ros.metrics.rays import raycast
from alocc_ros.metrics.sums import Sums, plain, ratio, text_table

WITHIN = (1.0, 2.0, 4.0)  # m, as RayIoU
_PHANTOM = 2.0  # m before the return
OWN = 2.5  # m around the LiDAR and the grid's origin; nearer returns are the own vehicle's
_GROUND = 0.3  # m, lower returns are of the ground
KINDS = ("all", "ground", "things", "beyond")
SECTORS = ("front", "left", "back", "right")
_COUNTS = ("returns", "within 1 m", "within 2 m", "within 4 m", "phantoms", "missed")


@dataclass(frozen=True)
class LidarResult:
    """Shares of LiDAR returns, all in [0, 1]; NaN where there are none.

    Attributes:
        frames: that were scored.
        blind: of those, where the LiDAR itself is in a voxel that is not free, so every ray ends at
            once.
        counts: [rows, 6] returns, those within 1, 2 and 4 m, phantoms, missed; the rows are
            ``KINDS`` and then ``SECTORS``.
    """

    frames: int
    blind: int
    counts: np.ndarray

    @property
    def shares(self) -> np.ndarray:  # [rows, 5]
        """Of the returns of each row."""
        return ratio(self.counts[:, 1:], self.counts[:, :1])

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        names = [n.replace(" ", "_") for n in _COUNTS]
        rows = {
            row: {names[0]: counts[0], **dict(zip(names[1:], shares, strict=True))}
            for row, counts, shares in zip(
                (*KINDS, *SECTORS), self.counts.tolist(), self.shares.tolist(), strict=True
            )
        }
        return plain({"frames": self.frames, "blind": self.blind, **rows})

    def table(self) -> str:
        """For people, percent."""
        rows = [
            (row, counts[0], *(100 * shares))
            for row, counts, shares in zip(
                (*KINDS, *SECTORS), self.counts, self.shares, strict=True
            )
        ]
        header = ("", _COUNTS[0], *(f"{name} %" for name in _COUNTS[1:]))
        return text_table(header, rows, digits=1)


class LidarScores(Sums):
    """Sums over frames."""

    def __init__(self) -> None:
        super().__init__(
            frames=np.zeros(2, np.int64),  # all, blind
            counts=np.zeros((len(KINDS) + len(SECTORS), len(_COUNTS)), np.int64),
        )

    def update(
        self,
        labels: np.ndarray,  # [X, Y, Z] uint8
        free: int,
        grid: VoxelGrid,
        points: np.ndarray,  # [n, 3] m, in the grid's frame
        origin: np.ndarray,  # [3] m, of the LiDAR, likewise
    ) -> None:
        """Adds a sweep. Returns that are not finite, or of the own vehicle, are left out.

        Raises:
            MetricError: labels are not the grid's.
        """
        points = points[(np.abs(points) < 1e5).all(axis=1)].astype(np.float64)
        rays = points - origin
        measured = np.linalg.norm(rays, axis=1)
        others = (measured > OWN) & (np.linalg.norm(points[:, :2], axis=1) > OWN)
        points, rays, measured = points[others], rays[others], measured[others]
        (cell,), (within,) = grid.indices(origin[None])
        blind = bool(within) and labels[tuple(cell)] != free
        self._sums["frames"] += (1, blind)
        if not len(points):
            return
        hits = raycast(labels, origin[None], rays, free, grid)
        crosses = hits.voxel >= 0
        found = crosses & (hits.take(labels) != free)
        # A ray ends where it leaves the voxel, on the average half a voxel behind the surface.
        error = hits.distance - grid.resolution / 2 - measured
        _, inside = grid.indices(points)
        phantom = found & (error < -_PHANTOM)
        missed = inside & ~(found & (error <= _PHANTOM))
        # Where the return is outside the grid, all of the way through it is to be free.
        nothing = ~found & ~inside
        agrees = [nothing | (found & (np.abs(error) <= limit)) for limit in WITHIN]
        told = np.stack([np.ones_like(found), *agrees, phantom, missed], axis=1)[crosses]
        inside, points, rays = inside[crosses], points[crosses], rays[crosses]
        low = points[:, 2] < _GROUND
        kinds = (np.ones_like(inside), inside & low, inside & ~low, ~inside)
        angle = np.arctan2(rays[:, 1], rays[:, 0])
        sector = np.round(angle / (np.pi / 2)).astype(int) % len(SECTORS)
        sectors = (sector == n for n in range(len(SECTORS)))
        self._sums["counts"] += np.stack([told[row].sum(axis=0) for row in (*kinds, *sectors)])

    def result(self) -> LidarResult:
        """Of all frames so far."""
        state = self.state()
        return LidarResult(*state["frames"].tolist(), state["counts"])
