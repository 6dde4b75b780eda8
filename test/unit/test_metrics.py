# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Scores from first principles: grids whose answer can be counted by hand, and slow twins."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alocc_ros.errors import MetricError
from alocc_ros.grid import OCC3D_GRID, VoxelGrid
from alocc_ros.labels import OCC3D, OPENOCC
from alocc_ros.metrics import rays
from alocc_ros.metrics.f_score import f_score
from alocc_ros.metrics.ray_scores import RayScores, occ_score
from alocc_ros.metrics.sums import mean_of_known
from alocc_ros.metrics.voxels import WITHOUT_OTHERS, SurroundOccReference, VoxelScores
from alocc_ros.ops import native

FREE = OPENOCC.free
CAR, ROAD = OPENOCC.names.index("car"), OPENOCC.names.index("driveable_surface")
SMALL = VoxelGrid(lower=(-4.0, -3.2, -1.0), shape=(20, 16, 8), resolution=0.4)
FORWARD = np.array([[1.0, 0, 0]], np.float32)
EYE = np.array([[0.2, 0.2, 0.4]])  # the middle of voxel (10, 8, 3) of SMALL


def grid(labels: np.ndarray, flow: np.ndarray | None = None) -> SimpleNamespace:
    return SimpleNamespace(labels=labels, flow=flow)


def empty(shape=SMALL.shape, free: int = FREE) -> np.ndarray:
    return np.full(shape, free, np.uint8)


def still(shape=SMALL.shape, vx: float = 0.0) -> np.ndarray:
    flow = np.zeros((*shape, 2), np.float16)
    flow[..., 0] = vx
    return flow


def wall(x: int, label: int = CAR) -> np.ndarray:
    labels = empty()
    labels[x] = label
    return labels


def score(prediction, truth, origins=EYE, directions=FORWARD, flow=False, **options):
    scores = RayScores(OPENOCC, flow, SMALL, directions, **options)
    scores.update(prediction, truth, origins)
    return scores


# --- the walk of a ray ----------------------------------------------------------------------


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


# --- ray scores ------------------------------------------------------------------------------


def test_looking_at_the_truth_scores_everything():
    rng = np.random.default_rng(2)
    labels = np.where(rng.random(SMALL.shape) < 0.1, rng.integers(0, 16, SMALL.shape), FREE)
    truth = grid(labels.astype(np.uint8), still(vx=3.0))
    result = score(truth, truth, directions=rays.ray_directions()[::5], flow=True).result()
    assert result.rayiou == 100
    assert list(result.rayiou_at) == [100] * 3
    assert (result.flow.mave, result.flow.mave_tp, result.flow.mave_ray) == (0, 0, 0)
    assert result.occ_score == 100


@pytest.mark.parametrize(("shift", "iou"), [(1, [100] * 3), (3, [0, 100, 100]), (6, [0, 0, 100])])
def test_a_wall_that_is_shifted_counts_by_its_distance(shift, iou):
    result = score(grid(wall(12 + shift)), grid(wall(12))).result()
    assert list(result.rayiou_at) == iou
    assert result.rayiou == pytest.approx(np.mean(iou))


def test_the_wrong_class_costs_both_classes():
    result = score(grid(wall(12, ROAD)), grid(wall(12, CAR))).result()
    assert result.class_iou[0, CAR] == 0
    assert result.class_iou[0, ROAD] == 0
    assert np.isnan(result.class_iou[0, 2])


def test_rays_into_free_space_do_not_count():
    truth = wall(12)
    truth[:, 8:] = FREE
    up, down = np.array([[1.0, 0.3, 0]]), np.array([[1.0, -0.3, 0]])
    state = score(grid(wall(12)), grid(truth), directions=np.concatenate([up, down])).state()
    assert state["true"].sum() == state["said"].sum() == 1


