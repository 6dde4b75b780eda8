# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What a LiDAR would see of a voxel grid: the ray set, its origins, and raycasting.

RayIoU is defined by the numbers that the benchmark's code gives, and those depend on where it
rounds. ``in_voxels`` does all of the rounding; ``raycast_reference`` is the obvious form, one step
of all rays at a time, and the kernel of ``ops/raycast`` gives the same bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from alocc_ros.errors import MetricError
from alocc_ros.geometry import inverse
from alocc_ros.grid import OCC3D_GRID, VoxelGrid
from alocc_ros.ops import native

_AZIMUTHS = 360
_HIGHEST_PITCH = 0.21  # rad; the last pitch is the first one above
_STEP_LIMIT = 1000
ORIGINS = 8  # a frame
_ORIGIN_RANGE = 39.0  # m, along x and y


@dataclass(frozen=True)
class Hits:
    """Where rays end, origin after origin (ray = origin * directions + direction).

    Attributes:
        voxel: [n] int32 flat index: the first voxel that is not free, else the last one on the
            way out of the grid; -1 for a ray that is never in the grid.
        distance: [n] float32 m from the origin to where the ray leaves that voxel; -0.4 (minus
            one voxel) for a ray that is never in the grid.
    """

    voxel: np.ndarray
    distance: np.ndarray

    def take(self, values: np.ndarray) -> np.ndarray:  # [X, Y, Z, ...] -> [n, ...]
        """``values`` of the voxels hit. A ray that is never in the grid reads voxel (0, 0, 0)."""
        flat = values.reshape(values.shape[0] * values.shape[1] * values.shape[2], -1)
        taken = flat.take(np.maximum(self.voxel, 0), axis=0)
        return taken.reshape(len(self.voxel), *values.shape[3:])


def ray_directions() -> np.ndarray:  # [14040, 3] float32
    """Unit vectors of the benchmark's rays, 39 pitches with 360 azimuths each."""
    # The lower ones meet flat ground 1, 2, ... 10 sensor heights away.
    pitches = [-(math.pi / 2 - math.atan(k + 1)) for k in range(10)]
    step = pitches[9] - pitches[8]
    while pitches[-1] < _HIGHEST_PITCH:
        pitches.append(pitches[-1] + step)
    pitch, azimuth = np.meshgrid(np.array(pitches), np.deg2rad(np.arange(_AZIMUTHS)), indexing="ij")
    level = np.cos(pitch)
    rays = (level * np.cos(azimuth), level * np.sin(azimuth), np.sin(pitch))
    return np.stack(rays, axis=-1).reshape(-1, 3).astype(np.float32)


def lidar_origins(
    map_T_base: np.ndarray,  # [n, 4, 4] float64, every key frame of a scene
    base_T_lidar: np.ndarray,  # [n, 4, 4] float64
    index: int,
) -> np.ndarray:  # [up to 8, 3] float64 m
    """Where the LiDAR was in a scene, past and future, seen from the base frame of ``index``.

    Of more than eight within 39 m, eight are taken evenly; the frame's own may not be among them.
    """
    map_T_lidar = map_T_base @ base_T_lidar
    points = (inverse(map_T_lidar[index]) @ map_T_lidar)[:, :3, 3]
    points[index] = 0.0
    points = points.astype(np.float32).astype(np.float64)  # where the benchmark rounds
    points = points @ base_T_lidar[index, :3, :3].T + base_T_lidar[index, :3, 3]
    points = points[(np.abs(points[:, :2]) < _ORIGIN_RANGE).all(axis=1)]
    if len(points) > ORIGINS:
        points = points[np.round(np.linspace(0, len(points) - 1, ORIGINS)).astype(int)]
    return points


def raycast(
    labels: np.ndarray,  # [X, Y, Z] uint8
    origins: np.ndarray,  # [t, 3] m
    directions: np.ndarray,  # [r, 3], need not be unit vectors
    free: int,
    grid: VoxelGrid = OCC3D_GRID,
) -> Hits:
    """The first voxel on each ray whose label is not ``free``.

    Uses the C kernel where there is a compiler; ``raycast_reference`` gives the same bits, slower.

    Raises:
        MetricError: arrays of other shapes, or positions that are not finite.
    """
    labels = np.ascontiguousarray(labels)
    if labels.shape != grid.shape or labels.dtype != np.uint8:
        raise MetricError(
            f"labels must be {list(grid.shape)} uint8, got {list(labels.shape)} {labels.dtype}"
        )
    start, direction = in_voxels(origins, directions, grid)
    library = native.library()
    if library is None:
        voxel, distance = raycast_reference(labels, start, direction, free)
    else:
        voxel, distance = _raycast_in_c(library, labels, start, direction, free)
    return Hits(voxel, distance * np.float32(grid.resolution))


