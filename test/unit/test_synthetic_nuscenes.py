# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc synth``: the folder that it writes is one that every reader of nuScenes takes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from alocc_ros import records
from alocc_ros.bags.frames import FrameSource
from alocc_ros.bags.reader import Bag
from alocc_ros.cli.main import main
from alocc_ros.datasets.lidarseg import read_labels
from alocc_ros.datasets.nuscenes import LidarSample, NuScenes, frame_set, lidar_points
from alocc_ros.datasets.truth import missing_files, missing_images, read_truth
from alocc_ros.errors import DataError
from alocc_ros.geometry import project
from alocc_ros.labels import OCC3D
from alocc_ros.stream.preset import load_preset
from alocc_ros.synthetic import rig
from alocc_ros.synthetic.frames import ANCHOR, render, truth_of
from alocc_ros.synthetic.lidar import LIDARSEG_CLASSES
from alocc_ros.synthetic.nuscenes.spec import DatasetSpec, rig_change, scene_of, time_in_scene
from alocc_ros.synthetic.nuscenes.vocabulary import CATEGORIES
from alocc_ros.training.source import NuScenesSource
from alocc_ros.types import CAMERAS

# Two scenes with few parts: they are written in half of the time.
SPEC = DatasetSpec(seed=14, scenes=2, frames=2, size=(36, 64), split=(("train", 1), ("val", 1)))
COMMAND = ["--scenes", "2", "--seed", "14", "--frames", "2", "--size", "36x64"]
SPLIT = ["--split", "train=1,val=1", "--jobs", "1"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    out = tmp_path_factory.mktemp("synthetic")
    assert main(["synth", str(out / "both"), "--format", "both", *COMMAND, *SPLIT]) == 0
    return out / "both" / "nuscenes"


@pytest.fixture(scope="module")
def dataset(root):
    return NuScenes(root)


def digest(root: Path) -> dict[str, str]:
    files = (p for p in sorted(root.rglob("*")) if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_our_reader_finds_all_of_it(dataset):
    assert [s.name for s in dataset.scenes] == ["scene-0001", "scene-0002"]
    assert [len(s.samples) for s in dataset.scenes] == [2, 2]
    assert [s.name for s in dataset.split("train")] == ["scene-0001"]
    assert [s.name for s in dataset.split("val")] == ["scene-0002"]
    assert missing_images(dataset.samples) == []
    for benchmark in ("occ3d", "openocc", "surroundocc"):
        ray_mask = benchmark == "openocc"
        assert missing_files(dataset.root, dataset.samples, benchmark, ray_mask=ray_mask) == []


def test_stamps_have_the_rates_and_phases_of_nuscenes(dataset):
    for scene in dataset.scenes:
        first, second = scene.samples
        assert second.stamp - first.stamp == 500_000_000
        front_left = first.cameras["cam_front_left"].stamp
        for camera in CAMERAS:
            assert first.cameras[camera].stamp - front_left == rig.PHASES[camera]
        assert first.stamp == first.lidar.stamp == front_left + rig.LIDAR_PHASE
        assert time_in_scene(int(scene.name[-4:]) - 1, second.stamp) == pytest.approx(0.5431)
    readings = dataset.readings(dataset.scenes)["scene-0001"]
    lidar = [r.stamp for r in readings if isinstance(r, LidarSample)]
    images = [r.stamp for r in readings if not isinstance(r, LidarSample) and r.camera == ANCHOR]
    assert np.diff(lidar) == pytest.approx(50e6, rel=0.01)  # 20 Hz
    assert np.diff(images) == pytest.approx(1e9 / 12, rel=0.01)


def test_files_hold_what_the_scene_shows_and_what_is_true(dataset):
    scene = scene_of(SPEC, 1)
    sample = dataset.scene("scene-0002").samples[1]
    frame = render(scene, 0.5, SPEC.size)
    ready = frame_set(sample)
    for camera in CAMERAS:
        picture = np.asarray(Image.open(io.BytesIO(bytes(ready.images[camera].data))))
        pixels = frame.views[camera].image.numpy()
        assert picture.shape == (36, 64, 3)
        assert np.abs(picture.astype(int) - pixels).mean() < 8  # JPEG
        assert np.allclose(
            ready.calibration[camera].intrinsics, frame.calibration[camera].intrinsics
        )
    for benchmark in ("occ3d", "openocc", "surroundocc"):
        masks = dict.fromkeys(("ray_mask", "camera_mask"), benchmark == "openocc")
        read = read_truth(dataset.root, sample, benchmark, **masks)
        made = truth_of(scene, frame.lidar_time, benchmark)
        known = made.labels != 0 if benchmark == "surroundocc" else made.labels < 255
        assert np.array_equal(read.labels[known], made.labels[known])
        for name in ("mask_camera", "mask_lidar", "ray_mask", "flow"):
            one, other = getattr(read, name), getattr(made, name)
            assert (one is None) == (other is None), name
            assert one is None or np.array_equal(one, other), name


def test_poses_and_points_place_the_lidar_in_the_images(dataset):
    scene = scene_of(SPEC, 0)
    sample = dataset.scene("scene-0001").samples[0]
    points, labels = lidar_points(sample.lidar), read_labels(dataset.root, sample.lidar)
    assert len(points) == len(labels) > 10_000
    frame = render(scene, 0.0, SPEC.size)
    in_map = points[:, :3] @ sample.lidar.map_T_lidar[:3, :3].T + sample.lidar.map_T_lidar[:3, 3]
    agree = count = 0
    for camera, one in sample.cameras.items():
        camera_T_map = np.linalg.inv(one.map_T_base @ one.calibration.base_T_camera)
        pixels, depth = project(in_map, camera_T_map, one.calibration.intrinsics)
        u, v = np.round(pixels).astype(int).T
        ok = (depth > 1) & (depth < 30) & (u >= 0) & (u < 64) & (v >= 0) & (v < 36)
        view = frame.views[camera]
        near = np.abs(view.depth.numpy()[v[ok], u[ok]] - depth[ok]) < 0.1 * depth[ok]
        count += near.sum()
        agree += (view.labels.numpy()[v[ok], u[ok]] == labels[ok])[near].sum()
    assert count > 3000 and agree / count > 0.9


def test_scenes_are_seen_from_other_vehicles(root, tmp_path):
    out = tmp_path / "varied"
    options = ["--seed", "14", "--frames", "2", "--size", "36x64", "--no-sweeps", "--jobs", "1"]
    assert main(["synth", str(out), "--scenes", "2", "--vary-rig", *options]) == 0
    varied, usual = NuScenes(out), NuScenes(root)
    spec = DatasetSpec(14, 2, 2, (36, 64), False, vary_rig=True)
    seen = []
    for number in (0, 1):
        cameras = rig.cameras(36, 64, rig_change(spec, number))
        sample, same = (d.scenes[number].samples[0] for d in (varied, usual))
        for camera, one in sample.cameras.items():
            assert np.allclose(one.calibration.intrinsics, cameras[camera].intrinsics)
            assert np.allclose(one.calibration.base_T_camera, cameras[camera].base_T_camera)
        # The street is the same, but other voxels of it are seen.
        a, b = (
            read_truth(d.root, s, "occ3d", camera_mask=True)
            for d, s in ((varied, sample), (usual, same))
        )
        assert np.array_equal(a.labels, b.labels)
        assert 0.01 < (a.mask_camera != b.mask_camera).mean() < 0.3
        front = frame_set(sample).images["cam_front"]
        picture = np.asarray(Image.open(io.BytesIO(bytes(front.data))))
        drawn = render(scene_of(spec, number), 0.0, cameras=cameras).views["cam_front"].image
        assert np.abs(picture.astype(int) - drawn.numpy()).mean() < 8  # JPEG
        seen.append(cameras["cam_front"].intrinsics[0, 0])
    assert seen[0] != seen[1]
    with pytest.raises(SystemExit):
        main(["synth", str(out), "--scenes", "2", "--vary-rig=no", *options])
    assert main(["synth", str(out), "--scenes", "2", *options]) == 2  # another recipe


def test_tables_name_only_files_that_are_there(root):
    tables = {p.stem: json.loads(p.read_text()) for p in (root / "v1.0-trainval").glob("*.json")}
    wanted = {"category", "attribute", "visibility", "instance", "sensor", "calibrated_sensor"}
    wanted |= {"ego_pose", "log", "scene", "sample", "sample_data", "sample_annotation", "map"}
    assert wanted | {"lidarseg", "splits"} == set(tables)
    for table in ("sample_data", "lidarseg", "map"):
        assert all((root / row["filename"]).is_file() for row in tables[table])
    tokens = {t: {row["token"] for row in tables[t]} for t in wanted}
    for table, key, other in (
        ("sample", "scene_token", "scene"),
        ("sample_data", "sample_token", "sample"),
        ("sample_data", "ego_pose_token", "ego_pose"),
        ("sample_annotation", "instance_token", "instance"),
        ("sample_annotation", "visibility_token", "visibility"),
        ("instance", "category_token", "category"),
        ("calibrated_sensor", "sensor_token", "sensor"),
    ):
        assert {row[key] for row in tables[table]} <= tokens[other], (table, key)
    for table in ("sample", "sample_data", "sample_annotation"):
        for key in ("prev", "next"):
            assert {row[key] for row in tables[table]} <= tokens[table] | {""}
    assert [row["name"] for row in sorted(tables["category"], key=lambda r: r["index"])] == list(
        CATEGORIES
    )
    assert sum(len(row["attribute_tokens"]) for row in tables["sample_annotation"]) > 5


def test_the_development_kit_opens_the_tables_and_draws_a_sample(root):
    kit = pytest.importorskip("nuscenes.nuscenes")
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    opened = kit.NuScenes("v1.0-trainval", str(root), verbose=False)
    sample = opened.sample[0]
    assert set(sample["data"]) == {*(c.upper() for c in CAMERAS), "LIDAR_TOP"}
    assert len(sample["anns"]) > 5
    # Its map underlay does not run with numpy 2.
    opened.render_sample_data(sample["data"]["LIDAR_TOP"], underlay_map=False, verbose=False)
    opened.render_sample_data(sample["data"]["CAM_FRONT"], verbose=False)
    opened.render_pointcloud_in_image(
        sample["token"], show_lidarseg=True, render_intensity=False, verbose=False
    )
    pyplot.close("all")
    speeds = [np.linalg.norm(opened.box_velocity(token)) for token in sample["anns"]]
    assert np.nanmax(speeds) < 40
    inside = total = 0
    for box in opened.get_sample_data(sample["data"]["LIDAR_TOP"])[1]:
        annotation = opened.get("sample_annotation", box.token)
        points = np.fromfile(opened.get_sample_data_path(sample["data"]["LIDAR_TOP"]), np.float32)
        from nuscenes.utils.geometry_utils import points_in_box

        total += annotation["num_lidar_pts"]
        inside += points_in_box(box, points.reshape(-1, 5)[:, :3].T, wlh_factor=1.1).sum()
    assert inside == pytest.approx(total, rel=0.25)


def test_bags_have_the_names_of_the_preset(root):
    path = root.parent / "bags" / "scene-0001.mcap"
    with Bag(path) as bag:
        frames = list(FrameSource(bag, load_preset("nuscenes")))
    assert len(frames) >= 6  # 12 Hz for half a second
    assert all(not frame.missing for frame in frames)


@pytest.mark.slow
def test_more_processes_write_the_same_bytes(root, tmp_path):
    assert (
        main(["synth", str(tmp_path / "two"), *COMMAND, "--split", "train=1,val=1", "--jobs", "2"])
        == 0
    )
    assert digest(tmp_path / "two") == digest(root)


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_to_the_same_files(root, tmp_path):
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "alocc_ros.cli.main", "synth", str(out), *COMMAND, *SPLIT]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(out.rglob("sweeps/*/*.jpg")) and time.monotonic() < deadline:
        assert child.poll() is None
        time.sleep(0.02)
    child.kill()
    child.wait()
    assert not (out / "v1.0-trainval").exists()
    assert main(["synth", str(out), *COMMAND, *SPLIT]) == 0
    ours = {n: d for n, d in digest(out).items() if not n.endswith(".partial")}
    assert ours == digest(root)


@pytest.mark.slow
def test_the_processes_of_a_run_that_was_killed_end(tmp_path):
    out = tmp_path / "orphans"
    command = [sys.executable, "-m", "alocc_ros.cli.main", "synth", str(out), "--scenes", "9"]
    child = subprocess.Popen(
        [*command, "--size", "36x64", "--jobs", "2"], stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not list(out.rglob("samples/*/*.jpg")) and time.monotonic() < deadline:
        assert child.poll() is None
        time.sleep(0.05)
    processes = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
    assert len(processes) >= 2
    child.kill()
    child.wait()
    while any(Path(f"/proc/{p}").exists() for p in processes) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{p}").exists() for p in processes)


@pytest.mark.slow
def test_ctrl_c_ends_with_130(tmp_path):
    out = tmp_path / "interrupted"
    command = [sys.executable, "-m", "alocc_ros.cli.main", "synth", str(out), "--scenes", "9"]
    command += ["--size", "36x64", "--jobs", "2"]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(out.rglob("samples/*/*.jpg")) and time.monotonic() < deadline:
        assert child.poll() is None
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGINT)
    error = child.communicate(timeout=120)[1]
    assert child.returncode == 130
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--split", "train=1"], "--scenes says 2"),
        (["--device", "cuda:9"], "no such GPU"),
        (["--seed", "6"], "another seed"),
        (["--size", "72x128"], "another size"),
    ],
)
def test_what_does_not_fit_is_told_on_one_line(root, words, message, capsys):
    code = main(["synth", str(root), *COMMAND, *SPLIT, *words])
    assert code == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error


