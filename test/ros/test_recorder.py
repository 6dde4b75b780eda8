# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc record`` over real DDS: what is published is what is read back."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS is not installed (make setup)")
pytest.importorskip("alocc_ros.msg", reason="alocc_ros/msg is not built (make setup)")

from mcap.reader import make_reader  # noqa: E402
from mcap_ros2.decoder import DecoderFactory  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy  # noqa: E402
from rclpy.serialization import serialize_message  # noqa: E402
from rosbags.highlevel import AnyReader  # noqa: E402
from sensor_msgs.msg import CameraInfo  # noqa: E402
from spinning import spin_until  # noqa: E402
from std_msgs.msg import String  # noqa: E402

from alocc_ros.bags.reader import Bag  # noqa: E402
from alocc_ros.cli.main import main  # noqa: E402
from alocc_ros.errors import OutputError, ParameterError  # noqa: E402
from alocc_ros.msg import GridInfo, SemanticGrid  # noqa: E402
from alocc_ros.ros.definitions import definition, message_class  # noqa: E402
from alocc_ros.ros.recorder import TopicRecorder  # noqa: E402

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
GRID, INFO = "/alocc_node/voxels", "/alocc_node/grid_info"


def grid(number: int) -> SemanticGrid:
    message = SemanticGrid(has_flow=True, flow_cells=[number], flow=[1.5, -2.0])
    message.header.stamp.sec = 1000 + number
    message.header.frame_id = "base_link"
    message.status.missing_cameras = ["cam_back"]
    message.labels.frombytes(bytes(range(number, number + 200)))
    return message


def read(path: Path) -> dict[str, list[bytes]]:
    with AnyReader([path]) as reader:
        found: dict[str, list[bytes]] = {}
        for connection, _, data in reader.messages():
            found.setdefault(connection.topic, []).append(bytes(data))
        return found


@pytest.fixture
def recorder(node, tmp_path) -> TopicRecorder:
    return TopicRecorder(node, tmp_path / "out.mcap", (GRID, INFO, "/nobody"))


def test_what_is_published_is_what_is_read_back(node, executor, recorder):
    grids = node.create_publisher(SemanticGrid, GRID, QoSProfile(depth=20))
    infos = node.create_publisher(GridInfo, INFO, LATCHED)
    infos.publish(GridInfo(model="said before anybody listened"))

    def listening() -> bool:
        recorder.scan()
        return grids.get_subscription_count() and infos.get_subscription_count()

    assert spin_until(executor, listening)
    sent = [grid(number) for number in range(5)]
    for message in sent:
        grids.publish(message)
    assert spin_until(executor, lambda: recorder.counts == {GRID: 5, INFO: 1})
    assert recorder.problems() == ["nobody publishes /nobody"]
    assert not recorder.path.exists(), "not before it is whole"
    recorder.finish()
    assert sorted(p.name for p in recorder.path.parent.iterdir()) == ["out.mcap"]

    assert read(recorder.path)[GRID] == [bytes(serialize_message(m)) for m in sent]
    with recorder.path.open("rb") as file:  # by the definitions that are in the file
        for schema, _, _, message in make_reader(
            file, decoder_factories=[DecoderFactory()]
        ).iter_decoded_messages(topics=[GRID]):
            assert schema.name == "alocc_ros/msg/SemanticGrid"
            assert list(message.flow) == [1.5, -2.0]
            assert list(message.status.missing_cameras) == ["cam_back"]
    with Bag(recorder.path) as bag:
        (info,) = [bag.decode(record) for record in bag.messages([INFO])]
        assert info.model == "said before anybody listened"


def test_a_best_effort_publisher_is_heard_too(node, executor, tmp_path):
    qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    cameras = node.create_publisher(CameraInfo, "/camera_info", qos)
    recorder = TopicRecorder(node, tmp_path / "out.mcap", ["/camera_info"])

    def listening() -> bool:
        recorder.scan()
        return bool(cameras.get_subscription_count())

    assert spin_until(executor, listening)
    cameras.publish(CameraInfo(width=1600))
    assert spin_until(executor, lambda: recorder.counts.total() == 1)
    recorder.discard()
    assert not any(tmp_path.iterdir())


