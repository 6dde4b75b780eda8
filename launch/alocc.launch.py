# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Starts the node, live or with a bag.

ros2 launch alocc_ros alocc.launch.py model:=alocc_flow_2d bag:=/data/scene
"""

from __future__ import annotations

from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    OpaqueFunction,
    SetEnvironmentVariable,
)
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.substitutions import ExecutableInPackage

from alocc_ros.resources import shared_folder
from alocc_ros.ros import transport
from alocc_ros.stream.preset import load_preset
from launch import LaunchContext, LaunchDescription

# Name, default (None: must be given), meaning.
ARGUMENTS = (
    ("model", None, "a name of `alocc models list`, or a file"),
    ("random_weights", "", "true: run without trained weights, to try things out"),
    ("preset", "", "topics and frames: a name, or a YAML file"),
    ("device", "", "where the network runs: auto, cpu, cuda or cuda:N"),
    ("backend", "", "how the network is run: auto, graph, tensorrt, compiled, eager or reference"),
    ("precision", "", "of the network: auto, fp32, tf32, fp16, bf16 or int8"),
    ("params_file", "", "parameters of the node; empty: config/node.yaml"),
    ("bag", "", "a recording to play; empty: live"),
    ("rate", "1.0", "times real time, for the bag"),
    ("loop", "false", "true: the bag again and again"),
    ("rviz", "false", "true: with RViz"),
    ("use_sim_time", "", "take the time from /clock; empty: if a bag is played"),
)
# Arguments that are parameters of the node: given here, they beat the file.
PARAMETERS = ("model", "random_weights", "preset", "device", "backend", "precision")


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` asks for."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=meaning)
        for name, default, meaning in ARGUMENTS
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=_actions)])


def _actions(context: LaunchContext) -> list:
    given = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    # Before anything starts; the user's own choice of transport is left alone.
    way = transport.decide()
    profile = [SetEnvironmentVariable(transport.profile_variable(), str(way.profile))]
    sim_time = _is_true(given["use_sim_time"] or str(bool(given["bag"])))
    params_file = given["params_file"] or str(shared_folder("config") / "node.yaml")
    overrides = {
        name: _is_true(given[name]) if name == "random_weights" else given[name]
        for name in PARAMETERS
        if given[name]
    }
    node = Node(
        package="alocc_ros",
        executable="alocc_node",
        name="alocc_node",
        output="screen",
        parameters=[params_file, {**overrides, "use_sim_time": sim_time}],
    )
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", str(shared_folder("rviz") / "alocc.rviz"), *_fixed_frame(given)],
        parameters=[{"use_sim_time": sim_time}],
    )
    return [
        *(profile if way.ours else []),
        node,
        *([_player(given)] if given["bag"] else []),
        *([rviz] if _is_true(given["rviz"]) else []),
    ]


def _fixed_frame(given: dict[str, str]) -> list[str]:
    """RViz's own option; without a preset the one of the default is in the RViz file."""
    if not (given["preset"] and _is_true(given["rviz"])):
        return []
    return ["-f", load_preset(given["preset"]).world_frame]


def _player(given: dict[str, str]) -> ExecuteProcess:
    """Not rosbag2: that does not wait for the node, and a scene begins while the model loads."""
    loop = ["--loop"] if _is_true(given["loop"]) else []
    # By its file, as the node: in a virtual environment `python3` is another than ros2's own.
    command = [ExecutableInPackage("alocc", "alocc_ros"), "play", given["bag"]]
    return ExecuteProcess(
        cmd=[*command, "--rate", given["rate"], "--wait", "600", *loop], output="screen"
    )


def _is_true(text: str) -> bool:
    return text.strip().lower() in ("true", "1", "yes", "on")
