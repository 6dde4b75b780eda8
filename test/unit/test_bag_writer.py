# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from rosbags.highlevel import AnyReader

from alocc_ros import arrays, messages
from alocc_ros.bags import cdr, sample
from alocc_ros.bags.frames import FrameSource
from alocc_ros.bags.outputs import Provenance, frame_outputs, save_npz
from alocc_ros.bags.reader import Bag
from alocc_ros.bags.writer import Recorder, whole_frames
from alocc_ros.errors import OutputError
from alocc_ros.grid import VoxelGrid
from alocc_ros.labels import OPENOCC
from alocc_ros.stream.preset import load_preset
from alocc_ros.types import CAMERAS, CameraImage, FrameSet, Occupancy

GRID = VoxelGrid(lower=(-4.0, -4.0, -1.0), shape=(20, 20, 8), resolution=0.4)
METADATA = {"model": "a model"}
CALIBRATION = sample.rig(64, 36)
PROVENANCE = Provenance(
    model="a model",
    weights="sha256:0123",
    camera_frames={c: c.upper() for c in CAMERAS},
    image_topics={"cam_front": "/CAM_FRONT/image_rect_compressed"},
)


def frame_set(number: int = 0, without: str = "") -> FrameSet:
    stamps = {
        c: sample.START + number * 500_000_000 + sample.PHASES_MS[c] * 1_000_000 for c in CAMERAS
    }
    picture = sample.jpeg(np.full((36, 64, 3), 80, np.uint8))
    images = {c: CameraImage(c, s, picture, "jpeg") for c, s in stamps.items() if c != without}
    return FrameSet(
        stamp=stamps["cam_front"],
        images=images,
        calibration=CALIBRATION,
        map_T_base=sample.ego_pose(stamps["cam_front"]),
        map_T_base_at={c: sample.ego_pose(stamps[c]) for c in images},
        missing={without: "never seen"} if without else {},
    )


def occupancy_of(frame: FrameSet, seed: int = 0, **changes: object) -> Occupancy:
    rng = np.random.default_rng(seed)
    labels = np.where(rng.random(GRID.shape) < 0.2, rng.integers(0, 16, GRID.shape), OPENOCC.free)
    flow = rng.normal(0, 2, (*GRID.shape, 2)).astype(np.float16)
    values = dict(
        labels=labels.astype(np.uint8),
        flow=flow,
        grid=GRID,
        classes=OPENOCC,
        stamp=frame.stamp,
        frame_id="base_link",
        map_T_base=frame.map_T_base,
    )
    return Occupancy(**(values | changes))


def write(path: Path, count: int = 3, **changes: object) -> Path:
    recorder = Recorder(path, METADATA)
    for number in range(count):
        put(recorder, number, **changes)
    recorder.finish()
    return path


def put(recorder: Recorder, number: int, **changes: object) -> None:
    frame = frame_set(number)
    occupancy = occupancy_of(frame, number, **changes)
    for output in frame_outputs(frame, occupancy, PROVENANCE, first=number == 0):
        recorder.write(*output)
    recorder.end_frame()


def by_topic(path: Path) -> dict[str, list[tuple[int, object]]]:
    """Messages by topic as (log time, message), read with the schemas in the file alone."""
    found: dict[str, list[tuple[int, object]]] = {}
    with AnyReader([path]) as reader:
        for connection, log_time, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            found.setdefault(connection.topic, []).append((log_time, message))
    return found


def stamp_of(message: object) -> int:
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def test_every_topic_is_there_with_stamp_frame_and_log_time(tmp_path):
    found = by_topic(write(tmp_path / "out.mcap"))
    assert {topic: len(entries) for topic, entries in found.items()} == {
        "/tf": 18,
        "/tf_static": 1,
        "/alocc/grid_info": 1,
        "/alocc/occupancy": 3,
        "/alocc/obstacles": 3,
        "/alocc/occupancy_grid": 3,
        "/alocc/flow_markers": 3,
        "/alocc/objects": 3,
        "/alocc/object_markers": 3,
        "/alocc/diagnostics": 3,
        "/CAM_FRONT/image_rect_compressed": 3,
        "/CAM_FRONT/camera_info": 3,
    }
    for topic in ("/alocc/occupancy", "/alocc/obstacles", "/alocc/occupancy_grid"):
        for number, (log_time, message) in enumerate(found[topic]):
            assert message.header.frame_id == "base_link"
            assert log_time == stamp_of(message) == frame_set(number).stamp


