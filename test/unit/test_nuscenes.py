# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The tables of nuScenes: key frames, poses, splits, and what is wrong with broken ones."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from nuscenes_tables import BASE_T_LIDAR, VERSION, small_nuscenes

from alocc_ros.bags.sample import ego_pose
from alocc_ros.datasets import tables
from alocc_ros.datasets.boxes import read_boxes
from alocc_ros.datasets.nuscenes import NuScenes, OtherSample, frame_set, lidar_points
from alocc_ros.datasets.splits import official_splits
from alocc_ros.errors import DataError
from alocc_ros.types import CAMERAS

TABLES = ("scene", "sample", "sample_data", "ego_pose", "sensor", "calibrated_sensor")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return small_nuscenes(tmp_path_factory.mktemp("nuscenes"))


@pytest.fixture
def own(tmp_path):
    """A folder that the test may spoil."""
    return small_nuscenes(tmp_path / "nuscenes", ("scene-0001",), samples=2)


def edit(root, table, change):
    path = root / VERSION / f"{table}.json"
    rows = json.loads(path.read_text())
    change(rows)
    path.write_text(json.dumps(rows))


def test_scenes_and_samples_come_in_order_of_time(root):
    dataset = NuScenes(root)
    assert dataset.version == VERSION
    assert [s.name for s in dataset.scenes] == ["scene-0003", "scene-0001"]
    assert [len(s.samples) for s in dataset.scenes] == [3, 3]
    stamps = [s.stamp for s in dataset.samples]
    assert stamps == sorted(stamps) and len(stamps) == 6


def test_every_pose_is_that_of_its_own_stamp(root):
    for sample in NuScenes(root).samples:
        assert tuple(sample.cameras) == CAMERAS
        for reading in (*sample.cameras.values(), sample.lidar):
            np.testing.assert_allclose(reading.map_T_base, ego_pose(reading.stamp), atol=1e-9)
        assert len({c.stamp for c in sample.cameras.values()}) == 6
        np.testing.assert_allclose(sample.lidar.base_T_lidar, BASE_T_LIDAR, atol=1e-12)
        expected = np.linalg.inv(sample.map_T_base) @ ego_pose(sample.stamp) @ BASE_T_LIDAR
        np.testing.assert_allclose(sample.base_T_lidar_grid, expected, atol=1e-9)


def test_a_frame_set_is_what_the_pipeline_takes(root):
    sample = NuScenes(root).samples[0]
    frame = frame_set(sample)
    assert frame.stamp == sample.cameras["cam_front"].stamp
    np.testing.assert_array_equal(frame.map_T_base, frame.map_T_base_at["cam_front"])
    for camera in CAMERAS:
        assert frame.images[camera].data == sample.cameras[camera].path.read_bytes()
        assert (frame.calibration[camera].width, frame.calibration[camera].height) == (64, 36)
    assert lidar_points(sample.lidar).shape == (50, 5)


def test_all_readings_of_a_scene_include_the_sweeps(root):
    dataset = NuScenes(root)
    scene = dataset.scene("scene-0001")
    readings = dataset.readings([scene])["scene-0001"]
    assert len(readings) == 5 * 6 + 3 + 5
    others = [r for r in readings if isinstance(r, OtherSample)]
    assert [r.channel for r in others] == ["RADAR_FRONT"] * 5
    assert [r.stamp for r in readings] == sorted(r.stamp for r in readings)
    sweeps = [r for r in readings if not r.is_key_frame]
    assert len(sweeps) == 12 + 2
    for reading in readings:
        assert reading.path.is_file() == (reading not in others)
        np.testing.assert_allclose(reading.map_T_base, ego_pose(reading.stamp), atol=1e-9)


def test_only_the_scenes_asked_for_are_kept(root):
    assert [s.name for s in NuScenes(root, scenes=["scene-0001"]).scenes] == ["scene-0001"]
    with pytest.raises(DataError, match="scene-9999"):
        NuScenes(root, scenes=["scene-9999"])


def test_progress_ends_with_all_of_the_table(root):
    seen = []
    NuScenes(root, on_progress=lambda *told: seen.append(told))
    what, done, total = seen[-1]
    assert what == "ego_pose.json" and done == total > 0


@pytest.mark.parametrize("chunk", [120, 121, 1000, 1 << 20])
def test_rows_do_not_depend_on_where_the_file_is_cut_into_chunks(tmp_path, monkeypatch, chunk):
    rows = [{"token": "a}, {", "list": [1, -2.5e-3, [3]]}, {}, {"ü": None, "deep": {"er": "]"}}]
    monkeypatch.setattr(tables, "CHUNK", chunk)
    for indent in (None, 0, 2):
        path = tmp_path / "table.json"
        path.write_text(json.dumps(rows * 20, indent=indent))
        assert list(tables.read_table(path)) == rows * 20


@pytest.mark.parametrize("text", ["", "{}", "[", '[{"a": 1}', '[{"a": 1},', "[1]", "[nul]", "\xff"])
def test_a_damaged_table_is_an_error_that_names_it(tmp_path, text):
    path = tmp_path / "ego_pose.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"ego_pose\.json"):
        list(tables.read_table(path))


def test_a_table_cut_off_anywhere_is_an_error(own):
    path = own / VERSION / "ego_pose.json"
    whole = path.read_bytes().rstrip()
    for end in range(0, len(whole), 997):
        path.write_bytes(whole[:end])
        with pytest.raises(DataError, match="ego_pose"):
            NuScenes(own)