def test_one_of_two_rays_right_is_a_third():
    # Two true, two said, one hit: 1 / (2 + 2 - 1).
    truth, prediction = wall(12), wall(12)
    prediction[12, 8:] = FREE
    prediction[18, 8:] = CAR
    both = np.array([[1.0, 0.3, 0], [1.0, -0.3, 0]])
    result = score(grid(prediction), grid(truth), np.array([[0.2, 0.0, 0.4]]), both).result()
    assert result.class_iou[1, CAR] == pytest.approx(100 / 3)


def test_velocity_errors_by_hand():
    truth = grid(wall(12), still(vx=4.0))
    prediction = grid(wall(12), still(vx=1.0))
    prediction.flow[12, :, :, 1] = 4.0  # off by (3, 4): 5 m/s
    flow = score(prediction, truth, flow=True).result().flow
    assert (flow.mave_tp, flow.mave_ray, flow.mave) == (5, 5, 5)
    # Too far away: no hit at 2 m, but the ray and the voxels still tell.
    far = grid(wall(18), prediction.flow)
    result = score(far, truth, flow=True).result()
    assert np.isnan(result.flow.mave_tp)
    assert result.flow.mave_ray == 3  # at the voxel that the prediction hits
    assert result.flow.mave == 5


def test_voxel_velocities_do_not_overflow():
    labels = empty(OCC3D_GRID.shape)
    labels[:, :, 0] = CAR
    truth, prediction = grid(labels, still(labels.shape, 4.0)), grid(labels, still(labels.shape))
    results = []
    for exact in (False, True):
        scores = RayScores(OPENOCC, flow=True, directions=FORWARD, reference_exact=exact)
        scores.update(prediction, truth, np.array([[0.0, 0.0, 1.8]]))
        results.append(scores.result().flow.mave)
    assert results == [4, np.inf]


def test_nothing_that_moves_found_means_no_points_for_velocity():
    truth, prediction = wall(12, ROAD), wall(12, ROAD)
    arguments = grid(prediction, still()), grid(truth, still())
    assert score(*arguments, flow=True).result().occ_score == pytest.approx(90)
    assert np.isnan(score(*arguments, flow=True, reference_exact=True).result().occ_score)


def test_unknown_voxels_are_left_out_of_ray_scores():
    truth = wall(12)
    truth[12] = 255
    assert score(grid(wall(12)), grid(truth)).state()["said"].sum() == 0
    exact = score(grid(wall(12)), grid(truth), reference_exact=True).state()
    assert (exact["said"].sum(), exact["true"].sum()) == (1, 0)


def test_rays_that_never_come_in_are_left_out():
    labels = empty()
    labels[0, 0, 0] = CAR
    above = np.array([[0.0, 0.0, 9.0]])
    state = score(grid(labels), grid(labels), above).state()
    assert state["true"].sum() == 0
    exact = score(grid(labels), grid(labels), above, reference_exact=True).state()
    assert exact["hit"][0, CAR] == 1


def test_velocities_that_nobody_knows_are_left_out():
    truth, prediction = grid(wall(12), still()), grid(wall(12), still(vx=1.0))
    truth.flow[12, 0, 0] = np.inf
    assert score(prediction, truth, flow=True).result().flow.mave == 1
    assert score(prediction, truth, flow=True, reference_exact=True).result().flow.mave == np.inf


@pytest.mark.parametrize(
    ("rayiou", "mave_tp", "published"), [(41.9, 0.458, 43.126), (40.3, 0.431, 41.924)]
)
def test_the_occ_score_is_the_published_one(rayiou, mave_tp, published):
    assert occ_score(rayiou, mave_tp) == pytest.approx(published, abs=0.05)


@pytest.mark.parametrize(
    ("at", "published"),
    [((32.9, 40.1, 44.8), 39.3), ((37.1, 43.8, 48.2), 43.0), ((35.6, 42.9, 47.2), 41.9)],
)
def test_rayiou_is_the_mean_that_was_published(at, published):
    assert np.mean(at) == pytest.approx(published, abs=0.05)


