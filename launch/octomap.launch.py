# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""octomap_server over the occupied voxels, its rays from the height of the cameras.

ros2 launch alocc_ros octomap.launch.py eye_height:=1.6

The node beside it needs `cloud_frame: alocc_eye` (docs/integrations/octomap.md).
"""

from __future__ import annotations

from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from alocc_ros.resources import shared_folder
from launch import LaunchDescription

# Name, default, meaning.
ARGUMENTS = (
    ("cloud", "/alocc_node/occupancy", "the topic of the voxels"),
    ("base_frame", "base_link", "TF frame of the vehicle"),
    ("eye_frame", "alocc_eye", "TF frame of the clouds, as the node's `cloud_frame`"),
    ("eye_height", "1.6", "m, of the cameras above the base frame"),
    ("frame_id", "map", "TF frame of the map"),
    ("use_sim_time", "false", "true: take the time from /clock"),
)


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` asks for."""
    given = {name: LaunchConfiguration(name) for name, _, _ in ARGUMENTS}
    eye = Node(
        package="tf2_ros",
        executable="static_transform_publisher",
        name="alocc_eye",
        arguments=["--z", given["eye_height"], "--frame-id", given["base_frame"]]
        + ["--child-frame-id", given["eye_frame"]],
    )
    server = Node(
        package="octomap_server",
        executable="octomap_server_node",
        name="octomap_server",
        parameters=[
            str(shared_folder("config") / "octomap.yaml"),
            {
                "frame_id": given["frame_id"],
                "base_frame_id": given["base_frame"],
                "use_sim_time": given["use_sim_time"],
            },
        ],
        remappings=[("cloud_in", given["cloud"])],
    )
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=meaning)
        for name, default, meaning in ARGUMENTS
    ]
    return LaunchDescription([*arguments, eye, server])
