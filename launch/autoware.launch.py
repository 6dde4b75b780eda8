# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The node with its obstacles and grid under the names of Autoware's perception.

ros2 launch alocc_ros autoware.launch.py model:=alocc_flow_2d
"""

from __future__ import annotations

from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from alocc_ros.resources import shared_folder
from launch import LaunchDescription

# Name, default (None: must be given), meaning.
ARGUMENTS = (
    ("model", None, "a name of `alocc models list`, or a file"),
    ("preset", "autoware", "topics and frames: a name, or a YAML file"),
    ("device", "auto", "where the network runs: auto, cpu, cuda or cuda:N"),
    ("random_weights", "false", "true: run without trained weights, to try things out"),
    ("use_sim_time", "false", "true: take the time from /clock"),
)
# Ours, theirs.
REMAPPINGS = (
    ("~/obstacles", "/perception/obstacle_segmentation/pointcloud"),
    ("~/occupancy_grid", "/perception/occupancy_grid_map/map"),
)


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` asks for."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=meaning)
        for name, default, meaning in ARGUMENTS
    ]
    texts = {name: LaunchConfiguration(name) for name in ("model", "preset", "device")}
    flags = {
        name: ParameterValue(LaunchConfiguration(name), value_type=bool)
        for name in ("random_weights", "use_sim_time")
    }
    node = Node(
        package="alocc_ros",
        executable="alocc_node",
        name="alocc_node",
        output="screen",
        parameters=[str(shared_folder("config") / "autoware_remap.yaml"), texts | flags],
        remappings=list(REMAPPINGS),
    )
    return LaunchDescription([*arguments, node])