# --- voxel scores ----------------------------------------------------------------------------


def twin_matrix(prediction, truth, mask):
    """One class pair after the other."""
    matrix = np.zeros((18, 18), int)
    for i in range(18):
        for j in range(18):
            matrix[i, j] = ((truth == i) & (prediction == j) & mask).sum()
    return matrix


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_the_class_matrix_equals_its_twin(seed, masked):
    rng = np.random.default_rng(seed)
    prediction, truth = rng.integers(0, 18, (2, 12, 9, 4)).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.05] = 255
    mask = rng.random(truth.shape) < 0.6 if masked else None
    scores = VoxelScores()
    scores.update(prediction, truth, mask)
    twin = twin_matrix(prediction, truth, np.ones(truth.shape, bool) if mask is None else mask)
    assert np.array_equal(scores.state()["matrix"], twin)
    occupied = [[twin[17, 17], twin[17, :17].sum()], [twin[:17, 17].sum(), twin[:17, :17].sum()]]
    assert np.array_equal(scores.state()["occupied"], occupied)


def test_tensors_count_like_arrays():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    prediction, truth = rng.integers(0, 18, (2, 5, 4, 3)).astype(np.uint8)
    one, other = VoxelScores(), VoxelScores()
    one.update(prediction, truth, truth > 3)
    other.update(*(torch.from_numpy(a) for a in (prediction, truth, truth > 3)))
    assert np.array_equal(one.state()["matrix"], other.state()["matrix"])


def test_iou_by_hand():
    truth, prediction = empty((4, 1, 1), 17), empty((4, 1, 1), 17)
    truth[:3, 0, 0] = 4  # car car car free
    prediction[1:, 0, 0] = [4, 10, 4]  # free car truck car
    scores = VoxelScores()
    scores.update(prediction, truth)
    result = scores.result()
    assert result.class_iou[4] == pytest.approx(100 * 1 / (3 + 2 - 1))
    assert result.class_iou[10] == 0, "said but not there"
    assert np.isnan(result.class_iou[0]), "neither said nor there"
    assert result.miou == result.miou_dynamic == pytest.approx(12.5)
    assert result.iou == pytest.approx(100 * 2 / 4)


def test_an_empty_prediction_scores_nothing_and_the_truth_everything():
    truth = np.random.default_rng(0).integers(0, 18, (9, 9, 9)).astype(np.uint8)
    for prediction, percent in ((empty(truth.shape, 17), 0), (truth, 100)):
        scores = VoxelScores()
        scores.update(prediction, truth)
        result = scores.result()
        assert (result.miou, result.miou_dynamic, result.iou) == (percent,) * 3


def test_the_mask_says_which_voxels_count():
    truth, prediction = empty((2, 1, 1), 17), empty((2, 1, 1), 17)
    truth[0] = 4
    scores = VoxelScores()
    scores.update(prediction, truth, np.array([0, 1], np.uint8).reshape(2, 1, 1))
    assert scores.state()["matrix"].sum() == 1
    assert np.isnan(scores.result().miou)


def test_unknown_voxels_are_occupied_for_the_reference_only():
    truth = empty((2, 1, 1), 17)
    truth[0] = 255
    for exact, iou in ((False, np.nan), (True, 0.0)):
        scores = VoxelScores(reference_exact=exact)
        scores.update(empty((2, 1, 1), 17), truth)
        assert scores.result().iou == pytest.approx(iou, nan_ok=True)


def test_labels_behind_the_list_land_in_other_cells_for_the_reference_only():
    truth, prediction = empty((1, 1, 1), 5), empty((1, 1, 1), 18)
    with pytest.raises(MetricError, match="label 18 of the prediction at voxel"):
        VoxelScores().update(prediction, truth)
    scores = VoxelScores(reference_exact=True)
    scores.update(prediction, truth)
    assert scores.state()["matrix"][6, 0] == 1
    with pytest.raises(MetricError, match="behind the end"):
        scores.update(prediction, empty((1, 1, 1), 17))


