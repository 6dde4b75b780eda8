# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Classes of LiDAR points: nuScenes-lidarseg's 32 categories brought to the 17 of its benchmark.

0 is noise, 1 to 16 are Occ3D's barrier to vegetation. ``alocc prepare`` keeps them as
``lidar_seg/<name of the sweep>.npz`` with one array ``lidar_seg`` [P, 1] uint8.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from alocc_ros.datasets.files import read_bytes, read_npz
from alocc_ros.datasets.samples import LidarSample
from alocc_ros.datasets.tables import read_columns
from alocc_ros.errors import DataError
from alocc_ros.files import below, whole_file

CLASSES = 17
# Which categories become which class; everything else is noise.
_CATEGORIES = {
    1: (9,),
    2: (14,),
    3: (15, 16),
    4: (17,),
    5: (18,),
    6: (21,),
    7: (2, 3, 4, 6),
    8: (12,),
    9: (22,),
    10: (23,),
    11: (24,),
    12: (25,),
    13: (26,),
    14: (27,),
    15: (28,),
    16: (30,),
}
CLASS_OF_CATEGORY = np.zeros(32, dtype=np.uint8)
for _class, _categories in _CATEGORIES.items():
    CLASS_OF_CATEGORY[list(_categories)] = _class


def lidarseg_files(root: Path, version: str) -> dict[str, Path]:
    """By token of the LiDAR's sample_data: the file of its points' categories.

    Raises:
        DataError: nuScenes-lidarseg is not there.
    """
    table = root / version / "lidarseg.json"
    if not table.is_file():
        raise DataError(f"{table} is not there: nuScenes-lidarseg is a download of its own")
    columns = read_columns(table.parent, "lidarseg", ("sample_data_token", "filename"))
    try:
        return {token: below(root, name) for token, name in columns}
    except ValueError as error:
        raise DataError(f"{table}: {error}") from error


def read_categories(path: Path) -> np.ndarray:  # [P] uint8, 0 to 31
    """A file of nuScenes-lidarseg.

    Raises:
        DataError: it is not there, or not of that kind.
    """
    categories = np.frombuffer(read_bytes(path), np.uint8)
    if categories.size and categories.max() >= len(CLASS_OF_CATEGORY):
        raise DataError(f"{path}: category {categories.max()} is none of nuScenes-lidarseg's 32")
    return categories


def labels_path(root: Path, lidar: LidarSample) -> Path:
    """Where the classes of a sweep's points are kept."""
    return root / "lidar_seg" / f"{lidar.path.name.partition('.')[0]}.npz"


def write_labels(path: Path, categories: np.ndarray) -> None:
    """Keeps the classes of points [P] of these categories.

    Raises:
        OutputError: the file cannot be written.
    """
    with whole_file(path) as scratch, scratch.open("wb") as stream:
        np.savez_compressed(stream, lidar_seg=CLASS_OF_CATEGORY[categories][:, None])


def read_labels(root: Path, lidar: LidarSample) -> np.ndarray:  # [P] uint8, 0 to 16
    """The classes of a sweep's points, as ``alocc prepare`` wrote them.

    Raises:
        DataError: they are not there, damaged, or not one for each point.
    """
    path = labels_path(root, lidar)
    labels = read_npz(path, ("lidar_seg",))["lidar_seg"]
    if labels.dtype != np.uint8 or labels.ndim != 2 or labels.shape[1] != 1:
        raise DataError(f"{path}: expected lidar_seg [P, 1] uint8, got {labels.dtype}")
    if labels.size and labels.max() >= CLASSES:
        raise DataError(f"{path}: class {labels.max()} is none of the {CLASSES}")
    points = lidar.path.stat().st_size // 20 if lidar.path.is_file() else len(labels)
    if len(labels) != points:
        raise DataError(f"{path} has {len(labels)} classes for the {points} points of {lidar.path}")
    return labels[:, 0]
