# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Rays through a grid: where they end, by geometry and by a slow twin; where they begin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_grids import CAR, EYE, FORWARD, FREE, ROAD, SMALL, empty, grid, score, wall

from alocc_ros.errors import MetricError
from alocc_ros.grid import OCC3D_GRID, VoxelGrid
from alocc_ros.metrics import rays
from alocc_ros.ops import native


@pytest.mark.parametrize(
    ("direction", "index", "metres"),
    [
        ((1, 0, 0), (15, 8, 3), 5.5 * 0.4),
        ((-1, 0, 0), (2, 8, 3), 8.5 * 0.4),
        ((0, 1, 0), (10, 14, 3), 6.5 * 0.4),
        ((0, -1, 0), (10, 0, 3), 8.5 * 0.4),
        ((0, 0, 1), (10, 8, 7), 4.5 * 0.4),
        ((0, 0, -1), (10, 8, 1), 2.5 * 0.4),
    ],
)
def test_a_ray_along_an_axis_ends_behind_the_first_voxel_in_its_way(direction, index, metres):
    labels = empty()
    labels[index] = CAR
    beyond = np.array(index) + np.sign(direction).astype(int)
    if (beyond >= 0).all() and (beyond < SMALL.shape).all():
        labels[tuple(beyond)] = ROAD
    hits = rays.raycast(labels, EYE, np.array([direction], np.float32), FREE, SMALL)
    assert np.unravel_index(hits.voxel[0], SMALL.shape) == index
    assert hits.distance[0] == pytest.approx(metres, abs=1e-5)
    assert hits.take(labels)[0] == CAR


def test_a_ray_that_hits_nothing_ends_in_the_last_voxel():
    hits = rays.raycast(empty(), EYE, FORWARD, FREE, SMALL)
    assert np.unravel_index(hits.voxel[0], SMALL.shape) == (19, 8, 3)
    assert hits.distance[0] == pytest.approx(9.5 * 0.4, abs=1e-5)


@pytest.mark.parametrize(
    ("direction", "order"),
    [
        ((1, 1, 1), ("z", "y", "x")),
        ((1, 1, 0), ("y", "x")),
        ((1, 0, 1), ("z", "x")),
        ((0, 1, 1), ("z", "y")),
        ((-1, -1, -1), ("z", "y", "x")),
    ],
)
def test_through_an_edge_a_ray_takes_z_before_y_before_x(direction, order):
    # Voxels of 1 m and a start in the middle: nothing is rounded, the ties are exact.
    metres = VoxelGrid(lower=(0.0, 0.0, 0.0), shape=(9, 9, 9), resolution=1.0)
    cell = np.array([4, 4, 4])
    for axis in order[:-1]:
        cell["xyz".index(axis)] += direction["xyz".index(axis)]
        labels = empty(metres.shape)
        labels[tuple(cell)] = CAR
        hits = rays.raycast(
            labels, np.array([[4.5, 4.5, 4.5]]), np.array([direction], float), FREE, metres
        )
        assert np.unravel_index(hits.voxel[0], metres.shape) == tuple(cell)


def test_a_ray_that_is_never_in_the_grid_says_so():
    above = np.array([[0.0, 0.0, 9.0]])
    hits = rays.raycast(empty(), above, np.array([[0.0, 0, 1], [0, 0, -1]]), FREE, SMALL)
    assert hits.voxel[0] == -1
    assert hits.distance[0] == np.float32(-0.4)
    assert hits.voxel[1] >= 0, "from above down it does come in"


coordinates = st.one_of(
    st.integers(-26, 26).map(lambda k: k * 0.2),  # faces and middles of voxels, borders
    st.floats(-6, 6, allow_nan=False),
)
components = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, 1e-6, -1e-6, 0.5]), st.floats(-2, 2, allow_nan=False)
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(coordinates, coordinates, coordinates), min_size=1, max_size=4),
    st.lists(st.tuples(components, components, components), min_size=1, max_size=30),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 0.01, 0.1, 1.0]),
)
def test_the_kernel_equals_its_twin_to_the_last_bit(origins, directions, seed, filled):
    if native.library() is None:
        pytest.skip("no C compiler here")
    directions = [d for d in directions if max(map(abs, d)) > 1e-3] or [(1.0, 0.0, 0.0)]
    rng = np.random.default_rng(seed)
    labels = np.where(rng.random(SMALL.shape) < filled, CAR, FREE).astype(np.uint8)
    origins, directions = np.array(origins), np.array(directions, np.float32)
    start, direction = rays.in_voxels(origins, directions, SMALL)
    voxel, distance = rays.raycast_reference(labels, start, direction, FREE)
    hits = rays.raycast(labels, origins, directions, FREE, SMALL)
    assert np.array_equal(hits.voxel, voxel)
    scaled = distance * np.float32(SMALL.resolution)
    assert hits.distance.tobytes() == scaled.tobytes()


def test_the_standard_rays_are_equal_on_a_full_sized_grid():
    rng = np.random.default_rng(3)
    labels = np.where(rng.random(OCC3D_GRID.shape) < 0.01, CAR, FREE).astype(np.uint8)
    origins = np.array([[0.0, 0.0, 1.8], [-38.9, 38.8, -1.3]])
    directions = rays.ray_directions()[::7]
    voxel, distance = rays.raycast_reference(
        labels, *rays.in_voxels(origins, directions, OCC3D_GRID), FREE
    )
    hits = rays.raycast(labels, origins, directions, FREE)
    assert np.array_equal(hits.voxel, voxel)
    assert np.array_equal(hits.distance, distance * np.float32(0.4))


