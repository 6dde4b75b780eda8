# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Costs, the vehicle's own place, and the grid in other frames."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from street_truth import frame_at, voxels_at

from alocc_ros import arrays, costmap
from alocc_ros.arrays import OBSTACLE_HEIGHT
from alocc_ros.costmap import CostmapSettings, parse_costs, parse_footprint
from alocc_ros.errors import ParameterError, PoseError
from alocc_ros.geometry import inverse, pose_matrix
from alocc_ros.grid import VoxelGrid
from alocc_ros.labels import OCC3D
from alocc_ros.outputs import Result, find_output
from alocc_ros.types import Occupancy

FRAME = frame_at(width=32, height=18)
GRID = VoxelGrid((-4.0, -3.2, -1.0), (20, 16, 8), 0.4)
LABEL = OCC3D.names.index
NOBODY = CostmapSettings(footprint="none")


def scene(**cells: tuple[int, int, int]) -> Occupancy:
    """Road everywhere at z = 0, and one voxel of each class that is named."""
    labels = np.full(GRID.shape, OCC3D.free, np.uint8)
    labels[:, :, 2] = LABEL("driveable_surface")
    for name, cell in cells.items():
        labels[cell] = LABEL(name)
    return Occupancy(labels, None, GRID, OCC3D, FRAME.stamp, "base_link", np.eye(4))


def yaw(degrees: float, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> np.ndarray:
    half = np.radians(degrees) / 2
    return pose_matrix((x, y, z), (0.0, 0.0, np.sin(half), np.cos(half)))


def test_costs_are_by_class_and_an_obstacle_beats_any_ground():
    seen = scene(pedestrian=(3, 4, 3), vegetation=(5, 6, 4), sidewalk=(7, 8, 2), car=(9, 9, 7))
    seen.labels[11, 11] = OCC3D.free
    seen.labels[5, 6, 2] = LABEL("sidewalk")
    costs = parse_costs("vegetation: 30, sidewalk: 60")
    cells = arrays.occupancy_grid(seen, (-np.inf, 1.5), costs=costs, unknown=50)
    assert (cells[4, 3], cells[6, 5], cells[8, 7]) == (100, 30, 60)
    assert (cells[9, 9], cells[11, 11]) == (0, 50)  # too high; nothing there
    assert sorted(np.unique(cells)) == [0, 30, 50, 60, 100]


def test_what_the_network_is_not_sure_of_costs_less():
    seen = scene(car=(3, 4, 3), pedestrian=(3, 4, 4), truck=(6, 6, 3))
    confidence = np.full(GRID.shape, 0.25, np.float32)
    confidence[3, 4, 3], confidence[3, 4, 4] = 0.5, 0.75
    unsure = dataclasses.replace(seen, confidence=confidence)
    cells = arrays.occupancy_grid(unsure, costs={"pedestrian": 80}, by_confidence=True)
    assert (cells[4, 3], cells[6, 6], cells[0, 0]) == (60, 25, 0)
    assert arrays.occupancy_grid(unsure)[6, 6] == 100


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("pedestrain: 3", "unknown class 'pedestrain'"),
        ("free: 0", "unknown class 'free'"),
        ("car: 101", "the cost of car must be a whole number, 0 to 100, is 101"),
        ("car: true", "the cost of car must be"),
        ("car 3", "the cost of car 3 must be|unknown class 'car 3'"),
        ("}, [", "must be class: cost"),
    ],
)
def test_costs_that_are_none_get_one_line(text, complaint):
    with pytest.raises(ParameterError) as caught:
        parse_costs(text)
    assert any(part in str(caught.value) for part in complaint.split("|"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "car", "[[1, 2], [3, 4]]", "[[1, 2], [3, 4], [5]]", "[1, 2, 3]", "[[0, 900]]", "{"]
)
def test_footprints_that_are_none_get_one_line(text):
    with pytest.raises(ParameterError, match=r"^must be auto, none, or at least three corners"):
        parse_footprint(text)
    with pytest.raises(ParameterError, match="not within 100 m"):
        parse_footprint("[[0, 0], [0, 900], [1, 1]]")


