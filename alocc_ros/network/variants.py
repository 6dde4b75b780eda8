# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The published networks, one frozen record each (arXiv 2411.07725, and 2504.12959 for the
recurrent ones; docs/network.md section 0), and ours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from alocc_ros.errors import ModelError
from alocc_ros.grid import OCC3D_GRID, SURROUNDOCC_GRID, VoxelGrid
from alocc_ros.labels import OCC3D, OPENOCC, ClassList


@dataclass(frozen=True)
class Variant:
    """What distinguishes one network from another.

    Attributes:
        name: as in ``VARIANTS``.
        input_size: image height and width, pixels.
        image_size: height and width of the cameras' images in training, of which the input is cut.
        depth_range, depth_step: metres; bin k lies at ``depth_range[0] + k * depth_step``.
        context_channels: channels C that are lifted.
        volumetric: lift into voxels [Y, X, Z]; else into one bird's-eye slab [Y, X].
        stereo: match against the previous key frame's images.
        inter_object: add the side copies of inter-object lifting (paper section 3.2).
        intra_length: bins behind a surface that intra-object lifting fills.
        pre_process: residual block between lifting and temporal fusion.
        history: key frames that temporal fusion remembers; 0: none.
        history_interval: seconds between key frames, as trained.
        recurrent: temporal fusion keeps one volume that all frames since the start went into
            (network/recurrent.py); ``history`` is 1.
        memory_length: key frames in a row that a recurrent network was trained on, of the longest
            scenes; where there are more, what grows with their number goes back to half of it.
        base_motion: BUG-COMPAT, the history is moved by the motion of the vehicle's base though
            the grid's frame is another.
        encoder_channels, encoder_blocks: of the BEV / voxel encoder; first stage stride 1,
            then 2.
        neck_channels: after the encoder's neck.
        voxel_channels: of the voxel feature before the head.
        queries: class embeddings, the noise slot 0 included.
        skip_classes: leading classes that are never output (SurroundOcc drops "others").
        flow: has a flow head.
        flow_everywhere: also in voxels of what cannot move, and free ones, as published; else it is
            0 there, which saves nearly all of the head's time.
        grid: the output lattice.
        lift_grid: what is lifted to, where that is not the output lattice (BUG-COMPAT: a config of
            the reference kept another data set's).
        classes: what the labels mean.
        backbone_width, backbone_blocks, image_channels: ResNet-50 and its neck unless a test
            or a small robot wants less.
    """

    name: str
    input_size: tuple[int, int] = (256, 704)
    image_size: tuple[int, int] = (900, 1600)
    depth_range: tuple[float, float] = (1.0, 45.0)
    depth_step: float = 0.5
    context_channels: int = 80
    volumetric: bool = False
    stereo: bool = True
    inter_object: bool = True
    intra_length: int = 22
    pre_process: bool = True
    history: int = 16
    history_interval: float = 0.5
    recurrent: bool = False
    memory_length: int = 41
    base_motion: bool = False
    encoder_channels: tuple[int, ...] = (64, 128, 256, 512)
    encoder_blocks: tuple[int, ...] = (1, 2, 4, 4)
    neck_channels: int = 256
    voxel_channels: int = 48
    queries: int = 19
    skip_classes: int = 0
    flow: bool = False
    flow_everywhere: bool = True
    grid: VoxelGrid = OCC3D_GRID
    lift_grid: VoxelGrid | None = None
    classes: ClassList = OCC3D
    backbone_width: int = 64
    backbone_blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    image_channels: int = 256

    @property
    def depth_bins(self) -> int:
        """Number of depth bins D."""
        return int((self.depth_range[1] - self.depth_range[0]) // self.depth_step)

    @property
    def feature_size(self) -> tuple[int, int]:
        """Height and width of the stride-16 image feature."""
        return self.input_size[0] // 16, self.input_size[1] // 16

    @property
    def lift_cells(self) -> tuple[int, int, int]:
        """Cells x, y, z of the lifted volume (one z cell for bird's-eye variants)."""
        x, y, z = self.grid.shape
        return (x, y, z) if self.volumetric else (x, y, 1)

    @property
    def lift_step(self) -> tuple[float, float, float]:
        """Cell size of the lifted volume, metres."""
        r = (self.lift_grid or self.grid).resolution
        return (r, r, r) if self.volumetric else (r, r, r * self.grid.shape[2])

    @property
    def lift_lower(self) -> tuple[float, float, float]:
        """Lower corner of the lifted volume, metres."""
        return (self.lift_grid or self.grid).lower


ALOCC_2D = Variant("alocc_2d")
ALOCC_2D_MINI = Variant(
    "alocc_2d_mini",
    depth_step=1.0,
    context_channels=40,
    stereo=False,
    inter_object=False,
    pre_process=False,
    encoder_channels=(32, 64, 128),
    encoder_blocks=(1, 2, 4),
    neck_channels=128,
    voxel_channels=32,
)
ALOCC_3D = Variant(
    "alocc_3d",
    context_channels=32,
    volumetric=True,
    encoder_channels=(32, 64, 128, 256),
    neck_channels=48,
)
ALOCC_FLOW_2D = replace(ALOCC_2D, name="alocc_flow_2d", queries=18, flow=True, classes=OPENOCC)
ALOCC_FLOW_3D = replace(ALOCC_3D, name="alocc_flow_3d", queries=18, flow=True, classes=OPENOCC)
ALOCC_3D_SURROUNDOCC = replace(
    ALOCC_3D,
    name="alocc_3d_surroundocc",
    input_size=(896, 1600),
    depth_range=(1.0, 60.0),
    history=0,
    skip_classes=1,
    grid=SURROUNDOCC_GRID,
)
ALOCC_3D_GF = replace(ALOCC_3D, name="alocc_3d_gf", history=1, recurrent=True)
ALOCC_3D_GF_SURROUNDOCC = replace(
    ALOCC_3D_SURROUNDOCC,
    name="alocc_3d_gf_surroundocc",
    history=1,
    recurrent=True,
    base_motion=True,
)
ALOCC_2D_MINI_SURROUNDOCC = replace(
    ALOCC_2D_MINI,
    name="alocc_2d_mini_surroundocc",
    input_size=(896, 1600),
    history=0,
    skip_classes=1,
    grid=SURROUNDOCC_GRID,
    lift_grid=OCC3D_GRID,
)
# Ours, for demonstrations, tests and small robots with two CPU cores.
ALOCC_TINY = Variant(
    "alocc_tiny",
    input_size=(128, 352),
    image_size=(160, 440),
    depth_step=1.0,
    context_channels=32,
    history=4,
    encoder_channels=(32, 64, 96),
    encoder_blocks=(1, 1, 1),
    neck_channels=32,
    voxel_channels=16,
    queries=18,
    flow=True,
    flow_everywhere=False,
    classes=OPENOCC,
    backbone_width=24,
    backbone_blocks=(2, 2, 2, 2),
    image_channels=64,
)
# The same with recurrent fusion; for experiments with what it remembers (docs/benchmarks/gf.md).
ALOCC_TINY_GF = replace(ALOCC_TINY, name="alocc_tiny_gf", history=1, recurrent=True)

VARIANTS = {
    v.name: v
    for v in (
        ALOCC_2D_MINI,
        ALOCC_2D,
        ALOCC_3D,
        ALOCC_FLOW_2D,
        ALOCC_FLOW_3D,
        ALOCC_3D_SURROUNDOCC,
        ALOCC_3D_GF,
        ALOCC_3D_GF_SURROUNDOCC,
        ALOCC_2D_MINI_SURROUNDOCC,
        ALOCC_TINY,
        ALOCC_TINY_GF,
    )
}


def find_variant(name: str) -> Variant:
    """The variant of that name.

    Raises:
        ModelError: there is none; the message lists the names.
    """
    if name not in VARIANTS:
        raise ModelError(f"unknown variant {name!r}; there are {', '.join(VARIANTS)}")
    return VARIANTS[name]
