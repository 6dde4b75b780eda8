# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What is true in a key frame: the voxel labels of four benchmarks.

| benchmark | file under the data set's folder |
| --- | --- |
| occ3d | ``gts/<scene name>/<sample token>/labels.npz`` |
| openocc | ``openocc_v2/<scene name>/<sample token>/labels.npz``, ``openocc_v2_ray_mask/...`` |
| surroundocc | ``gts_surroundocc/samples/<LiDAR file name>.npy`` |
| openoccupancy | ``nuScenes-Occupancy-v0.1/scene_<scene token>/occupancy/<LiDAR token>.npy`` |
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from alocc_ros.datasets.files import read_npy, read_npz
from alocc_ros.datasets.nuscenes import Sample
from alocc_ros.errors import DataError
from alocc_ros.grid import OCC3D_GRID, SURROUNDOCC_GRID, VoxelGrid
from alocc_ros.labels import OCC3D, OPENOCC, ClassList

UNKNOWN = 255  # a voxel that nobody labelled
OPENOCCUPANCY_GRID = VoxelGrid((-51.2, -51.2, -5.0), (512, 512, 40), 0.2)


@dataclass(frozen=True)
class Benchmark:
    """A way to label voxels.

    Attributes:
        name: such as ``occ3d``.
        classes: what the labels mean.
        grid: where the voxels lie.
        in_lidar_frame: the grid's frame is the LiDAR's, not the vehicle's.
    """

    name: str
    classes: ClassList
    grid: VoxelGrid
    in_lidar_frame: bool = False


BENCHMARKS = {
    b.name: b
    for b in (
        Benchmark("occ3d", OCC3D, OCC3D_GRID),
        Benchmark("openocc", OPENOCC, OCC3D_GRID),
        Benchmark("surroundocc", OCC3D, SURROUNDOCC_GRID, in_lidar_frame=True),
        Benchmark("openoccupancy", OCC3D, OPENOCCUPANCY_GRID, in_lidar_frame=True),
    )
}


