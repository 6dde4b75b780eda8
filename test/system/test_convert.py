# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc convert``: what is in the bag is what was in the tables, and everybody can read it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_model
import yaml
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from nuscenes_tables import real_nuscenes, small_nuscenes
from rosbags.highlevel import AnyReader

from alocc_ros.arrays import POINT_DTYPE
from alocc_ros.bags.frames import FrameSource
from alocc_ros.bags.reader import Bag
from alocc_ros.bags.results import recorded_grids
from alocc_ros.cli.main import main
from alocc_ros.datasets.convert import convert_scene
from alocc_ros.datasets.formats import FORMATS
from alocc_ros.datasets.nuscenes import CameraSample, NuScenes, OtherSample, frame_set
from alocc_ros.datasets.truth import truth_files
from alocc_ros.geometry import pose_matrix
from alocc_ros.stream.preset import load_preset
from alocc_ros.types import CAMERAS

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"
SAMPLE = DATA / "nuscenes_scene0061_sample"
NS = 1_000_000_000

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return small_nuscenes(tmp_path_factory.mktemp("nuscenes"))


@pytest.fixture
def real(tmp_path):
    if not SAMPLE.is_dir():
        pytest.skip("the real key frame is not here (../shared/data)")
    return real_nuscenes(tmp_path / "nuscenes", SAMPLE)


def convert(root, out, *options, scene="scene-0001"):
    assert main(["convert", "nuscenes", str(root), "--scene", scene, "-o", str(out), *options]) == 0
    return out


def messages_of(bag, *topics):
    """By topic: (stamp of the header or of the first transform, message)."""
    found = {topic: [] for topic in topics}
    with AnyReader([bag]) as reader:
        for connection, logged, data in reader.messages():
            if connection.topic not in found:
                continue
            message = reader.deserialize(data, connection.msgtype)
            head = message.transforms[0].header if "/tf" in connection.topic else message.header
            stamp = head.stamp.sec * NS + head.stamp.nanosec
            assert stamp == logged, "players go by the time of recording"
            found[connection.topic].append((stamp, message))
    return found


def poses_of(bag):
    poses = {}
    for stamp, message in messages_of(bag, "/tf")["/tf"]:
        for one in message.transforms:
            assert (one.header.frame_id, one.child_frame_id) == ("map", "base_link")
            assert stamp not in poses, "one pose an instant"
            poses[stamp] = matrix(one.transform)
    return poses


def matrix(transform):
    t, q = transform.translation, transform.rotation
    return pose_matrix((t.x, t.y, t.z), (q.x, q.y, q.z, q.w))


def check_everything(root, bag, scene):
    dataset = NuScenes(root)
    readings = dataset.readings([dataset.scene(scene)])[scene]
    poses = poses_of(bag)
    assert set(poses) == {reading.stamp for reading in readings}
    mounts = {
        t.child_frame_id: t for t in messages_of(bag, "/tf_static")["/tf_static"][0][1].transforms
    }
    assert set(mounts) == {*(c.upper() for c in CAMERAS), "LIDAR_TOP"}
    topics = [
        f"/{c.upper()}/{t}" for c in CAMERAS for t in ("image_rect_compressed", "camera_info")
    ]
    messages = messages_of(bag, "/LIDAR_TOP", *topics)
    for reading in readings:
        np.testing.assert_allclose(poses[reading.stamp], reading.map_T_base, rtol=0, atol=1e-9)
        if isinstance(reading, OtherSample):
            continue
        if isinstance(reading, CameraSample):
            frame, mount = reading.camera.upper(), reading.calibration.base_T_camera
            stamp, image = messages[f"/{frame}/image_rect_compressed"].pop(0)
            assert stamp == reading.stamp and image.header.frame_id == frame
            assert image.format == "jpeg" and image.data.tobytes() == reading.path.read_bytes()
            stamp, info = messages[f"/{frame}/camera_info"].pop(0)
            k = reading.calibration.intrinsics
            assert stamp == reading.stamp and info.header.frame_id == frame
            np.testing.assert_array_equal(info.k.reshape(3, 3), k)
            np.testing.assert_array_equal(info.p.reshape(3, 4), np.c_[k, np.zeros(3)])
            np.testing.assert_array_equal(info.r.reshape(3, 3), np.eye(3))
            assert info.distortion_model == "plumb_bob" and info.d.tolist() == [0.0] * 5
            size = reading.calibration.width, reading.calibration.height
            assert (info.width, info.height) == size
        else:
            frame, mount = "LIDAR_TOP", reading.base_T_lidar
            stamp, cloud = messages["/LIDAR_TOP"].pop(0)
            assert stamp == reading.stamp and cloud.header.frame_id == frame
            assert [f.name for f in cloud.fields] == ["x", "y", "z", "intensity", "ring"]
            assert cloud.data.tobytes() == reading.path.read_bytes()
        np.testing.assert_allclose(matrix(mounts[frame].transform), mount, rtol=0, atol=1e-9)
    assert not any(messages.values()), "nothing else is in the bag"