def in_voxels(
    origins: np.ndarray,  # [t, 3] m
    directions: np.ndarray,  # [r, 3]
    grid: VoxelGrid,
) -> tuple[np.ndarray, np.ndarray]:
    """Origins [t, 3] and unit directions [t, r, 3] in voxels, float64, with the bits that count.

    The benchmark's code goes from metres to voxels with a float32 resolution, rounds origin and
    end of a ray to float32, and takes the direction out of what is left.

    Raises:
        MetricError: wrong shapes, or positions that are not finite.
    """
    origins = np.asarray(origins, dtype=np.float64)
    for name, array in (("origins", origins), ("directions", directions)):
        if array.ndim != 2 or array.shape[1] != 3:
            raise MetricError(f"{name} must be [n, 3], got {list(array.shape)}")
        if not (np.abs(array) < 1e6).all():
            raise MetricError(f"{name} must be finite, and within 1000 km")
    lower = np.array(grid.lower, dtype=np.float32).astype(np.float64)
    scale = np.float64(np.float32(grid.resolution))
    ends = origins[:, None] + directions.astype(np.float64)
    start = ((origins - lower) / scale).astype(np.float32).astype(np.float64)
    direction = ((ends - lower) / scale).astype(np.float32) - start[:, None]
    x, y, z = np.moveaxis(direction, -1, 0)
    length = np.sqrt(x * x + y * y + z * z)
    if not length.all():
        raise MetricError("directions must not be zero")
    return start, direction / length[..., None]


def raycast_reference(
    labels: np.ndarray,  # [X, Y, Z]
    origins: np.ndarray,  # [t, 3] float64, voxels
    directions: np.ndarray,  # [t, r, 3] float64, voxels
    free: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Flat voxel [t * r] int32 (-1: never in the grid), and where it is left, in voxels, float32.

    Amanatides and Woo: always across the nearest face; of equally near ones z is taken before
    y before x. Every ray of ``active`` takes its next step at the same time.
    """
    count = directions.shape[0] * directions.shape[1]
    origin = np.repeat(origins, directions.shape[1], axis=0)
    direction = directions.reshape(-1, 3)
    voxel = np.full(count, -1, dtype=np.int32)
    distance = np.full(count, -1, dtype=np.float32)
    cell = np.trunc(origin).astype(np.int64)
    step = np.where(direction >= 0, 1, -1)
    huge = np.finfo(np.float64).max
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        moves = direction != 0
        following = np.where(moves, (cell + (direction >= 0) - origin) / direction, huge)
        delta = np.where(moves, step / direction, huge)
        active = np.arange(count)
        for _ in range(_STEP_LIMIT + 1):
            inside = ((cell >= 0) & (cell < labels.shape)).all(axis=1)
            stays = inside | (voxel[active] < 0)
            if not stays.all():
                active, inside = active[stays], inside[stays]
                cell, step, following, delta = (a[stays] for a in (cell, step, following, delta))
            if not len(active):
                break
            tx, ty, tz = following.T
            axis = np.where(tx < ty, np.where(tx < tz, 0, 2), np.where(ty < tz, 1, 2))
            rows = np.arange(len(active))
            here = active[inside]
            flat = np.ravel_multi_index(tuple(cell[inside].T), labels.shape)
            voxel[here] = flat
            distance[here] = following[rows, axis][inside]
            cell[rows, axis] += step[rows, axis]
            following[rows, axis] += delta[rows, axis]
            goes_on = ~inside
            goes_on[inside] = labels.reshape(-1)[flat] == free
            active = active[goes_on]
            cell, step, following, delta = (a[goes_on] for a in (cell, step, following, delta))
    return voxel, distance


def _raycast_in_c(
    library: native.ctypes.CDLL,
    labels: np.ndarray,
    origins: np.ndarray,
    directions: np.ndarray,
    free: int,
) -> tuple[np.ndarray, np.ndarray]:
    rays = directions.shape[1]
    directions = np.ascontiguousarray(directions)
    voxel = np.empty(len(origins) * rays, dtype=np.int32)
    distance = np.empty(len(origins) * rays, dtype=np.float32)
    sizes = [native.i64(n) for n in labels.shape]

    def rows(begin: int, end: int) -> None:
        library.cast_rays(
            native.address(labels), *sizes, native.i32(free), native.address(origins),
            native.address(directions), native.i64(rays), native.i32(_STEP_LIMIT),
            native.address(voxel), native.address(distance), native.i64(begin), native.i64(end),
        )  # fmt: skip

    native.parallel(rows, len(voxel), grain=1024)
    return voxel, distance
