# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Readers of label files: each gives a ``Truth`` or says what is wrong with the file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alocc_ros.datasets.files import read_npy, read_npz
from alocc_ros.errors import DataError
from alocc_ros.grid import VoxelGrid
from alocc_ros.labels import ClassList

UNKNOWN = 255  # a voxel that nobody labelled


@dataclass(frozen=True)
class Truth:
    """The labels of one key frame.

    Attributes:
        labels: [X, Y, Z] uint8, index into ``classes.names``; 255: not known.
        classes: what they mean.
        grid: where the voxels lie, in the frame that the ``LabelFormat`` names.
        flow: [X, Y, Z, 2] m/s (vx, vy), as precise as the file has it, or None. Only means
            something where the label is one of ``classes.flow``; elsewhere it may be anything.
        mask_camera: [X, Y, Z] bool, voxels that a camera sees, or None.
        mask_lidar: [X, Y, Z] bool, voxels that the LiDAR sees, or None.
        ray_mask: [X, Y, Z] bool, voxels that the evaluation's rays touch, or None.
    """

    labels: np.ndarray
    classes: ClassList
    grid: VoxelGrid
    flow: np.ndarray | None = None
    mask_camera: np.ndarray | None = None
    mask_lidar: np.ndarray | None = None
    ray_mask: np.ndarray | None = None


# Opens a label file and expects these classes and voxels in it.
LabelReader = Callable[[Path, ClassList, VoxelGrid], Truth]


def read_labels_and_masks(path: Path, classes: ClassList, grid: VoxelGrid) -> Truth:
    """An NPZ of ``semantics``, ``mask_lidar`` and ``mask_camera``, [X, Y, Z] each.

    Raises:
        DataError: the file is missing, damaged, or holds something else.
    """
    arrays = read_npz(path, ("semantics", "mask_lidar", "mask_camera"))
    return Truth(
        _labels(path, arrays["semantics"], classes, grid),
        classes,
        grid,
        mask_camera=_mask(path, "mask_camera", arrays["mask_camera"], grid),
        mask_lidar=_mask(path, "mask_lidar", arrays["mask_lidar"], grid),
    )


def read_labels_and_flow(path: Path, classes: ClassList, grid: VoxelGrid) -> Truth:
    """An NPZ of ``semantics`` [X, Y, Z] and ``flow`` [X, Y, Z, 2] m/s.

    Raises:
        DataError: the file is missing, damaged, or holds something else.
    """
    arrays = read_npz(path, ("semantics", "flow"))
    flow = arrays["flow"]
    _check_shape(path, "flow", flow, (*grid.shape, 2))
    if flow.dtype.kind != "f":
        raise DataError(f"{path}: flow must be floating-point numbers, not {flow.dtype}")
    return Truth(_labels(path, arrays["semantics"], classes, grid), classes, grid, flow=flow)


def read_rows_xyz(path: Path, classes: ClassList, grid: VoxelGrid) -> Truth:
    """An NPY of rows (x, y, z, label) [M, 4], the occupied voxels; label 0 is free as well.

    Raises:
        DataError: the file is missing, damaged, or holds something else.
    """
    return Truth(_scattered(path, classes, grid, (0, 1, 2)), classes, grid)


def read_rows_zyx(path: Path, classes: ClassList, grid: VoxelGrid) -> Truth:
    """An NPY of rows (z, y, x, label) [M, 4], the occupied voxels; label 0 is free as well.

    Raises:
        DataError: the file is missing, damaged, or holds something else.
    """
    return Truth(_scattered(path, classes, grid, (2, 1, 0)), classes, grid)


def read_mask(path: Path, name: str, grid: VoxelGrid) -> np.ndarray:  # [X, Y, Z] bool
    """One mask out of an NPZ.

    Raises:
        DataError: the file is missing, damaged, or holds something else.
    """
    return _mask(path, name, read_npz(path, (name,))[name], grid)


def _scattered(
    path: Path, classes: ClassList, grid: VoxelGrid, order: tuple[int, int, int]
) -> np.ndarray:  # [X, Y, Z] uint8
    """The grid of the rows; ``order``: the columns of x, y and z."""
    rows = read_npy(path)
    if rows.ndim != 2 or rows.shape[1] != 4 or not _whole_numbers(rows):
        raise DataError(
            f"{path}: expected whole numbers [M, 4] (index and label), got "
            f"{rows.dtype} {list(rows.shape)}"
        )
    rows = rows.astype(np.int64)
    index, labels = rows[:, list(order)], rows[:, 3]
    if ((index < 0) | (index >= grid.shape)).any():
        raise DataError(f"{path}: a voxel lies outside of the grid {list(grid.shape)}")
    _check_labels(path, labels, classes)
    out = np.full(grid.shape, classes.free, dtype=np.uint8)
    out[tuple(index.T)] = np.where(labels == 0, classes.free, labels)
    return out


def _labels(
    path: Path, labels: np.ndarray, classes: ClassList, grid: VoxelGrid
) -> np.ndarray:  # [X, Y, Z] uint8
    _check_shape(path, "semantics", labels, grid.shape)
    if not _whole_numbers(labels):
        raise DataError(f"{path}: semantics must be whole numbers, not {labels.dtype}")
    _check_labels(path, labels, classes)
    return labels.astype(np.uint8, copy=False)


def _mask(path: Path, name: str, mask: np.ndarray, grid: VoxelGrid) -> np.ndarray:  # bool
    _check_shape(path, name, mask, grid.shape)
    if mask.dtype != bool and (mask.dtype.kind not in "ui" or ((mask != 0) & (mask != 1)).any()):
        raise DataError(f"{path}: {name} must hold nothing but 0 and 1")
    return mask.astype(bool, copy=False)


def _whole_numbers(array: np.ndarray) -> bool:
    if array.dtype.kind == "f":  # some copies of the labels were saved as floats
        return bool((np.isfinite(array) & (array == np.floor(array))).all())
    return array.dtype.kind in "ui"


def _check_labels(path: Path, labels: np.ndarray, classes: ClassList) -> None:
    wrong = (labels < 0) | ((labels > classes.free) & (labels != UNKNOWN))
    if wrong.any():
        raise DataError(
            f"{path}: label {int(labels[wrong].flat[0])} is none of {classes.name}, "
            f"which ends with {classes.free}"
        )


def _check_shape(path: Path, name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise DataError(f"{path}: {name} must be {list(shape)}, is {list(array.shape)}")
