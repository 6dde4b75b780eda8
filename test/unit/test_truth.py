# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Label files of four benchmarks: what comes out, and what is refused."""

from __future__ import annotations

import io
import os
from dataclasses import replace

import numpy as np
import pytest
from nuscenes_tables import small_nuscenes

from alocc_ros.datasets.formats import FORMATS, find_format, format_of
from alocc_ros.datasets.nuscenes import NuScenes
from alocc_ros.datasets.truth import (
    check_present,
    missing_files,
    missing_images,
    read_truth,
    truth_files,
)
from alocc_ros.errors import DataError
from alocc_ros.labels import OCC3D, OPENOCC, label_map
from alocc_ros.records import load_records

SHAPE = (200, 200, 16)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return small_nuscenes(tmp_path_factory.mktemp("nuscenes"), ("scene-0001",), samples=2)


@pytest.fixture(scope="module")
def sample(root):
    return NuScenes(root).samples[0]


def save(path, **arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)


def occ3d(**changes):
    labels = np.full(SHAPE, 17, np.uint8)
    labels[3, 5, 7] = 4
    mask = np.zeros(SHAPE, np.uint8)
    mask[3] = 1
    return {"semantics": labels, "mask_lidar": mask, "mask_camera": mask, **changes}


def openocc(**changes):
    labels = np.full(SHAPE, 16, np.uint8)
    labels[3, 5, 7] = 0
    flow = np.full((*SHAPE, 2), np.inf, np.float16)
    flow[3, 5, 7] = (2.5, -1)
    return {"semantics": labels, "flow": flow, **changes}


def test_the_files_are_where_the_benchmarks_put_them(root, sample):
    relative = {
        name: [str(p.relative_to(root)) for p in truth_files(root, sample, name, ray_mask=True)]
        for name in FORMATS
    }
    token, lidar = sample.token, sample.lidar.path.name
    assert relative == {
        "occ3d": [f"gts/scene-0001/{token}/labels.npz"],
        "openocc": [
            f"openocc_v2/scene-0001/{token}/labels.npz",
            f"openocc_v2_ray_mask/scene-0001/{token}/labels.npz",
        ],
        "surroundocc": [f"gts_surroundocc/samples/{lidar}.npy"],
        "openoccupancy": [
            f"nuScenes-Occupancy-v0.1/scene_{sample.scene_token}/occupancy/{sample.lidar.token}.npy"
        ],
    }


def test_occ3d_labels_and_masks_are_read(tmp_path, sample):
    save(truth_files(tmp_path, sample, "occ3d")[0], **occ3d())
    truth = read_truth(tmp_path, sample, "occ3d")
    assert truth.labels.dtype == np.uint8 and truth.classes.names[truth.labels[3, 5, 7]] == "car"
    assert (truth.labels != truth.classes.free).sum() == 1
    assert truth.mask_camera.dtype == bool and truth.mask_camera.sum() == 200 * 16
    assert truth.mask_lidar is not None and truth.flow is None and truth.ray_mask is None


def test_openocc_labels_flow_and_ray_mask_are_read(tmp_path, sample):
    labels, rays = truth_files(tmp_path, sample, "openocc", ray_mask=True)
    save(labels, **openocc())
    truth = read_truth(tmp_path, sample, "openocc")
    assert truth.ray_mask is None and truth.flow.dtype == np.float16
    assert truth.flow[3, 5, 7].tolist() == [2.5, -1]
    with pytest.raises(DataError, match="openocc_v2_ray_mask"):
        read_truth(tmp_path, sample, "openocc", ray_mask=True)
    save(rays, ray_mask2=np.ones(SHAPE, bool))
    assert read_truth(tmp_path, sample, "openocc", ray_mask=True).ray_mask.all()


@pytest.mark.parametrize(
    ("benchmark", "rows"),
    [
        ("surroundocc", [[3, 5, 7, 4], [199, 0, 15, 16], [1, 1, 1, 0]]),
        ("openoccupancy", [[7, 5, 3, 4], [15, 0, 199, 16], [1, 1, 1, 0]]),
    ],
)
def test_rows_of_occupied_voxels_become_a_grid(tmp_path, sample, benchmark, rows):
    path = truth_files(tmp_path, sample, benchmark)[0]
    path.parent.mkdir(parents=True)
    np.save(path, np.array(rows, np.int32))
    truth = read_truth(tmp_path, sample, benchmark)
    assert truth.labels.shape == FORMATS[benchmark].grid.shape
    assert truth.labels[3, 5, 7] == 4 and truth.labels[199, 0, 15] == 16
    assert truth.labels[1, 1, 1] == truth.classes.free == 17
    assert (truth.labels != 17).sum() == 2


