# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The processes of the launch files, and what their ends mean for the others.

A launch file checks first (``launch_checks``) and makes processes of these then. A node or player
that cannot work ends the launch, with its reason: nobody is left waiting for the other. A viewer
does so only while it starts: later, a vehicle drives on without one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from time import monotonic

from launch.action import Action
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    LogInfo,
    OpaqueFunction,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from alocc_ros.errors import AloccError
from alocc_ros.outputs import OUTPUTS, PER_CAMERA
from alocc_ros.resources import shared_folder
from alocc_ros.ros import launch_arguments, transport
from alocc_ros.ros.launch_arguments import Arguments, is_true
from alocc_ros.ros.launch_checks import NODE_NAME, parameter_file
from alocc_ros.stream.preset import Preset
from launch import LaunchContext, LaunchDescription

_RESPAWN_DELAY = 2.0  # s
_BAD_INPUT = 2  # exit code: another try would end the same way
_STARTING = 15.0  # s, within which the end of a viewer means that it cannot work here
_WAIT = 600  # s that the player has for a node that loads a large model
OnExit = Callable[[ProcessExited, LaunchContext], list[Action] | None]


class LaunchError(Exception):
    """Ends a launch with one line and an exit code that is not 0."""


def description(
    arguments: Arguments, parts: Callable[[dict[str, str]], list[Action]]
) -> LaunchDescription:
    """Declares the arguments; ``parts`` gets them, checks all, and makes the processes of them."""

    def resolve(context: LaunchContext) -> list[Action]:
        given = {name: LaunchConfiguration(name).perform(context) for name, _, _ in arguments}
        try:
            return parts(given)
        except AloccError as error:
            raise LaunchError(f"nothing was started: {error}") from error

    declared = [
        DeclareLaunchArgument(name, default_value=default, description=meaning)
        for name, default, meaning in arguments
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=resolve)])


def transport_profile() -> list[Action]:
    """For all that is started after it; the user's own choice of transport is left alone."""
    way = transport.decide()
    profile = SetEnvironmentVariable(transport.profile_variable(), str(way.profile))
    return [profile] if way.ours else []


def node(given: Mapping[str, str], remappings: Iterable[tuple[str, str]] = ()) -> Node:
    """The node, by the arguments of alocc.launch.py, with other names for some of its topics."""
    respawn = is_true(given, "respawn")
    parameters = {
        **launch_arguments.overrides(given),
        "use_sim_time": launch_arguments.sim_time(given),
    }
    return Node(
        package="alocc_ros",
        executable=NODE_NAME,
        name=NODE_NAME,
        namespace=given["namespace"] or None,
        output="screen",
        parameters=[str(parameter_file(given)), parameters],
        remappings=list(remappings),
        ros_arguments=["--log-level", launch_arguments.log_level(given)],
        respawn=respawn,
        respawn_delay=_RESPAWN_DELAY,
        on_exit=_node_ended(_name(given["namespace"]), respawn),
    )


def player(given: Mapping[str, str], command: Path) -> list[Action]:
    """``alocc play``, if a bag was given.

    Not rosbag2: that does not wait for the node, and a scene begins while the model loads.
    """
    if not given["bag"]:
        return []
    loop = ["--loop"] if is_true(given, "loop") else []
    play = [str(command), "play", given["bag"], "--wait", str(_WAIT), *loop]
    return [
        ExecuteProcess(
            cmd=[*play, "--rate", launch_arguments.rate(given)],
            output="screen",
            on_exit=ends_the_launch("the player of the bag"),
        )
    ]


def rviz(given: Mapping[str, str], preset: Preset | None, *, with_sim_time: bool) -> list[Action]:
    """RViz, if it is wanted; without a preset the world frame is that of the RViz file."""
    if not is_true(given, "rviz"):
        return []
    namespace = given.get("namespace", "").strip("/")
    fixed_frame = ["-f", preset.world_frame] if preset is not None else []
    cameras = preset.used_cameras if preset is not None and namespace else ()
    return [
        Node(
            package="rviz2",
            executable="rviz2",
            namespace=namespace or None,
            arguments=["-d", str(shared_folder("rviz") / "alocc.rviz"), *fixed_frame],
            parameters=[{"use_sim_time": with_sim_time}],
            remappings=list(_moved(namespace, cameras)) if namespace else [],
            on_exit=_viewer_ended("rviz2"),
        )
    ]


def foxglove(given: Mapping[str, str]) -> list[Action]:
    """foxglove_bridge, if it is wanted."""
    if not is_true(given, "foxglove"):
        return []
    return [
        Node(
            package="foxglove_bridge",
            executable="foxglove_bridge",
            parameters=[{"use_sim_time": launch_arguments.sim_time(given)}],
            on_exit=_viewer_ended("foxglove_bridge"),
        )
    ]


def ends_the_launch(who: str, over: Iterable[Action] = ()) -> OnExit:
    """What follows from the end of a process: with an error the end of all, else ``over``."""

    def ended(event: ProcessExited, context: LaunchContext) -> list[Action] | None:
        if context.is_shutdown:
            return None
        if event.returncode != 0:
            raise LaunchError(_words(who, event.returncode))
        return list(over)

    return ended


def _node_ended(name: str, respawn: bool) -> OnExit:
    last = ends_the_launch(name, [Shutdown(reason=f"{name} was asked to end")])

    def ended(event: ProcessExited, context: LaunchContext) -> list[Action] | None:
        if respawn and event.returncode != _BAD_INPUT:
            return None  # launch starts it again
        return last(event, context)

    return ended


def _viewer_ended(name: str) -> OnExit:
    begin = monotonic()

    def ended(event: ProcessExited, context: LaunchContext) -> list[Action] | None:
        if context.is_shutdown or event.returncode == 0:
            return None
        words = _words(name, event.returncode)
        if monotonic() < begin + _STARTING:
            raise LaunchError(words)
        return [LogInfo(msg=f"{words}; the others go on")]

    return ended


def _words(who: str, code: int) -> str:
    how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return f"{who} {how}: it says why above"


def _name(namespace: str) -> str:
    return "".join(f"/{part}" for part in (namespace.strip("/"), NODE_NAME) if part)


def _moved(namespace: str, cameras: Iterable[str]) -> Iterable[tuple[str, str]]:
    """Remappings for a viewer whose file names the topics of a node without a namespace."""
    for output in OUTPUTS:
        names = (
            [output.name.replace(PER_CAMERA, camera) for camera in cameras]
            if output.per_camera
            else [output.name]
        )
        for name in names if output.node and not output.is_absolute else []:
            yield f"{_name('')}/{name}", f"{_name(namespace)}/{name}"
