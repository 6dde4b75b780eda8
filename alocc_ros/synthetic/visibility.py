# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Which voxels of a grid sensors see: those that their rays pass or hit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from alocc_ros.geometry import inverse
from alocc_ros.grid import OCC3D_GRID, VoxelGrid
from alocc_ros.labels import OCC3D
from alocc_ros.metrics import rays as evaluation_rays
from alocc_ros.ops import native
from alocc_ros.synthetic import rig
from alocc_ros.synthetic.lens import pixel_rays
from alocc_ros.synthetic.scene import Scene
from alocc_ros.types import Calibration

FREE = OCC3D.free
_PIXELS = (112, 200)  # rays of a camera for the visibility mask; 0.25 m apart 40 m away
# m. On the ground, seen at a flat angle, those rows lie metres apart: it has rays of its own.
_GROUND_RANGES = np.arange(3.0, 58.0, 0.3)


def voxels_on_rays(
    labels: np.ndarray,  # [X, Y, Z]
    origins: np.ndarray,  # [n, 3] m, in the grid's frame
    directions: np.ndarray,  # [n, 3]
    grid: VoxelGrid = OCC3D_GRID,
    free: int = FREE,
    *,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """[X, Y, Z] bool: voxels that rays pass or hit; each ends in the first that is not free.

    On a CPU with a compiler in C; ``voxels_on_rays_reference`` gives the same in torch.
    """
    solid = torch.as_tensor(labels != free, device=device)
    rays = _enter(origins, directions, grid, solid.device)
    library = native.library() if solid.device.type == "cpu" else None
    if library is None:
        return _march(solid, *rays).cpu().numpy()
    seen = torch.zeros_like(solid)
    tensors = [t.contiguous() for t in (solid, *rays)]

    def rows(begin: int, end: int) -> None:
        library.touch_voxels(
            native.pointer(tensors[0]),
            *(native.i64(n) for n in grid.shape),
            *(native.pointer(t) for t in tensors[1:]),
            native.pointer(seen),
            native.i64(begin),
            native.i64(end),
        )

    native.parallel(rows, len(rays[0]), grain=1024)
    return seen.numpy()


def _enter(
    origins: np.ndarray, directions: np.ndarray, grid: VoxelGrid, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of rays that meet the grid: first cell, step, t_next and t_delta, [n, 3] each.

    Along each axis a ray goes in steps of 1 or -1 cells, reaches the next face at its parameter
    t_next, and the one after it t_delta later.
    """
    shape = torch.tensor(grid.shape, device=device)
    start = (origins - np.asarray(grid.lower)) / grid.resolution
    o = torch.as_tensor(start, dtype=torch.float32, device=device)
    d = torch.as_tensor(directions, dtype=torch.float32, device=device)
    d = torch.where(d.abs() < 1e-7, 1e-7, d)
    t0, t1 = (0 - o) / d, (shape - o) / d
    enter = torch.minimum(t0, t1).amax(dim=1).clamp(min=0.0)
    keep = enter < torch.maximum(t0, t1).amin(dim=1)
    o, d, enter = o[keep], d[keep], enter[keep]
    cell = torch.floor(o + d * enter[:, None]).clamp(min=0)
    cell = torch.minimum(cell, (shape - 1).float())
    step = torch.where(d > 0, 1, -1).int()
    return cell.int(), step, (cell + (d > 0) - o) / d, (1 / d).abs()


def voxels_on_rays_reference(
    labels: np.ndarray,  # [X, Y, Z]
    origins: np.ndarray,  # [n, 3] m, in the grid's frame
    directions: np.ndarray,  # [n, 3]
    grid: VoxelGrid = OCC3D_GRID,
    free: int = FREE,
) -> np.ndarray:
    """``voxels_on_rays`` without C."""
    solid = torch.as_tensor(labels != free)
    return _march(solid, *_enter(origins, directions, grid, solid.device)).numpy()


def _march(
    solid: Tensor,  # [X, Y, Z] bool
    cell: Tensor,
    step: Tensor,
    t_next: Tensor,
    t_delta: Tensor,
) -> Tensor:  # [X, Y, Z] bool
    """The cells on rays that ``_enter`` prepared, one step of all of them at a time."""
    size = torch.tensor(solid.shape, device=solid.device)
    stride = torch.tensor([solid.shape[1] * solid.shape[2], solid.shape[2], 1], device=solid.device)
    seen = torch.zeros_like(solid).view(-1)
    blocked = solid.reshape(-1)
    cell, t_next = cell.long(), t_next.clone()
    while len(cell):
        flat = (cell * stride).sum(dim=1)
        seen[flat] = True
        axis = t_next.argmin(dim=1, keepdim=True)
        cell = cell.scatter_add(1, axis, step.gather(1, axis).long())
        t_next = t_next.scatter_add(1, axis, t_delta.gather(1, axis))
        at = cell.gather(1, axis)[:, 0]
        go = ~blocked[flat] & (at >= 0) & (at < size[axis[:, 0]])
        cell, step, t_next, t_delta = cell[go], step[go], t_next[go], t_delta[go]
    return seen.view(solid.shape)


def camera_mask(
    scene: Scene,
    labels: np.ndarray,
    cycle: float,
    lidar_time: float,
    change: rig.RigChange = rig.NO_CHANGE,
    **kwargs,
) -> np.ndarray:
    """[X, Y, Z] bool: voxels that some camera's rays pass or hit, each camera at its own time."""
    base_T_map = inverse(scene.ego_pose(lidar_time))
    origins, directions = [], []
    for name, calibration in rig.cameras(*_PIXELS, change).items():
        time = cycle + rig.PHASES[name] / 1e9
        base_T_camera = base_T_map @ scene.ego_pose(time) @ calibration.base_T_camera
        focal, centre = calibration.intrinsics[1, 1:]
        over_ground = calibration.base_T_camera[2, 3]
        rows = np.append(
            np.arange(calibration.height), centre + focal * over_ground / _GROUND_RANGES
        )
        rows = rows[rows < calibration.height]
        v, u = np.meshgrid(rows, np.arange(calibration.width), indexing="ij")
        rays = np.stack([u.ravel(), v.ravel(), np.ones(u.size)], axis=1)
        rays = rays @ np.linalg.inv(calibration.intrinsics).T
        directions.append(rays @ base_T_camera[:3, :3].T)
        origins.append(np.broadcast_to(base_T_camera[:3, 3], rays.shape))
    return voxels_on_rays(labels, np.concatenate(origins), np.concatenate(directions), **kwargs)


def seen_by(
    scene: Scene,
    cameras: Mapping[str, Calibration],
    labels: np.ndarray,  # [X, Y, Z]
    times: Mapping[str, float],
    at: float,
    **kwargs,
) -> np.ndarray:
    """[X, Y, Z] bool: voxels that some camera of any rig sees, each at its own of ``times`` (s).

    The grid is that of the vehicle at the time ``at``.
    """
    base_T_map = inverse(scene.ego_pose(at))
    origins, directions = [], []
    for name, calibration in cameras.items():
        # Every row, because flat rays over the ground lie metres apart.
        v, u = np.mgrid[: calibration.height, : calibration.width : 4]
        base_T_camera = base_T_map @ scene.ego_pose(times[name]) @ calibration.base_T_camera
        rays = pixel_rays(calibration, u.ravel(), v.ravel())
        directions.append(rays @ base_T_camera[:3, :3].T)
        origins.append(np.broadcast_to(base_T_camera[:3, 3], rays.shape))
    return voxels_on_rays(labels, np.concatenate(origins), np.concatenate(directions), **kwargs)


def lidar_mask(labels: np.ndarray, **kwargs) -> np.ndarray:
    """[X, Y, Z] bool: voxels between the lowest and highest beam that the LiDAR sees."""
    sensor = rig.lidar()
    # Between the beams too: the benchmark's masks join the sweeps of a whole scene.
    low, high = sensor.elevations[[0, -1]]
    over_ground = sensor.base_T_lidar[2, 3]
    elevations = np.append(np.linspace(low, high, 96), -np.arctan(over_ground / _GROUND_RANGES))
    elevations = elevations[elevations >= low]
    azimuth, elevation = np.meshgrid(np.radians(np.arange(0, 360, 0.5)), elevations)
    level = np.cos(elevation)
    rays = np.stack([level * np.cos(azimuth), level * np.sin(azimuth), np.sin(elevation)], -1)
    rays = rays.reshape(-1, 3) @ sensor.base_T_lidar[:3, :3].T
    origin = np.broadcast_to(sensor.base_T_lidar[:3, 3], rays.shape)
    return voxels_on_rays(labels, origin, rays, **kwargs)


def ray_mask(labels: np.ndarray, origins: np.ndarray, **kwargs) -> np.ndarray:
    """[X, Y, Z] bool: voxels that the benchmark's rays from these origins [n, 3] m touch."""
    rays = evaluation_rays.ray_directions()
    starts = np.repeat(origins, len(rays), axis=0)
    return voxels_on_rays(labels, starts, np.tile(rays, (len(origins), 1)), **kwargs)