@dataclass(frozen=True)
class Truth:
    """The labels of one key frame.

    Attributes:
        labels: [X, Y, Z] uint8, index into ``classes.names``; 255: not known.
        classes: what they mean.
        grid: where the voxels lie (see ``Benchmark.in_lidar_frame``).
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


def find_benchmark(name: str) -> Benchmark:
    """The benchmark of that name.

    Raises:
        DataError: there is none.
    """
    if name not in BENCHMARKS:
        raise DataError(f"no benchmark is called {name!r}; there are {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]


def truth_files(
    root: Path,
    sample: Sample,
    benchmark: str,
    *,
    ray_mask: bool = False,
    camera_mask: bool = False,
) -> tuple[Path, ...]:
    """The files that ``read_truth`` opens."""
    find_benchmark(benchmark)
    labels = Path(sample.scene_name, sample.token, "labels.npz")
    if benchmark == "occ3d":
        return (root / "gts" / labels,)
    if benchmark == "openocc":
        folders = ["openocc_v2"]
        folders += ["openocc_v2_ray_mask"] if ray_mask else []
        folders += ["gts"] if camera_mask else []
        return tuple(root / folder / labels for folder in folders)
    if benchmark == "surroundocc":
        return (root / "gts_surroundocc" / "samples" / f"{sample.lidar.path.name}.npy",)
    folder = root / "nuScenes-Occupancy-v0.1" / f"scene_{sample.scene_token}"
    return (folder / "occupancy" / f"{sample.lidar.token}.npy",)


def missing_files(
    root: Path,
    samples: Iterable[Sample],
    benchmark: str,
    *,
    ray_mask: bool = False,
    camera_mask: bool = False,
) -> list[Path]:
    """Of the label files of these key frames, those that are not there."""
    masks = {"ray_mask": ray_mask, "camera_mask": camera_mask}
    files = (f for s in samples for f in truth_files(root, s, benchmark, **masks))
    return [file for file in files if not file.is_file()]


def missing_images(samples: Iterable[Sample]) -> list[Path]:
    """Of the images of these key frames, those that are not there."""
    files = (camera.path for sample in samples for camera in sample.cameras.values())
    return [file for file in files if not file.is_file()]


def check_present(missing: list[Path], what: str) -> None:
    """Says what is missing, all of it at once.

    Raises:
        DataError: something is missing.
    """
    if missing:
        shown = ", ".join(str(path) for path in missing[:5])
        rest = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise DataError(f"{len(missing)} files of {what} are missing: {shown}{rest}")


def read_truth(
    root: Path,
    sample: Sample,
    benchmark: str,
    *,
    ray_mask: bool = False,
    camera_mask: bool = False,
) -> Truth:
    """The labels of a key frame.

    Args:
        root: the data set's folder.
        sample: the key frame.
        benchmark: a name in ``BENCHMARKS``.
        ray_mask: also read OpenOcc's ray mask, which is a download of its own.
        camera_mask: of OpenOcc labels, which come without one: read Occ3D's, whose voxels are
            the same. Occ3D's labels always come with it.

    Raises:
        DataError: a file is missing, damaged, or holds something else.
    """
    kind = find_benchmark(benchmark)
    files = truth_files(root, sample, benchmark, ray_mask=ray_mask, camera_mask=camera_mask)
    if benchmark == "occ3d":
        return _read_occ3d(files[0], kind)
    if benchmark == "openocc":
        truth = _read_openocc(files[0], kind)
        if ray_mask:
            truth = replace(truth, ray_mask=_read_mask(files[1], "ray_mask2", kind))
        if camera_mask:
            truth = replace(truth, mask_camera=_read_mask(files[-1], "mask_camera", kind))
        return truth
    # (x, y, z, label) the one, (z, y, x, label) the other
    order = (0, 1, 2) if benchmark == "surroundocc" else (2, 1, 0)
    return Truth(_scattered(files[0], kind, order), kind.classes, kind.grid)


def _read_occ3d(path: Path, kind: Benchmark) -> Truth:
    arrays = read_npz(path, ("semantics", "mask_lidar", "mask_camera"))
    return Truth(
        _labels(path, arrays["semantics"], kind),
        kind.classes,
        kind.grid,
        mask_camera=_mask(path, "mask_camera", arrays["mask_camera"], kind),
        mask_lidar=_mask(path, "mask_lidar", arrays["mask_lidar"], kind),
    )


def _read_openocc(path: Path, kind: Benchmark) -> Truth:
    arrays = read_npz(path, ("semantics", "flow"))
    flow = arrays["flow"]
    _check_shape(path, "flow", flow, (*kind.grid.shape, 2))
    if flow.dtype.kind != "f":
        raise DataError(f"{path}: flow must be floating-point numbers, not {flow.dtype}")
    labels = _labels(path, arrays["semantics"], kind)
    return Truth(labels, kind.classes, kind.grid, flow=flow)


def _read_mask(path: Path, name: str, kind: Benchmark) -> np.ndarray:  # [X, Y, Z] bool
    return _mask(path, name, read_npz(path, (name,))[name], kind)


def _scattered(path: Path, kind: Benchmark, order: tuple[int, int, int]) -> np.ndarray:
    """[X, Y, Z] uint8 of rows [M, 4] of occupied voxels; 0 stands for free there."""
    rows = read_npy(path)
    if rows.ndim != 2 or rows.shape[1] != 4 or not _whole_numbers(rows):
        raise DataError(
            f"{path}: expected whole numbers [M, 4] (index and label), got "
            f"{rows.dtype} {list(rows.shape)}"
        )
    rows = rows.astype(np.int64)
    index, labels = rows[:, list(order)], rows[:, 3]
    if ((index < 0) | (index >= kind.grid.shape)).any():
        raise DataError(f"{path}: a voxel lies outside of the grid {list(kind.grid.shape)}")
    _check_labels(path, labels, kind)
    out = np.full(kind.grid.shape, kind.classes.free, dtype=np.uint8)
    out[tuple(index.T)] = np.where(labels == 0, kind.classes.free, labels)
    return out


def _labels(path: Path, labels: np.ndarray, kind: Benchmark) -> np.ndarray:  # [X, Y, Z] uint8
    _check_shape(path, "semantics", labels, kind.grid.shape)
    if not _whole_numbers(labels):
        raise DataError(f"{path}: semantics must be whole numbers, not {labels.dtype}")
    _check_labels(path, labels, kind)
    return labels.astype(np.uint8, copy=False)


def _mask(path: Path, name: str, mask: np.ndarray, kind: Benchmark) -> np.ndarray:  # bool
    _check_shape(path, name, mask, kind.grid.shape)
    if mask.dtype != bool and (mask.dtype.kind not in "ui" or ((mask != 0) & (mask != 1)).any()):
        raise DataError(f"{path}: {name} must hold nothing but 0 and 1")
    return mask.astype(bool, copy=False)


def _whole_numbers(array: np.ndarray) -> bool:
    if array.dtype.kind == "f":  # some copies of the labels were saved as floats
        return bool((np.isfinite(array) & (array == np.floor(array))).all())
    return array.dtype.kind in "ui"


def _check_labels(path: Path, labels: np.ndarray, kind: Benchmark) -> None:
    wrong = (labels < 0) | ((labels > kind.classes.free) & (labels != UNKNOWN))
    if wrong.any():
        raise DataError(
            f"{path}: label {int(labels[wrong].flat[0])} is none of {kind.name}, "
            f"which ends with {kind.classes.free}"
        )


def _check_shape(path: Path, name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise DataError(f"{path}: {name} must be {list(shape)}, is {list(array.shape)}")
