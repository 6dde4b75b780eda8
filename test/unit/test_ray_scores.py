# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""RayIoU and errors of velocity from first principles: answers counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from small_grids import CAR, FORWARD, FREE, ROAD, SMALL, empty, grid, score, still, wall

from alocc_ros.grid import OCC3D_GRID
from alocc_ros.labels import OPENOCC
from alocc_ros.metrics import rays
from alocc_ros.metrics.ray_scores import RayScores, occ_score


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