def test_absent_classes_are_left_out_except_by_surroundoccs_own_code():
    truth = empty((4, 1, 1), 17)
    truth[:2, 0, 0] = 4
    right, reference = VoxelScores(scored=WITHOUT_OTHERS), SurroundOccReference()
    for scores in (right, reference):
        scores.update(truth, truth)
    assert right.result().miou == 100
    assert reference.result().miou == pytest.approx(100 / 16, rel=1e-6)


# Published per-class IoU, in the order of the class list (without free).
_LOGS = {
    "2D-mini": "14.25,48.56,28.71,44.80,52.84,24.70,29.19,29.03,32.04,34.61,39.61,82.38,46.95,"
    "54.85,57.71,44.72,39.32",
    "2D": "15.44,52.15,32.19,46.21,55.36,28.24,34.13,32.44,36.37,37.98,42.83,84.22,48.82,57.42,"
    "60.00,52.87,45.59",
    "3D": "16.01,52.51,32.46,47.11,56.13,30.12,33.01,32.45,37.36,36.61,43.63,84.76,49.27,58.76,"
    "62.26,53.74,46.55",
}


@pytest.mark.parametrize(
    ("model", "miou", "miou_dynamic"),
    [("2D-mini", 41.43, 35.44), ("2D", 44.84, 38.67), ("3D", 45.45, 38.94)],
)
def test_means_over_classes_are_the_published_ones(model, miou, miou_dynamic):
    iou = np.array([float(v) for v in _LOGS[model].split(",")])
    assert mean_of_known(iou) == pytest.approx(miou, abs=0.01)
    assert mean_of_known(iou[list(OCC3D.flow)]) == pytest.approx(miou_dynamic, abs=0.01)


# --- F-score ---------------------------------------------------------------------------------


def test_the_f_score_takes_direct_neighbours_for_hits():
    truth, prediction = empty(OCC3D_GRID.shape, 17), empty(OCC3D_GRID.shape, 17)
    truth[10, 10, 5] = truth[50, 50, 5] = prediction[10, 11, 5] = prediction[90, 90, 5] = 4
    prediction[10, 10, 6] = prediction[11, 11, 5] = 1  # one near, one across an edge
    result = f_score(prediction, truth)
    assert (result.precision, result.completeness) == (2 / 4, 1 / 2)
    assert result.f_score == 0.5
    assert np.isnan(f_score(empty(OCC3D_GRID.shape, 17), truth, truth == 1).f_score)
    assert f_score(empty(OCC3D_GRID.shape, 17), truth).f_score == 0


# --- putting together, showing, refusing ------------------------------------------------------


def frames(count: int):
    rng = np.random.default_rng(9)
    for _ in range(count):
        labels = rng.integers(0, FREE + 1, (2, *SMALL.shape)).astype(np.uint8)
        flow = rng.normal(size=(2, *SMALL.shape, 2)).astype(np.float16)
        yield grid(labels[0], flow[0]), grid(labels[1], flow[1])


@pytest.mark.parametrize("parts", [[0, 1, 2], [0, 0, 0], [1, 0, 1]])
def test_scenes_give_the_same_bits_however_they_are_dealt_out(parts):
    def new():
        return RayScores(OPENOCC, True, SMALL, rays.ray_directions()[::9])

    scenes = []
    for prediction, truth in frames(3):
        scenes.append(new())
        scenes[-1].update(prediction, truth, EYE)
    assert len(set(parts)) >= 1  # who worked on a scene does not matter, its place does
    total = new()
    for scene in scenes:
        total.merge(scene.state())
    again = new()
    for scene in scenes:
        copy = new()
        copy.merge(scene.state())  # as if it had come out of a file
        again.merge(copy.state())
    assert {k: v.tobytes() for k, v in total.state().items()} == {
        k: v.tobytes() for k, v in again.state().items()
    }
    assert total.result().frames == 3


