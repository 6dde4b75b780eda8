# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Info files: the same samples as the tables give, and no code out of a pickle."""

from __future__ import annotations

import os
import pickle
import pickletools
import subprocess
import sys
from collections import OrderedDict

import numpy as np
import pytest
from nuscenes_tables import VERSION, add_lidarseg, small_nuscenes

from alocc_ros.cli.main import main
from alocc_ros.datasets.boxes import read_boxes
from alocc_ros.datasets.infos import InfoFile, open_dataset, write_infos
from alocc_ros.datasets.lidarseg import CLASS_OF_CATEGORY, read_labels
from alocc_ros.datasets.nuscenes import NuScenes
from alocc_ros.datasets.plain_pickle import read_pickle
from alocc_ros.datasets.prepare import splits_to_prepare
from alocc_ros.errors import DataError


@pytest.fixture
def root(tmp_path):
    return small_nuscenes(tmp_path / "nuscenes")


@pytest.fixture
def dataset(root):
    return NuScenes(root)


def boxes_of(dataset):
    stamps = {sample.token: sample.stamp for sample in dataset.samples}
    return read_boxes(dataset.root / dataset.version, stamps)


def written(dataset, **options):
    path = dataset.root / "infos.pkl"
    write_infos(path, dataset.scenes, dataset.root, VERSION, boxes_of(dataset), **options)
    return path


def assert_same(one, other):
    """Two samples, to the last digit that a quaternion keeps."""
    names = ("token", "scene_name", "scene_token", "stamp")
    assert [getattr(one, n) for n in names] == [getattr(other, n) for n in names]
    assert list(one.cameras) == list(other.cameras)
    pairs = [(one.cameras[c], other.cameras[c]) for c in one.cameras]
    for a, b in [*pairs, (one.lidar, other.lidar)]:
        assert (a.token, a.stamp, a.path) == (b.token, b.stamp, b.path)
        np.testing.assert_allclose(a.map_T_base, b.map_T_base, rtol=0, atol=1e-12)
    for a, b in pairs:
        assert (a.calibration.width, a.calibration.height) == (64, 36)
        np.testing.assert_array_equal(a.calibration.intrinsics, b.calibration.intrinsics)
        mounts = a.calibration.base_T_camera, b.calibration.base_T_camera
        np.testing.assert_allclose(*mounts, rtol=0, atol=1e-12)
    np.testing.assert_allclose(one.lidar.base_T_lidar, other.lidar.base_T_lidar, atol=1e-12)


def test_an_info_file_gives_the_same_samples_as_the_tables(dataset):
    again = InfoFile(written(dataset))
    assert again.version == VERSION and again.root == dataset.root
    assert [s.name for s in again.scenes] == [s.name for s in dataset.scenes]
    for one, other in zip(again.samples, dataset.samples, strict=True):
        assert_same(one, other)


def test_a_data_set_is_a_folder_or_an_info_file(dataset):
    path = written(dataset)
    for one in (open_dataset(dataset.root), open_dataset(path)):
        assert [s.token for s in one.samples] == [s.token for s in dataset.samples]
        assert one.root == dataset.root


def test_public_files_without_sizes_and_scene_names_are_read_as_well(dataset):
    path = written(dataset)
    contents = read_pickle(path)
    for info in contents["infos"]:
        del info["scene_name"], info["lidar_token"]
        for camera in info["cams"].values():
            del camera["width"], camera["height"]
    path.write_bytes(pickle.dumps(contents))
    again = InfoFile(path)
    assert [s.name for s in again.scenes] == ["scene-0003", "scene-0001"]
    calibration = again.samples[0].cameras["cam_back"].calibration
    assert (calibration.width, calibration.height) == (64, 36)