def test_without_a_compiler_the_twin_takes_over(monkeypatch):
    labels, directions = wall(15), rays.ray_directions()[::50]
    before = rays.raycast(labels, EYE, directions, FREE, SMALL)
    monkeypatch.setattr(native, "library", lambda: None)
    after = rays.raycast(labels, EYE, directions, FREE, SMALL)
    assert before.distance.tobytes() == after.distance.tobytes()
    assert before.voxel.tobytes() == after.voxel.tobytes()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.02, 0.2, 0.9]))
def test_all_counts_of_the_fast_path_equal_those_of_the_twin(seed, filled):
    if native.library() is None:
        pytest.skip("no C compiler here")
    rng = np.random.default_rng(seed)
    solid = rng.random((2, *SMALL.shape)) < filled
    labels = np.where(solid, rng.integers(0, 17, solid.shape), FREE).astype(np.uint8)
    flow = rng.normal(size=(2, *SMALL.shape, 2)).astype(np.float16)
    # Corners, faces, the middle of voxels; along axes, along diagonals, anywhere.
    origins = np.array([[-4.0, -3.2, -1.0], [0.0, 0.0, 0.6], EYE[0], rng.uniform(-3, 3, 3)])
    steps = np.array([-1.0, 0.0, 1.0])
    lattice = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    lattice = np.delete(lattice, 13, axis=0)  # no ray at all
    directions = np.concatenate([lattice, rng.normal(size=(40, 3))]).astype(np.float32)
    states = []
    for fast in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            if not fast:
                patch.setattr(native, "library", lambda: None)
            sides = (grid(labels[i], flow[i]) for i in range(2))
            states.append(score(*sides, origins, directions, flow=True).state())
    assert states[0]["true"].sum() > 0
    for name, counts in states[0].items():
        assert counts.tobytes() == states[1][name].tobytes(), name


def first_box(labels, origin, direction):
    """Another way to the same voxel: all boxes cut by the ray at once. None if it is close."""
    cells = np.argwhere(labels != FREE)
    low = np.array(SMALL.lower) + cells * SMALL.resolution
    with np.errstate(divide="ignore"):
        a, b = (low - origin) / direction, (low + SMALL.resolution - origin) / direction
    enters, leaves = np.minimum(a, b).max(1), np.maximum(a, b).min(1)
    if (np.abs(leaves - enters) < 1e-4).any():
        return None  # it grazes an edge: rounding may decide otherwise
    met = (leaves > enters) & (leaves > 1e-4)
    if not met.any():
        return -1, np.nan
    first = np.flatnonzero(met)[enters[met].argmin()]
    return np.ravel_multi_index(tuple(cells[first]), SMALL.shape), leaves[first]


def test_rays_hit_what_geometry_says():
    rng = np.random.default_rng(1)
    seen = 0
    for _ in range(20):
        labels = np.where(rng.random(SMALL.shape) < 0.03, CAR, FREE).astype(np.uint8)
        origin = rng.uniform(-0.9, 0.9, 3)
        directions = rng.normal(size=(40, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        hits = rays.raycast(labels, origin[None], directions, FREE, SMALL)
        for ray, direction in enumerate(directions):
            box = first_box(labels, origin, direction)
            if box is None:
                continue
            seen += 1
            if box[0] < 0:
                assert hits.take(labels)[ray] == FREE
            else:
                assert hits.voxel[ray] == box[0]
                assert hits.distance[ray] == pytest.approx(box[1], abs=1e-4)
    assert seen > 500


@pytest.mark.parametrize(
    ("origins", "directions", "message"),
    [
        (np.zeros(3), FORWARD, r"origins must be \[n, 3\]"),
        (EYE, np.zeros((1, 2)), r"directions must be \[n, 3\]"),
        (EYE * np.nan, FORWARD, "origins must be finite"),
        (EYE, FORWARD * 0, "directions must not be zero"),
    ],
)
def test_rays_that_make_no_sense_are_refused(origins, directions, message):
    with pytest.raises(MetricError, match=message):
        rays.raycast(empty(), origins, directions, FREE, SMALL)


def drive(count: int, step: float) -> tuple[np.ndarray, np.ndarray]:
    """A straight drive along the map's y; the LiDAR sits 1 m ahead and 2 m up."""
    map_T_base, base_T_lidar = np.tile(np.eye(4), (2, count, 1, 1))
    map_T_base[:, :2, :2] = [[0, -1], [1, 0]]
    map_T_base[:, 1, 3] = np.arange(count) * step
    base_T_lidar[:, :3, 3] = [1, 0, 2]
    return map_T_base, base_T_lidar


def test_origins_are_where_the_lidar_was_and_will_be():
    origins = rays.lidar_origins(*drive(5, 10.0), index=1)
    np.testing.assert_allclose(
        origins, [[x, 0, 2] for x in (-9.0, 1.0, 11.0, 21.0, 31.0)], atol=1e-6
    )


def test_at_most_eight_origins_within_reach_are_taken_evenly():
    origins = rays.lidar_origins(*drive(100, 1.0), index=50)
    # 1 + k for |1 + k| < 39: -38 to 38, 77 of them; every eleventh or so.
    assert [round(x) for x in origins[:, 0]] == [-38, -27, -16, -5, 5, 16, 27, 38]
