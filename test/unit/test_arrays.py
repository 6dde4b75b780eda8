# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import struct
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from alocc_ros import arrays
from alocc_ros.grid import OCC3D_GRID, VoxelGrid
from alocc_ros.labels import OCC3D, OPENOCC, ClassList
from alocc_ros.types import Occupancy

SMALL_GRID = VoxelGrid(lower=(-2.0, -1.0, -1.0), shape=(4, 3, 5), resolution=0.5)


def occupancy(
    labels: np.ndarray,
    flow: np.ndarray | None = None,
    grid: VoxelGrid = SMALL_GRID,
    classes: ClassList = OPENOCC,
) -> Occupancy:
    return Occupancy(labels, flow, grid, classes, 1, "base_link", np.eye(4))


def empty(grid: VoxelGrid = SMALL_GRID, classes: ClassList = OPENOCC) -> np.ndarray:
    return np.full(grid.shape, classes.free, dtype=np.uint8)


labels_and_flow = st.tuples(
    hnp.arrays(np.uint8, SMALL_GRID.shape, elements=st.integers(0, 16)),
    hnp.arrays(np.float16, (*SMALL_GRID.shape, 2), elements=st.floats(-8, 8, width=16)),
)


@settings(deadline=None, max_examples=40)
@given(labels_and_flow)
def test_points_equal_the_obvious_loop_over_all_voxels(case):
    labels, flow = case
    expected = [
        (*SMALL_GRID.centres(np.array([index]))[0], labels[index], *flow[index])
        for index in np.ndindex(labels.shape)
        if labels[index] != OPENOCC.free
    ]
    points = arrays.occupied_points(occupancy(labels, flow))
    got = [tuple(p[n] for n in ("x", "y", "z", "label", "vx", "vy")) for p in points]
    assert got == expected


@settings(deadline=None, max_examples=40)
@given(labels_and_flow, st.floats(-1.5, 2.0), st.floats(0.0, 2.0))
def test_the_2d_grid_equals_the_obvious_loop_over_all_columns(case, low, thickness):
    labels, _ = case
    height = (low, low + thickness)
    z = SMALL_GRID.centres(np.stack([np.zeros(5), np.zeros(5), np.arange(5)], 1))[:, 2]
    cells = arrays.occupancy_grid(occupancy(labels), height)
    assert cells.shape == (3, 4)
    assert cells.dtype == np.int8
    for i, j in np.ndindex(4, 3):
        column = [OPENOCC.names[label] for label in labels[i, j]]
        ground = {"driveable_surface", "other_flat", "sidewalk", "terrain"}
        blocked = any(
            name not in ground | {"free"} and height[0] <= z[k] <= height[1]
            for k, name in enumerate(column)
        )
        expected = 100 if blocked else 0 if ground & set(column) else -1
        assert cells[j, i] == expected


def test_the_2d_grid_is_row_major_with_x_fastest():
    labels = empty()
    labels[3, 1, 2] = OPENOCC.names.index("car")
    data = arrays.occupancy_grid(occupancy(labels)).tobytes()
    width = SMALL_GRID.shape[0]
    assert [i for i, v in enumerate(data) if v == 100] == [1 * width + 3]


def test_an_obstacle_downhill_counts_and_a_bridge_overhead_does_not():
    labels = empty(OCC3D_GRID, OCC3D)
    labels[10, 20, 0] = OCC3D.names.index("car")
    labels[11, 20, 0] = OCC3D.names.index("driveable_surface")
    labels[11, 20, 15] = OCC3D.names.index("manmade")
    cells = arrays.occupancy_grid(occupancy(labels, None, OCC3D_GRID, OCC3D))
    assert cells[20, 10] == 100
    assert cells[20, 11] == 0
    obstacles = arrays.obstacle_points(occupancy(labels, None, OCC3D_GRID, OCC3D))
    np.testing.assert_allclose(obstacles, [[-35.8, -31.8, -0.8]], atol=1e-5)


