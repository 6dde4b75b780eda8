# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Costmaps as Nav2's layers make them of our messages, after the rules in their sources.

The rules of ros-navigation/navigation2 (nav2_costmap_2d: plugins/obstacle_layer.cpp and
voxel_layer.cpp, src/observation_buffer.cpp): points outside of the source's heights in the
costmap's frame are left out of marking and of clearing; clearing comes first, along the line from
the origin of the sensor's frame to each point, its end included (the voxel layer ends two cells
before it); then each point marks its cell.
"""

from __future__ import annotations

import numpy as np

from alocc_ros.messages import Message

FREE, LETHAL = 0, 254


def points_of(message: Message) -> np.ndarray:  # [n, 3] m
    """x, y, z of a PointCloud2, by its fields."""
    offsets = {field["name"]: field["offset"] for field in message["fields"]}
    shape = message["width"], message["point_step"]
    rows = np.asarray(message["data"]).view(np.uint8).reshape(shape)
    columns = [rows[:, offsets[a] : offsets[a] + 4].copy().view("<f4")[:, 0] for a in "xyz"]
    return np.stack(columns, axis=1).astype(np.float64)


class Layer:
    """A costmap in a fixed frame.

    Attributes:
        cells: [X, Y] or, in three dimensions, [X, Y, Z].
    """

    def __init__(self, size: float, resolution: float, levels: int = 0) -> None:
        """A square of ``size`` m around the origin; with ``levels`` a voxel layer from z = 0 up."""
        self.resolution, self.levels = resolution, levels
        self.lower = np.array([-size / 2, -size / 2, 0.0])
        count = round(size / resolution)
        self.cells = np.zeros((count, count, levels) if levels else (count, count), np.uint8)

    def update(
        self,
        obstacles: np.ndarray,  # [n, 3] m
        free: np.ndarray,  # [n, 3] m
        map_T_cloud: np.ndarray,  # [4, 4]
        eye: float = 0.0,  # m above the origin of the cloud's frame
        heights: tuple[float, float] = (-0.5, 2.6),
    ) -> None:
        """One cycle with a source that marks and one that clears."""
        marks, ends = (p @ map_T_cloud[:3, :3].T + map_T_cloud[:3, 3] for p in (obstacles, free))
        marks, ends = (p[(p[:, 2] >= heights[0]) & (p[:, 2] <= heights[1])] for p in (marks, ends))
        origin = map_T_cloud[:3, 3] + (0.0, 0.0, eye)
        axes = 3 if self.levels else 2
        along = ends[:, :axes] - origin[:axes]
        if self.levels:
            length = np.linalg.norm(along, axis=1, keepdims=True)
            along *= np.maximum(length - 2 * self.resolution, 0.0) / np.maximum(length, 1e-9)
        self._set(self._lines(origin[:axes], origin[:axes] + along), FREE)
        self._set(self._cells(marks[:, :axes]), LETHAL)

    def costs(self) -> np.ndarray:  # [X, Y]
        """What a planner sees."""
        return self.cells.max(axis=2) if self.levels else self.cells

    def _cells(self, points: np.ndarray) -> np.ndarray:
        return np.floor((points - self.lower[: points.shape[1]]) / self.resolution).astype(int)

    def _lines(self, start: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Bresenham's: one cell for each step along the longest axis."""
        first, last = self._cells(start[None]), self._cells(ends)
        steps = np.maximum(np.abs(last - first).max(axis=1, initial=0), 1)[:, None, None]
        step = np.minimum(np.arange(steps.max(initial=1) + 1)[:, None], steps)
        cells = first + np.floor(step * (last - first)[:, None] / steps + 0.5).astype(int)
        return cells.reshape(-1, ends.shape[1])

    def _set(self, cells: np.ndarray, cost: int) -> None:
        within = ((cells >= 0) & (cells < self.cells.shape[: cells.shape[1]])).all(axis=1)
        self.cells[tuple(cells[within].T)] = cost