def test_a_folder_of_something_else_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("important")
    assert main(["synth", str(tmp_path)]) == 2
    assert "not empty" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_all_classes_have_a_number_in_lidarseg():
    assert set(LIDARSEG_CLASSES) == set(OCC3D.names)
    assert CATEGORIES[LIDARSEG_CLASSES["car"]] == "vehicle.car"
    assert CATEGORIES[LIDARSEG_CLASSES["vegetation"]] == "static.vegetation"


# --- streams and drives ------------------------------------------------------------------------


def tool() -> ModuleType:
    """tools/memory_over_time.py."""
    path = Path(__file__).parents[2] / "tools" / "memory_over_time.py"
    module = module_from_spec(spec := spec_from_file_location("memory_over_time", path))
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def test_the_rate_of_the_cameras_has_the_key_frames_in_it(dataset):
    scene = dataset.split("val")[0]
    turns = tool().cycles(dataset.readings([scene])[scene.name], CAMERAS)
    assert len(turns) == 7  # 12 Hz
    first, last = (frame_set(s) for s in scene.samples)
    for ours, key in ((turns[0], first), (turns[-1], last)):
        assert ours.stamp == key.stamp
        assert {c: i.data for c, i in ours.images.items()} == {
            c: i.data for c, i in key.images.items()
        }
        assert np.array_equal(ours.map_T_base, key.map_T_base)
    assert np.diff([t.stamp for t in turns]).max() < 90e6