def test_a_point_has_the_layout_that_viewers_read():
    labels = empty()
    labels[1, 2, 3] = OPENOCC.names.index("pedestrian")
    flow = np.zeros((*SMALL_GRID.shape, 2), np.float32)
    flow[1, 2, 3] = 1.5, -0.5
    points = arrays.occupied_points(occupancy(labels, flow))
    assert points.dtype.itemsize == 28
    x, y, z, blue, green, red, alpha, label, vx, vy = struct.unpack("<fff4BB3xff", points.tobytes())
    assert (x, y, z) == (-1.25, 0.25, 0.75)
    assert (red, green, blue, alpha) == (*OPENOCC.colours[7], 0)
    assert (label, vx, vy) == (7, 1.5, -0.5)
    assert arrays.point_fields(arrays.POINT_DTYPE) == [
        ("x", 0, 7, 1),
        ("y", 4, 7, 1),
        ("z", 8, 7, 1),
        ("rgb", 12, 7, 1),
        ("label", 16, 2, 1),
        ("vx", 20, 7, 1),
        ("vy", 24, 7, 1),
    ]


def test_a_model_without_flow_claims_no_standstill():
    labels = empty()
    labels[0, 0, 0] = 0
    points = arrays.occupied_points(occupancy(labels))
    assert np.isnan(points["vx"]).all()
    assert len(arrays.flow_lines(occupancy(labels))) == 0


@settings(deadline=None, max_examples=40)
@given(labels_and_flow)
def test_movable_flow_equals_the_obvious_loop_over_all_voxels(case):
    labels, flow = case
    expected = [
        (number, *flow[index])
        for number, index in enumerate(np.ndindex(labels.shape))
        if labels[index] in OPENOCC.flow
    ]
    cells, velocities = arrays.movable_flow(occupancy(labels, flow))
    assert [(n, *v) for n, v in zip(cells.tolist(), velocities, strict=True)] == expected
    assert (cells.dtype, velocities.dtype) == (np.uint32, np.float32)
    assert [len(part) for part in arrays.movable_flow(occupancy(labels))] == [0, 0]


def test_flow_lines_hold_only_fast_voxels_of_classes_that_can_move():
    labels = empty()
    labels[0, 0, 0] = labels[1, 0, 0] = OPENOCC.names.index("car")
    labels[2, 0, 0] = OPENOCC.names.index("manmade")
    flow = np.zeros((*SMALL_GRID.shape, 2), np.float16)
    flow[0, 0, 0] = 3.0, 4.0
    flow[1, 0, 0] = 0.1, 0.0
    flow[2, 0, 0] = 9.0, 0.0
    lines = arrays.flow_lines(occupancy(labels, flow), horizon=2.0)
    np.testing.assert_allclose(lines.ends, [[[-1.75, -0.75, -0.75], [4.25, 7.25, -0.75]]])


@pytest.mark.parametrize(
    ("velocity", "colour"),
    [((1, 0), (1, 0, 0)), ((-1, 0), (0, 1, 1)), ((0, 1), (0.5, 1, 0)), ((0, -1), (0.5, 0, 1))],
    ids=["forward", "backward", "left", "right"],
)
def test_the_colour_of_a_flow_line_tells_its_direction(velocity, colour):
    labels = empty()
    labels[0, 0, 0] = 0
    flow = np.zeros((*SMALL_GRID.shape, 2), np.float32)
    flow[0, 0, 0] = velocity
    np.testing.assert_allclose(
        arrays.flow_lines(occupancy(labels, flow)).colours, [colour], atol=1e-6
    )


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 70))
def test_thinning_keeps_exactly_the_maximum_without_repeats(maximum):
    labels = np.zeros(SMALL_GRID.shape, np.uint8)
    flow = np.ones((*SMALL_GRID.shape, 2), np.float32)
    lines = arrays.flow_lines(occupancy(labels, flow), maximum=maximum)
    assert len(lines) == min(maximum, labels.size)
    assert len(np.unique(lines.ends[:, 0], axis=0)) == len(lines)


def test_filling_the_messages_of_a_full_size_grid_takes_milliseconds():
    rng = np.random.default_rng(0)
    labels = np.where(
        rng.random(OCC3D_GRID.shape) < 0.06, rng.integers(0, 16, OCC3D_GRID.shape), 16
    )
    flow = rng.normal(size=(*OCC3D_GRID.shape, 2)).astype(np.float16)
    full = occupancy(labels.astype(np.uint8), flow, OCC3D_GRID)

    def once() -> float:
        start = time.perf_counter()
        arrays.occupied_points(full)
        arrays.obstacle_points(full)
        arrays.occupancy_grid(full)
        arrays.flow_lines(full)
        return time.perf_counter() - start

    # About 7 ms; the bound only has to catch a loop over voxels (seconds).
    assert min(once() for _ in range(5)) < 0.1