def test_points_are_inside_a_polygon_as_in_a_loop_over_its_edges():
    arrow = np.array([(0.0, 0.0), (2.0, 1.0), (0.0, 2.0), (0.8, 1.0)])
    x, y = np.array([0.2, 1.0, 1.9, 2.1, 0.7, 0.9]), np.array([0.2, 1.0, 1.0, 1.0, 1.0, 1.0])
    np.testing.assert_array_equal(
        costmap.inside(arrow, x, y), [True, True, True, False, False, True]
    )


def test_the_vehicle_is_free_and_nothing_else_is():
    seen = scene()
    seen.labels[:, :, 3] = LABEL("car")
    none = costmap.draw(seen, FRAME, OBSTACLE_HEIGHT, NOBODY).cells
    assert (none == 100).all()
    auto = costmap.draw(seen, FRAME, OBSTACLE_HEIGHT, CostmapSettings()).cells
    mounts = np.array([c.base_T_camera[:2, 3] for c in FRAME.calibration.values()])
    x, y = (low + (np.arange(n) + 0.5) * 0.4 for low, n in ((-4.0, 20), (-3.2, 16)))
    within = ((x > mounts[:, 0].min()) & (x < mounts[:, 0].max()))[None] & (
        (y > mounts[:, 1].min()) & (y < mounts[:, 1].max())
    )[:, None]
    assert within.sum() >= 4
    np.testing.assert_array_equal(auto, np.where(within, 0, 100))
    robot = CostmapSettings(
        footprint=parse_footprint("[[-1.1, -0.9], [1.9, -0.9], [1.9, 0.9], [-1.1, 0.9]]")
    )
    own = costmap.draw(seen, FRAME, OBSTACLE_HEIGHT, robot).cells
    assert (own == 0).sum() == 8 * 4  # centres within 3.0 m by 1.8 m


@pytest.mark.parametrize("turn", [0.0, 17.0, 45.0, 90.0, 180.0, -133.0])
def test_in_another_frame_each_cell_has_what_lies_there_and_no_post_is_lost(turn):
    rng = np.random.default_rng(round(turn) % 7)
    seen = scene()
    posts = np.argwhere(rng.random(GRID.shape[:2]) < 0.05)
    seen.labels[posts[:, 0], posts[:, 1], 3] = LABEL("traffic_cone")
    map_T_base = yaw(turn, 123.45, -67.73, 30.0)
    own = costmap.draw(seen, FRAME, OBSTACLE_HEIGHT, NOBODY)
    drawn = costmap.draw(seen, FRAME, OBSTACLE_HEIGHT, NOBODY, map_T_base)
    grid, cells = drawn.grid, drawn.cells
    assert cells.shape == (28, 28)  # whichever way it is turned
    np.testing.assert_allclose(
        np.array(grid.lower[:2]) / 0.4, np.round(np.array(grid.lower[:2]) / 0.4)
    )
    assert grid.lower[2] == pytest.approx(30.0)

    # Every post has its cell, by the position of the origin alone.
    for column, row in posts:
        base = (*GRID.centres(np.array([[column, row, 0]]))[0][:2], 0.0, 1.0)
        x, y = (map_T_base @ base)[:2]
        assert cells[int((y - grid.lower[1]) / 0.4), int((x - grid.lower[0]) / 0.4)] == 100

    # The obvious loop over all cells of the other frame.
    base_T_map, near = inverse(map_T_base), 0
    for row in range(28):
        for column in range(28):
            x, y = grid.lower[0] + (column + 0.5) * 0.4, grid.lower[1] + (row + 0.5) * 0.4
            bx, by = (base_T_map @ (x, y, 30.0, 1.0))[:2]
            i, j = int(np.floor((bx + 4.0) / 0.4)), int(np.floor((by + 3.2) / 0.4))
            there = 0 <= i < 20 and 0 <= j < 16
            expected = own.cells[j, i] if there else -1
            if cells[row, column] != expected:
                assert cells[row, column] == 100  # a post whose centre is in this cell
                near += 1
    assert near <= len(posts)