def test_the_cloud_holds_the_voxels(tmp_path):
    found = by_topic(write(tmp_path / "out.mcap", 1))
    ((_, cloud),) = found["/alocc/occupancy"]
    expected = arrays.occupied_points(occupancy_of(frame_set()))
    names = [f.name for f in cloud.fields]
    assert names == ["x", "y", "z", "rgb", "label", "vx", "vy"]
    assert (cloud.width, cloud.point_step, cloud.row_step) == (
        len(expected),
        28,
        28 * len(expected),
    )
    np.testing.assert_array_equal(cloud.data.view(arrays.POINT_DTYPE), expected)
    ((_, obstacles),) = found["/alocc/obstacles"]
    np.testing.assert_array_equal(
        obstacles.data.view("<f4").reshape(-1, 3),
        arrays.obstacle_points(occupancy_of(frame_set())),
    )
    ((_, grid),) = found["/alocc/occupancy_grid"]
    assert (grid.info.width, grid.info.height, grid.info.origin.position.x) == (20, 20, -4.0)
    expected = arrays.occupancy_grid(occupancy_of(frame_set()))
    expected[9:11, 10:14] = arrays.CLEAR  # the rectangle around the cameras
    np.testing.assert_array_equal(grid.data.reshape(20, 20), expected)


def test_mcap_ros2_support_reads_the_same(tmp_path):
    path = write(tmp_path / "out.mcap", 1)
    with path.open("rb") as stream:
        reader = make_reader(stream, validate_crcs=True, decoder_factories=[DecoderFactory()])
        assert reader.get_header().profile == "ros2"
        (metadata,) = reader.iter_metadata()
        assert (metadata.name, metadata.metadata) == ("alocc", METADATA)
        decoded = {c.topic: m for _, c, _, m in reader.iter_decoded_messages()}
    expected = arrays.occupied_points(occupancy_of(frame_set()))
    assert bytes(decoded["/alocc/occupancy"].data) == expected.tobytes()
    (lines,) = decoded["/alocc/flow_markers"].markers
    assert (lines.type, lines.ns, lines.id, len(lines.points) % 2) == (5, "flow", 0, 0)
    assert len(lines.points) == len(lines.colors) > 0


def test_our_own_reader_makes_frames_of_the_copied_images(tmp_path):
    path = tmp_path / "out.mcap"
    recorder = Recorder(path, METADATA)
    topics = {c: f"/{c.upper()}/image_rect_compressed" for c in CAMERAS}
    provenance = replace(PROVENANCE, image_topics=topics)
    frame = frame_set()
    for output in frame_outputs(frame, occupancy_of(frame), provenance, first=True):
        recorder.write(*output)
    recorder.end_frame()
    recorder.finish()
    with Bag(path) as bag:
        (again,) = FrameSource(bag, load_preset("nuscenes"))
    assert again.stamp == frame.stamp
    for camera, image in frame.images.items():
        assert again.images[camera].stamp == image.stamp
        assert bytes(again.images[camera].data) == image.data
        np.testing.assert_allclose(
            again.map_T_base_at[camera], frame.map_T_base_at[camera], atol=1e-9
        )
        np.testing.assert_allclose(
            again.calibration[camera].base_T_camera,
            frame.calibration[camera].base_T_camera,
            atol=1e-9,
        )
        np.testing.assert_array_equal(
            again.calibration[camera].intrinsics, frame.calibration[camera].intrinsics
        )


def test_nothing_moving_deletes_the_arrows_and_a_reset_deletes_all(tmp_path):
    still = write(tmp_path / "still.mcap", 1, flow=np.zeros((*GRID.shape, 2), np.float16))
    ((_, array),) = by_topic(still)["/alocc/flow_markers"]
    assert [m.action for m in array.markers] == [2]
    reset = write(tmp_path / "reset.mcap", 1, reset="pose jumped")
    ((_, array),) = by_topic(reset)["/alocc/flow_markers"]
    assert [m.action for m in array.markers] == [3, 0]


def test_diagnostics_tell_random_weights_missing_cameras_and_input_stamps(tmp_path):
    frame = frame_set(without="cam_back")
    occupancy = occupancy_of(frame, degraded="cam_back: never seen", random_weights=True)
    messages_of = {
        topic: cdr.instance(message)
        for topic, _, message in frame_outputs(frame, occupancy, PROVENANCE, first=True)
    }
    (status,) = messages_of["/alocc/diagnostics"].status
    values = {v.key: v.value for v in status.values}
    assert status.level == messages.DIAGNOSTIC_WARN
    assert status.message.startswith("RANDOM WEIGHTS")
    assert "cam_back: never seen" in status.message
    assert values["missing/cam_back"] == "never seen"
    assert values["stamp/cam_front"] == "1600000000.008000000"
    assert values["spread_ms"] == "43.000"


def test_grid_info_is_read_with_the_schema_in_the_recording_and_says_what_cells_mean(tmp_path):
    ((log_time, info),) = by_topic(write(tmp_path / "out.mcap", 2))["/alocc/grid_info"]
    assert log_time == stamp_of(info) == frame_set().stamp
    assert (info.__msgtype__, info.header.frame_id) == ("alocc_ros/msg/GridInfo", "base_link")
    lower = info.geometry.origin
    assert (lower.x, lower.y, lower.z) == GRID.lower and info.geometry.resolution == GRID.resolution
    assert (info.geometry.size_x, info.geometry.size_y, info.geometry.size_z) == GRID.shape
    assert [c.name for c in info.classes] == list(OPENOCC.names)
    for label, one in enumerate(info.classes):
        assert one.is_free == (label == OPENOCC.free) == (one.colour.a == 0.0)
        assert (one.is_ground, one.is_obstacle) == (
            OPENOCC.is_ground[label],
            OPENOCC.is_obstacle[label],
        )
        assert one.can_move == (label in OPENOCC.flow)
    assert (info.class_list, info.model) == ("openocc", "a model")
    assert info.weights_sha256 == "0123" and not info.random_weights and info.has_flow