def test_the_bag_holds_what_the_tables_say(root, tmp_path, capsys):
    bag = convert(root, tmp_path / "bag.mcap")
    assert "30 images, 3 sweeps" in capsys.readouterr().out
    check_everything(root, bag, "scene-0001")
    assert list(tmp_path.iterdir()) == [bag]


def test_the_real_key_frame_comes_through(real, tmp_path):
    bag = convert(real, tmp_path / "bag.mcap", scene="scene-0061")
    check_everything(real, bag, "scene-0061")
    expected = {}
    theirs = messages_of(DATA / "nuscenes_scene0061_bag" / "nuscenes_real.mcap", "/tf")["/tf"]
    for stamp, message in theirs:
        expected[stamp] = matrix(message.transforms[0].transform)
    poses = poses_of(bag)
    assert len(poses) == 7
    for stamp, pose in poses.items():
        np.testing.assert_allclose(pose, expected[stamp], rtol=0, atol=1e-9)


def test_alocc_run_takes_the_bag_with_the_preset_nuscenes(real, tmp_path, capsys):
    bag = convert(real, tmp_path / "bag.mcap", scene="scene-0061")
    out = tmp_path / "out.mcap"
    options = ["--model", "tiny", "--random-weights", "--preset", "nuscenes"]
    with tiny_model.known():
        assert main(["run", str(bag), "-o", str(out), *options]) == 0
    assert "frames   1 (1 complete, 0 partial)" in capsys.readouterr().out


def test_the_pipeline_gets_the_same_frame_from_the_bag_as_from_the_tables(real, tmp_path):
    bag = convert(real, tmp_path / "bag.mcap", scene="scene-0061")
    expected = frame_set(NuScenes(real).samples[0])
    with Bag(bag) as opened:
        (frame,) = FrameSource(opened, load_preset("nuscenes"))
    assert frame.stamp == expected.stamp
    np.testing.assert_allclose(frame.map_T_base, expected.map_T_base, rtol=0, atol=1e-9)
    for camera in CAMERAS:
        assert bytes(frame.images[camera].data) == expected.images[camera].data
        ours, theirs = frame.calibration[camera], expected.calibration[camera]
        np.testing.assert_array_equal(ours.intrinsics, theirs.intrinsics)
        for a, b in (
            (ours.base_T_camera, theirs.base_T_camera),
            (frame.map_T_base_at[camera], expected.map_T_base_at[camera]),
        ):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-9)


def test_mcap_reads_the_bag_and_players_are_told_what_to_latch(root, tmp_path):
    bag = convert(root, tmp_path / "bag.mcap")
    with bag.open("rb") as stream:
        reader = make_reader(stream, decoder_factories=[DecoderFactory()])
        decoded = [m for _, _, _, m in reader.iter_decoded_messages()]
        assert len(decoded) == reader.get_summary().statistics.message_count
        profiles = {
            c.topic: c.metadata.get("offered_qos_profiles", "")
            for c in reader.get_summary().channels.values()
        }
    (latched,) = yaml.safe_load(profiles.pop("/tf_static"))
    assert (latched["reliability"], latched["durability"]) == (1, 1)  # transient local
    assert not any(profiles.values())