WRONG = {
    "shape": (occ3d(semantics=np.zeros((200, 200, 8), np.uint8)), "semantics must be"),
    "kind": (occ3d(semantics=np.zeros(SHAPE, "U1")), "whole numbers"),
    "halves": (occ3d(semantics=np.full(SHAPE, 0.5)), "whole numbers"),
    "negative": (occ3d(semantics=np.full(SHAPE, -1, np.int8)), "label -1 is none of occ3d"),
    "label": (occ3d(semantics=np.full(SHAPE, 18, np.uint8)), "label 18 is none of occ3d"),
    "mask value": (occ3d(mask_camera=np.full(SHAPE, 2, np.uint8)), "nothing but 0 and 1"),
    "mask kind": (occ3d(mask_camera=np.zeros(SHAPE)), "nothing but 0 and 1"),
    "mask shape": (occ3d(mask_lidar=np.zeros(5, bool)), "mask_lidar must be"),
    "objects": (occ3d(semantics=np.array([print])), "damaged, or not"),
    "key": ({"labels": np.zeros(SHAPE, np.uint8)}, "has no semantics, mask_lidar, mask_camera"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_occ3d_files_are_an_error_that_names_them(tmp_path, sample, case):
    arrays, message = WRONG[case]
    path = truth_files(tmp_path, sample, "occ3d")[0]
    save(path, **arrays)
    with pytest.raises(DataError, match=message) as told:
        read_truth(tmp_path, sample, "occ3d")
    assert str(path) in str(told.value)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (openocc(flow=np.zeros((*SHAPE, 3))), "flow must be"),
        (openocc(flow=np.zeros((*SHAPE, 2), int)), "floating-point"),
        (openocc(semantics=np.full(SHAPE, 17, np.uint8)), "label 17 is none of openocc"),
        ({"semantics": np.zeros(SHAPE, np.uint8)}, "has no flow"),
    ],
)
def test_wrong_openocc_files_are_an_error(tmp_path, sample, arrays, message):
    save(truth_files(tmp_path, sample, "openocc")[0], **arrays)
    with pytest.raises(DataError, match=message):
        read_truth(tmp_path, sample, "openocc")


@pytest.mark.parametrize("benchmark", ["surroundocc", "openoccupancy"])
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[200, 0, 512, 1]], "outside of the grid"),
        ([[0, -1, 0, 1]], "outside of the grid"),
        ([[0, 0, 0, 18]], "label 18"),
        ([[0, 0, 0]], r"\[M, 4\]"),
        ([[0.5, 0, 0, 1]], r"\[M, 4\]"),
        ([["a", "b", "c", "d"]], r"\[M, 4\]"),
        (7, r"\[M, 4\]"),
    ],
)
def test_wrong_rows_are_an_error(tmp_path, sample, benchmark, rows, message):
    path = truth_files(tmp_path, sample, benchmark)[0]
    path.parent.mkdir(parents=True)
    np.save(path, np.array(rows))
    with pytest.raises(DataError, match=message) as told:
        read_truth(tmp_path, sample, benchmark)
    assert str(path) in str(told.value)


def test_a_file_cut_off_or_changed_anywhere_is_read_right_or_refused(tmp_path, sample):
    path = truth_files(tmp_path, sample, "occ3d")[0]
    save(path, **occ3d())
    whole, good = path.read_bytes(), read_truth(tmp_path, sample, "occ3d").labels
    random = np.random.default_rng(1)
    for _ in range(60):
        spoilt = bytearray(whole[: random.integers(len(whole))])
        if random.random() < 0.6:
            spoilt = bytearray(whole)
            for place in random.integers(len(whole), size=3):
                spoilt[place] = random.integers(256)
        path.write_bytes(spoilt)
        try:
            np.testing.assert_array_equal(read_truth(tmp_path, sample, "occ3d").labels, good)
        except DataError as error:
            assert str(path) in str(error)


def test_nothing_in_a_label_file_is_executed(tmp_path, sample):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    path = truth_files(tmp_path, sample, "surroundocc")[0]
    path.parent.mkdir(parents=True)
    np.save(path, np.array([Evil()], dtype=object), allow_pickle=True)
    with pytest.raises(DataError):
        read_truth(tmp_path, sample, "surroundocc")
    buffer = io.BytesIO()
    np.save(buffer, np.array([Evil()], dtype=object), allow_pickle=True)
    assert b"mkdir" in buffer.getvalue() and not (tmp_path / "executed").exists()


def test_all_missing_files_are_told_at_once(tmp_path, root, sample):
    samples = NuScenes(root).samples
    missing = missing_files(tmp_path, samples, "openocc", ray_mask=True)
    assert len(missing) == 4
    with pytest.raises(DataError, match=r"4 files of OpenOcc are missing: .*scene-0001"):
        check_present(missing, "OpenOcc")
    save(missing[0], **openocc())
    assert missing_files(tmp_path, samples, "openocc", ray_mask=True) == missing[1:]
    assert missing_images(samples) == []
    check_present([], "images")


@pytest.mark.parametrize("labels", FORMATS.values(), ids=FORMATS)
def test_a_format_says_all_that_others_need(labels):
    assert len(labels.voxel_counts) == len(labels.classes.names)
    assert labels.classes.free not in labels.scored
    assert labels.frame in ("ego", "lidar")
    assert find_format(labels) is labels is find_format(labels.name)
    for exact in (False, True):
        assert labels.voxel_scores(exact).result().frames == 0


def test_every_model_has_the_labels_that_it_was_trained_with():
    found = {name: format_of(record).name for name, record in load_records().items()}
    assert found["alocc_3d"] == "occ3d"
    assert found["alocc_flow_2d"] == "openocc"
    assert found["alocc_3d_surroundocc"] == "surroundocc"
    record = load_records()["alocc_3d_surroundocc"]
    finer = replace(record, grid=FORMATS["openoccupancy"].grid)
    assert format_of(finer).name == "openoccupancy"


def test_labels_are_translated_by_name():
    table = label_map(OCC3D, OPENOCC, missing=255)
    for label, name in enumerate(OPENOCC.names):
        assert table[OCC3D.names.index(name)] == label
    assert table[0] == 255, "others"
    assert (table[len(OCC3D.names) :] == 255).all()
    assert (label_map(OCC3D, OCC3D, 255)[:18] == np.arange(18)).all()


def test_an_unknown_benchmark_is_an_error(tmp_path, sample):
    with pytest.raises(DataError, match="occ3d, openocc, surroundocc, openoccupancy"):
        read_truth(tmp_path, sample, "kitti")
