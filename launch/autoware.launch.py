# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The node with its obstacles and grid under the names of Autoware's perception.

ros2 launch alocc_ros autoware.launch.py model:=alocc_flow_2d
"""

from __future__ import annotations

from functools import partial

from launch.action import Action

from alocc_ros.resources import shared_folder
from alocc_ros.ros import launch_arguments, launch_checks, launch_parts
from launch import LaunchDescription

# Ours, theirs.
REMAPPINGS = (
    ("~/obstacles", "/perception/obstacle_segmentation/pointcloud"),
    ("~/occupancy_grid", "/perception/occupancy_grid_map/map"),
)


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` asks for."""
    return launch_parts.description(launch_arguments.AUTOWARE, _parts)


def _parts(given: dict[str, str]) -> list[Action]:
    file = given["params_file"] or str(shared_folder("config") / "autoware_remap.yaml")
    given = given | {"params_file": file}
    launch_checks.all_of(
        partial(launch_checks.rig, given),
        partial(launch_checks.executable, "alocc_ros", launch_checks.NODE_NAME),
    )
    return [*launch_parts.transport_profile(), launch_parts.node(given, REMAPPINGS)]