def test_key_frames_only_leaves_the_sweeps_out(root, tmp_path, capsys):
    bag = convert(root, tmp_path / "bag.mcap", "--keyframes-only")
    assert "18 images, 3 sweeps" in capsys.readouterr().out
    assert len(messages_of(bag, "/CAM_BACK/camera_info")["/CAM_BACK/camera_info"]) == 3


def label_all(root, benchmark):
    """Random labels for every key frame, as that benchmark stores them; the arrays [X, Y, Z]."""
    random, kind, made = np.random.default_rng(5), FORMATS[benchmark], []
    for sample in NuScenes(root).scene("scene-0001").samples:
        path = truth_files(root, sample, benchmark)[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        labels = np.full(kind.grid.shape, kind.classes.free, np.uint8)
        cells = random.integers(0, kind.grid.shape, (500, 3))
        labels[tuple(cells.T)] = random.integers(1, kind.classes.free, 500)
        made.append(labels)
        if benchmark == "occ3d":
            mask = np.ones(kind.grid.shape, np.uint8)
            np.savez_compressed(path, semantics=labels, mask_lidar=mask, mask_camera=mask)
        elif benchmark == "openocc":
            flow = np.full((*kind.grid.shape, 2), np.inf, np.float32)
            flow[np.isin(labels, kind.classes.flow)] = (3, -1)
            np.savez_compressed(path, semantics=labels, flow=flow)
        else:
            cells = np.argwhere(labels != kind.classes.free)
            order = [2, 1, 0] if benchmark == "openoccupancy" else [0, 1, 2]
            np.save(path, np.c_[cells[:, order], labels[tuple(cells.T)]].astype(np.int32))
    return made


@pytest.mark.parametrize("benchmark", FORMATS)
def test_labels_go_into_the_bag_and_come_out_again(tmp_path, benchmark):
    root = small_nuscenes(tmp_path / "nuscenes", ("scene-0001",))
    labels = label_all(root, benchmark)
    bag = convert(root, tmp_path / "bag.mcap", "--truth", benchmark)
    samples = NuScenes(root).samples
    with Bag(bag) as opened:
        (grids,) = recorded_grids(opened)
        assert grids.name == "/truth" and not grids.info.random_weights
        found = [(stamp, look()) for stamp, look in grids]
    assert len(found) == len(labels) == 3
    for (stamp, occupancy), expected, sample in zip(found, labels, samples, strict=True):
        np.testing.assert_array_equal(occupancy.labels, expected)
        in_lidar = FORMATS[benchmark].in_lidar_frame
        assert occupancy.frame_id == ("LIDAR_TOP" if in_lidar else "base_link")
        anchor = sample.lidar if in_lidar else sample.cameras["cam_front"]
        assert stamp == anchor.stamp
        np.testing.assert_allclose(occupancy.map_T_base, anchor.map_T_base, atol=1e-9)
        if benchmark == "openocc":
            moves = np.isin(expected, occupancy.classes.flow)
            assert moves.any() and (occupancy.flow[moves] == (3, -1)).all()
            still = ~moves & (expected != occupancy.classes.free)
            assert (occupancy.flow[still] == 0).all()
    clouds = messages_of(bag, "/truth/occupancy")["/truth/occupancy"]
    assert all(len(c.data) == c.width * POINT_DTYPE.itemsize for _, c in clouds)


def test_boxes_go_into_the_bag_as_lines_in_the_map(root, tmp_path):
    bag = convert(root, tmp_path / "bag.mcap", "--boxes")
    found = []
    with AnyReader([bag]) as reader:
        for connection, stamp, data in reader.messages():
            if connection.topic == "/truth/boxes":
                found.append((stamp, reader.deserialize(data, connection.msgtype).markers[-1]))
    samples = NuScenes(root).scene("scene-0001").samples
    assert [stamp for stamp, _ in found] == [s.lidar.stamp for s in samples]
    assert [len(m.points) for _, m in found] == [2 * 12 * 2, 12 * 2, 12 * 2]  # a car, and a dog
    rows = json.loads((root / "v1.0-trainval" / "sample_annotation.json").read_text())
    car = next(r for r in rows if r["sample_token"] == samples[1].token)
    points = np.array([[p.x, p.y, p.z] for p in found[1][1].points]).reshape(-1, 2, 3)
    np.testing.assert_allclose(points.mean((0, 1)), car["translation"], atol=1e-9)
    lengths = np.linalg.norm(points[:, 0] - points[:, 1], axis=1)
    np.testing.assert_allclose(np.sort(lengths), np.sort(car["size"] * 4), atol=1e-9)
    assert found[1][1].header.frame_id == "map"


def test_several_scenes_make_a_folder_and_go_on_where_they_were(root, tmp_path, capsys):
    out = tmp_path / "bags"
    convert(root, out, scene="scene-0001")
    first = (out / "scene-0001.mcap").stat().st_mtime_ns
    convert(root, out, scene="all")
    assert sorted(p.name for p in out.iterdir()) == ["scene-0001.mcap", "scene-0003.mcap"]
    assert (out / "scene-0001.mcap").stat().st_mtime_ns == first
    assert "is there already" in capsys.readouterr().out
    options = ["--scene", "all", "-o", str(out), "--keyframes-only"]
    assert main(["convert", "nuscenes", str(root), *options]) == 2
    assert "was made otherwise" in capsys.readouterr().err


def test_an_interrupted_conversion_leaves_nothing(root, tmp_path):
    dataset = NuScenes(root)

    def interrupt(what, done, total):
        if what == "scene-0001" and done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_scene(
            dataset, dataset.scene("scene-0001"), tmp_path / "bag.mcap", on_progress=interrupt
        )
    assert list(tmp_path.iterdir()) == []


def test_the_same_scene_gives_the_same_bytes(root, tmp_path):
    one, other = (convert(root, tmp_path / f"{n}.mcap") for n in "ab")
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scene", "scene-9999", "-o", "bag.mcap"], "scene-9999"),
        (["--scene", "scene-0001,scene-0003", "-o", "bag.mcap"], "need a folder"),
        (["--scene", "all", "-o", "bag.mcap"], "need a folder"),
        (["--scene", ",", "-o", "bag.mcap"], "at least one scene"),
        (["--scene", "scene-0001", "-o", "bag.mcap", "--truth", "openocc"], "3 files of openocc"),
        (["--scene", "scene-0001", "-o", "file/bag.mcap"], "cannot write"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(root, tmp_path, capsys, options, message):
    (tmp_path / "file").write_text("")
    options = [str(tmp_path / o) if o.endswith(".mcap") else o for o in options]
    assert main(["convert", "nuscenes", str(root), *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_missing_sweeps_are_told_with_what_to_do(tmp_path, capsys):
    root = small_nuscenes(tmp_path / "nuscenes", ("scene-0001",))
    for file in (root / "sweeps").rglob("*.jpg"):
        file.unlink()
    bag = tmp_path / "bag.mcap"
    command = ["convert", "nuscenes", str(root), "--scene", "scene-0001", "-o", str(bag)]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "12 files of scene-0001" in error and "--keyframes-only" in error
    assert main([*command, "--keyframes-only"]) == 0


def test_a_damaged_sweep_leaves_no_half_a_bag(tmp_path, capsys):
    root = small_nuscenes(tmp_path / "nuscenes", ("scene-0001",))
    last = sorted((root / "samples" / "LIDAR_TOP").iterdir())[-1]
    last.write_bytes(last.read_bytes()[:-1])
    out = tmp_path / "bags"
    command = ["convert", "nuscenes", str(root), "--scene", "scene-0001", "-o", str(out)]
    assert main(command) == 2
    assert last.name in capsys.readouterr().err
    assert list(out.iterdir()) == []


def test_the_bag_says_what_it_is(root, tmp_path):
    with convert(root, tmp_path / "bag.mcap").open("rb") as stream:
        (metadata,) = make_reader(stream).iter_metadata()
    assert metadata.metadata["source"] == "scene-0001 of nuScenes v1.0-trainval"
