# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Six raw cameras between two processes, and when the profile for them is left alone."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest
from spinning import child, spin_until

from alocc_ros.ros import transport
from alocc_ros.ros.transport import PROFILE_VARIABLES, prepare


@pytest.fixture
def roomy(monkeypatch):
    monkeypatch.setattr(transport, "shared_memory_size", lambda: 2**30)


@pytest.mark.parametrize(
    ("rclpy", "variable"), [("3.3.11", 0), ("7.1.5", 0), ("9.1.2", 1), ("10.0.0", 1)]
)
def test_every_release_gets_our_profile_by_its_own_variable(roomy, monkeypatch, rclpy, variable):
    monkeypatch.setattr(transport.importlib.metadata, "version", lambda _: rclpy)
    environment: dict[str, str] = {}
    found = prepare(environment)
    assert found.ours and not found.remedy and found.profile.is_file()
    assert environment == {PROFILE_VARIABLES[variable]: str(found.profile)}
    assert prepare(environment) == found, "a child of ours would see a profile of the user's"


def test_a_profile_of_the_user_stays(roomy, tmp_path):
    for variable in PROFILE_VARIABLES:
        theirs = tmp_path / "mine.xml"
        theirs.write_text("<dds/>")
        environment = {variable: str(theirs)}
        found = prepare(environment)
        assert (found.profile, found.ours) == (theirs, False)
        assert environment == {variable: str(theirs)}


def test_a_profile_that_is_not_there_is_told():
    found = prepare({PROFILE_VARIABLES[1]: "/nowhere/mine.xml"})
    assert found.profile is None and "/nowhere/mine.xml" in found.reason
    assert PROFILE_VARIABLES[1] in found.remedy


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RMW_IMPLEMENTATION", "rmw_cyclonedds_cpp"),
        ("FASTDDS_BUILTIN_TRANSPORTS", "LARGE_DATA"),
        ("ROS_DISCOVERY_SERVER", "10.0.0.1:11811"),
    ],
)
def test_other_choices_of_the_user_stay(roomy, variable, value):
    environment = {variable: value}
    found = prepare(environment)
    assert found.profile is None and value in found.reason
    assert environment == {variable: value}


def test_a_small_shared_memory_is_not_used_but_told(monkeypatch):
    monkeypatch.setattr(transport, "shared_memory_size", lambda: 64 * 2**20)
    environment: dict[str, str] = {}
    found = prepare(environment)
    assert environment == {} and "67 MB" in found.reason and "--shm-size" in found.remedy


def test_where_there_is_no_shared_memory_nothing_is_set():
    assert transport.shared_memory_size(Path("/nowhere")) is None


def test_memory_of_killed_processes_is_freed_and_that_of_living_ones_is_not(tmp_path, monkeypatch):
    names = ("fastdds_0123456789abcdef", "fastdds_fedcba9876543210", "fastrtps_0000000000000000")
    for name in (*names, "fastdds_port7400", "somebody_elses_file"):
        (tmp_path / name).write_bytes(bytes(8192))
        (tmp_path / f"{name}_el").touch()
    assert transport.remove_abandoned_segments(tmp_path) == 0, "they may be starting"
    monkeypatch.setattr(transport, "STARTING", -1.0)
    with (tmp_path / f"{names[0]}_el").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert transport.remove_abandoned_segments(tmp_path) == 2 * 8192
    left = {p.name for p in tmp_path.iterdir() if not p.name.endswith("_el")}
    assert left == {names[0], "fastdds_port7400", "somebody_elses_file"}


