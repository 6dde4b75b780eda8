# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What moves: voxels with flow grouped into objects, one arrow each."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from alocc_ros.arrays import FLOW_HORIZON, MOVING_SPEED
from alocc_ros.types import Occupancy

_FEWEST = 2  # columns; a single one is noise


class Motion(NamedTuple):
    """One moving object: ``start`` [3] and ``velocity`` [2] in the grid's frame, m and m/s.

    ``start`` is the middle of what it covers, at its top.
    """

    label: int
    start: np.ndarray
    velocity: np.ndarray

    @property
    def end(self) -> np.ndarray:  # [3] m
        """Where it will be after ``FLOW_HORIZON``."""
        return self.start + (*(self.velocity * FLOW_HORIZON), 0.0)

    @property
    def speed(self) -> float:  # m/s
        """Over ground."""
        return float(np.hypot(*self.velocity))


def moving_columns(occupancy: Occupancy) -> tuple[np.ndarray, np.ndarray]:
    """Columns of the grid in which something moves.

    Returns:
        Label of the highest such voxel, or free [X, Y] uint8, and its flow [X, Y, 2] m/s.
    """
    labels, classes = occupancy.labels, occupancy.classes
    free = np.full(labels.shape[:2], classes.free, np.uint8)
    nothing = np.zeros((*labels.shape[:2], 2), np.float32)
    if occupancy.flow is None:
        return free, nothing
    flow = occupancy.flow.astype(np.float32)
    moves = np.isin(labels, classes.flow) & (np.hypot(flow[..., 0], flow[..., 1]) > MOVING_SPEED)
    if not moves.any():
        return free, nothing
    top = labels.shape[2] - 1 - np.argmax(moves[:, :, ::-1], axis=2)[..., None]
    seen = moves.any(axis=2)
    label = np.where(seen, np.take_along_axis(labels, top, axis=2)[..., 0], classes.free)
    fastest = np.take_along_axis(flow, top[..., None], axis=2)[:, :, 0]
    return label.astype(np.uint8), np.where(seen[..., None], fastest, 0.0)


def motions(occupancy: Occupancy) -> list[Motion]:
    """One for each patch of neighbouring columns of one class that move; the largest first."""
    label, flow = moving_columns(occupancy)
    grid = occupancy.grid
    found: list[tuple[int, Motion]] = []
    for number in np.unique(label[label != occupancy.classes.free]).tolist():
        patches, _ = ndimage.label(label == number, np.ones((3, 3)))
        for patch, box in enumerate(ndimage.find_objects(patches), start=1):
            cells = np.argwhere(patches[box] == patch) + [box[0].start, box[1].start]
            if len(cells) < _FEWEST:
                continue
            levels = (occupancy.labels[cells[:, 0], cells[:, 1]] == number).any(axis=0)
            top = grid.lower[2] + (np.flatnonzero(levels).max() + 1) * grid.resolution
            middle = np.array(grid.lower[:2]) + (cells.mean(axis=0) + 0.5) * grid.resolution
            velocity = flow[cells[:, 0], cells[:, 1]].mean(axis=0).astype(np.float64)
            found.append((len(cells), Motion(number, np.array([*middle, top]), velocity)))
    return [motion for _, motion in sorted(found, key=lambda item: -item[0])]
