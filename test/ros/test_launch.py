# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The launch files, really launched: needs the packages launch and launch_ros."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS is not installed (make setup)")
pytest.importorskip("alocc_ros.msg", reason="alocc_ros/msg is not built (make setup)")
pytest.importorskip("launch", reason="no wheel has launch")
pytest.importorskip("launch_ros", reason="no wheel has launch_ros")

from ament_index_python.packages import (  # noqa: E402
    PackageNotFoundError,
    get_package_share_directory,
)
from live import ENDS, ns  # noqa: E402
from rcl_interfaces.srv import GetParameters  # noqa: E402
from spinning import ROOT  # noqa: E402

from alocc_ros.bags.sample import START, write_sample  # noqa: E402

pytestmark = [pytest.mark.system, pytest.mark.slow]
# What `ros2 launch FILE NAME:=VALUE ...` does, without the command line.
LAUNCH = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
file, *arguments = sys.argv[1:]
given = [tuple(argument.split(":=")) for argument in arguments]
service = LaunchService(noninteractive=True)  # no terminal interrupts the children: it has to
service.include_launch_description(LaunchDescription([
    IncludeLaunchDescription(PythonLaunchDescriptionSource(file), launch_arguments=given)
]))
sys.exit(service.run())
"""


MARK = "ALOCC_LAUNCH_TEST"


@pytest.fixture(autouse=True)
def prefix(monkeypatch, tmp_path) -> Iterator[Path]:
    """Where ROS finds this package: as colcon has installed it, or else links to the checkout.

    And programs that a test adds; all that is launched can be told by a variable of its own.
    """
    folder = tmp_path / "prefix"
    before = os.environ.get("AMENT_PREFIX_PATH", "")
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{folder}{os.pathsep}{before}")
    monkeypatch.setenv(MARK, str(tmp_path))
    if not is_built():
        script = (ROOT / "cmake" / "executable.in").read_text().partition("\n")[2]
        for name, module in (("alocc", "cli.main"), ("alocc_node", "ros.main")):
            text = script.replace("@module@", f"alocc_ros.{module}").replace("@function@", "main")
            program(folder, "alocc_ros", name, f"#!{sys.executable}\n{text}")
        share = folder / "share" / "alocc_ros"
        share.mkdir(parents=True)
        (share / "launch").symlink_to(ROOT / "launch")
    yield folder
    for left in launched_processes():  # of a test that failed
        os.kill(left, signal.SIGINT)


def is_built() -> bool:
    """With more than its messages, which is all that is built into an environment of wheels."""
    try:
        return (Path(get_package_share_directory("alocc_ros")) / "launch").is_dir()
    except PackageNotFoundError:
        return False


def program(prefix: Path, package: str, name: str, text: str) -> None:
    index = prefix / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True, exist_ok=True)
    (index / package).touch()
    file = prefix / "lib" / package / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)


def installed(name: str) -> str:
    return str(Path(get_package_share_directory("alocc_ros")) / "launch" / name)


@pytest.fixture
def launch_file() -> str:
    return installed("alocc.launch.py")


def launched_processes() -> dict[int, str]:
    """Process ids and command lines of all that this test has launched and that is running."""
    mark, found = f"{MARK}={os.environ[MARK]}".encode(), {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:  # of others, or gone meanwhile
            continue
    return found


def launch(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCH, *command],
        env={**os.environ, "ROS_DISTRO": "jazzy", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def test_what_cannot_work_starts_nothing_and_says_why(launch_file, tmp_path):
    broken = tmp_path / "broken.yaml"
    broken.write_text("cameras: {")
    damaged = tmp_path / "damaged.mcap"
    damaged.write_bytes(b"\x89MCAP0\r\n nothing more")
    good = (launch_file, "model:=alocc_2d_mini", "random_weights:=true")
    cases = {
        "rviz2 is not installed here; rviz:=true needs it: apt-get install ros-jazzy-rviz2": (
            *good,
            "rviz:=true",
        ),
        "foxglove_bridge is not installed here; foxglove:=true needs it": (*good, "foxglove:=true"),
        f"there is no bag {tmp_path}/none": (*good, f"bag:={tmp_path}/none"),
        f"bag {damaged}": (*good, f"bag:={damaged}"),
        f"preset {broken}": (*good, f"preset:={broken}"),
        f"{tmp_path}/rig.yaml": (*good, f"calibration_file:={tmp_path}/rig.yaml"),
        "log_level:=loud must be one of": (*good, "log_level:=loud"),
        "did you mean 'nuscenes'": (launch_file, "model:=no_such_model", "preset:=nuscens"),
        "namespaces:=a,a must be different": (
            installed("multi.launch.py"),
            *good[1:],
            "namespaces:=a,a",
        ),
        "octomap_server is not installed here": (installed("octomap.launch.py"),),
        "eye_height:=high must be a number": (installed("octomap.launch.py"), "eye_height:=high"),
        "did you mean 'autoware'": (installed("autoware.launch.py"), *good[1:], "preset:=autowar"),
    }
    if os.access("/opt/ros", os.R_OK):  # where the viewers may be installed
        cases = {says: case for says, case in cases.items() if "not installed" not in says}
    children = {says: launch(*case) for says, case in cases.items()}
    for says, child in children.items():
        said, _ = child.communicate(timeout=ENDS)
        assert says in said, said
        assert child.returncode == 1 and "nothing was started" in said, said
        assert "process started" not in said and "Traceback" not in said, said
    assert launched_processes() == {}


def test_the_demo_without_rviz_starts_nothing(tmp_path):
    if os.access("/opt/ros", os.R_OK):
        pytest.skip("rviz2 may be installed")
    child = launch(installed("demo.launch.py"), f"out:={tmp_path}/out", "rviz:=true")
    said, _ = child.communicate(timeout=ENDS)
    assert child.returncode == 1 and "rviz2 is not installed here" in said, said
    assert launched_processes() == {} and not (tmp_path / "out").exists()


@pytest.fixture
def bag(tmp_path) -> Path:
    path = tmp_path / "sample.mcap"
    write_sample(path, seconds=1.0, rate=2.0, width=176, height=99)
    return path


def test_a_node_that_cannot_work_ends_the_player_too(launch_file, bag):
    # Nothing but the node itself knows which devices there are.
    given = ("model:=alocc_2d_mini", "random_weights:=true", "device:=cuda:99")
    child = launch(launch_file, *given, f"bag:={bag}")
    said, _ = child.communicate(timeout=ENDS)
    assert child.returncode == 1, said
    assert "cannot configure: " in said and "cuda:99" in said
    assert "/alocc_node ended with exit code 2: it says why above" in said
    assert "[alocc-2]: process has finished cleanly" in said and "Traceback" not in said
    assert launched_processes() == {}


def test_a_viewer_that_cannot_start_ends_the_launch(prefix, launch_file, tmp_path):
    text = '#!/bin/sh\necho "could not connect to display, $*"\nexit 3\n'
    program(prefix, "rviz2", "rviz2", text)
    waiting = tmp_path / "waiting.yaml"
    waiting.write_text("/**: {ros__parameters: {auto_start: false}}")
    given = ("model:=alocc_2d_mini", "random_weights:=true", "preset:=dataset_bridge")
    names = ("namespace:=/car/", f"params_file:={waiting}")
    child = launch(launch_file, *given, *names, "rviz:=true")
    said, _ = child.communicate(timeout=ENDS)
    assert child.returncode == 1, said
    assert "rviz2 ended with exit code 3: it says why above" in said
    assert "/alocc.rviz -f world" in said
    assert "-r /alocc_node/overlay/cam_front:=/car/alocc_node/overlay/cam_front" in said
    assert launched_processes() == {}


def test_two_rigs_in_two_namespaces_and_a_node_that_crashed_is_started_again(stage, tmp_path):
    waiting = tmp_path / "waiting.yaml"
    waiting.write_text("/**/alocc_node: {ros__parameters: {auto_start: false, max_points: 7}}")
    given = ("model:=alocc_2d_mini", "random_weights:=true", "preset:=nuscenes,awsim")
    more = ("namespaces:=front,rear", f"params_file:={waiting}", "decode:=fast", "respawn:=true")
    file = installed("multi.launch.py")
    launched = stage.start("-c", LAUNCH, file, *given, *more, "log_level:=debug")

    def parameters(namespace: str) -> list[Any]:
        client = stage.node.create_client(GetParameters, f"/{namespace}/alocc_node/get_parameters")
        assert client.wait_for_service(3 * ENDS)
        names = ["preset", "decode", "max_points", "use_sim_time"]
        futures: list[Any] = []

        def is_answered() -> bool:  # the first may go to the node that was killed
            if not futures or time.monotonic() > asked[-1] + 2.0:
                futures.append(client.call_async(GetParameters.Request(names=names)))
                asked.append(time.monotonic())
            return any(future.done() for future in futures)

        asked: list[float] = []
        stage.until(is_answered, f"{namespace} does not answer")
        stage.do(lambda: stage.node.destroy_client(client))
        one, two, three, four = next(f for f in futures if f.done()).result().values
        return [one.string_value, two.string_value, three.integer_value, four.bool_value]

    def process(namespace: str) -> list[int]:
        found = launched_processes().items()
        return [pid for pid, line in found if f"__ns:=/{namespace} " in f"{line} "]

    assert parameters("front") == ["nuscenes", "fast", 7, False]
    assert parameters("rear") == ["awsim", "fast", 7, False]
    (first,) = process("front")
    os.kill(first, signal.SIGKILL)
    stage.until(lambda: process("front") not in ([], [first]), "it is not started again")
    assert parameters("front") == ["nuscenes", "fast", 7, False]
    launched.send_signal(signal.SIGINT)
    said, _ = launched.communicate(timeout=ENDS)
    assert launched.returncode == 0, said
    assert said.count("process has died") == 1 and "Traceback" not in said, said
    assert said.count("process has finished cleanly") == 2
    assert "[DEBUG]" in said
    assert launched_processes() == {}


def test_a_bag_is_launched_and_ctrl_c_ends_everything(stage, launch_file, bag):
    given = ("model:=alocc_2d_mini", "random_weights:=true", f"bag:={bag}", "rate:=0.2")
    launched = stage.start("-c", LAUNCH, launch_file, *given, "loop:=true")
    stage.until(lambda: stage.messages["voxels"], "nothing comes out", timeout=180.0)
    assert ns(stage.messages["voxels"][0].header.stamp) // 10**9 == START // 10**9
    launched.send_signal(signal.SIGINT)
    said, _ = launched.communicate(timeout=ENDS)
    assert launched.returncode == 0, said
    for name in ("alocc_node-1", "alocc-2"):
        assert f"{name}]: process has finished cleanly" in said, said
    assert "process has died" not in said and "Traceback" not in said
    assert launched_processes() == {}


def test_the_demo_is_launched_and_ends_by_itself(stage, tmp_path):
    given = (f"out:={tmp_path}", "random_weights:=true", "seconds:=0.5", "size:=48x132")
    launched = stage.start("-c", LAUNCH, installed("demo.launch.py"), *given)
    said, _ = launched.communicate(timeout=10 * ENDS)
    assert launched.returncode == 0, said
    assert "results against the truth" in said and "Traceback" not in said
    assert {"occupancy.mcap", "demo.png", "demo.json"} <= set(os.listdir(tmp_path))


def test_ctrl_c_ends_the_demo_too(stage, tmp_path):
    launched = stage.start(
        "-c", LAUNCH, installed("demo.launch.py"), f"out:={tmp_path}", "random_weights:=true"
    )
    stage.until(lambda: any(tmp_path.iterdir()), "nothing is begun", timeout=ENDS)
    launched.send_signal(signal.SIGINT)
    said, _ = launched.communicate(timeout=ENDS)
    assert "Traceback" not in said, said
    assert not list(tmp_path.rglob("*.mcap"))
