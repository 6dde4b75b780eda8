# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Makes a synthetic street, plays it into the node, and tells how good what comes out is.

ros2 launch alocc_ros demo.launch.py rviz:=true
"""

from __future__ import annotations

from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction, Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.substitutions import ExecutableInPackage

from alocc_ros.resources import shared_folder
from launch import LaunchContext, LaunchDescription

# Name, default, meaning.
ARGUMENTS = (
    ("out", "out/demo", "folder for all that is made"),
    ("model", "alocc_tiny", "a name of `alocc models list`, or a file"),
    ("random_weights", "false", "true: run without trained weights"),
    ("seconds", "5.5", "of driving"),
    ("size", "160x440", "of the images, height x width"),
    ("rviz", "false", "true: with RViz, which stays open"),
)


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` asks for."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=meaning)
        for name, default, meaning in ARGUMENTS
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=_actions)])


def _actions(context: LaunchContext) -> list:
    given = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    with_rviz = _is_true(given["rviz"])
    command = [ExecutableInPackage("alocc", "alocc_ros"), "demo", "--output", given["out"]]
    for name in ("model", "seconds", "size"):
        command += [f"--{name}", given[name]]
    if _is_true(given["random_weights"]):
        command += ["--random-weights"]
    demo = ExecuteProcess(
        cmd=command,
        output="screen",
        # It ends its own processes first, and a node at work takes its time.
        sigterm_timeout="60",
        sigkill_timeout="60",
        on_exit=[] if with_rviz else [Shutdown(reason="the demo is over")],
    )
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", str(shared_folder("rviz") / "alocc.rviz")],
        parameters=[{"use_sim_time": True}],
    )
    return [demo, *([rviz] if with_rviz else [])]


def _is_true(text: str) -> bool:
    return text.strip().lower() in ("true", "1", "yes", "on")