@pytest.mark.parametrize(
    ("table", "change", "message"),
    [
        ("ego_pose", lambda r: r.pop(0), "ego_pose.json .* has no pose-data"),
        ("ego_pose", lambda r: r[0].pop("rotation"), "has no 'rotation'"),
        ("ego_pose", lambda r: r[0].update(rotation=[0, 0, 0, 0]), "quaternion"),
        ("ego_pose", lambda r: r[0].update(rotation=[1, 0, 0]), "ego_pose.json"),
        ("ego_pose", lambda r: r[0].update(translation=[0, 0, None]), "ego_pose.json"),
        ("ego_pose", lambda r: r[0].update(translation=["a", 0, 0]), "ego_pose.json"),
        ("sample_data", lambda r: r.pop(0), "has no LIDAR_TOP"),
        ("sample_data", lambda r: r[0].update(timestamp="noon"), "timestamp"),
        ("sample_data", lambda r: r[2].update(width=-3), "-3 x 36"),
        ("sample_data", lambda r: r[1].update(filename=None), "filename"),
        ("sample", lambda r: r.clear(), "no key frame"),
        ("sample", lambda r: r[0].update(timestamp=None), "timestamp"),
        ("scene", lambda r: r.clear(), "no scene"),
        ("scene", lambda r: r[0].pop("name"), "has no 'name'"),
        ("calibrated_sensor", lambda r: r[0].update(camera_intrinsic=[[1]]), "3x3"),
        ("calibrated_sensor", lambda r: r[0].update(rotation=[2, 0, 0, 0]), "length 1"),
        ("calibrated_sensor", lambda r: r.clear(), "has no CAM_FRONT_LEFT"),
        ("sensor", lambda r: r.clear(), "has no CAM_FRONT_LEFT"),
    ],
)
def test_tables_that_contradict_each_other_are_an_error(own, table, change, message):
    edit(own, table, change)
    with pytest.raises(DataError, match=message):
        NuScenes(own)


def test_a_table_with_any_value_changed_is_read_or_refused(own):
    """Whatever stands in a file, it never becomes another error than one that explains it."""
    random = np.random.default_rng(11)
    odd = (b"null", b"-1", b"[]", b"{}", b'"x"', b"1e999", b"NaN", b"9" * 30)
    folder, outcomes = own / VERSION, {"read": 0, "refused": 0}
    paths = [folder / f"{table}.json" for table in (*TABLES, "sample_annotation", "instance")]
    for _ in range(150):
        path = paths[random.integers(len(paths))]
        whole = path.read_bytes()
        values = list(re.finditer(rb": ([^,\n{\[]+|\[[^\]]*\])", whole))
        value = values[random.integers(len(values))]
        spoilt = odd[random.integers(len(odd))]
        path.write_bytes(whole[: value.start(1)] + spoilt + whole[value.end(1) :])
        try:
            dataset = NuScenes(own)
            dataset.readings(dataset.scenes)
            read_boxes(folder, {s.token: s.stamp for s in dataset.samples})
            outcomes["read"] += 1
        except DataError:
            outcomes["refused"] += 1
        path.write_bytes(whole)
    assert min(outcomes.values()) > 10, outcomes


def test_a_folder_without_tables_is_an_error(tmp_path, own):
    with pytest.raises(DataError, match="no folder"):
        NuScenes(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no tables"):
        NuScenes(tmp_path)
    (own / VERSION / "sensor.json").unlink()
    with pytest.raises(DataError, match=r"lacks sensor\.json"):
        NuScenes(own)


def test_the_version_is_found_or_asked_for(own):
    (own / VERSION).rename(own / "v1.0-mini")
    assert NuScenes(own).version == "v1.0-mini"
    (own / "v1.0-mini").rename(own / "v1.0-test")
    (own / "v1.0-other").mkdir()
    (own / "v1.0-other" / "sample_data.json").write_text("[]")
    with pytest.raises(DataError, match="say which version"):
        NuScenes(own)
    assert NuScenes(own, "v1.0-test").version == "v1.0-test"


def test_a_missing_image_or_a_cut_off_sweep_is_an_error(own):
    sample = NuScenes(own).samples[0]
    sample.cameras["cam_back"].path.unlink()
    with pytest.raises(DataError, match="CAM_BACK"):
        frame_set(sample)
    sample.lidar.path.write_bytes(b"123")
    with pytest.raises(DataError, match="cut off"):
        lidar_points(sample.lidar)


def test_the_official_splits_are_those_of_the_development_kit():
    kit = pytest.importorskip("nuscenes.utils.splits").create_splits_scenes()
    for name, scenes in official_splits().items():
        assert scenes == set(kit[name])


def test_splits_are_disjoint_and_complete():
    splits = official_splits()
    assert [len(splits[n]) for n in ("train", "val", "test")] == [700, 150, 150]
    assert len(splits["train"] | splits["val"] | splits["test"]) == 1000
    assert len(splits["mini_train"]) == 8 and len(splits["mini_val"]) == 2
    assert splits["mini_train"] | splits["mini_val"] <= splits["train"] | splits["val"]


def test_a_split_is_the_official_one_unless_the_folder_has_its_own(own, root):
    assert [s.name for s in NuScenes(root).split("val")] == ["scene-0003"]
    assert [s.name for s in NuScenes(root).split("train")] == ["scene-0001"]
    with pytest.raises(DataError, match="no scene of the split 'test'"):
        NuScenes(root).split("test")
    with pytest.raises(DataError, match="no split is called 'valid'"):
        NuScenes(root).split("valid")
    (own / VERSION / "splits.json").write_text('{"val": ["scene-0001"]}')
    assert [s.name for s in NuScenes(own).split("val")] == ["scene-0001"]
    for wrong in ("[]", '{"val": 3}', '{"val": [3]}', "{"):
        (own / VERSION / "splits.json").write_text(wrong)
        with pytest.raises(DataError, match=r"splits\.json"):
            NuScenes(own)