def test_whoever_prepares_frees_abandoned_memory_and_can_say_so(tmp_path, monkeypatch):
    for name in ("fastdds_0123456789abcdef", "fastdds_0123456789abcdef_el"):
        (tmp_path / name).write_bytes(bytes(2**20))
    monkeypatch.setattr(transport, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(transport, "STARTING", -1.0)
    assert prepare({}).news == "freed 1 MB of shared memory that killed processes had left"
    assert prepare({}).news == ""


@pytest.mark.ros
def test_a_process_that_was_killed_leaves_memory_that_is_found(domain, monkeypatch):
    """The real thing: what Fast DDS leaves, and that its locks are as we think."""
    pytest.importorskip("rclpy", reason="no rclpy here: make ros")
    if not prepare({}).ours:
        pytest.skip("our profile is not used here")
    monkeypatch.setattr(transport, "STARTING", -1.0)
    code = """
from alocc_ros.ros.transport import prepare
prepare()
import rclpy, time
rclpy.init()
node = rclpy.create_node("victim")
print("up", flush=True)
time.sleep(60)
"""

    with child(code) as process:
        assert process.stdout.readline() == "up\n"
        mapped = Path(f"/proc/{process.pid}/maps").read_text().split()
        paths = {Path(m) for m in mapped if m.startswith(str(transport.SHARED_MEMORY))}
        ours = {p for p in paths if transport.SEGMENT.fullmatch(p.name)}
        assert ours and not any(transport.is_abandoned(p) for p in ours)
        process.kill()
        process.wait()
        assert any(p.exists() for p in ours) and all(transport.is_abandoned(p) for p in ours)
    transport.remove_abandoned_segments()
    assert not any(p.exists() for p in ours)


@pytest.mark.ros
def test_shared_memory_can_be_closed_to_other_users_and_still_carries_messages(domain):
    """Whatever the umask, Fast DDS makes its segments readable for everybody."""
    pytest.importorskip("rclpy", reason="no rclpy here: make ros")
    code = """
import os, time
os.umask(0o077)
from alocc_ros.ros import transport
transport.prepare()
import rclpy
rclpy.init()
node = rclpy.create_node("closed")
closed = transport.close_segments()
print(*(oct(p.stat().st_mode & 0o777) for p in closed), flush=True)
from std_msgs.msg import String
heard = []
node.create_subscription(String, "closed", heard.append, 1)
publisher = node.create_publisher(String, "closed", 1)
end = time.monotonic() + 30
while not heard and time.monotonic() < end:
    publisher.publish(String(data="x"))
    rclpy.spin_once(node, timeout_sec=0.1)
print(len(heard) > 0, flush=True)
"""
    with child(code) as process:
        modes = process.stdout.readline().split()
        assert modes and set(modes) == {"0o600"}
        assert process.stdout.readline() == "True\n"


CAMERAS, RATE, SECONDS = 6, 12, 3
SENDER = f"""
import array, sys, time
from alocc_ros.ros.transport import prepare
if sys.argv[1:] != ["plain"]:
    assert prepare().ours
import rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("cameras")
publishers = [
    node.create_publisher(Image, f"camera_{{k}}", qos_profile_sensor_data)
    for k in range({CAMERAS})
]
image = Image(height=900, width=1600, step=4800, encoding="rgb8")
image.data = array.array("B", bytes(1600 * 900 * 3))
while any(p.get_subscription_count() == 0 for p in publishers):
    time.sleep(0.05)
time.sleep(0.5)
start = time.monotonic()
for number in range({RATE * SECONDS}):
    for k, publisher in enumerate(publishers):
        due = start + (number + k / {CAMERAS}) / {RATE}
        time.sleep(max(0.0, due - time.monotonic()))
        image.header.stamp.sec = number
        publisher.publish(image)
print("sent", flush=True)
time.sleep(60)
"""


@pytest.mark.ros
def test_six_raw_cameras_reach_another_process(domain, monkeypatch):
    """Best effort, 1600x900 at 12 Hz: 311 MB/s. By default more than half gets lost."""
    rclpy = pytest.importorskip("rclpy", reason="no rclpy here: make ros")
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.node import Node
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image

    environment: dict[str, str] = {}
    decision = prepare(environment)
    if not decision.ours:
        pytest.skip(decision.reason)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain, args=[])
    node = Node("eyes", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    counts = [0] * CAMERAS

    def count(k: int, message: Image) -> None:
        assert len(message.data) == 1600 * 900 * 3
        counts[k] += 1

    for k in range(CAMERAS):
        node.create_subscription(
            Image, f"camera_{k}", lambda m, k=k: count(k, m), qos_profile_sensor_data
        )
    with child(SENDER):
        spin_until(executor, lambda: sum(counts) == CAMERAS * RATE * SECONDS, 20.0)
    executor.shutdown()
    node.destroy_node()
    context.try_shutdown()
    # All of them on an idle machine; a busy one may starve a process for longer than a queue.
    assert min(counts) >= 0.9 * RATE * SECONDS, counts