def test_the_file_holds_what_the_authors_code_looks_up(dataset):
    contents = pickle.loads(written(dataset).read_bytes())
    assert contents["metadata"] == {"version": VERSION}
    info, sample = contents["infos"][1], dataset.samples[1]
    assert info["prev"] == dataset.samples[0].token and contents["infos"][0]["prev"] == ""
    assert info["occ_path"] == f"./data/nuscenes/gts/{sample.scene_name}/{sample.token}"
    assert info["timestamp"] == sample.stamp // 1000 and info["sweeps"] == []
    assert info["lidar_path"].startswith("./data/nuscenes/samples/LIDAR_TOP/")
    camera = info["cams"]["CAM_FRONT"]
    assert camera["data_path"].startswith("./data/nuscenes/samples/CAM_FRONT/")
    lidar_T_camera = np.eye(4)
    lidar_T_camera[:3, :3] = camera["sensor2lidar_rotation"]
    lidar_T_camera[:3, 3] = camera["sensor2lidar_translation"]
    image = sample.cameras["cam_front"]
    map_T_camera = image.map_T_base @ image.calibration.base_T_camera
    np.testing.assert_allclose(sample.lidar.map_T_lidar @ lidar_T_camera, map_T_camera, atol=1e-9)
    boxes, labels = contents["infos"][0]["ann_infos"]
    assert labels == [0] and len(boxes) == 1 and boxes[0].shape == (9,)
    assert contents["infos"][0]["gt_names"].tolist() == ["car", "animal"]
    assert contents["infos"][0]["valid_flag"].tolist() == [True, True]


def test_numpy_1_can_read_the_file_too(dataset):
    names = [
        argument
        for opcode, argument, _ in pickletools.genops(written(dataset).read_bytes())
        if opcode.name == "GLOBAL"
    ]
    assert set(names) == {
        "numpy.core.multiarray _reconstruct",
        "numpy ndarray",
        "numpy dtype",
        "_codecs encode",
    }


def test_boxes_are_those_of_the_development_kit(dataset):
    kit = pytest.importorskip("nuscenes.nuscenes").NuScenes(
        VERSION, str(dataset.root), verbose=False
    )
    contents = read_pickle(written(dataset))
    for info in contents["infos"]:
        _, boxes, _ = kit.get_sample_data(info["lidar_token"])
        assert len(boxes) == len(info["gt_boxes"]) > 0
        for place, box in enumerate(boxes):
            expected = [*box.center, *box.wlh[[1, 0, 2]], box.orientation.yaw_pitch_roll[0]]
            np.testing.assert_allclose(info["gt_boxes"][place], expected, atol=1e-9)
            velocity = kit.box_velocity(box.token)
            if not np.isnan(velocity).any():
                pose = kit.get("sample_data", info["lidar_token"])
                sample = next(s for s in dataset.samples if s.token == info["token"])
                lidar_T_map = np.linalg.inv(sample.lidar.map_T_lidar)
                velocity = lidar_T_map[:3, :3] @ velocity
                assert pose["timestamp"] == info["timestamp"]
            np.testing.assert_allclose(info["gt_velocity"][place], velocity[:2], atol=1e-6)