def test_scores_of_another_kind_are_refused():
    with pytest.raises(MetricError, match="these scores hold"):
        VoxelScores().merge(RayScores(OCC3D).state())
    with pytest.raises(MetricError, match=r"matrix of these scores is \[18, 18\]"):
        VoxelScores(OPENOCC).merge(VoxelScores(OCC3D).state())
    with pytest.raises(MetricError, match="not the counts of SurroundOcc"):
        SurroundOccReference().merge(VoxelScores().state())


def test_results_can_be_read_by_people_and_by_programs():
    voxels = VoxelScores(OPENOCC)
    for prediction, truth in frames(1):
        voxels.update(prediction.labels, truth.labels)
        both = score(prediction, truth, directions=rays.ray_directions()[::50], flow=True)
    for result in (voxels.result(), both.result(), RayScores(OCC3D).result()):
        read = json.loads(json.dumps(result.as_dict(), allow_nan=False))
        assert read["frames"] in (0, 1)
        table = result.table()
        assert all(name in table for name in result.classes.names[:-1])
        assert "nan" not in table, "a dash"
    assert voxels.result().as_dict()["class IoU"].keys() == set(OPENOCC.names)


@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        (empty((4, 4)), empty((4, 4)), r"truth must be \[X, Y, Z\], got \[4, 4\]"),
        (empty((4, 4, 3)), empty((4, 4, 4)), r"prediction must be \[4, 4, 4\], as the truth"),
        (empty((1, 1, 1)).astype(float), empty((1, 1, 1)), "must be whole numbers, got float64"),
        (empty((1, 1, 1)), empty((1, 1, 1), 18), "label 18 of the truth at voxel"),
        (empty((1, 1, 1), 255), empty((1, 1, 1)), "label 255 of the prediction"),
        (empty((1, 1, 1)).astype(int) - 99, empty((1, 1, 1)), "label -83 of the prediction"),
    ],
)
def test_labels_that_make_no_sense_are_refused(prediction, truth, message):
    with pytest.raises(MetricError, match=message):
        VoxelScores().update(prediction, truth)


def test_masks_and_flows_that_make_no_sense_are_refused():
    truth = grid(wall(12), still())
    with pytest.raises(MetricError, match=r"mask must be \[20, 16, 8\]"):
        VoxelScores(OPENOCC).update(truth.labels, truth.labels, np.ones((2, 2, 2), bool))
    with pytest.raises(MetricError, match="the prediction has no flow"):
        score(grid(wall(12)), truth, flow=True)
    with pytest.raises(MetricError, match="flow of the prediction must be"):
        score(grid(wall(12), still()[..., :1]), truth, flow=True)
    with pytest.raises(MetricError, match="NaN or inf where it is scored"):
        score(grid(wall(12), still(vx=np.nan)), truth, flow=True)


def test_a_frame_that_cannot_be_scored_leaves_no_trace():
    scores = RayScores(OPENOCC, True, SMALL, FORWARD)
    truth, prediction = grid(wall(12), still()), grid(wall(12), still())
    prediction.flow[12, 0, 0] = np.nan  # off the ray: noticed last
    with pytest.raises(MetricError, match="NaN or inf"):
        scores.update(prediction, truth, EYE)
    assert not any(array.any() for array in scores.state().values())


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


def test_grids_of_another_size_are_refused():
    with pytest.raises(MetricError, match=r"labels must be \[20, 16, 8\] uint8"):
        rays.raycast(empty((3, 3, 3)), EYE, FORWARD, FREE, SMALL)
    with pytest.raises(MetricError, match="prediction must be"):
        score(grid(empty((3, 3, 3))), grid(wall(12)))


# --- origins ---------------------------------------------------------------------------------


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


def test_the_metrics_need_no_torch():
    code = (
        "import sys, alocc_ros.metrics.voxels, alocc_ros.metrics.ray_scores\n"
        "print(*[m for m in ('torch', 'rclpy', 'rich') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "")