def test_what_comes_before_the_time_is_known_gets_the_first_that_is(node, executor, tmp_path):
    times: list[int] = []
    sender = node.create_publisher(String, "/text", 10)
    recorder = TopicRecorder(
        node, tmp_path / "out.mcap", ["/text"], now=lambda: times[-1] if times else None
    )

    def listening() -> bool:
        recorder.scan()
        return bool(sender.get_subscription_count())

    assert spin_until(executor, listening)
    sender.publish(String(data="early"))
    assert not spin_until(executor, lambda: recorder.counts.total(), seconds=0.5)
    times.append(7_000)
    sender.publish(String(data="late"))
    assert spin_until(executor, lambda: recorder.counts.total() == 2)
    recorder.finish()
    with Bag(recorder.path) as bag:
        records = list(bag.messages(["/text"]))
    assert [record.log_time for record in records] == [7_000, 7_000]


def test_a_disk_that_is_full_is_told_and_leaves_nothing(node, executor, tmp_path):
    sender = node.create_publisher(String, "/text", 10)
    recorder = TopicRecorder(node, tmp_path / "out.mcap", ["/text"])

    def listening() -> bool:
        recorder.scan()
        return bool(sender.get_subscription_count())

    assert spin_until(executor, listening)
    sender.publish(String(data="x"))
    assert spin_until(executor, lambda: recorder.counts.total() == 1)
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, hard))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*out\.mcap"):
            recorder.finish()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))
    assert not any(tmp_path.iterdir())


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "alocc_ros.cli.main", "record", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_ends_it_with_all_that_has_come(node, executor, tmp_path, number):
    sender = node.create_publisher(String, "/text", QoSProfile(depth=50))
    out = tmp_path / "out.mcap"
    with start("-o", str(out), "text") as program:
        try:
            assert spin_until(executor, sender.get_subscription_count)
            for count in range(20):
                sender.publish(String(data=str(count)))
            assert sender.wait_for_all_acked()
            time.sleep(0.5)  # acknowledged is not yet taken
            program.send_signal(number)
            said, complained = program.communicate(timeout=60)
        finally:
            if program.poll() is None:
                program.terminate()
    assert program.returncode == 0, complained
    assert "20  /text" in said and f"{out}: 20 messages" in said
    assert len(read(out)["/text"]) == 20
    assert [p.name for p in tmp_path.iterdir()] == ["out.mcap"]


def test_if_nothing_comes_there_is_no_file_and_it_says_why(domain, tmp_path):
    with start("-o", str(tmp_path / "out.mcap"), "/nobody", "--seconds", "1") as program:
        said, complained = program.communicate(timeout=60)
    assert program.returncode == 1 and said == ""
    assert "nobody publishes /nobody" in complained and "nothing came" in complained
    assert not any(tmp_path.iterdir())


def test_an_output_that_is_there_or_is_no_recording_is_refused(tmp_path, capsys):
    there = tmp_path / "there.mcap"
    there.write_bytes(b"dear to somebody")
    for output, reason in (
        (there, "is there already"),
        (tmp_path / "out.bag", "must end in .mcap"),
        (tmp_path / "nowhere" / "out.mcap", "there is no folder"),
    ):
        assert main(["record", "-o", str(output)]) == 2
        assert reason in capsys.readouterr().err
    assert there.read_bytes() == b"dear to somebody"


@pytest.mark.parametrize("name", ["no_such_package/msg/Thing", "std_msgs/msg/NoSuchThing"])
def test_a_type_that_is_not_installed_is_named(name):
    with pytest.raises(ParameterError, match=f"{name} is not installed here"):
        message_class(name)


def test_definitions_are_in_the_language_of_msg_files():
    text = definition("rcl_interfaces/msg/ParameterDescriptor")
    assert "bool read_only\n" in text
    assert "FloatingPointRange[<=1] floating_point_range\n" in text
    assert "MSG: rcl_interfaces/FloatingPointRange\nfloat64 from_value\n" in text
    assert "float64[9] k\n" in definition("sensor_msgs/msg/CameraInfo")
    assert definition("std_msgs/msg/Empty") == ""
