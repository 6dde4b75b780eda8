# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What fills each voxel of a grid at one instant, and how fast it moves.

As in the benchmarks, the grid lies in the vehicle's frame at the LiDAR's time, and actors are
where they are at that time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alocc_ros.grid import OCC3D_GRID, VoxelGrid
from alocc_ros.labels import OCC3D, OPENOCC, label_map
from alocc_ros.synthetic.primitives import SolidKind
from alocc_ros.synthetic.raycast import Solids, rotated
from alocc_ros.synthetic.scene import Scene

FREE = OCC3D.free
_SUB = 2  # samples along each edge of a voxel
_WIDER = 0.1  # m by which parts are widened, so that a voxel that they touch counts as theirs
_OVER_GROUND = 3  # samples that a part must fill, where the voxel also holds ground
_SHELL = 0.8  # m of a house's walls, roof and floor that are solid
_CHUNK = 1 << 18  # voxels of parts at a time
# Occ3D label to OpenOcc label; OpenOcc knows no "others", such voxels are free.
_OPENOCC = label_map(OCC3D, OPENOCC, missing=OPENOCC.free)


@dataclass(frozen=True)
class Voxels:
    """What fills a grid.

    Attributes:
        labels: [X, Y, Z] uint8, Occ3D.
        flow: [X, Y, Z, 2] float32 m/s (vx, vy) along the axes of the grid, over ground; zero
            where nothing moves.
    """

    labels: np.ndarray
    flow: np.ndarray


def openocc_labels(labels: np.ndarray) -> np.ndarray:
    """Occ3D labels as OpenOcc's; ``others`` become free."""
    return _OPENOCC[labels]


def fill_voxels(
    scene: Scene,
    time: float,
    map_T_grid: np.ndarray,  # [4, 4]
    grid: VoxelGrid = OCC3D_GRID,
    *,
    solids: Solids | None = None,
    device: torch.device | str = "cpu",
) -> Voxels:
    """What fills each voxel of a grid that lies at ``map_T_grid``."""
    solids = scene.solids(time, device) if solids is None else solids
    device = solids.origin.device
    pose = torch.as_tensor(map_T_grid, dtype=torch.float32, device=device)
    best = _rasterize_parts(scene, solids, pose, grid)
    count, part = best >> 32 & 15, (best & 0xFFFFFFFF)
    label_of = torch.as_tensor(scene.labels, device=device)
    labels = torch.where(best > 0, label_of[part], FREE).view(grid.shape)
    over = (count >= _OVER_GROUND).view(grid.shape)
    level, ground = _ground_level(scene, pose, grid)
    here = torch.arange(grid.shape[2], device=device) == level[..., None]
    labels = torch.where(here & ~over, ground[..., None], labels)

    velocity = torch.as_tensor(scene.actor_velocities(time), dtype=torch.float32, device=device)
    velocity = torch.cat([velocity, velocity.new_zeros(1, 2)])  # the last one: static surroundings
    velocity = (velocity[:, :, None] * pose[:2, :2]).sum(dim=1)  # the rotation, transposed
    owner = torch.as_tensor(scene.owner, device=device)[part].view(grid.shape)
    actor = torch.where((labels != FREE) & ~(here & ~over), owner, -1)
    return Voxels(labels.cpu().numpy(), velocity[actor].cpu().numpy())


def _rasterize_parts(scene: Scene, solids: Solids, pose: Tensor, grid: VoxelGrid) -> Tensor:
    """[cells] int64: rank << 36 | samples inside << 32 | part of the part that wins, or 0."""
    device = solids.origin.device
    lower = torch.tensor(grid.lower, device=device)
    shape = torch.tensor(grid.shape, device=device)
    # Cells that each part's bounding block may touch.
    pick = torch.tensor([[(n >> a) & 1 for a in range(3)] for n in range(8)], device=device)
    corner = torch.where(pick[None] == 1, solids.box_high[:, None], solids.box_low[:, None])
    c, s = solids.cos[:, None], solids.sin[:, None]
    x = solids.origin[:, :1] + c * corner[..., 0] - s * corner[..., 1]
    y = solids.origin[:, 1:] + s * corner[..., 0] + c * corner[..., 1]
    corner = rotated(torch.stack([x, y, corner[..., 2]], dim=-1) - pose[:3, 3], pose[:3, :3].T)
    cells = (corner - lower) / grid.resolution
    first = torch.floor(cells.amin(dim=1) - 0.3).long().clamp(min=0)
    last = torch.minimum(torch.floor(cells.amax(dim=1) + 0.3).long(), shape - 1)
    extent = (last - first + 1).clamp(min=0)
    number = extent.prod(dim=1)

    best = torch.zeros(int(shape.prod()), dtype=torch.int64, device=device)
    rank = torch.as_tensor(_RANK, device=device)[
        torch.as_tensor(scene.labels, device=device).long()
    ]
    hollow = torch.tensor([p.hollow for p in scene.parts], device=device)
    step = (torch.arange(_SUB, device=device) + 0.5) / _SUB
    offsets = torch.cartesian_prod(step, step, step)  # [8, 3] of a cell
    inside = torch.nonzero(number)[:, 0]
    for group in _groups(inside, number):
        part = torch.repeat_interleave(group, number[group])
        within = torch.arange(len(part), device=device)
        within -= torch.repeat_interleave(number[group].cumsum(0) - number[group], number[group])
        size = extent[part]
        k = within % size[:, 2]
        j = within // size[:, 2] % size[:, 1]
        i = within // (size[:, 2] * size[:, 1])
        cell = first[part] + torch.stack([i, j, k], dim=1)
        points = (cell[:, None] + offsets) * grid.resolution + lower
        points = rotated(points, pose[:3, :3]) + pose[:3, 3]
        count = _contains(solids, part, points, hollow[part]).sum(dim=1)
        enough = count > 0
        cell, part, count = cell[enough], part[enough], count[enough]
        flat = (cell[:, 0] * grid.shape[1] + cell[:, 1]) * grid.shape[2] + cell[:, 2]
        key = rank[part] << 36 | count << 32 | part
        best.scatter_reduce_(0, flat, key, "amax")
    return best


