# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Starts a node for each of several rigs, each in a namespace of its own.

ros2 launch alocc_ros multi.launch.py model:=alocc_2d_mini preset:=front_rig.yaml,rear_rig.yaml
"""

from __future__ import annotations

from functools import partial

from launch.action import Action

from alocc_ros.ros import launch_arguments, launch_checks, launch_parts
from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` asks for."""
    return launch_parts.description(launch_arguments.MULTI, _parts)


def _parts(given: dict[str, str]) -> list[Action]:
    rigs = launch_arguments.rigs(given)
    command, _, *found = launch_checks.all_of(
        partial(launch_checks.programs, given),
        partial(launch_checks.bag, given),
        *(partial(launch_checks.rig, rig) for rig in rigs),
    )
    sim_time = launch_arguments.sim_time(given)
    return [
        *launch_parts.transport_profile(),
        *map(launch_parts.node, rigs),
        *launch_parts.player(given, command),
        *(
            action
            for rig, (_, preset) in zip(rigs, found, strict=True)
            for action in launch_parts.rviz(rig, preset, with_sim_time=sim_time)
        ),
        *launch_parts.foxglove(given),
    ]