class Evil:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "call", [os.mkdir, eval, getattr, pickle.loads, np.load, OrderedDict.fromkeys, Evil]
)
def test_nothing_in_a_pickle_is_executed(tmp_path, protocol, call):
    arguments = {
        os.mkdir: (str(tmp_path / "done"),),
        eval: (f"__import__('os').mkdir({str(tmp_path / 'done')!r})",),
        np.load: (str(tmp_path / "nothing.npy"),),
    }.get(call, ("x", "y"))
    path = tmp_path / "infos.pkl"
    path.write_bytes(pickle.dumps({"infos": [Evil(call, *arguments)]}, protocol))
    with pytest.raises(DataError, match="nothing in it was run"):
        InfoFile(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_scalars_and_containers_of_any_protocol_are_read(tmp_path, protocol):
    value = {
        "array": np.arange(12.0).reshape(3, 4).T,
        "names": np.array(["car", "bus"]),
        "scalar": np.float32(1.5),
        "bytes": b"\xff\x00",
        "nested": [(1, 2.5, None, True), OrderedDict(a=1), {"s"}],
    }
    path = tmp_path / "some.pkl"
    value["nested"] = value["nested"][:2]
    path.write_bytes(pickle.dumps(value, protocol))
    again = read_pickle(path)
    np.testing.assert_array_equal(again["array"], value["array"])
    assert again["names"].tolist() == ["car", "bus"] and again["scalar"] == np.float32(1.5)
    assert again["bytes"] == b"\xff\x00" and again["nested"] == value["nested"]


def test_scalars_of_objects_and_other_codecs_are_refused(tmp_path):
    make = np.float64(0).__reduce__()[0]
    path = tmp_path / "some.pkl"
    path.write_bytes(pickle.dumps(Evil(make, np.dtype("O"), b"12345678")))
    with pytest.raises(DataError, match="array of objects"):
        read_pickle(path)
    path.write_bytes(b"c_codecs\nencode\n(Vabc\nVrot13\ntR.")
    with pytest.raises(DataError, match="codec rot13"):
        read_pickle(path)


class Raw:
    """Pickled as a call and a state."""

    def __init__(self, call, arguments, state=None):
        self.reduced = (call, arguments, state) if state is not None else (call, arguments)

    def __reduce__(self):
        return self.reduced


MAKE = np.zeros(1).__reduce__()[0]
PLAIN, EMPTY = np.dtype("f8"), (np.ndarray, (0,), b"b")
ADDRESSES = (1234567).to_bytes(8, "little") * 2


def hostile_pickles():
    """Each was accepted once, and read or wrote memory that is not its own, or filled it."""
    objects = np.dtype("O")
    flags = (3, "|", None, None, None, 8, 8, 63)  # of a dtype of objects
    forged = Raw(np.dtype, ("V8", False, True), flags)
    disguised = Raw(np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 0))
    return {
        "an ndarray over raw bytes": Raw(np.ndarray, ((2,), objects, ADDRESSES)),
        "an ndarray without contents": Raw(np.ndarray, ((1 << 40,), PLAIN)),
        "contents of objects": Raw(MAKE, EMPTY, (1, (2,), objects, 0, ADDRESSES)),
        "forged flags": Raw(MAKE, EMPTY, (1, (2,), forged, 0, ADDRESSES)),
        "hidden flags": Raw(MAKE, EMPTY, (1, (2,), disguised, 0, ADDRESSES)),
        "fewer bytes than the shape": Raw(MAKE, EMPTY, (1, (1 << 30,), PLAIN, 0, b"12345678")),
        "a size that lies": Raw(
            MAKE,
            EMPTY,
            (
                *(1, (2,), Raw(np.dtype, ("S8", False, True), (3, "|", None, None, None, 1, 1, 0))),
                *(0, b"12"),
            ),
        ),
        "a shape below zero": Raw(MAKE, EMPTY, (1, (-1, -2), PLAIN, 0, b"1234567812345678")),
        "records": Raw(MAKE, EMPTY, (1, (1,), np.dtype("f4,f4"), 0, b"12345678")),
        "a scalar that is too short": Raw(np.float64(0).__reduce__()[0], (PLAIN, b"1")),
        "a large array of nothing": Raw(MAKE, (np.ndarray, (1 << 40,), b"b")),
        "an array never filled": Raw(MAKE, EMPTY),
        "a state for a function": Raw(np.dtype, ("f8", False, True), (None, {"__class__": 1})),
        "many bytes": Raw(bytes, (1 << 40,)),
    }


@pytest.mark.parametrize("name", hostile_pickles())
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_no_array_is_made_of_lies(tmp_path, name, protocol):
    path = tmp_path / "infos.pkl"
    path.write_bytes(pickle.dumps({"infos": [hostile_pickles()[name]]}, protocol))
    # In a process of its own: what is accepted corrupts memory, and the test runner's is dear.
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from alocc_ros.datasets.plain_pickle import read_pickle\n"
        "from alocc_ros.errors import DataError\n"
        "resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))\n"
        "try: print(repr(read_pickle(Path(sys.argv[1])))[:100]); sys.exit(3)\n"
        "except DataError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)


def test_a_pickle_changes_nothing_of_the_program(tmp_path):
    path = tmp_path / "infos.pkl"
    # GLOBAL, a state of attributes, BUILD: without a guard it sets them on whatever was named.
    path.write_bytes(b"c_codecs\nencode\n(N(dS'__doc__'\nS'changed'\nstb.")
    with pytest.raises(DataError, match="an object with a state"):
        read_pickle(path)


def test_key_frames_without_boxes_can_be_read(dataset):
    path = dataset.root / "infos.pkl"
    write_infos(path, dataset.scenes, dataset.root, VERSION, {})
    assert read_pickle(path)["infos"][0]["gt_boxes"].shape == (0, 7)
    assert len(InfoFile(path).samples) == len(dataset.samples)


def test_what_a_pickle_shares_stays_shared(tmp_path):
    path, one = tmp_path / "some.pkl", np.arange(3.0)
    path.write_bytes(pickle.dumps([one, {"again": one}, (one, [one])]))
    first, second, third = read_pickle(path)
    assert second["again"] is first and third[0] is first and third[1][0] is first
    first[0] = 7  # it is the reader's own


