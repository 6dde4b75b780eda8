# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Scores of voxels from first principles: answers counted by hand, and slow twins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_grids import empty

from alocc_ros.errors import MetricError
from alocc_ros.grid import OCC3D_GRID
from alocc_ros.labels import OCC3D
from alocc_ros.metrics.f_score import f_score
from alocc_ros.metrics.sums import mean_of_known
from alocc_ros.metrics.voxels import WITHOUT_OTHERS, SurroundOccReference, VoxelScores


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


def test_the_f_score_takes_direct_neighbours_for_hits():
    truth, prediction = empty(OCC3D_GRID.shape, 17), empty(OCC3D_GRID.shape, 17)
    truth[10, 10, 5] = truth[50, 50, 5] = prediction[10, 11, 5] = prediction[90, 90, 5] = 4
    prediction[10, 10, 6] = prediction[11, 11, 5] = 1  # one near, one across an edge
    result = f_score(prediction, truth)
    assert (result.precision, result.completeness) == (2 / 4, 1 / 2)
    assert result.f_score == 0.5
    assert np.isnan(f_score(empty(OCC3D_GRID.shape, 17), truth, truth == 1).f_score)
    assert f_score(empty(OCC3D_GRID.shape, 17), truth).f_score == 0