def test_weights_that_were_made_up_have_no_digest():
    frame = frame_set()
    provenance = replace(PROVENANCE, weights="RANDOM WEIGHTS (seed 0)")
    occupancy = occupancy_of(frame, random_weights=True, flow=None)
    found = {o[0]: o[2] for o in frame_outputs(frame, occupancy, provenance, first=True)}
    info = found["/alocc/grid_info"]
    assert (info["weights_sha256"], info["random_weights"]) == ("", True)
    assert not info["has_flow"]


def test_the_same_input_gives_the_same_bytes(tmp_path):
    a = write(tmp_path / "a.mcap").read_bytes()
    assert a == write(tmp_path / "b.mcap").read_bytes()


@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.floats(0, 1))
def test_a_recording_cut_off_anywhere_resumes_to_the_same_bytes(tmp_path, cut):
    path = tmp_path / "out.mcap.partial"
    whole = write(path).read_bytes()
    path.write_bytes(whole[: round(cut * len(whole))])
    recorder = Recorder.resume(path, METADATA)
    assert recorder.path == path
    for number in range(recorder.frames, 3):
        put(recorder, number)
    recorder.publish(tmp_path / "out.mcap")
    assert (tmp_path / "out.mcap").read_bytes() == whole
    assert [p.name for p in tmp_path.iterdir()] == ["out.mcap"]


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.floats(0, 1), st.integers(1, 255))
def test_damage_costs_frames_but_never_yields_a_wrong_one(tmp_path, place, mask):
    path = write(tmp_path / "out.mcap")
    true = list(whole_frames(path))
    damaged = bytearray(path.read_bytes())
    damaged[int(place * (len(damaged) - 1))] ^= mask
    path.write_bytes(bytes(damaged))
    for got, expected in zip(whole_frames(path), true, strict=False):
        assert [entry[3] for entry in got] == [entry[3] for entry in expected]


def test_half_a_frame_is_left_out_when_a_run_stops_in_the_middle_of_it(tmp_path):
    path = tmp_path / "out.mcap.partial"
    recorder = Recorder(path, METADATA)
    put(recorder, 0)
    recorder.write("/alocc/x", 1, messages.Message("std_msgs/msg/String", {"data": "half"}))
    recorder.abandon()
    assert len(list(whole_frames(path))) == 1
    recorder = Recorder.resume(path, METADATA)
    recorder.abandon()
    assert "/alocc/x" not in by_topic(path.rename(tmp_path / "p.mcap"))


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(OutputError, match=r"cannot write .*nowhere/out.mcap: No such file"):
        Recorder(tmp_path / "nowhere" / "out.mcap", METADATA)


def test_an_npz_holds_the_frame(tmp_path):
    occupancy = occupancy_of(frame_set(), degraded="cam_back: never seen")
    path = tmp_path / "frame.npz"
    save_npz(path, occupancy, PROVENANCE.weights)
    assert [p.name for p in tmp_path.iterdir()] == ["frame.npz"]
    with np.load(path, allow_pickle=False) as npz:
        np.testing.assert_array_equal(npz["labels"], occupancy.labels)
        np.testing.assert_array_equal(npz["flow"], occupancy.flow)
        assert npz["stamp"] == occupancy.stamp
        assert npz["class_names"].tolist() == list(OPENOCC.names)
        assert npz["degraded"] == "cam_back: never seen"
        assert npz["weights"] == "sha256:0123"
        np.testing.assert_array_equal(npz["map_T_base"], occupancy.map_T_base)


def test_a_grid_in_the_lidar_frame_comes_with_the_way_to_the_vehicle():
    frame = frame_set()
    base_T_lidar = np.eye(4)
    base_T_lidar[:3, 3] = (0.9, 0.0, 1.8)
    provenance = replace(PROVENANCE, base_T_grid=base_T_lidar)
    occupancy = occupancy_of(frame, frame_id="lidar_top")
    found = {
        topic: cdr.instance(message)
        for topic, _, message in frame_outputs(frame, occupancy, provenance, first=True)
    }
    assert found["/alocc/occupancy"].header.frame_id == "lidar_top"
    lidar = found["/tf_static"].transforms[-1]
    assert (lidar.header.frame_id, lidar.child_frame_id) == ("base_link", "lidar_top")
    assert lidar.transform.translation.z == 1.8


def test_a_raw_image_is_copied_as_a_raw_image():
    pixels = np.arange(6 * 4 * 3, dtype=np.uint8)
    made = messages.image(CameraImage("cam_front", 5, pixels.data, "rgb8", 4, 6, 18), "f")
    assert made.type == "sensor_msgs/msg/Image"
    message = cdr.instance(made)
    assert (message.height, message.width, message.step, message.encoding) == (4, 6, 18, "rgb8")
    assert message.data.tobytes() == pixels.tobytes()
