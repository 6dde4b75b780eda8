# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Where one sees through: the ends of rays that meet nothing, for costmaps that clear along rays.

Nav2's obstacle layer clears what lies on the line from the sensor to each point of a cloud, in two
dimensions, its voxel layer in three. The points of obstacles alone leave whatever has gone, where
nothing stands behind it. These points are ends of rays that pass free columns only, from one eye
above the middle of the base, at the mean height of the cameras:

* one ray an azimuth and level to the last free column before the first obstacle, or to the end of
  the grid;
* rays to the ground and to the highest level at distances that grow by a constant ratio, so close
  that no cell of the free space is missed: for the voxel layer, whose rays are lines in space.

Only azimuths that a camera of this frame looks at have rays, so the sector of a camera that is
missing is left as it was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from alocc_ros import arrays
from alocc_ros.costmap import Polygon, centres, inside
from alocc_ros.geometry import inverse
from alocc_ros.grid import VoxelGrid
from alocc_ros.types import Calibration, FrameSet, Occupancy

_STEPS = 2  # samples a cell along a ray
# Gaps between neighbouring rays, in cells, sideways and upwards. Costmaps draw a ray from the
# middle of one cell to that of another, so rays a whole cell apart leave cells out between them.
_ACROSS, _UP = 0.45, 0.6
# And for the few that are left out still: the rays of a frame lie between those of the frames
# before, or as long as nothing moves they would be the same ones always.
_PHASES = 7
# Around the base, between the cameras' pictures, a ray may pass what no camera sees: the pictures
# of nuScenes' cameras overlap beyond. ``raytrace_min_range`` of a costmap keeps rays out of it.
_BLIND = 6.0  # m
# Half of what the network sees of a wide image at most, as the tangent of the angle: images are cut
# to the focal lengths of training (stream/crop_placement.py), of which this is the widest.
_WIDEST = 1.0


@dataclass(frozen=True)
class _View:
    """What the rays depend on; all heights are in the grid's frame."""

    grid: VoxelGrid
    eye: float  # m
    ground: float  # m
    height: tuple[float, float]  # m, (lower, upper)
    phase: int  # of _PHASES


@dataclass(frozen=True)
class _Fan:
    """Rays of a grid, whatever is in it.

    Attributes:
        x, y: [azimuths] of each direction.
        columns: [azimuths, steps] flat index of the column at each step; outside: that of a column
            behind the last one.
        distances: [steps] m.
        levels: [levels] m, heights of the ends at the last free column.
        azimuths, steps, ends: [n], [n], [n, 3] m; rays to the ground and to the highest level,
            which are there if their azimuth is free up to their step.
    """

    x: np.ndarray
    y: np.ndarray
    columns: np.ndarray
    distances: np.ndarray
    levels: np.ndarray
    azimuths: np.ndarray
    steps: np.ndarray
    ends: np.ndarray


def ray_ends(
    frame: FrameSet,
    occupancy: Occupancy,
    height: tuple[float, float] = arrays.OBSTACLE_HEIGHT,
    vehicle: Polygon | None = None,
) -> np.ndarray:  # [n, 3] float32 m
    """Ends of free rays, in the grid's frame.

    Args:
        frame: whose cameras have seen it.
        occupancy: what they saw.
        height: m in the grid's frame, within which obstacles end a ray; points lie within it too.
        vehicle: corners in the base frame; obstacles in there are the vehicle itself.
    """
    grid = occupancy.grid
    base_T_grid = np.eye(4) if frame.base_T_grid is None else frame.base_T_grid
    grid_T_base = inverse(base_T_grid)
    cameras = [frame.calibration[c] for c in sorted(frame.images)]
    if not cameras:
        return np.zeros((0, 3), np.float32)
    mounts = [grid_T_base @ camera.base_T_camera for camera in cameras]
    eye = float(np.mean([mount[2, 3] for mount in mounts]))
    ground = float(grid_T_base[2, 3])
    phase = occupancy.stamp // 1000 % _PHASES  # no usual period is a multiple of 7 us
    view = _View(grid, round(eye, 3), round(ground, 3), height, phase)
    fan, outside = _fan(view), grid.shape[0] * grid.shape[1]
    blocked = np.ones(outside + 1, dtype=bool)
    blocked[:outside] = _blocked(occupancy, height, vehicle, grid_T_base)
    stops = blocked.take(fan.columns)
    free = np.where(stops.any(axis=1), stops.argmax(axis=1), len(fan.distances))
    lenses = tuple(_Lens.of(c, mount) for c, mount in zip(cameras, mounts, strict=True))
    free = _in_sight(view, lenses)[np.arange(len(free)), free].astype(np.intp)
    chosen = np.flatnonzero(free)
    distance = fan.distances[free[chosen] - 1]
    last = np.empty((len(chosen), len(fan.levels), 3), np.float32)
    last[:, :, 0] = (fan.x[chosen] * distance)[:, None]
    last[:, :, 1] = (fan.y[chosen] * distance)[:, None]
    last[:, :, 2] = fan.levels
    return np.concatenate([last.reshape(-1, 3), fan.ends[free[fan.azimuths] > fan.steps]])


def _blocked(
    occupancy: Occupancy,
    height: tuple[float, float],
    vehicle: Polygon | None,
    grid_T_base: np.ndarray,
) -> np.ndarray:  # [X * Y] bool
    columns = arrays.obstacle_columns(occupancy, height)
    if vehicle is not None:
        corners = vehicle @ grid_T_base[:2, :2].T + grid_T_base[:2, 3]
        x, y = centres(occupancy.grid)
        columns = columns & ~inside(corners, x[:, None], y[None])
    return columns.reshape(-1)


