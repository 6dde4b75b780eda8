# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The launch files, really launched: needs a ROS distribution with this package built into it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

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


def installed(name: str) -> str:
    try:
        share = get_package_share_directory("alocc_ros")
    except PackageNotFoundError:
        pytest.skip("alocc_ros is not built with colcon here")
    return str(Path(share) / "launch" / name)


@pytest.fixture
def launch_file() -> str:
    return installed("alocc.launch.py")


def test_a_bag_is_launched_and_ctrl_c_ends_everything(stage, launch_file, tmp_path):
    bag = tmp_path / "sample.mcap"
    write_sample(bag, seconds=1.0, rate=2.0, width=176, height=99)
    given = ("model:=alocc_2d_mini", "random_weights:=true", f"bag:={bag}", "rate:=0.2")
    launched = stage.start("-c", LAUNCH, launch_file, *given, "loop:=true")
    stage.until(lambda: stage.messages["voxels"], "nothing comes out", timeout=180.0)
    assert ns(stage.messages["voxels"][0].header.stamp) // 10**9 == START // 10**9
    launched.send_signal(signal.SIGINT)
    said, _ = launched.communicate(timeout=ENDS)
    assert launched.returncode == 0, said
    assert "alocc_node-1]: process has finished cleanly" in said
    assert "Traceback" not in said


def test_a_wrong_argument_ends_the_node_with_one_line_that_says_so(stage, launch_file):
    launched = stage.start("-c", LAUNCH, launch_file, "model:=no_such_model", "preset:=nuscens")
    said, _ = launched.communicate(timeout=ENDS)
    assert "no_such_model" in said and "did you mean 'nuscenes'" in said
    assert "exit code 2" in said and "Traceback" not in said


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
