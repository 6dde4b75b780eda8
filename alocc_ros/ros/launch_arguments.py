# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The arguments of the launch files; the tables of the documentation are made of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from alocc_ros.errors import ParameterError

# Name, default (None: must be given), meaning.
Arguments = Sequence[tuple[str, str | None, str]]
_RIG: Arguments = (
    ("model", None, "a name of `alocc models list`, or a file"),
    ("preset", "", "topics and frames: a name, or a YAML file"),
    (
        "calibration_file",
        "",
        "rig YAML or folder of camera_info YAMLs; beats CameraInfo and TF",
    ),
    ("device", "", "where the network runs: auto, cpu, cuda or cuda:N"),
    ("params_file", "", "parameters of the node; empty: config/node.yaml"),
)
_NODE: Arguments = (
    ("random_weights", "", "true: run without trained weights, to try things out"),
    ("backend", "", "how the network is run: auto, graph, tensorrt, compiled, eager or reference"),
    ("precision", "", "of the network: auto, fp32, tf32, fp16, bf16 or int8"),
    ("decode", "", "of JPEG images: exact, fast (pixels differ by 0.5 of 255) or gpu"),
    ("log_level", "info", "of the node: debug, info, warn, error or fatal"),
    ("respawn", "false", "true: a node that crashed is started again after 2 s"),
)
_AROUND: Arguments = (
    ("bag", "", "a recording to play; empty: live"),
    ("rate", "1.0", "times real time, for the bag"),
    ("loop", "false", "true: the bag again and again"),
    ("rviz", "false", "true: with RViz"),
    ("foxglove", "false", "true: with foxglove_bridge, to which Foxglove and Lichtblick connect"),
    ("use_sim_time", "", "take the time from /clock; empty: if a bag is played"),
)
# Of alocc.launch.py.
NODE: Arguments = (
    *_RIG,
    *_NODE,
    ("namespace", "", "before the node's name, and so before its topics and services"),
    *_AROUND,
)
# Of multi.launch.py: those of _RIG may be lists.
MULTI: Arguments = (
    ("namespaces", "rig_1,rig_2", "one node is started in each"),
    *_RIG,
    *_NODE,
    *_AROUND,
)
# Of autoware.launch.py.
AUTOWARE: Arguments = (
    ("model", None, "a name of `alocc models list`, or a file"),
    ("preset", "autoware", "topics and frames: a name, or a YAML file"),
    *(row for row in _RIG if row[0] not in ("model", "preset", "params_file")),
    ("params_file", "", "parameters of the node; empty: config/autoware_remap.yaml"),
    *_NODE,
    ("namespace", "", "before the node's name; the topics that Autoware takes keep theirs"),
    ("use_sim_time", "false", "true: take the time from /clock"),
)
# Of octomap.launch.py.
OCTOMAP: Arguments = (
    ("cloud", "/alocc_node/occupancy", "the topic of the voxels"),
    ("base_frame", "base_link", "TF frame of the vehicle"),
    ("eye_frame", "alocc_eye", "TF frame of the clouds, as the node's `cloud_frame`"),
    ("eye_height", "1.6", "m, of the cameras above the base frame"),
    ("frame_id", "map", "TF frame of the map"),
    ("use_sim_time", "false", "true: take the time from /clock"),
)
# Of demo.launch.py.
DEMO: Arguments = (
    ("out", "out/demo", "folder for all that is made"),
    ("model", "alocc_tiny", "a name of `alocc models list`, or a file"),
    ("random_weights", "false", "true: run without trained weights"),
    ("seconds", "5.5", "of driving"),
    ("size", "160x440", "of the images, height x width"),
    ("rviz", "false", "true: with RViz, which stays open"),
)
# Those that are parameters of the node: given, they beat the file.
PARAMETERS = (
    *("model", "random_weights", "preset", "calibration_file", "device", "backend", "precision"),
    "decode",
)
LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")
_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off", "")


def is_true(given: Mapping[str, str], name: str) -> bool:
    """The argument ``name`` as a flag.

    Raises:
        ParameterError: it is neither true nor false.
    """
    text = given[name].strip().lower()
    if text not in (*_TRUE, *_FALSE):
        raise ParameterError(f"{name}:={given[name]} must be true or false")
    return text in _TRUE


def sim_time(given: Mapping[str, str]) -> bool:
    """Whether the time comes from /clock.

    Raises:
        ParameterError: ``use_sim_time`` is neither true nor false.
    """
    return is_true(given, "use_sim_time") if given["use_sim_time"] else bool(given.get("bag"))


def log_level(given: Mapping[str, str]) -> str:
    """As rcl wants it.

    Raises:
        ParameterError: there is no such level.
    """
    if given["log_level"] not in LOG_LEVELS:
        levels = ", ".join(LOG_LEVELS)
        raise ParameterError(f"log_level:={given['log_level']} must be one of {levels}")
    return given["log_level"]


def number(given: Mapping[str, str], name: str, above: float = -math.inf) -> float:
    """The argument ``name``.

    Raises:
        ParameterError: it is no number, or not above the bound.
    """
    try:
        found = float(given[name])
    except ValueError:
        found = math.nan
    if not above < found < math.inf:
        bound = f" above {above:g}" if math.isfinite(above) else ""
        raise ParameterError(f"{name}:={given[name]} must be a number{bound}")
    return found


def rate(given: Mapping[str, str]) -> str:
    """Of the player.

    Raises:
        ParameterError: it is no number above 0.
    """
    number(given, "rate", above=0.0)
    return given["rate"]


def overrides(given: Mapping[str, str]) -> dict[str, str | bool]:
    """Parameters of the node that were given as arguments.

    Raises:
        ParameterError: ``random_weights`` is neither true nor false.
    """
    return {
        name: is_true(given, name) if name == "random_weights" else given[name]
        for name in PARAMETERS
        if given[name]
    }


def rigs(given: Mapping[str, str]) -> list[dict[str, str]]:
    """The arguments of ``multi.launch.py``, as those of one node each.

    Raises:
        ParameterError: no or equal namespaces, or a list of another length than theirs.
    """
    namespaces = _listed(given["namespaces"])
    if not namespaces or len(set(namespaces)) < len(namespaces):
        raise ParameterError(f"namespaces:={given['namespaces']} must be different names")
    made = [{**given, "namespace": namespace} for namespace in namespaces]
    for name, _, _ in _RIG:
        values = _listed(given[name]) or [""]
        if len(values) not in (1, len(made)):
            raise ParameterError(
                f"{name}:={given[name]} must be one value for all namespaces, or "
                f"{len(made)}, one for each"
            )
        for number, rig in enumerate(made):
            rig[name] = values[number % len(values)]
    return made


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
