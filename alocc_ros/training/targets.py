# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What the network should have said: per pixel block from LiDAR, per voxel from the benchmark."""

from __future__ import annotations

import numpy as np

from alocc_ros.labels import OCC3D, ClassList, label_map
from alocc_ros.training.losses import IGNORED

BLOCK = 16  # pixels an image feature stands for, along each axis
NO_DEPTH = -1


def point_classes(labels: np.ndarray, classes: ClassList) -> np.ndarray:  # [P] uint8 -> [P] uint8
    """Labels of LiDAR points (0 noise, 1 barrier, ... 16 vegetation) as the benchmark's.

    LiDAR points carry Occ3D's labels. OpenOcc has the same classes in another order and none for
    noise, which is ``IGNORED`` there. (The reference trains OpenOcc models on Occ3D's numbers: a
    car's pixels teach "construction vehicle".)
    """
    return label_map(OCC3D, classes, IGNORED)[labels]


def pixels_of(
    points: np.ndarray,  # [P, 3] metres
    camera_T_points: np.ndarray,  # [4, 4]
    intrinsics: np.ndarray,  # [3, 3]
    post_rotation: np.ndarray,  # [3, 3]
    post_translation: np.ndarray,  # [3]
) -> tuple[np.ndarray, np.ndarray]:  # [P, 2] network-input pixels, [P] depth
    """Where a camera's network input shows the points."""
    seen = points @ camera_T_points[:3, :3].T + camera_T_points[:3, 3]
    depth = seen[:, 2]
    # Behind the camera nothing is seen; any number will do there.
    pixels = (seen @ intrinsics.T)[:, :2] / np.where(depth > 0, depth, 1.0)[:, None]
    return pixels @ post_rotation[:2, :2].T + post_translation[:2], depth


def block_targets(
    pixels: np.ndarray,  # [P, 2]
    depth: np.ndarray,  # [P] metres
    labels: np.ndarray | None,  # [P] uint8
    input_size: tuple[int, int],
    depth_range: tuple[float, float],
    depth_step: float,
) -> tuple[np.ndarray, np.ndarray]:  # [h, w] int64 bins, [h, w] uint8 classes
    """The nearest point of each 16x16 block: its depth bin, and its class.

    Points nearer or farther than the range are not there, as in the reference: what lies behind
    them may count.
    """
    height, width = input_size
    rows, columns = height // BLOCK, width // BLOCK
    bins = np.full(rows * columns, NO_DEPTH, dtype=np.int64)
    classes = np.full(rows * columns, IGNORED, dtype=np.uint8)
    kept = (depth >= depth_range[0]) & (depth < depth_range[1])
    index = np.flatnonzero(kept)
    column, row = np.round(pixels[index]).astype(np.int64).T
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    index = index[inside]
    block = row[inside] // BLOCK * columns + column[inside] // BLOCK
    order = np.argsort(-depth[index], kind="stable")  # the nearest is written last
    block, index = block[order], index[order]
    bins[block] = np.floor((depth[index] - depth_range[0]) / depth_step)
    bins[bins >= int((depth_range[1] - depth_range[0]) // depth_step)] = NO_DEPTH
    if labels is not None:
        classes[block] = labels[index]
    return bins.reshape(rows, columns), classes.reshape(rows, columns)


def voxel_labels(
    labels: np.ndarray,  # [X, Y, Z] uint8
    supervised: np.ndarray | None,  # [X, Y, Z] bool; None: all
) -> np.ndarray:  # [Y, X, Z] uint8, IGNORED where nothing is known
    """The labels in the network's layout."""
    if supervised is not None:
        labels = np.where(supervised, labels, np.uint8(IGNORED))
    return np.ascontiguousarray(labels.transpose(1, 0, 2))


def voxel_flow(
    flow: np.ndarray,  # [X, Y, Z, 2] m/s (vx, vy)
    labels: np.ndarray,  # [Y, X, Z] of voxel_labels
    classes: ClassList,
) -> np.ndarray:  # [Y, X, Z, 2] float32 m/s (along Y, along X), nan where not to be learned
    """Velocities in the network's layout: only of visible voxels of things that may move."""
    may_move = np.zeros(256, dtype=bool)
    may_move[list(classes.flow)] = True
    y, x, z = may_move[labels].nonzero()  # few of very many
    known = flow[x, y, z][:, ::-1].astype(np.float32)
    known[~np.isfinite(known).all(1)] = np.nan
    learned = np.full((*labels.shape, 2), np.nan, dtype=np.float32)
    learned[y, x, z] = known
    return learned
