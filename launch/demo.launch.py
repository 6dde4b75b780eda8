# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Makes a synthetic street, plays it into the node, and tells how good what comes out is.

ros2 launch alocc_ros demo.launch.py rviz:=true
"""

from __future__ import annotations

from launch.action import Action
from launch.actions import ExecuteProcess, Shutdown

from alocc_ros.ros import launch_arguments, launch_checks, launch_parts
from alocc_ros.ros.launch_arguments import is_true
from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` asks for."""
    return launch_parts.description(launch_arguments.DEMO, _parts)


def _parts(given: dict[str, str]) -> list[Action]:
    command = [str(launch_checks.programs(given)), "demo", "--output", given["out"]]
    for name in ("model", "seconds", "size"):
        command += [f"--{name}", given[name]]
    if is_true(given, "random_weights"):
        command += ["--random-weights"]
    over = [] if is_true(given, "rviz") else [Shutdown(reason="the demo is over")]
    demo = ExecuteProcess(
        cmd=command,
        output="screen",
        # It ends its own processes first, and a node at work takes its time.
        sigterm_timeout="60",
        sigkill_timeout="60",
        on_exit=launch_parts.ends_the_launch("the demo", over),
    )
    return [demo, *launch_parts.rviz(given, None, with_sim_time=True)]
