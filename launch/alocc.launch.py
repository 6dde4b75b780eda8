# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Starts the node, live or with a bag.

ros2 launch alocc_ros alocc.launch.py model:=alocc_flow_2d bag:=/data/scene
"""

from __future__ import annotations

from functools import partial

from launch.action import Action

from alocc_ros.ros import launch_arguments, launch_checks, launch_parts
from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` asks for."""
    return launch_parts.description(launch_arguments.NODE, _parts)


def _parts(given: dict[str, str]) -> list[Action]:
    (_, preset), command, *_ = launch_checks.all_of(
        partial(launch_checks.rig, given),
        partial(launch_checks.programs, given),
        partial(launch_checks.bag, given),
    )
    sim_time = launch_arguments.sim_time(given)
    return [
        *launch_parts.transport_profile(),
        launch_parts.node(given),
        *launch_parts.player(given, command),
        *launch_parts.rviz(given, preset, with_sim_time=sim_time),
        *launch_parts.foxglove(given),
    ]