@lru_cache(maxsize=2 * _PHASES)
def _fan(view: _View) -> _Fan:
    """The rays from the eye."""
    grid, height, cell = view.grid, view.height, view.grid.resolution
    sides = [abs(v) for v in (*grid.lower[:2], *grid.upper[:2])]
    count = math.ceil(2 * math.pi * max(sides) / (_ACROSS * cell))
    angle = (np.arange(count) + view.phase / _PHASES) * (2 * math.pi / count)
    x, y = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    reach = math.hypot(max(sides[0], sides[2]), max(sides[1], sides[3]))
    distances = np.arange(1, math.ceil(reach / cell * _STEPS) + 1, dtype=np.float32) * (
        cell / _STEPS
    )
    column, row = (
        np.floor((direction[:, None] * distances - low) / cell).astype(np.int32)
        for direction, low in zip((x, y), grid.lower[:2], strict=True)
    )
    within = (column >= 0) & (column < grid.shape[0]) & (row >= 0) & (row < grid.shape[1])
    columns = np.where(within, column * grid.shape[1] + row, grid.shape[0] * grid.shape[1])

    low = max(view.ground, grid.lower[2], height[0]) + cell / 2
    high = max(min(grid.upper[2], height[1]) - cell / 2, low)
    levels = np.linspace(
        low, high, max(math.ceil((high - low) / (_UP * cell)), 1) + 1, dtype=np.float32
    )
    rings = [_ring(edge, abs(view.eye - edge), cell, distances, count) for edge in (low, high)]
    azimuths, steps, heights = (np.concatenate(part) for part in zip(*rings, strict=True))
    ends = np.stack([x[azimuths] * distances[steps], y[azimuths] * distances[steps], heights], 1)
    return _Fan(x, y, columns, distances, levels, azimuths, steps, ends.astype(np.float32))


def _ring(
    edge: float, away: float, cell: float, distances: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Azimuth, step and height of rays to a level, at distances in a ratio.

    Between neighbours that end at r and q * r the gap is ``away * (1 - 1 / q)`` where the shorter
    one ends and less before.
    """
    azimuths, steps = [], []
    if away > _UP * cell:
        ratio, distance = 1.0 / (1.0 - _UP * cell / away), 2.0 * cell
        while distance < distances[-1]:
            needed = min(math.ceil(2 * math.pi * distance / (_ACROSS * cell)), count)
            azimuths.append(np.arange(needed) * count // needed)
            steps.append(np.full(needed, np.searchsorted(distances, distance)))
            distance *= min(ratio, 2.0)
    if not azimuths:
        nothing = np.zeros(0, dtype=np.intp)
        return nothing, nothing, np.zeros(0)
    flat = np.concatenate(azimuths), np.concatenate(steps)
    return *flat, np.full(len(flat[0]), edge)


@dataclass(frozen=True)
class _Lens:
    """What of a camera tells what it looks at, as a key; ``mount`` is grid_T_camera [4, 4]."""

    mount: bytes
    focal: float
    centre: float
    columns: tuple[float, float]

    @classmethod
    def of(cls, camera: Calibration, grid_T_camera: np.ndarray) -> _Lens:
        focal, centre = float(camera.intrinsics[0, 0]), float(camera.intrinsics[0, 2])
        left, right = 0.0, float(camera.width)
        if isinstance(camera.crop, tuple):
            left, right = float(camera.crop[0]), float(camera.crop[0] + camera.crop[2])
        elif camera.crop == "auto":
            left, right = max(left, centre - focal * _WIDEST), min(right, centre + focal * _WIDEST)
        # A tenth of a millimetre: of a TF that is computed anew the last digits differ.
        mount = np.ascontiguousarray(np.round(grid_T_camera, 4) + 0.0)
        return cls(mount.tobytes(), focal, centre, (left, right))


@lru_cache(maxsize=2 * _PHASES)
def _in_sight(view: _View, lenses: tuple[_Lens, ...]) -> np.ndarray:  # [azimuths, steps + 1]
    """For a ray that is free for so many steps: how many of them, so that its end is seen.

    Beyond the blind spots at the vehicle a ray ends where it is first not seen.
    """
    seen = np.logical_or.reduce([_in_picture(view, lens) for lens in lenses])
    lost = ~seen & (_fan(view).distances > _BLIND)
    np.logical_or.accumulate(lost, axis=1, out=lost)
    steps = np.arange(1, seen.shape[1] + 1, dtype=np.int16) * (seen & ~lost)
    table = np.zeros((len(seen), seen.shape[1] + 1), dtype=np.int16)
    np.maximum.accumulate(steps, axis=1, out=table[:, 1:])
    return table


def _in_picture(view: _View, lens: _Lens) -> np.ndarray:  # [azimuths, steps] bool
    """Which points of the rays, at the height of the eye, are in a camera's picture."""
    fan = _fan(view)
    camera_T_grid = inverse(np.frombuffer(lens.mount, dtype=np.float64).reshape(4, 4))
    x, y = fan.x[:, None] * fan.distances, fan.y[:, None] * fan.distances
    across, ahead = (
        camera_T_grid[axis, 0] * x
        + camera_T_grid[axis, 1] * y
        + (camera_T_grid[axis, 2] * view.eye + camera_T_grid[axis, 3])
        for axis in (0, 2)
    )
    column = lens.focal * across / np.maximum(ahead, 1e-3) + lens.centre
    return (ahead > 0.1) & (column >= lens.columns[0]) & (column < lens.columns[1])
