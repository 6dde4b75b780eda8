# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Grids whose scores can be counted by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from alocc_ros.grid import VoxelGrid
from alocc_ros.labels import OPENOCC
from alocc_ros.metrics.ray_scores import RayScores

FREE = OPENOCC.free
CAR, ROAD = OPENOCC.names.index("car"), OPENOCC.names.index("driveable_surface")
SMALL = VoxelGrid(lower=(-4.0, -3.2, -1.0), shape=(20, 16, 8), resolution=0.4)
FORWARD = np.array([[1.0, 0, 0]], np.float32)
EYE = np.array([[0.2, 0.2, 0.4]])  # the middle of voxel (10, 8, 3) of SMALL


def grid(labels: np.ndarray, flow: np.ndarray | None = None) -> SimpleNamespace:
    return SimpleNamespace(labels=labels, flow=flow)


def empty(shape=SMALL.shape, free: int = FREE) -> np.ndarray:
    return np.full(shape, free, np.uint8)


def still(shape=SMALL.shape, vx: float = 0.0) -> np.ndarray:
    flow = np.zeros((*shape, 2), np.float16)
    flow[..., 0] = vx
    return flow


def wall(x: int, label: int = CAR) -> np.ndarray:
    labels = empty()
    labels[x] = label
    return labels


def score(prediction, truth, origins=EYE, directions=FORWARD, flow=False, **options):
    scores = RayScores(OPENOCC, flow, SMALL, directions, **options)
    scores.update(prediction, truth, origins)
    return scores
