# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Label files of a small drawn data set, whose scores can be counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nuscenes_tables import small_nuscenes

from alocc_ros.datasets.nuscenes import NuScenes, Sample
from alocc_ros.grid import OCC3D_GRID
from alocc_ros.labels import OCC3D, OPENOCC, ClassList

VAL = ("scene-0003", "scene-0012", "scene-0013")
WALL = slice(120, 160)  # voxels along x, 40 thick
SPEED = 5.0  # m/s, of the car


def labels_of(classes: ClassList, number: int) -> np.ndarray:  # [200, 200, 16] uint8
    """A wall across the road, and behind us a car that is somewhere else each time."""
    labels = np.full(OCC3D_GRID.shape, classes.free, np.uint8)
    labels[WALL] = classes.names.index("manmade")
    labels[70 - number : 80 - number, 90:110, :6] = classes.names.index("car")
    return labels


def labelled_nuscenes(root: Path, scenes: tuple[str, ...] = VAL, samples: int = 2) -> NuScenes:
    """A folder with tables, images and the labels of all benchmarks."""
    dataset = NuScenes(small_nuscenes(root, scenes, samples))
    for number, sample in enumerate(dataset.samples):
        write_labels(root, sample, number)
    return dataset


def write_labels(root: Path, sample: Sample, number: int) -> None:
    occ3d, openocc = (labels_of(classes, number) for classes in (OCC3D, OPENOCC))
    seen = np.zeros(occ3d.shape, np.uint8)
    seen[:, 50:150] = 1
    flow = np.zeros((*openocc.shape, 2), np.float16)
    flow[openocc == OPENOCC.names.index("car")] = (3.0, 4.0)
    place = Path(sample.scene_name, sample.token, "labels.npz")
    _savez(root / "gts" / place, semantics=occ3d, mask_lidar=seen, mask_camera=seen)
    _savez(root / "openocc_v2" / place, semantics=openocc, flow=flow)
    index = np.argwhere(occ3d != OCC3D.free)
    rows = np.concatenate([index, occ3d[tuple(index.T)][:, None]], axis=1)
    path = root / "gts_surroundocc" / "samples" / f"{sample.lidar.path.name}.npy"
    _save(path, rows)
    scene = root / "nuScenes-Occupancy-v0.1" / f"scene_{sample.scene_token}"
    # Whose grid is larger: the same voxels by index, in rows (z, y, x, label).
    _save(scene / "occupancy" / f"{sample.lidar.token}.npy", rows[:, [2, 1, 0, 3]])


def _save(path: Path, rows: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, rows)


def _savez(path: Path, **arrays: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)
