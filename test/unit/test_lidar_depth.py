# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""LiDAR points as depth at the pixels of the network's input, and a network that is given it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from benchmark_labels import VAL, labelled_nuscenes
from small_networks import network_of, small

from alocc_ros.datasets.nuscenes import frame_set
from alocc_ros.errors import DataError
from alocc_ros.evaluation.evaluate import Task, evaluate
from alocc_ros.evaluation.lidar_depth import lidar_depth
from alocc_ros.evaluation.network import AS_IN_TRAINING, network_predictor
from alocc_ros.evaluation.scoring import find_scoring
from alocc_ros.geometry import inverse
from alocc_ros.pipeline import Pipeline
from alocc_ros.records import find
from alocc_ros.types import CAMERAS

RANGE = (1.0, 45.0)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return labelled_nuscenes(tmp_path_factory.mktemp("nuscenes"), VAL[:1], 2)


def put_points(sample, points: np.ndarray) -> None:  # [P, 3] m, frame of the front camera
    front = sample.cameras["cam_front"]
    map_T_camera = front.map_T_base @ front.calibration.base_T_camera
    lidar_T_camera = inverse(sample.lidar.map_T_lidar) @ map_T_camera
    rows = np.zeros((len(points), 5), "<f4")
    rows[:, :3] = points @ lidar_T_camera[:3, :3].T + lidar_T_camera[:3, 3]
    sample.lidar.path.write_bytes(rows.tobytes())


def test_the_nearest_return_in_range_wins_a_pixel(dataset):
    sample = dataset.samples[0]
    # All on the optical axis: too near, far, nearer, too far; and one behind the camera.
    put_points(sample, np.array([[0, 0, z] for z in (0.5, 20.0, 8.0, 50.0, -8.0)]))
    # 64x36 images as they are: the principal point is the pixel.
    image = lidar_depth(sample, (36, 64), RANGE)[CAMERAS.index("cam_front")]
    assert np.count_nonzero(image) == 1
    intrinsics = sample.cameras["cam_front"].calibration.intrinsics
    row, column = np.round(intrinsics[[1, 0], 2]).astype(int)
    assert image[row, column] == pytest.approx(8.0, abs=1e-4)


def test_pixels_follow_the_crop_of_the_images(dataset):
    sample = dataset.samples[0]
    intrinsics = sample.cameras["cam_front"].calibration.intrinsics
    # A point that shows at (10, 30) of the 64x36 image.
    ray = np.linalg.inv(intrinsics) @ [10.0, 30.0, 1.0]
    put_points(sample, 12.0 * ray[None])
    # Twice as large, and the upper 8 of 72 rows cut off.
    image = lidar_depth(sample, (64, 128), RANGE)[CAMERAS.index("cam_front")]
    assert np.argwhere(image).tolist() == [[2 * 30 - 8, 2 * 10]]


def test_a_network_that_was_trained_with_it_is_given_it(dataset):
    sample = dataset.samples[0]
    rng = np.random.default_rng(0)
    put_points(sample, rng.uniform((-20, -2, 2), (20, 2, 40), (2000, 3)))
    network = network_of(small("alocc_3d"))
    answers = {}
    for name in ("alocc_3d", "alocc_3d_gt_depth"):
        record = replace(find(name), grid=network.variant.grid)
        pipeline = Pipeline(network, record, AS_IN_TRAINING, confidence=True)
        answers[name] = network_predictor(pipeline)(dataset.scenes[0])(sample).confidence
    assert not np.array_equal(*answers.values())
    without = Pipeline(network, record, AS_IN_TRAINING, confidence=True).step(frame_set(sample))
    assert np.array_equal(without.confidence, answers["alocc_3d"])


def test_missing_sweeps_are_told_before_work_begins(dataset):
    for sample in dataset.samples:
        sample.lidar.path.unlink()
    task = Task(dataset.root, dataset.split("val"), find_scoring("occ3d-mask"), lidar=True)
    with pytest.raises(DataError, match="2 files of .* are missing .*LIDAR_TOP"):
        evaluate(task, lambda scene: pytest.fail("work began"))
