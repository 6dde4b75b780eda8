# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Every parameter of the node: name, default, meaning, bounds and unit, once.

Declaring, checking and documenting follow from the one dataclass below. Wrong values never
keep the node from starting: they are all listed when it is configured, and can be mended then.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alocc_ros import costmap
from alocc_ros.errors import ParameterError
from alocc_ros.stream.preset import DEFAULT_PRESET

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.parameter import Parameter


def _parameter(
    default: str | bool | int | float,
    description: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    parse: Callable[[str], object] | None = None,
    live: bool = False,
) -> Any:
    metadata = {
        "description": description,
        "unit": unit,
        "low": low,
        "high": high,
        "choices": choices,
        "parse": parse,
        "live": live,
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class NodeParameters:
    """What can be set from outside.

    Taken over when the node is configured; what is ``live``, also while it is.
    """

    model: str = _parameter(
        "",
        "name of a model (`alocc models list`), file of a checkpoint, or folder of a run; "
        "must be given",
    )
    variant: str = _parameter("", "network that a checkpoint of unknown origin is for")
    random_weights: bool = _parameter(
        False, "run without trained weights, to try things out; the output means nothing"
    )
    device: str = _parameter("auto", "where the network runs: auto, cpu, cuda or cuda:N")
    backend: str = _parameter(
        "auto",
        "how the network is run: graph (our kernels, a frame as one CUDA graph), tensorrt, "
        "compiled (torch.compile), eager, reference (every operator in its slow obvious form; twin "
        "is its former name); auto: graph on a GPU, else eager",
        choices=("auto", "eager", "reference", "compiled", "graph", "tensorrt", "twin"),
    )
    precision: str = _parameter(
        "auto",
        "fp32, tf32, fp16, bf16 or int8; auto: fp16 with graph and tensorrt, else fp32",
        choices=("auto", "fp32", "tf32", "fp16", "bf16", "int8"),
    )
    decode: str = _parameter(
        "exact",
        "JPEG images exactly as in training; fast: scaled while decoding, twice as fast, pixels "
        "differ by 0.5 of 255; gpu: by nvJPEG where the network runs (extra nvjpeg)",
        choices=("exact", "fast", "gpu"),
    )
    early: bool = _parameter(
        False,
        "decode each image, and do the network's part for it, when it comes: a result is earlier, "
        "but images are worked on that no set will need",
    )
    preset: str = _parameter(
        DEFAULT_PRESET, "topics and frames: name of a preset, or a YAML file like config/presets/*"
    )
    calibration_file: str = _parameter(
        "", "rig YAML or folder of camera_info YAMLs; wins over CameraInfo and TF"
    )
    image_transport: str = _parameter(
        "auto",
        "type of the image topics; auto: what their publishers say",
        choices=("auto", "raw", "compressed"),
    )
    stamp_source: str = _parameter(
        "preset",
        "when an image was taken: header stamp, or the time of its arrival",
        choices=("preset", "header", "receive"),
    )
    grid_frame: str = _parameter(
        "", "TF frame of the grid, for models of the LiDAR frame; empty: the base frame"
    )
    set_timeout: float = _parameter(
        0.0,
        "how long a set of images waits for late cameras; 0: as in the preset",
        unit="s",
        low=0.0,
        high=60.0,
        live=True,
    )
    min_cameras: int = _parameter(
        0, "sets with fewer images are dropped; 0: as in the preset", low=0, high=6, live=True
    )
    tf_timeout: float = _parameter(
        0.2,
        "how long a set waits for its ego pose, and for a CameraInfo or mounting that is not "
        "there yet",
        unit="s",
        low=0.0,
        high=10.0,
        live=True,
    )
    confidence: bool = _parameter(
        False, "also give the confidence of each label in `~/voxels`", live=True
    )
    markers: bool = _parameter(
        False, "offer `~/markers` (CUBE_LIST); RViz stalls from 20,000 cubes on", live=True
    )
    max_rate_hz: float = _parameter(
        0.0,
        "how often `~/occupancy`, `~/flow_markers`, `~/markers` and `~/overlay/*` are published "
        "at most; 0: as often as there is a result",
        unit="Hz",
        low=0.0,
        high=1000.0,
        live=True,
    )
    max_points: int = _parameter(
        0,
        "most voxels in `~/occupancy` and `~/markers`, every n-th of them; 0: all",
        low=0,
        high=10_000_000,
        live=True,
    )
    obstacle_height: float = _parameter(
        2.5,
        "voxels above it are not in the way: left out of `~/obstacles` and `~/occupancy_grid`",
        unit="m",
        low=-10.0,
        high=100.0,
        live=True,
    )
    grid_output_frame: str = _parameter(
        costmap.BASE,
        "TF frame of `~/occupancy_grid`, such as odom or map, in which it is drawn at the pose of "
        "its stamp, cells along the frame's axes; base: that of the voxels, moving with the "
        "vehicle",
    )
    cloud_frame: str = _parameter(
        "",
        "TF frame of `~/occupancy`, `~/obstacles` and `~/free_space`, from whose origin consumers "
        "trace rays; empty: that of the voxels",
    )
    footprint: str = _parameter(
        costmap.AUTO,
        "where the vehicle itself is, free in `~/occupancy_grid`: corners [[x, y], ...] in m in "
        "the base frame, auto (the rectangle around its cameras) or none",
        parse=costmap.parse_footprint,
    )
    class_costs: str = _parameter(
        "",
        "costs in `~/occupancy_grid`, 0 to 100 by class, such as `pedestrian: 100, sidewalk: 30`; "
        "of others 100 for obstacles, 0 for ground",
        parse=costmap.parse_costs,
    )
    unknown_cost: int = _parameter(
        -1, "cost of cells in `~/occupancy_grid` of which nothing is known", low=-1, high=100
    )
    cost_by_confidence: bool = _parameter(
        False,
        "multiply the costs of obstacles by the confidence of their labels; needs `confidence`",
    )
    stale_after: float = _parameter(
        1.5,
        "a camera that has sent nothing for so long is not waited for, and reported",
        unit="s",
        low=0.05,
        high=3600.0,
        live=True,
    )
    diagnostics_period: float = _parameter(
        1.0, "time between two messages on /diagnostics", unit="s", low=0.05, high=60.0, live=True
    )
    auto_start: bool = _parameter(
        True, "configure and activate on start; false: a lifecycle manager does it", live=True
    )


def check_value(name: str, value: Any) -> Any:
    """``value`` as the parameter's type.

    Raises:
        ParameterError: wrong type, out of bounds, or none of the choices.
    """
    field = _FIELDS[name]
    kind, limits = type(field.default), field.metadata
    if kind is float and type(value) is int:
        value = float(value)  # `max_rate_hz: 5` in a YAML file
    if type(value) is not kind:
        raise ParameterError(f"{name} must be {_NOUN[kind]}, is {value!r}")
    if kind is float and not math.isfinite(value):
        raise ParameterError(f"{name} must be a finite number, is {value}")
    if limits["choices"] and value not in limits["choices"]:
        raise ParameterError(f"{name} must be one of {', '.join(limits['choices'])}, is {value!r}")
    if limits["low"] is not None and not limits["low"] <= value <= limits["high"]:
        raise ParameterError(f"{name} must be {_bounds(field)}, is {value:g}")
    if limits["parse"] is not None:
        try:
            limits["parse"](value)
        except ParameterError as error:
            raise ParameterError(f"{name}: {error}") from error
    return value


def check(values: Mapping[str, Any], problems: Mapping[str, str] | None = None) -> NodeParameters:
    """The parameters, if all is right.

    Args:
        values: by name; what is not named has its default.
        problems: by parameter, what is known to be wrong already.

    Raises:
        ParameterError: with everything that is wrong.
    """
    found = dict(problems or {})
    checked = {}
    for name, value in values.items():
        if name in found:
            continue
        try:
            checked[name] = check_value(name, value)
        except ParameterError as error:
            found[name] = str(error)
    if "model" not in found and not checked.get("model"):
        found["model"] = "model must be given: a name of `alocc models list`, or a file"
    if checked.get("cost_by_confidence") and not checked.get("confidence"):
        found["cost_by_confidence"] = "cost_by_confidence needs confidence: true"
    if found:
        # In the order of the documentation, whatever was noticed first.
        raise ParameterError("; ".join(found[name] for name in _FIELDS if name in found))
    return NodeParameters(**checked)


class DeclaredParameters:
    """The parameters as a node has them.

    Attributes:
        on_change: gets the parameters after each change; while there is one, the node is
            configured, and only those that are live can be changed.
    """

    def __init__(self, node: Node) -> None:
        """Declares them all; values that are wrong are kept for ``read`` to complain about."""
        from rclpy.exceptions import InvalidParameterValueException

        self._node = node
        self._problems: dict[str, str] = {}
        self.on_change: Callable[[NodeParameters], None] | None = None
        for name, field in _FIELDS.items():
            try:
                node.declare_parameter(name, field.default, _descriptor(field))
            except InvalidParameterValueException:
                value = getattr(self._given().get(name), "value", "beyond that")
                self._problems[name] = f"{name} must be {_bounds(field)}, is {value}"
                node.declare_parameter(
                    name, field.default, _descriptor(field), ignore_override=True
                )
        node.add_on_set_parameters_callback(self._on_set)
        # Humble has nothing that is called after the parameters were set.
        self._applies_itself = not hasattr(node, "add_post_set_parameters_callback")
        if not self._applies_itself:
            node.add_post_set_parameters_callback(self._after_set)

    def read(self) -> NodeParameters:
        """The parameters now.

        Raises:
            ParameterError: with everything that is wrong.
        """
        values = {name: self._node.get_parameter(name).value for name in _FIELDS}
        return check(values, self._problems)

    def unknown(self) -> list[str]:
        """Names that somebody set but nobody reads, each with what was probably meant."""
        out = []
        for name in sorted(n for n in self._given() if not self._node.has_parameter(n)):
            if name.startswith("qos_overrides."):
                continue
            out.append(name + _meant(name))
        return out

    def _given(self) -> Mapping[str, Any]:
        # rclpy drops what is not declared without a word and has no public way to ask for it.
        return getattr(self._node, "_parameter_overrides", {})

    def refusal(self, parameters: Sequence[Parameter]) -> str:
        """Why parameters cannot be set, as a sentence; "" if they can."""
        for parameter in parameters:
            if not self._node.has_parameter(parameter.name):
                return f"nobody reads the parameter {parameter.name}{_meant(parameter.name)}"
        return self._refusal(parameters)

    def _refusal(self, parameters: Sequence[Parameter]) -> str:
        """Of those that are ours; rclpy asks about each that it is just declaring, too."""
        values = {}
        for parameter in parameters:
            name = parameter.name
            if name not in _FIELDS:
                continue
            try:
                values[name] = check_value(name, parameter.value)
            except ParameterError as error:
                return str(error)
        if self.on_change is None or not values:
            return ""
        if late := [name for name in values if not _FIELDS[name].metadata["live"]]:
            return f"{late[0]} takes effect when the node is configured: clean the node up first"
        try:
            self._changed(values)
        except ParameterError as error:  # with what the others are
            return str(error)
        return ""

    def _changed(self, values: Mapping[str, Any]) -> NodeParameters:
        now = {name: self._node.get_parameter(name).value for name in _FIELDS}
        return check({**now, **values}, self._problems)

    def _on_set(self, parameters: list[Parameter]) -> Any:
        from rcl_interfaces.msg import SetParametersResult

        if reason := self._refusal(parameters):
            return SetParametersResult(successful=False, reason=reason)
        for parameter in parameters:
            self._problems.pop(parameter.name, None)
        if self._applies_itself:
            self._after_set(parameters)
        return SetParametersResult(successful=True)

    def _after_set(self, parameters: list[Parameter]) -> None:
        values = {p.name: p.value for p in parameters if p.name in _FIELDS}
        if values and self.on_change is not None:
            self.on_change(self._changed(values))


def table() -> str:
    """The parameters as a Markdown table."""
    rows = ["| name | default | unit | values | live | meaning |", "|---|---|---|---|---|---|"]
    for name, field in _FIELDS.items():
        default = field.default
        shown = str(default).lower() if isinstance(default, bool) else default
        shown = '""' if shown == "" else f"{shown}"
        limits = field.metadata
        values = ", ".join(limits["choices"]) or (
            f"{limits['low']:g} to {limits['high']:g}" if limits["low"] is not None else ""
        )
        live = "yes" if limits["live"] else ""
        cells = (f"`{name}`", f"`{shown}`", limits["unit"], values, live, limits["description"])
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def _meant(name: str) -> str:
    near = difflib.get_close_matches(name, _FIELDS, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _descriptor(field: dataclasses.Field) -> Any:
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

    limits = field.metadata
    constraints = [f"one of {', '.join(limits['choices'])}"] if limits["choices"] else []
    constraints.append(_WHEN[limits["live"]])
    unit = f" [{limits['unit']}]" if limits["unit"] else ""
    descriptor = ParameterDescriptor(
        description=limits["description"] + unit,
        additional_constraints="; ".join(constraints),
        # The type is checked by us, so that `max_rate_hz: 5` passes and all problems are told.
        dynamic_typing=True,
    )
    if limits["low"] is not None:
        low, high = limits["low"], limits["high"]
        if isinstance(field.default, float):
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(low), to_value=float(high), step=0.0)
            ]
        else:
            descriptor.integer_range = [
                IntegerRange(from_value=int(low), to_value=int(high), step=1)
            ]
    return descriptor


def _bounds(field: dataclasses.Field) -> str:
    limits = field.metadata
    unit = f" {limits['unit']}" if limits["unit"] else ""
    return f"{limits['low']:g} to {limits['high']:g}{unit}"


_FIELDS = {field.name: field for field in dataclasses.fields(NodeParameters)}
_WHEN = {True: "takes effect at once", False: "takes effect when the node is configured"}
_NOUN = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}