def test_windows_of_a_drive_tell_policies_apart(root, tmp_path):
    found = tmp_path / "found.json"
    assert [*tool().there_and_back("abc", 6)] == list("abcbab")
    arguments = ["hours", "--model", "alocc_tiny_gf", "--random-weights", "--data", str(root)]
    options = ["--turns", "4", "--window", "2", "-o", str(found)]
    assert tool().main([*arguments, *options]) == 0
    runs = json.loads(found.read_text())
    endless, stated, anew = (runs[n] for n in ("endless", "stated", "anew"))
    assert endless["all"] == stated["all"] and len(stated["windows"]) == 2
    assert [w["changed"] for w in stated["windows"]] == [0, 0]
    assert [w["changed"] > 0 for w in anew["windows"]] == [False, True]
    assert set(stated["windows"][0]["largest"]) == {"history", "geometry", "motion", "scene"}


# --- training -----------------------------------------------------------------------------------


def test_a_key_frame_that_was_drawn_anew_has_another_key(root, tmp_path):
    copy = shutil.copytree(root, tmp_path / root.name)
    one, two = (NuScenesSource(r, "val", records.find("alocc_tiny")) for r in (root, copy))
    keys = [one.key(i) for i in range(2)]
    assert keys == [two.key(i) for i in range(2)] and keys[0] != keys[1]
    image = sorted(two._samples[0].cameras.items())[3][1].path
    image.write_bytes(image.read_bytes() + b" ")
    assert two.key(0) != keys[0] and two.key(1) == keys[1]
    image.unlink()
    with pytest.raises(DataError, match=image.name):
        two.key(0)