def test_a_file_cut_off_or_changed_anywhere_is_an_error_or_read(dataset, monkeypatch):
    path = written(dataset)
    whole, random = path.read_bytes(), np.random.default_rng(3)
    for _ in range(150):
        spoilt = bytearray(whole[: random.integers(len(whole))])
        if random.random() < 0.7:
            spoilt = bytearray(whole)
            for place in random.integers(len(whole), size=5):
                spoilt[place] = random.integers(256)
        path.write_bytes(spoilt)
        try:
            InfoFile(path)
        except DataError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda i: i.pop("token"), "info 1 has no 'token'"),
        (lambda i: i["cams"].pop("CAM_BACK"), "info 1 has no 'CAM_BACK'"),
        (lambda i: i.update(timestamp=1.5), "no whole number"),
        (lambda i: i.update(token=7), "is no text"),
        (lambda i: i.update(lidar_path="x.bin"), "neither in samples/ nor in sweeps/"),
        (lambda i: i.update(ego2global_rotation=[0, 0, 0, 0]), "ego2global"),
        (lambda i: i.update(ego2global_translation=[0, 0]), "ego2global"),
        (lambda i: i["cams"]["CAM_BACK"].update(cam_intrinsic=[1]), "no 3x3"),
        (lambda i: i.update(cams=[]), "info 1: list indices"),
    ],
)
def test_infos_that_lack_something_are_an_error(dataset, spoil, message):
    path = written(dataset)
    contents = read_pickle(path)
    spoil(contents["infos"][1])
    path.write_bytes(pickle.dumps(contents))
    with pytest.raises(DataError, match=message):
        InfoFile(path)


@pytest.mark.parametrize("contents", [[], {}, {"infos": []}, {"infos": 3}, "text"])
def test_other_pickles_are_an_error(tmp_path, contents):
    path = tmp_path / "some.pkl"
    path.write_bytes(pickle.dumps(contents))
    with pytest.raises(DataError, match="no list of infos"):
        InfoFile(path)


def test_prepare_writes_a_file_for_each_split_and_goes_on_where_it_was(root, capsys):
    add_lidarseg(root)
    assert main(["prepare", "nuscenes", str(root)]) == 0
    told = capsys.readouterr().out
    assert "bevdetv2-nuscenes_infos_val.pkl: 1 scene, 3 key frames" in told
    assert "lidar_seg: 6 sweeps" in told and "no labels of any benchmark" in told
    files = sorted(p.name for p in root.glob("*.pkl"))
    assert files == ["bevdetv2-nuscenes_infos_train.pkl", "bevdetv2-nuscenes_infos_val.pkl"]
    dataset = InfoFile(root / files[1])
    assert [scene.name for scene in dataset.split("val")] == ["scene-0003"]
    lidar = dataset.samples[0].lidar
    expected = CLASS_OF_CATEGORY[np.arange(50) % 32]
    np.testing.assert_array_equal(read_labels(root, lidar), expected)
    first, *others = sorted((root / "lidar_seg").iterdir())
    first.unlink()
    before = [p.stat().st_mtime_ns for p in others]
    assert main(["prepare", "nuscenes", str(root)]) == 0
    assert first.is_file() and [p.stat().st_mtime_ns for p in others] == before


def test_prepare_tells_all_missing_files_before_it_writes_any(root, capsys):
    add_lidarseg(root)
    for file in (root / "lidarseg" / VERSION).iterdir():
        file.unlink()
    assert main(["prepare", "nuscenes", str(root)]) == 2
    assert "6 files of nuScenes-lidarseg are missing" in capsys.readouterr().err
    assert not (root / "lidar_seg").exists()


def test_prepare_writes_elsewhere_if_asked_to(root, tmp_path, capsys):
    out = tmp_path / "elsewhere"
    assert main(["prepare", "nuscenes", str(root), "--out", str(out), "--split", "val"]) == 0
    assert [p.name for p in out.iterdir()] == ["bevdetv2-nuscenes_infos_val.pkl"]
    assert "nuScenes-lidarseg is not there" in capsys.readouterr().out
    with pytest.raises(DataError, match="say where the data set is"):
        InfoFile(out / "bevdetv2-nuscenes_infos_val.pkl")
    assert len(InfoFile(out / "bevdetv2-nuscenes_infos_val.pkl", root).samples) == 3


def test_the_mini_version_gets_the_mini_splits_only(tmp_path):
    root = small_nuscenes(tmp_path, ("scene-0061", "scene-0103"))
    assert sorted(splits_to_prepare(NuScenes(root))) == ["train", "val"]
    (root / VERSION).rename(root / "v1.0-mini")
    assert sorted(splits_to_prepare(NuScenes(root))) == ["mini_train", "mini_val"]
