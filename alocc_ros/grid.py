# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The voxel lattice: where cell ``[i, j, k]`` lies in the grid's frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class VoxelGrid:
    """A regular grid, axes ``[X, Y, Z]`` (x forward, y left, z up; REP-103).

    Cell ``[i, j, k]`` covers ``lower + [i, j, k] * resolution`` to one resolution further;
    its centre, where labels and flow are valid, is half a cell in.
    (The network's own lattice nodes sit at the lower corners; that convention stays inside
    ``network/`` and ``ops/``, see docs/frames.md.)

    Attributes:
        lower: metres, the outer corner of cell [0, 0, 0].
        shape: number of cells along x, y, z.
        resolution: edge of a (cubic) cell, metres.
    """

    lower: tuple[float, float, float] = (-40.0, -40.0, -1.0)
    shape: tuple[int, int, int] = (200, 200, 16)
    resolution: float = 0.4

    @property
    def upper(self) -> tuple[float, float, float]:
        """The opposite outer corner, metres."""
        x, y, z = (lo + n * self.resolution for lo, n in zip(self.lower, self.shape, strict=True))
        return (x, y, z)

    def centres(self, index: np.ndarray) -> np.ndarray:  # [n, 3] cells -> [n, 3] m
        """Centres of cells, float32 metres in the grid's frame."""
        lower = np.asarray(self.lower, dtype=np.float64)
        return (lower + (np.asarray(index) + 0.5) * self.resolution).astype(np.float32)

    def indices(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # [n, 3] m
        """Cells that hold ``points``: (index [n, 3] int64, inside [n] bool)."""
        lower = np.asarray(self.lower, dtype=np.float64)
        index = np.floor((np.asarray(points, dtype=np.float64) - lower) / self.resolution)
        inside = np.all((index >= 0) & (index < np.asarray(self.shape)), axis=1)
        return np.where(np.isfinite(index), index, -1).astype(np.int64), inside


OCC3D_GRID = VoxelGrid()
SURROUNDOCC_GRID = VoxelGrid(lower=(-50.0, -50.0, -5.0), shape=(200, 200, 16), resolution=0.5)
OPENOCCUPANCY_GRID = VoxelGrid(lower=(-51.2, -51.2, -5.0), shape=(512, 512, 40), resolution=0.2)
