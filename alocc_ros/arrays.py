# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Voxel grids as the arrays that messages are filled from; numpy only.

The one place for the layouts that bags and nodes write: an ``Occupancy`` goes in, rows of a
point cloud, cells of a 2D grid or ends of arrows come out. All coordinates are metres in
``occupancy.frame_id``. Points come in voxel order: x slowest, then y, z fastest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from alocc_ros.grid import VoxelGrid
from alocc_ros.labels import ClassList
from alocc_ros.types import Occupancy

# One occupied voxel, 28 bytes. ``rgb`` is a float32 whose bits are 0x00RRGGBB, as RViz and
# Foxglove expect; ``label`` is followed by three padding bytes, so every float is aligned.
POINT_DTYPE = np.dtype(
    {
        "names": ["x", "y", "z", "rgb", "label", "vx", "vy"],
        "formats": ["<f4", "<f4", "<f4", "<f4", "u1", "<f4", "<f4"],
        "offsets": [0, 4, 8, 12, 16, 20, 24],
        "itemsize": 28,
    }
)
OBSTACLE_DTYPE = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4")])

# sensor_msgs/PointField datatypes of the two scalar types above.
_POINT_FIELD_TYPE = {np.dtype("u1"): 2, np.dtype("<f4"): 7}

# Below this height (voxel centres, in the grid's frame) an obstacle is in the way of a
# vehicle. There is no lower end by default: classes tell ground from obstacles, and on a
# downhill road the bumper ahead lies below our own wheels.
OBSTACLE_HEIGHT = (-np.inf, 2.5)  # m

UNKNOWN, CLEAR, OBSTACLE = -1, 0, 100  # nav_msgs/OccupancyGrid
# While columns are summed up: 0 is nothing, then the costs of ground, then those of obstacles, so
# that the largest number of a column is its answer.
_GROUND, _OBSTACLE = 1, 102

MOVING_SPEED = 0.5  # m/s; the flow head's own bins are 0.5 m/s apart
FLOW_HORIZON = 1.0  # s; an arrow ends where the voxel would be after this long
FLOW_LINES = 2000  # more arrows than this only hide each other


@dataclass(frozen=True)
class FlowLines:
    """Motion of voxels as line segments.

    Attributes:
        ends: [n, 2, 3] float32 m, start (voxel centre) and end of each line.
        colours: [n, 3] float32 in [0, 1], the hue tells the direction of motion.
    """

    ends: np.ndarray
    colours: np.ndarray

    def __len__(self) -> int:
        return len(self.ends)


def point_fields(dtype: np.dtype) -> list[tuple[str, int, int, int]]:
    """(name, offset, datatype, count) of each ``sensor_msgs/PointField`` of ``dtype``."""
    fields = dtype.fields or {}
    return [(name, fields[name][1], _POINT_FIELD_TYPE[fields[name][0]], 1) for name in fields]


def packed_rgb(colours: np.ndarray) -> np.ndarray:  # [..., 3] uint8 -> [...] float32
    """R, G, B packed into the bits of a float32 (0x00RRGGBB)."""
    r, g, b = (colours[..., i].astype(np.uint32) for i in range(3))
    return ((r << 16) | (g << 8) | b).astype("<u4").view("<f4")