def test_a_tilted_vehicle_and_a_lidar_frame_are_where_they_are():
    """The LiDAR looks to the left of the vehicle and is mounted high."""
    post = scene(traffic_cone=(14, 5, 3))
    base_T_grid = yaw(-90.0, 0.9, 0.0, 1.8)
    frame = dataclasses.replace(FRAME, base_T_grid=base_T_grid)
    map_T_base = yaw(30.0, 10.0, 20.0, 5.0) @ pose_matrix((0, 0, 0), (0.0, 0.02, 0.0, 0.9998))
    drawn = costmap.draw(post, frame, OBSTACLE_HEIGHT, NOBODY, map_T_base @ base_T_grid)
    row, column = np.argwhere(drawn.cells == 100)[0]
    centre = GRID.centres(np.array([[14, 5, 0]]))[0]
    on_ground = (map_T_base @ base_T_grid) @ (*centre[:2], -1.8, 1.0)
    np.testing.assert_allclose(
        (drawn.grid.lower[0] + (column + 0.5) * 0.4, drawn.grid.lower[1] + (row + 0.5) * 0.4),
        on_ground[:2],
        atol=0.201,
    )
    assert drawn.grid.lower[2] == pytest.approx(5.0)


# --- as a message -----------------------------------------------------------------------------


def test_a_grid_says_its_frame_and_is_placed_by_the_pose_of_its_stamp():
    frame = dataclasses.replace(FRAME, map_T_base=yaw(90.0, 100.0, 50.0, 2.0))
    post = scene(traffic_cone=(14, 5, 3))
    build = find_output("occupancy_grid").build
    own = build(Result(frame, post))
    assert (own["header"]["frame_id"], own["info"]["origin"]["position"]["x"]) == (
        "base_link",
        -4.0,
    )
    for name, locate in (("map", None), ("odom", lambda name: frame.map_T_base)):
        message = build(Result(frame, post, grid_frame=name, locate=locate))
        info, origin = message["info"], message["info"]["origin"]
        assert message["header"]["frame_id"] == name
        assert origin["orientation"]["w"] == 1.0 and origin["position"]["z"] == 2.0
        cells = message["data"].reshape(info["height"], info["width"])
        ((row, column),) = np.argwhere(cells == 100)
        x, y, _ = GRID.centres(np.array([[14, 5, 0]]))[0]
        place = (
            origin["position"]["x"] + (column + 0.5) * 0.4,
            origin["position"]["y"] + (row + 0.5) * 0.4,
        )
        np.testing.assert_allclose(place, (100.0 - y, 50.0 + x), atol=0.201)
    with pytest.raises(PoseError, match="where base_link is in odom is not known"):
        build(Result(frame, post, grid_frame="odom"))


def test_clouds_in_a_frame_on_a_mast_are_the_same_points_seen_from_there():
    seen = voxels_at(grid=GRID)
    eye_T_base = inverse(yaw(90.0, 1.0, 0.0, 1.6))
    for name in ("occupancy", "obstacles", "free_space"):
        own = find_output(name).build(Result(FRAME, seen))
        moved = find_output(name).build(
            Result(FRAME, seen, cloud_frame="eye", locate=lambda name: eye_T_base)
        )
        assert (moved["header"]["frame_id"], moved["width"]) == ("eye", own["width"])
        step = own["point_step"]
        a, b = (
            m["data"].reshape(-1, step)[:, :12].copy().view("<f4").reshape(-1, 3)
            for m in (own, moved)
        )
        np.testing.assert_allclose(b, a @ eye_T_base[:3, :3].T + eye_T_base[:3, 3], atol=1e-5)
    points = arrays.moved_points(arrays.occupied_points(seen), eye_T_base)
    before = arrays.occupied_points(seen)
    np.testing.assert_allclose(points["vx"], before["vy"], atol=1e-6)
    np.testing.assert_allclose(points["vy"], -before["vx"], atol=1e-6)
