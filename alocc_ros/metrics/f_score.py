# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""F-score of occupied voxels as a point cloud: near misses count as hits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alocc_ros.errors import MetricError
from alocc_ros.grid import OCC3D_GRID, VoxelGrid
from alocc_ros.labels import OCC3D, ClassList
from alocc_ros.metrics.sums import IGNORED, as_array, checked_labels

_TINY = 1e-8  # what the reference adds so as not to divide by zero


@dataclass(frozen=True)
class FScore:
    """Shares in [0, 1] of one frame; NaN where nothing is occupied.

    Attributes:
        f_score: harmonic mean of the other two.
        precision: of the predicted voxels, those with a true one nearby.
        completeness: of the true voxels, those with a predicted one nearby.
    """

    f_score: float
    precision: float
    completeness: float


def f_score(
    prediction: np.ndarray,  # [X, Y, Z] labels
    truth: np.ndarray,  # [X, Y, Z] labels, 255: unknown
    mask: np.ndarray | None = None,  # [X, Y, Z] which voxels count
    *,
    classes: ClassList = OCC3D,
    grid: VoxelGrid = OCC3D_GRID,
    threshold: float = 0.4,  # m between centres that is still nearby
    reference_exact: bool = False,
) -> FScore:
    """How well occupied voxels lie on each other, whatever their class.

    The reference asks for distances below 0.4 m between voxels that are 0.4 m apart: rounding
    decides which neighbours are near. That is ``reference_exact``; else all of them are.

    Raises:
        MetricError: arrays of other shapes, labels that are no class.
    """
    from scipy.spatial import cKDTree

    truth = checked_labels(truth, classes, "truth", ignored=True, shape=grid.shape)
    prediction = checked_labels(prediction, classes, "prediction", shape=grid.shape)
    counts = np.ones(truth.shape, bool) if mask is None else as_array(mask) != 0
    if counts.shape != truth.shape:
        raise MetricError(f"the mask must be {list(truth.shape)}, got {list(counts.shape)}")
    if not reference_exact:
        counts = counts & (truth != IGNORED)
    occupied = [counts & (v != classes.free) & (v != IGNORED) for v in (prediction, truth)]
    cells = [np.argwhere(o) for o in occupied]
    if not (len(cells[0]) and len(cells[1])):
        none = np.nan if len(cells[0]) == len(cells[1]) else 0.0
        return FScore(none, none, none)
    if reference_exact:
        half = grid.resolution / 2
        clouds = [c * grid.resolution + half + np.array(grid.lower) for c in cells]
        reach = np.nextafter(threshold, 0)
    else:
        clouds, reach = cells, threshold / grid.resolution + 1e-6
    trees = [cKDTree(c) for c in clouds]
    precision = float((trees[1].query(clouds[0])[0] <= reach).mean())
    completeness = float((trees[0].query(clouds[1])[0] <= reach).mean())
    shares = np.array([precision, completeness]) + (_TINY if reference_exact else 0.0)
    mean = 2 / (1 / shares).sum() if shares.all() else 0.0
    return FScore(float(mean), precision, completeness)