def voxel_centres(grid: VoxelGrid, flat: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y, z [n] float32 m of the cells with flat (C order) index ``flat`` [n]."""
    flat = flat.astype(np.int32)  # dividing 64-bit integers is several times slower
    column = flat // grid.shape[2]
    row = column // grid.shape[1]
    index = (row, column - row * grid.shape[1], flat - column * grid.shape[2])
    axes = [
        (low + (np.arange(n) + 0.5) * grid.resolution).astype(np.float32)
        for low, n in zip(grid.lower, grid.shape, strict=True)
    ]
    x, y, z = (axis.take(i) for axis, i in zip(axes, index, strict=True))
    return x, y, z


def occupied_points(occupancy: Occupancy) -> np.ndarray:  # [n] POINT_DTYPE
    """Every voxel that is not free.

    ``vx``, ``vy`` are m/s in the base frame. They are NaN for models without flow: a zero
    would tell a planner that the car ahead stands still.
    """
    flat = np.flatnonzero(occupancy.labels != occupancy.classes.free)
    # Scattered writes into 28-byte records are what this costs; zeros keep the padding (and
    # with it the bytes of a recording) the same from run to run.
    points = np.zeros(len(flat), dtype=POINT_DTYPE)
    points["x"], points["y"], points["z"] = voxel_centres(occupancy.grid, flat)
    label = occupancy.labels.reshape(-1).take(flat)
    points["label"] = label
    points["rgb"] = packed_rgb(occupancy.classes.colours).take(label)
    if occupancy.flow is None:
        points["vx"] = points["vy"] = np.nan
    else:
        flow = occupancy.flow.reshape(-1, 2).take(flat, axis=0)
        points["vx"], points["vy"] = flow[:, 0], flow[:, 1]
    return points


def obstacle_points(
    occupancy: Occupancy, height: tuple[float, float] = OBSTACLE_HEIGHT
) -> np.ndarray:  # [n, 3] float32 m
    """Centres of obstacle voxels within ``height``; what a costmap marks."""
    chosen = occupancy.classes.is_obstacle.take(occupancy.labels)
    chosen &= _levels_within(occupancy.grid, height)
    return np.stack(voxel_centres(occupancy.grid, np.flatnonzero(chosen)), axis=1)


def moved_points(points: np.ndarray, a_T_b: np.ndarray) -> np.ndarray:
    """A copy of ``points`` [n] (OBSTACLE_DTYPE or POINT_DTYPE) of frame b in frame a."""
    out = points.copy()
    xyz = np.stack([points[axis] for axis in "xyz"], axis=1) @ a_T_b[:3, :3].T + a_T_b[:3, 3]
    out["x"], out["y"], out["z"] = xyz.T
    if "vx" in (points.dtype.names or ()):
        vx, vy = points["vx"], points["vy"]
        out["vx"] = a_T_b[0, 0] * vx + a_T_b[0, 1] * vy
        out["vy"] = a_T_b[1, 0] * vx + a_T_b[1, 1] * vy
    return out


def obstacle_columns(
    occupancy: Occupancy, height: tuple[float, float] = OBSTACLE_HEIGHT
) -> np.ndarray:  # [X, Y] bool
    """Columns with an obstacle within ``height``."""
    chosen = occupancy.classes.is_obstacle.take(occupancy.labels)
    chosen &= _levels_within(occupancy.grid, height)
    return _max_over_levels(chosen)


def occupancy_grid(
    occupancy: Occupancy,
    height: tuple[float, float] = OBSTACLE_HEIGHT,
    *,
    costs: Mapping[str, int] = MappingProxyType({}),
    unknown: int = UNKNOWN,
    by_confidence: bool = False,
) -> np.ndarray:  # [Y, X] int8
    """The grid seen from above: row-major, x fastest, the layout of ``nav_msgs/OccupancyGrid``.

    A column has the largest cost of the obstacles in it within ``height``, else that of the ground
    in it that one can stand on, else it is unknown: the network calls the far side of a wall free
    as well, and air without ground under it is no place to drive.

    Args:
        occupancy: what is seen.
        height: m in the grid's frame, within which obstacles count.
        costs: 0 to 100 by class name; of others 100 if they are obstacles, 0 if they are ground.
        unknown: the cost of a column with neither.
        by_confidence: an obstacle costs as much less as the network is not sure of it.
    """
    codes = _codes(occupancy.classes, costs).take(occupancy.labels)
    within = _levels_within(occupancy.grid, height)
    if not within.all():
        codes *= (codes < _OBSTACLE) | within
    if by_confidence and occupancy.confidence is not None:
        flat = np.flatnonzero(codes >= _OBSTACLE)
        sure = occupancy.confidence.reshape(-1).take(flat)
        sure *= codes.reshape(-1).take(flat) - _OBSTACLE
        codes.reshape(-1)[flat] = np.rint(sure) + _OBSTACLE
    meaning = np.full(256, OBSTACLE, dtype=np.int8)
    meaning[0] = unknown
    meaning[_GROUND:_OBSTACLE] = meaning[_OBSTACLE : _OBSTACLE + 101] = np.arange(101)
    return meaning.take(np.ascontiguousarray(_max_over_levels(codes).T))


def _codes(classes: ClassList, costs: Mapping[str, int]) -> np.ndarray:  # [256] uint8
    codes = np.zeros(256, dtype=np.uint8)
    for label, name in enumerate(classes.names):
        if classes.is_obstacle[label]:
            codes[label] = _OBSTACLE + costs.get(name, OBSTACLE)
        elif classes.is_ground[label]:
            codes[label] = _GROUND + costs.get(name, CLEAR)
    return codes


def flow_lines(
    occupancy: Occupancy,
    *,
    speed: float = MOVING_SPEED,  # m/s
    horizon: float = FLOW_HORIZON,  # s
    maximum: int = FLOW_LINES,
) -> FlowLines:
    """Lines from moving voxels to where they will be after ``horizon``.

    Only classes for which the benchmark scores flow can move. Above ``maximum`` every
    n-th is kept, evenly over the grid and the same ones each time.
    """
    if occupancy.flow is None:
        return FlowLines(np.zeros((0, 2, 3), np.float32), np.zeros((0, 3), np.float32))
    flat, flow = movable_flow(occupancy)
    moving = np.flatnonzero(np.hypot(flow[:, 0], flow[:, 1]) > speed)
    if len(moving) > maximum:
        moving = moving[np.arange(maximum) * len(moving) // maximum]
    flow = flow[moving]
    ends = np.empty((len(moving), 2, 3), np.float32)
    ends[:, 0] = np.stack(voxel_centres(occupancy.grid, flat[moving]), axis=1)
    ends[:, 1] = ends[:, 0]
    ends[:, 1, :2] += flow * np.float32(horizon)
    return FlowLines(ends, direction_colours(np.arctan2(flow[:, 1], flow[:, 0])))


def movable_flow(occupancy: Occupancy) -> tuple[np.ndarray, np.ndarray]:
    """Flow of the voxels whose class can move.

    Returns:
        Flat (C order) index of each such voxel, ascending, [n] uint32, and its flow [n, 2]
        float32 m/s in the grid's frame; both empty for models without flow.
    """
    if occupancy.flow is None:
        return np.zeros(0, np.uint32), np.zeros((0, 2), np.float32)
    can_move = np.zeros(256, dtype=bool)
    can_move[list(occupancy.classes.flow)] = True
    flat = np.flatnonzero(can_move.take(occupancy.labels))
    flow = occupancy.flow.reshape(-1, 2).take(flat, axis=0).astype(np.float32)
    return flat.astype(np.uint32), flow


def _levels_within(grid: VoxelGrid, height: tuple[float, float]) -> np.ndarray:  # [Z] bool
    z = grid.lower[2] + (np.arange(grid.shape[2]) + 0.5) * grid.resolution
    return (z >= height[0]) & (z <= height[1])


def _max_over_levels(values: np.ndarray) -> np.ndarray:  # [X, Y, Z] -> [X, Y]
    # numpy reduces a short last axis slowly; halving it compares whole planes at a time.
    while values.shape[2] > 1:
        half = (values.shape[2] + 1) // 2
        rest = values[:, :, half:]
        values = values[:, :, :half].copy()
        np.maximum(values[:, :, : rest.shape[2]], rest, out=values[:, :, : rest.shape[2]])
    return values[:, :, 0]


def direction_colours(angle: np.ndarray) -> np.ndarray:  # [n] rad -> [n, 3] float32 in [0, 1]
    """The colour wheel: forward red, left yellow-green, backward cyan, right violet."""
    phase = angle[:, None] * (3.0 / np.pi) + np.array([0.0, 4.0, 2.0])  # sixths of a turn
    return np.clip(np.abs(phase % 6.0 - 3.0) - 1.0, 0.0, 1.0).astype(np.float32)
