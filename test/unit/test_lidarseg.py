# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Classes of LiDAR points."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from nuscenes_tables import small_nuscenes

from alocc_ros.datasets import lidarseg
from alocc_ros.datasets.nuscenes import NuScenes
from alocc_ros.errors import DataError


@pytest.fixture
def sample(tmp_path):
    return NuScenes(small_nuscenes(tmp_path, ("scene-0001",), samples=2)).samples[0]


def test_thirty_two_categories_become_seventeen_classes():
    noise = [0, 1, 5, 7, 8, 10, 11, 13, 19, 20, 29, 31]
    assert np.flatnonzero(lidarseg.CLASS_OF_CATEGORY == 0).tolist() == noise
    assert set(lidarseg.CLASS_OF_CATEGORY.tolist()) == set(range(17))


def test_the_map_is_that_of_the_development_kit():
    kit = pytest.importorskip("nuscenes.eval.lidarseg.utils")
    names = pytest.importorskip("nuscenes.utils.color_map").get_colormap()

    class Tables:  # what the kit's mapper reads of its tables
        lidarseg_idx2name_mapping = dict(enumerate(names))
        lidarseg_name2idx_mapping = {name: index for index, name in enumerate(names)}

    expected = kit.LidarsegClassMapper(Tables()).fine_idx_2_coarse_idx_mapping
    assert lidarseg.CLASS_OF_CATEGORY.tolist() == [expected[i] for i in range(32)]


def test_classes_are_kept_beside_the_sweeps(tmp_path, sample):
    categories = np.arange(50, dtype=np.uint8) % 32
    path = lidarseg.labels_path(tmp_path, sample.lidar)
    assert path.name == sample.lidar.path.name.replace(".pcd.bin", ".npz")
    lidarseg.write_labels(path, categories)
    assert list(path.parent.iterdir()) == [path]
    expected = lidarseg.CLASS_OF_CATEGORY[categories]
    np.testing.assert_array_equal(lidarseg.read_labels(tmp_path, sample.lidar), expected)
    assert np.load(path)["lidar_seg"].shape == (50, 1)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((49, 1), np.uint8), "49 classes for the 50 points"),
        (np.zeros(50, np.uint8), r"\[P, 1\]"),
        (np.zeros((50, 1)), "float64"),
        (np.full((50, 1), 17, np.uint8), "class 17"),
    ],
)
def test_classes_that_do_not_fit_the_sweep_are_an_error(tmp_path, sample, labels, message):
    path = lidarseg.labels_path(tmp_path, sample.lidar)
    path.parent.mkdir()
    np.savez(path, lidar_seg=labels)
    with pytest.raises(DataError, match=message):
        lidarseg.read_labels(tmp_path, sample.lidar)


def test_missing_or_wrong_originals_are_an_error(tmp_path, sample):
    with pytest.raises(DataError, match="download of its own"):
        lidarseg.lidarseg_files(tmp_path, "v1.0-trainval")
    with pytest.raises(DataError, match="cannot read"):
        lidarseg.read_labels(tmp_path, replace(sample.lidar))
    (tmp_path / "x.bin").write_bytes(b"\x00\x20")
    with pytest.raises(DataError, match="category 32"):
        lidarseg.read_categories(tmp_path / "x.bin")
    (tmp_path / "v1.0-trainval" / "lidarseg.json").write_text('[{"token": "a"}]')
    with pytest.raises(DataError, match="has no 'sample_data_token'"):
        lidarseg.lidarseg_files(tmp_path, "v1.0-trainval")
