# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Ends of free rays, and what Nav2's layers make of them: what has gone is cleared."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from costmaps import LETHAL, Layer, points_of
from street_truth import frame_at, voxels_at

from alocc_ros import arrays, costmap, free_space
from alocc_ros.geometry import pose_matrix
from alocc_ros.grid import OCC3D_GRID, VoxelGrid
from alocc_ros.labels import OCC3D
from alocc_ros.outputs import Result, find_output
from alocc_ros.types import CAMERAS, FrameSet, Occupancy

FRAME = frame_at(width=32, height=18)
GRID = VoxelGrid((-20.0, -20.0, -1.0), (100, 100, 16), 0.4)
LABEL = OCC3D.names.index
VEHICLE = costmap.footprint(costmap.CostmapSettings(), FRAME)
EYE = float(np.mean([c.base_T_camera[2, 3] for c in FRAME.calibration.values()]))


def plain(*boxes: tuple[float, float, float, float], stamp: int = FRAME.stamp) -> Occupancy:
    """A road without end, with cars (x, y, length, width; m in the base frame) on it."""
    labels = np.full(GRID.shape, OCC3D.free, np.uint8)
    labels[:, :, 2] = LABEL("driveable_surface")
    index = np.stack(np.indices(GRID.shape), axis=-1).reshape(-1, 3)
    x, y, z = GRID.centres(index).T
    for bx, by, length, width in boxes:
        car = (np.abs(x - bx) < length / 2) & (np.abs(y - by) < width / 2) & (z > 0.1) & (z < 1.7)
        labels.reshape(-1)[car] = LABEL("car")
    return Occupancy(labels, None, GRID, OCC3D, stamp, "base_link", np.eye(4))


def clouds(seen: Occupancy, frame: FrameSet = FRAME) -> tuple[np.ndarray, np.ndarray]:
    result = Result(frame, seen)
    obstacles, free = (points_of(find_output(n).build(result)) for n in ("obstacles", "free_space"))
    return obstacles, free


def near(layer: Layer, x: float, y: float, away: float = 3.0) -> int:
    """Lethal cells around a place in the layer's frame."""
    i, j = np.indices(layer.costs().shape)
    cx, cy = (layer.lower[a] + (k + 0.5) * layer.resolution for a, k in ((0, i), (1, j)))
    close = (np.abs(cx - x) < away) & (np.abs(cy - y) < away)
    return int((layer.costs()[close] == LETHAL).sum())


@pytest.mark.parametrize("levels", [0, 7], ids=["obstacle layer", "voxel layer"])
@pytest.mark.parametrize("turn", [0.0, 0.6], ids=["straight", "turned"])
def test_a_car_that_has_gone_vanishes_though_nothing_stands_behind_it(levels, turn):
    map_T_base = pose_matrix((1.3, -0.7, 0.0), (0.0, 0.0, np.sin(turn / 2), np.cos(turn / 2)))
    layer = Layer(36.0, 0.4, levels)
    first, second = (9.0, 1.0, 4.4, 1.9), (-7.0, -6.0, 1.9, 4.4)
    for number, place in enumerate((first, *(second,) * 7)):
        seen = plain(place, (12.0, -9.0, 4.4, 1.9), stamp=FRAME.stamp + number * 100_000_000)
        layer.update(*clouds(seen), map_T_base, EYE)
    was, now, still = (
        (map_T_base @ (x, y, 0.0, 1.0))[:2] for x, y in (first[:2], second[:2], (12.0, -9.0))
    )
    assert near(layer, *was) == 0
    assert near(layer, *now) > 30 and near(layer, *still) > 30

    # Without them the ghost stays: that is what they are for.
    ghost = Layer(36.0, 0.4, levels)
    for place in (first, second):
        obstacles, _ = clouds(plain(place))
        ghost.update(obstacles, obstacles, map_T_base, EYE)
    assert near(ghost, *was) > 30


def test_no_ray_passes_an_obstacle_or_the_end_of_the_grid():
    """The obvious walk along every ray, in steps of a tenth of a cell."""
    seen = plain((9.0, 1.0, 4.4, 1.9), (-7.0, -6.0, 1.9, 4.4), (2.5, 3.0, 1.0, 1.0))
    ends = free_space.ray_ends(FRAME, seen, vehicle=VEHICLE)
    assert ends.dtype == np.float32 and len(ends) > 1000
    columns = arrays.obstacle_columns(seen)
    along = np.linspace(0.0, 1.0, 1000)
    for end in ends[:: max(len(ends) // 300, 1)]:
        index, within = GRID.indices(np.outer(along, (*end[:2], 0.0)))
        assert within.all()
        inside_obstacle = columns[index[:, 0], index[:, 1]].mean()
        assert inside_obstacle < 0.02  # a corner that a ray cuts between two samples
    assert ends[:, 2].min() >= 0.2 - 1e-6 and ends[:, 2].max() <= 2.5


def test_nothing_is_cleared_where_no_camera_looks():
    """Without the front camera its sector keeps what was in the costmap."""
    missing = dataclasses.replace(
        FRAME,
        images={c: i for c, i in FRAME.images.items() if c != "cam_front"},
        missing={"cam_front": "gone"},
    )
    layer = Layer(36.0, 0.4)
    layer.update(*clouds(plain((12.0, 0.0, 4.4, 1.9))), np.eye(4))
    before = near(layer, 12.0, 0.0)
    layer.update(*clouds(plain(), missing), np.eye(4))
    assert near(layer, 12.0, 0.0) > 0.8 * before > 30
    layer.update(*clouds(plain()), np.eye(4))
    assert near(layer, 12.0, 0.0) == 0
    assert len(free_space.ray_ends(dataclasses.replace(FRAME, images={}), plain())) == 0


def test_each_camera_has_its_sector():
    """Its own mount says which way it looks."""
    for camera in CAMERAS:
        only = dataclasses.replace(FRAME, images={camera: FRAME.images[camera]})
        ends = free_space.ray_ends(only, plain())
        far = ends[np.hypot(ends[:, 0], ends[:, 1]) > 10.0, :2]
        axis = FRAME.calibration[camera].base_T_camera[:2, 2]
        angle = np.arccos(np.clip(far @ axis / np.hypot(*far.T) / np.hypot(*axis), -1.0, 1.0))
        assert len(far) > 0 and np.degrees(angle).max() < 70.0, camera


def test_the_vehicle_itself_blocks_no_ray():
    hood = plain((0.8, 0.0, 1.4, 0.7))
    open_view = free_space.ray_ends(FRAME, plain())
    assert 0 < len(free_space.ray_ends(FRAME, hood)) < 0.8 * len(open_view)
    np.testing.assert_array_equal(free_space.ray_ends(FRAME, hood, vehicle=VEHICLE), open_view)


def test_a_grid_of_full_size_takes_milliseconds():
    import time

    street = voxels_at(grid=OCC3D_GRID)
    free_space.ray_ends(FRAME, street)  # the rays themselves are made once

    def once() -> float:
        start = time.thread_time()
        free_space.ray_ends(FRAME, street)
        return time.thread_time() - start

    assert min(once() for _ in range(10)) < 0.015  # 3 ms by themselves
