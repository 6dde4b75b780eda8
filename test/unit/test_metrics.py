# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What all scores have in common: they are put together, shown, and refuse nonsense."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_grids import EYE, FORWARD, FREE, SMALL, empty, grid, score, still, wall

from alocc_ros.errors import MetricError
from alocc_ros.labels import OCC3D, OPENOCC
from alocc_ros.metrics import rays
from alocc_ros.metrics.ray_scores import RayScores
from alocc_ros.metrics.voxels import SurroundOccReference, VoxelScores


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


def test_grids_of_another_size_are_refused():
    with pytest.raises(MetricError, match=r"labels must be \[20, 16, 8\] uint8"):
        rays.raycast(empty((3, 3, 3)), EYE, FORWARD, FREE, SMALL)
    with pytest.raises(MetricError, match="prediction must be"):
        score(grid(empty((3, 3, 3))), grid(wall(12)))


def test_the_metrics_need_no_torch():
    code = (
        "import sys, alocc_ros.metrics.voxels, alocc_ros.metrics.ray_scores\n"
        "print(*[m for m in ('torch', 'rclpy', 'rich') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "")
