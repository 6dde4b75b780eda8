# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""octomap_server over the occupied voxels, its rays from the height of the cameras.

ros2 launch alocc_ros octomap.launch.py eye_height:=1.6

The node beside it needs `cloud_frame: alocc_eye` (docs/integrations/octomap.md).
"""

from __future__ import annotations

from functools import partial

from launch.action import Action
from launch.actions import Shutdown
from launch_ros.actions import Node

from alocc_ros.resources import shared_folder
from alocc_ros.ros import launch_arguments, launch_checks, launch_parts
from launch import LaunchDescription

_EYE = ("tf2_ros", "static_transform_publisher")
_SERVER = ("octomap_server", "octomap_server_node")


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` asks for."""
    return launch_parts.description(launch_arguments.OCTOMAP, _parts)


def _parts(given: dict[str, str]) -> list[Action]:
    height, with_sim_time, *_ = launch_checks.all_of(
        partial(launch_arguments.number, given, "eye_height"),
        partial(launch_arguments.is_true, given, "use_sim_time"),
        partial(launch_checks.executable, *_EYE),
        partial(launch_checks.executable, *_SERVER),
    )
    frames = ["--frame-id", given["base_frame"], "--child-frame-id", given["eye_frame"]]
    eye = Node(
        package=_EYE[0],
        executable=_EYE[1],
        name="alocc_eye",
        arguments=["--z", str(height), *frames],
        on_exit=_last("the transform of the cameras' height"),
    )
    parameters = {
        "frame_id": given["frame_id"],
        "base_frame_id": given["base_frame"],
        "use_sim_time": with_sim_time,
    }
    server = Node(
        package=_SERVER[0],
        executable=_SERVER[1],
        name="octomap_server",
        output="screen",
        parameters=[str(shared_folder("config") / "octomap.yaml"), parameters],
        remappings=[("cloud_in", given["cloud"])],
        on_exit=_last("octomap_server"),
    )
    return [eye, server]


def _last(who: str) -> launch_parts.OnExit:
    """Neither is of use without the other."""
    return launch_parts.ends_the_launch(who, [Shutdown(reason=f"{who} has ended")])
