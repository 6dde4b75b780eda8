# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Whatever can keep a launch from working, looked for before any process is started.

What fails once a process runs leaves the others to themselves: an orphan that owns the topics of
the next start. Needs neither rclpy nor launch.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from alocc_ros.errors import AloccError, BagError, ParameterError
from alocc_ros.resources import shared_folder
from alocc_ros.ros import launch_arguments
from alocc_ros.ros.launch_arguments import is_true
from alocc_ros.ros.model import find_weights
from alocc_ros.ros.parameters import NodeParameters, check
from alocc_ros.stream.preset import Preset, load_preset
from alocc_ros.stream.rig import load_rig

NODE_NAME = "alocc_node"
_NAMESPACE = re.compile(r"([A-Za-z_]\w*(/[A-Za-z_]\w*)*)?", re.ASCII)


def all_of(*checks: Callable[[], Any]) -> list[Any]:
    """What the checks return.

    Raises:
        ParameterError: with everything that is wrong, so that it can be mended at once.
    """
    results, problems = [], []
    for check_one in checks:
        try:
            results.append(check_one())
        except AloccError as error:
            problems.append(str(error))
    if problems:
        raise ParameterError("; ".join(dict.fromkeys(problems)))
    return results


def executable(package: str, name: str, wanted_by: str = "") -> Path:
    """A program of a ROS package.

    Args:
        package: where it is.
        name: of the program.
        wanted_by: the argument that asks for it, or "".

    Raises:
        ParameterError: it is not installed.
    """
    from ament_index_python.packages import PackageNotFoundError, get_package_prefix

    try:
        program = Path(get_package_prefix(package)) / "lib" / package / name
    except PackageNotFoundError:
        program = None
    if program is not None and os.access(program, os.X_OK):
        return program
    distro = os.environ.get("ROS_DISTRO") or "$ROS_DISTRO"
    if package == "alocc_ros":
        remedy = "build it: colcon build --packages-select alocc_ros"
    else:
        remedy = f"apt-get install ros-{distro}-{package.replace('_', '-')}"
    asked = f"{wanted_by} needs it: " if wanted_by else ""
    instead = f", or leave {wanted_by} out" if wanted_by else ""
    raise ParameterError(f"{package} is not installed here; {asked}{remedy}{instead}")


def node_parameters(given: Mapping[str, str]) -> NodeParameters:
    """The parameters that a node will have.

    Args:
        given: arguments of alocc.launch.py.

    Raises:
        ParameterError: with everything that is wrong in the file and the arguments.
    """
    names = filter(None, (given["namespace"].strip("/"), NODE_NAME))
    values = _of_file(parameter_file(given), "".join(f"/{name}" for name in names))
    return check(values | launch_arguments.overrides(given))


def parameter_file(given: Mapping[str, str]) -> Path:
    """The file of parameters that a node gets."""
    return Path(given["params_file"] or shared_folder("config") / "node.yaml")


def rig(given: Mapping[str, str]) -> tuple[NodeParameters, Preset]:
    """Parameters and preset of a node, after a look at all that it reads to be configured.

    Raises:
        ParameterError: with everything that is wrong.
    """
    namespace = given["namespace"]
    if not _NAMESPACE.fullmatch(namespace.strip("/")):
        raise ParameterError(
            f"namespace:={namespace} is no name of ROS: letters, digits, underscores and slashes"
        )
    parameters = node_parameters(given)
    preset, _ = all_of(partial(_preset, parameters), partial(find_weights, parameters))
    return parameters, preset


def bag(given: Mapping[str, str]) -> None:
    """That the recording can be played, if there is to be one.

    Raises:
        AloccError: it is not there, cannot be read or holds nothing to play.
    """
    launch_arguments.rate(given)
    is_true(given, "loop")
    if not given["bag"]:
        return
    from alocc_ros.bags.reader import KNOWN_TYPES, Bag

    with Bag(Path(given["bag"])) as recording:
        if not KNOWN_TYPES & set(recording.types.values()):
            raise BagError(f"bag {given['bag']} has no topic that the node takes")


def programs(given: Mapping[str, str]) -> Path:
    """Those of the other packages that are asked for; returns our own ``alocc``.

    Raises:
        ParameterError: one is not installed.
    """

    def asked(name: str, package: str) -> None:
        if is_true(given, name):
            executable(package, package, f"{name}:=true")

    command, *_ = all_of(
        partial(executable, "alocc_ros", "alocc"),
        partial(executable, "alocc_ros", NODE_NAME),
        partial(asked, "rviz", "rviz2"),
        *([partial(asked, "foxglove", "foxglove_bridge")] if "foxglove" in given else []),
    )
    return command


def _preset(parameters: NodeParameters) -> Preset:
    preset = load_preset(parameters.preset)
    file = parameters.calibration_file or preset.calibration_file or ""
    if file:
        load_rig(Path(file), preset.is_rectified)
    return preset


def _of_file(path: Path, node: str) -> dict[str, Any]:
    """The parameters that a file holds for the node of that full name."""
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        words = " ".join(str(error).split())
        raise ParameterError(f"params_file:={path} cannot be read: {words}") from error
    values: dict[str, Any] = {}
    for pattern, section in _sections(entries, ""):
        if _matches(pattern, node):
            values |= section
    known = {field.name: field.default for field in dataclasses.fields(NodeParameters)}
    return {name: _number(value, known[name]) for name, value in values.items() if name in known}


def _sections(entries: Any, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(pattern of the node's name, parameters), of namespaces within namespaces too."""
    if not isinstance(entries, dict):
        return
    for key, value in entries.items():
        if key == "ros__parameters" and isinstance(value, dict):
            yield name, value
        elif key != "ros__parameters":
            yield from _sections(value, f"{name}/{str(key).strip('/')}")


def _matches(pattern: str, node: str) -> bool:
    """By the rules of rcl: ``*`` is one part of a name, ``**`` any number of them."""
    expression = re.escape(pattern).replace(r"/\*\*", "(/[^/]+)*").replace(r"\*", "[^/]+")
    return re.fullmatch(expression, node) is not None


def _number(value: Any, default: Any) -> Any:
    """1e-3 is a number to rcl and a text to PyYAML."""
    if isinstance(default, float) and isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