# What is small or moves is told before what it stands in; 0 would mean nothing.
_RANK = np.array(
    [1 if n in ("manmade", "vegetation") else 2 if n in ("others", "barrier", "traffic_cone") else 3
     for n in OCC3D.names],
    dtype=np.int64,
)  # fmt: skip


def _groups(index: Tensor, number: Tensor) -> Iterable[Tensor]:
    """``index`` in pieces with together about _CHUNK cells."""
    if len(index):
        piece = number[index].cumsum(0) // _CHUNK
        yield from torch.split(
            index, torch.unique_consecutive(piece, return_counts=True)[1].tolist()
        )


def _contains(solids: Solids, part: Tensor, points: Tensor, hollow: Tensor) -> Tensor:
    """Which points [n, 8, 3] lie in their parts: [n, 8].

    Parts are widened a little, thin ones to the spacing of the samples: none slips between.
    """
    low, high = solids.low[part], solids.high[part]
    half = (high - low) / 2
    pad = (0.1 - half).clamp(min=_WIDER)  # samples are 0.2 m apart
    x, y = points[..., 0] - solids.origin[part, :1], points[..., 1] - solids.origin[part, 1:]
    c, s = solids.cos[part, None], solids.sin[part, None]
    x, y, z = c * x + s * y, c * y - s * x, points[..., 2]
    kind = solids.kind[part, None]
    low, high, half, pad = (v[:, None] for v in (low, high, half + pad, pad))
    rise = z - low[..., 2]
    a, b = solids.slope_low[part, None], solids.slope_high[part, None]
    sides = torch.stack(
        [
            x - (low[..., 0] + a[..., 0] * rise) + pad[..., 0],
            (high[..., 0] + b[..., 0] * rise) - x + pad[..., 0],
            y - (low[..., 1] + a[..., 1] * rise) + pad[..., 1],
            (high[..., 1] + b[..., 1] * rise) - y + pad[..., 1],
            high[..., 2] - z + pad[..., 2],
        ]
    ).amin(dim=0)
    between = (rise >= -pad[..., 2]) & (z <= high[..., 2] + pad[..., 2])
    deep = torch.minimum(sides, rise) > _SHELL
    block = (sides >= 0) & between & ~(hollow[:, None] & deep)
    across = (x / half[..., 0]) ** 2 + (y / half[..., 1]) ** 2
    middle = (low[..., 2] + high[..., 2]) / 2
    ellipsoid = across + ((z - middle) / half[..., 2]) ** 2 <= 1
    radius = (1 + b[..., 0] * rise).clamp(min=0.0)
    cone = between & (across <= radius * radius)
    return torch.where(
        kind == SolidKind.BLOCK, block, torch.where(kind == SolidKind.ELLIPSOID, ellipsoid, cone)
    )


def _ground_level(scene: Scene, pose: Tensor, grid: VoxelGrid) -> tuple[Tensor, Tensor]:
    """For each column: the level of the cell that holds the ground (or none), and its class."""
    device = pose.device
    x, y = (
        low + (torch.arange(n, device=device) + 0.5) * grid.resolution
        for low, n in zip(grid.lower[:2], grid.shape[:2], strict=True)
    )
    x, y = torch.meshgrid(x, y, indexing="ij")
    z = -(pose[2, 3] + pose[2, 0] * x + pose[2, 1] * y) / pose[2, 2]
    level = torch.floor((z - grid.lower[2]) / grid.resolution).long()
    mx = pose[0, 0] * x + pose[0, 1] * y + pose[0, 2] * z + pose[0, 3]
    my = pose[1, 0] * x + pose[1, 1] * y + pose[1, 2] * z + pose[1, 3]
    return level, scene.streets.labels(mx, my)
