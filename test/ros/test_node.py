# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The node over real DDS: it, the player and the listener are processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy", reason="ROS is not installed (make setup)")
pytest.importorskip("alocc_ros.msg", reason="alocc_ros/msg is not built (make setup)")

import tiny_node  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState  # noqa: E402
from live import ENDS, Stage, ns  # noqa: E402
from rcl_interfaces.srv import SetParameters  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rosbags.highlevel import AnyReader  # noqa: E402
from std_msgs.msg import String  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402

from alocc_ros.arrays import POINT_DTYPE  # noqa: E402
from alocc_ros.bags.reader import Bag  # noqa: E402
from alocc_ros.bags.sample import write_sample  # noqa: E402
from alocc_ros.cli.main import main  # noqa: E402
from alocc_ros.ros import transport  # noqa: E402

PLAY = "alocc_ros.cli.main"
pytestmark = pytest.mark.system
FRAMES = 12


@pytest.fixture(autouse=True)
def profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    way = transport.decide()
    if way.ours:
        monkeypatch.setenv(transport.profile_variable(), str(way.profile))


@pytest.fixture
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    made = Stage(*getattr(request, "param", ("voxels", "status")))
    yield made
    made.close()


def subscribed_to(*topics: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("stage", [topics], indirect=True)


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds at 4 Hz: every second frame is a key frame."""
    path = tmp_path_factory.mktemp("bag") / "sample.mcap"
    write_sample(path, seconds=3.0, rate=FRAMES / 3, width=176, height=99)
    return path


@pytest.fixture(scope="module")
def offline(bag: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """What ``alocc run`` makes of the bag: NPZs by stamp, messages by topic and stamp."""
    folder = tmp_path_factory.mktemp("offline")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the node has; with more, sums are added up in another order
    with tiny_node.known():
        command = ["run", str(bag), "-o", str(folder / "out.mcap"), "--npz", str(folder / "npz")]
        assert main([*command, "--model", tiny_node.NAME, "--random-weights"]) == 0
    torch.set_num_threads(threads)
    frames = {int(p.stem.split("_")[1]): dict(np.load(p)) for p in (folder / "npz").glob("*")}
    outputs: dict[tuple[str, int], object] = {}
    with AnyReader([folder / "out.mcap"]) as reader:
        for connection, stamp, data in reader.messages():
            if connection.topic.startswith("/alocc/"):
                name = connection.topic.removeprefix("/alocc/")
                outputs[name, stamp] = reader.deserialize(data, connection.msgtype)
    return SimpleNamespace(frames=frames, messages=outputs)


SIM_TIME = ("-p", "use_sim_time:=true")


@subscribed_to(
    *("voxels", "status", "occupancy", "obstacles", "occupancy_grid", "flow_markers"),
    *("grid_info", "overlay/cam_front"),
)
def test_a_played_bag_gives_what_alocc_run_gives_voxel_for_voxel(stage, bag, offline):
    stage.start_node(*SIM_TIME)
    stage.play(bag, "--rate", "0.5")  # no set may be superseded, however busy the machine is
    stage.until(lambda: len(stage.messages["voxels"]) == FRAMES, "outputs are missing")

    assert stage.stamps("voxels") == sorted(offline.frames)
    for message in stage.messages["voxels"]:
        expected = offline.frames[ns(message.header.stamp)]
        shape = tiny_node.RECORD.grid.shape
        labels = np.frombuffer(message.labels, np.uint8).reshape(shape)
        np.testing.assert_array_equal(labels, expected["labels"])
        can_move = np.isin(labels, tiny_node.RECORD.classes.flow)
        np.testing.assert_array_equal(message.flow_cells, np.flatnonzero(can_move))
        # Another process lays its arrays elsewhere, and matrix products may then round the last bit
        # of float32 otherwise; flow is published in half precision, where that is one step at most.
        np.testing.assert_allclose(
            np.reshape(message.flow, (-1, 2)), expected["flow"][can_move], rtol=2**-10, atol=2**-14
        )
        assert message.header.frame_id == "base_link"
        assert (message.geometry.size_x, message.geometry.size_z) == (shape[0], shape[2])
        assert message.status.reset == str(expected["reset"])
        assert message.status.flags & message.status.RANDOM_WEIGHTS

    for topic in ("occupancy", "obstacles"):
        assert len(stage.messages[topic]) == FRAMES
        for cloud in stage.messages[topic]:
            expected = offline.messages[topic, ns(cloud.header.stamp)]
            assert_equal_points(bytes(cloud.data), expected.data.tobytes(), topic)
            assert (cloud.width, cloud.point_step) == (expected.width, expected.point_step)
            assert [(f.name, f.offset, f.datatype, f.count) for f in cloud.fields] == [
                (f.name, f.offset, f.datatype, f.count) for f in expected.fields
            ]
    for grid in stage.messages["occupancy_grid"]:
        expected = offline.messages["occupancy_grid", ns(grid.header.stamp)]
        np.testing.assert_array_equal(grid.data, expected.data)
        assert (grid.info.origin.position.x, grid.info.width) == (-20.0, 50)
    for markers in stage.messages["flow_markers"]:
        expected = offline.messages["flow_markers", ns(markers.markers[-1].header.stamp)].markers
        for ours, theirs in zip(markers.markers, expected, strict=True):
            assert (ours.ns, ours.type, ours.action) == (theirs.ns, theirs.type, theirs.action)
            np.testing.assert_allclose(
                [(p.x, p.y, p.z) for p in ours.points],
                [(p.x, p.y, p.z) for p in theirs.points],
                rtol=2**-10,
                atol=2**-14,
            )
    (info,) = stage.messages["grid_info"]
    assert [c.name for c in info.classes] == list(tiny_node.RECORD.classes.names)
    recorded = offline.messages["grid_info", min(offline.frames)]
    for name in ("model", "random_weights", "has_flow", "class_list", "weights_sha256", "version"):
        assert getattr(info, name) == getattr(recorded, name), name
    assert (info.model, info.random_weights, info.header.frame_id) == (
        tiny_node.NAME,
        True,
        "base_link",
    )
    stage.until(lambda: stage.messages["overlay/cam_front"], "nothing is drawn")
    picture = stage.messages["overlay/cam_front"][-1]
    assert (picture.width, picture.encoding, picture.header.frame_id) == (176, "rgb8", "CAM_FRONT")


def assert_equal_points(ours: bytes, theirs: bytes, topic: str) -> None:
    """Every field, but for the last bit of the velocities (see above)."""
    if topic == "obstacles":
        assert ours == theirs
        return
    points, expected = (np.frombuffer(data, POINT_DTYPE) for data in (ours, theirs))
    for name in POINT_DTYPE.names:
        if name in ("vx", "vy"):
            np.testing.assert_allclose(points[name], expected[name], rtol=2**-10, atol=2**-14)
        else:
            assert points[name].tobytes() == expected[name].tobytes(), name


def assert_as_offline(messages: list, offline: SimpleNamespace) -> None:
    for message in messages:
        expected = offline.frames[ns(message.header.stamp)]["labels"]
        np.testing.assert_array_equal(message.labels, expected.reshape(-1))


def test_a_bag_that_loops_begins_anew_and_gives_the_same_again(stage, bag, offline):
    stage.start_node(*SIM_TIME)
    player = stage.start("-m", PLAY, "play", str(bag), "--loop", "--rate", "0.6")

    def whole_laps() -> list[list]:
        laps: list[list] = [[]]
        for message in list(stage.messages["voxels"]):
            if laps[-1] and ns(message.header.stamp) <= ns(laps[-1][-1].header.stamp):
                laps.append([])
            laps[-1].append(message)
        # Where the machine is busy a lap may lack a frame; it says nothing about the others.
        return [lap for lap in laps[1:] if [ns(m.header.stamp) for m in lap] == stamps]

    stamps = sorted(offline.frames)
    stage.until(whole_laps, "no second lap is complete", timeout=120.0)
    player.send_signal(signal.SIGINT)
    assert player.wait(ENDS) == 0  # asked to end, it has done its work
    lap = whole_laps()[0]
    assert [m.status.reset for m in lap] == ["stamp went back"] + [""] * (FRAMES - 1)
    assert_as_offline(lap, offline)
    assert int(stage.values("sets")["time_jumps"]) >= 1


def test_publishers_that_cannot_be_received_are_named(stage):
    latched = stage.node.create_publisher(TFMessage, "/tf_static", 10)
    text = stage.node.create_publisher(String, "/CAM_BACK/image_rect_compressed", 10)
    stage.start_node()
    stage.until(
        lambda: "incompatible QoS of /stage on /tf_static" in stage.status("sets").message,
        "the latched transforms are not noticed",
    )
    stage.until(
        lambda: "publishes std_msgs/msg/String" in stage.values("camera cam_back")["reason"],
        "the wrong type is not noticed",
    )
    values = stage.values("camera cam_front")
    assert values["state"] == "waiting"
    assert values["reason"] == "nobody publishes /CAM_FRONT/image_rect_compressed"
    doctor = stage.start("-m", PLAY, "doctor", "--listen", "5", "--json")
    said, _ = doctor.communicate(timeout=120)
    found = {f["subject"]: f for f in json.loads(said.splitlines()[-1])["findings"]}
    heard = found["/alocc_node: camera cam_front"]
    assert not heard["ok"]
    assert values["reason"] in heard["found"]
    for publisher in (latched, text):
        stage.do(lambda p=publisher: stage.node.destroy_publisher(p))


def test_a_manager_can_mend_parameters_and_cycle_the_node(stage, bag):
    program = stage.start_node(
        *("-p", "auto_start:=false", "-p", "decode:=fats", "-p", "max_rate_hz:=-1.0"), until=""
    )
    configure, cleanup, activate, deactivate = 1, 2, 3, 4

    def change(transition: int) -> bool:
        return stage.call("change_state", ChangeState, transition=Transition(id=transition)).success

    assert not change(configure)
    values = {"decode": "fast", "max_rate_hz": 3.0}
    mended = [Parameter(n, value=v).to_parameter_msg() for n, v in values.items()]
    answer = stage.call("set_parameters", SetParameters, parameters=mended)
    assert [r.successful for r in answer.results] == [True, True]
    assert change(configure)
    answer = stage.call("set_parameters", SetParameters, parameters=mended[:1])
    assert "clean the node up first" in answer.results[0].reason
    sizes = []
    for _ in range(20):
        assert change(activate)
        assert change(deactivate)
        sizes.append(resident(program.pid))
    assert change(activate)
    stage.play(bag, "--clock", "0")
    stage.until(lambda: len(stage.messages["voxels"]) > 0, "no output after cycling")
    assert stage.call("reset", Trigger).success
    assert change(deactivate)
    assert not stage.call("reset", Trigger).success
    assert change(cleanup)
    assert max(sizes[10:]) - sizes[9] < 3e6, sizes
    program.terminate()
    said, _ = program.communicate(timeout=ENDS)
    assert program.returncode == 0
    assert (
        "decode must be one of exact, fast, gpu, is 'fats'; max_rate_hz must be 0 to 1000 Hz"
        in said
    )


def resident(pid: int) -> int:
    """Bytes of main memory that a process has."""
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def test_wrong_parameters_end_a_node_that_starts_itself(stage):
    wrong = ("model:=no_such_model", "random_weights:=false", "preset:=nuscens")
    program = stage.start_node(*(a for p in wrong for a in ("-p", p)))
    said, _ = program.communicate(timeout=ENDS)
    assert program.returncode == 2
    assert "cannot configure" in said
    assert "no_such_model" in said
    assert "did you mean 'nuscenes'" in said, "both are told at once"
    assert "Traceback" not in said


def test_an_interrupt_in_the_middle_ends_it_cleanly_and_the_next_one_starts(stage, bag):
    first = stage.start_node(*SIM_TIME)
    player = stage.start("-m", PLAY, "play", str(bag), "--loop")
    stage.until(lambda: len(stage.messages["voxels"]) >= 2, "it does not begin")
    first.send_signal(signal.SIGINT)
    first.send_signal(signal.SIGINT)
    said, _ = first.communicate(timeout=ENDS)
    assert first.returncode == 0, said
    assert "Traceback" not in said
    stage.messages["voxels"].clear()
    stage.messages["diagnostics"].clear()
    stage.start_node(*SIM_TIME)
    stage.until(lambda: len(stage.messages["voxels"]) >= 2, "the next one does not work")
    player.terminate()


def test_an_interrupt_does_not_wait_for_a_set_that_takes_long(stage, bag):
    """A frame of a large network on a CPU takes longer than a launch file waits."""
    with Bag(bag) as opened:
        no_poses = [t for t in opened.types if not t.startswith("/tf")]
    node = stage.start_node(
        *SIM_TIME, "-p", "tf_timeout:=10.0", "-p", "diagnostics_period:=0.05"
    )  # so long every set waits for its pose
    stage.start("-m", PLAY, "play", str(bag), "--loop", "--topics", *no_poses)
    stage.until(lambda: int(stage.values("sets")["offered"]) > 0, "no set comes")
    node.send_signal(signal.SIGINT)
    said, _ = node.communicate(timeout=ENDS)
    assert node.returncode == 0, said
    assert "still at a set, which is given up" in said
    assert "Traceback" not in said


def test_killed_players_and_nodes_leave_nothing_that_the_next_one_trips_over(stage, bag):
    def begins() -> None:
        stage.messages["voxels"].clear()
        stage.until(lambda: len(stage.messages["voxels"]) >= 2, "nothing comes out")

    first = stage.start_node(*SIM_TIME)
    player = stage.start("-m", PLAY, "play", str(bag), "--loop")
    begins()
    player.kill()
    player.wait(ENDS)
    stage.start("-m", PLAY, "play", str(bag), "--loop")
    begins()
    first.kill()
    first.wait(ENDS)
    # What is younger than a start may take is left alone.
    long_ago = time.time() - 60.0
    for path in transport.SHARED_MEMORY.glob("fast*_*"):
        with contextlib.suppress(OSError):  # another user's, or just gone
            os.utime(path, (long_ago, long_ago))
    left = transport.abandoned_segments()
    assert left or not transport.decide().ours
    stage.messages["diagnostics"].clear()
    stage.start_node(*SIM_TIME)
    begins()
    assert not any(path.exists() for path in left)


@subscribed_to("voxels", "occupancy", "markers")
def test_what_comes_too_fast_is_superseded_and_counted_and_views_are_thinned(stage, bag):
    views = ("-p", "markers:=true", "-p", "max_points:=100", "-p", "max_rate_hz:=1.0")
    stage.start_node(*SIM_TIME, *views)
    stage.play(bag, "--rate", "8")

    def accounted() -> bool:
        values = stage.values("sets")
        done = ("processed", "superseded", "ignored")
        return int(values["offered"]) == FRAMES == sum(int(values[name]) for name in done)

    stage.until(accounted, "the counters do not add up")
    assert int(stage.values("sets")["superseded"]) > 0
    stamps = stage.stamps("voxels")
    assert stamps == sorted(set(stamps))
    assert len(stamps) == int(stage.values("sets")["processed"])
    assert {cloud.width for cloud in stage.messages["occupancy"]} == {100}
    assert 1 <= len(stage.messages["occupancy"]) < len(stamps)
    first = stage.messages["markers"][0].markers
    assert [(m.action, len(m.points)) for m in first] == [(3, 0), (0, 100)]
