# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The benchmarks' labels, one ``LabelFormat`` each; nothing else depends on a benchmark's name.

| benchmark | file under the data set's folder |
| --- | --- |
| occ3d | ``gts/<scene name>/<sample token>/labels.npz`` |
| openocc | ``openocc_v2/<scene name>/<sample token>/labels.npz``, ``openocc_v2_ray_mask/...`` |
| surroundocc | ``gts_surroundocc/samples/<LiDAR file name>.npy`` |
| openoccupancy | ``nuScenes-Occupancy-v0.1/scene_<scene token>/occupancy/<LiDAR token>.npy`` |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from alocc_ros.datasets.label_files import (
    LabelReader,
    read_labels_and_flow,
    read_labels_and_masks,
    read_rows_xyz,
    read_rows_zyx,
)
from alocc_ros.datasets.samples import Sample
from alocc_ros.errors import DataError
from alocc_ros.files import component
from alocc_ros.grid import OCC3D_GRID, OPENOCCUPANCY_GRID, SURROUNDOCC_GRID, VoxelGrid
from alocc_ros.labels import OCC3D, OPENOCC, ClassList
from alocc_ros.metrics.voxels import WITHOUT_OTHERS, SurroundOccReference, VoxelScores
from alocc_ros.records import ModelRecord

VoxelAccumulator = VoxelScores | SurroundOccReference


@dataclass(frozen=True)
class MaskFile:
    """Where a mask of the voxels lies.

    Attributes:
        folder: under the data set's; below it ``<scene name>/<sample token>/labels.npz``.
        array: its name in that file.
    """

    folder: str
    array: str

    def path(self, sample: Sample) -> Path:
        """Relative to the data set's folder."""
        return _of_token(self.folder, sample)


@dataclass(frozen=True)
class LabelFormat:
    """How one benchmark labels voxels, and how it scores them.

    Attributes:
        name: such as ``occ3d``.
        path: of a key frame's label file, relative to the data set's folder.
        read: opens that file.
        classes: what the labels mean.
        grid: where the voxels lie.
        voxel_counts: [classes] voxels of each class in the training scenes of nuScenes; the
            losses weigh classes by them.
        reference_scores: makes the accumulator that counts as the code does with which numbers
            were published, accidents included.
        scored: the labels that the mIoU is the mean of.
        frame: of the grid, ``ego`` or ``lidar``, as in a model's record.
        camera_mask, lidar_mask, ray_mask: which voxels a camera or the LiDAR sees, and which the
            evaluation's rays touch; None: the benchmark does not tell.
        flow: the labels come with velocities.
    """

    name: str
    path: Callable[[Sample], Path]
    read: LabelReader
    classes: ClassList
    grid: VoxelGrid
    voxel_counts: tuple[int, ...]
    reference_scores: Callable[[], VoxelAccumulator]
    scored: tuple[int, ...]
    frame: str = "ego"
    camera_mask: MaskFile | None = None
    lidar_mask: MaskFile | None = None
    ray_mask: MaskFile | None = None
    flow: bool = False

    @property
    def in_lidar_frame(self) -> bool:
        """The grid's frame is the LiDAR's, not the vehicle's."""
        return self.frame == "lidar"

    def voxel_scores(self, reference_exact: bool = False) -> VoxelAccumulator:
        """An empty accumulator."""
        if reference_exact:
            return self.reference_scores()
        return VoxelScores(self.classes, self.scored)


def _of_token(folder: str, sample: Sample) -> Path:
    return Path(folder, component(sample.scene_name), component(sample.token), "labels.npz")


def _of_sweep(sample: Sample) -> Path:
    return Path("gts_surroundocc", "samples", f"{sample.lidar.path.name}.npy")


def _of_lidar_token(sample: Sample) -> Path:
    scene, name = component(f"scene_{sample.scene_token}"), component(sample.lidar.token)
    return Path("nuScenes-Occupancy-v0.1", scene, "occupancy", f"{name}.npy")


# In the order of Occ3D's classes (docs/network.md section T5.1); OpenOcc's are the same voxels
# without "others", in its own order.
_OCC3D_VOXELS = (
    944004, 1897170, 152386, 2391677, 16957802, 724139, 189027, 2074468, 413451, 2384460,
    5916653, 175883646, 4275424, 51393615, 61411620, 105975596, 116424404, 1892500630,
)  # fmt: skip
_OPENOCC_VOXELS = tuple(_OCC3D_VOXELS[OCC3D.names.index(name)] for name in OPENOCC.names)
_OCC3D_CAMERAS = MaskFile("gts", "mask_camera")

FORMATS = {
    f.name: f
    for f in (
        LabelFormat(
            name="occ3d",
            path=partial(_of_token, "gts"),
            read=read_labels_and_masks,
            classes=OCC3D,
            grid=OCC3D_GRID,
            voxel_counts=_OCC3D_VOXELS,
            reference_scores=partial(VoxelScores, OCC3D, reference_exact=True),
            scored=tuple(range(OCC3D.free)),
            camera_mask=_OCC3D_CAMERAS,
            lidar_mask=MaskFile("gts", "mask_lidar"),
        ),
        LabelFormat(
            name="openocc",
            path=partial(_of_token, "openocc_v2"),
            read=read_labels_and_flow,
            classes=OPENOCC,
            grid=OCC3D_GRID,
            voxel_counts=_OPENOCC_VOXELS,
            reference_scores=partial(VoxelScores, OPENOCC, reference_exact=True),
            scored=tuple(range(OPENOCC.free)),
            camera_mask=_OCC3D_CAMERAS,  # Occ3D's, whose voxels are the same
            ray_mask=MaskFile("openocc_v2_ray_mask", "ray_mask2"),
            flow=True,
        ),
        LabelFormat(
            name="surroundocc",
            path=_of_sweep,
            read=read_rows_xyz,
            classes=OCC3D,
            grid=SURROUNDOCC_GRID,
            voxel_counts=_OCC3D_VOXELS,
            reference_scores=SurroundOccReference,
            scored=WITHOUT_OTHERS,
            frame="lidar",
        ),
        LabelFormat(
            name="openoccupancy",
            path=_of_lidar_token,
            read=read_rows_zyx,
            classes=OCC3D,
            grid=OPENOCCUPANCY_GRID,
            voxel_counts=_OCC3D_VOXELS,
            reference_scores=partial(VoxelScores, OCC3D, WITHOUT_OTHERS, reference_exact=True),
            scored=WITHOUT_OTHERS,
            frame="lidar",
        ),
    )
}


def find_format(name: str | LabelFormat) -> LabelFormat:
    """The labels of the benchmark of that name; a format stands for itself.

    Raises:
        DataError: there is none.
    """
    if isinstance(name, LabelFormat):
        return name
    if name not in FORMATS:
        raise DataError(f"no benchmark is called {name!r}; there are {', '.join(FORMATS)}")
    return FORMATS[name]


def format_of(record: ModelRecord) -> LabelFormat:
    """The labels that a model answers in, or those nearest to them.

    Classes matter most, then the frame, then the voxels: whether all of these are equal, who
    needs it must check.
    """

    def differences(labels: LabelFormat) -> tuple[bool, bool, bool]:
        return (
            labels.classes != record.classes,
            labels.frame != record.frame,
            labels.grid != record.grid,
        )

    return min(FORMATS.values(), key=differences)
