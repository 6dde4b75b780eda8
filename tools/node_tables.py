# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Writes the tables of docs/node.md (but its outputs) and docs/parameters.md anew from the code.

    python tools/node_tables.py

Needs rclpy. test/ros/test_node_files.py fails while they differ.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

from alocc_ros.ros import diagnostics, inputs, launch_arguments, node, parameters, poses, worker
from alocc_ros.stream.preset import Preset, load_preset, preset_names

ROOT = Path(__file__).parents[1]
_BLOCK = r"(<!-- {}: .*? -->\n\n).*?(?=\n\n|\n?\Z)"


def table(*rows: tuple[str, ...]) -> str:
    """Markdown; the first row is the heading."""
    lines = [rows[0], ("---",) * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def _type(kind: type) -> str:
    return f"{kind.__module__.partition('.')[0]}/{kind.__name__}"


def subscriptions() -> str:
    def kinds(types: dict[str, type]) -> str:
        return ", ".join(_type(kind) for kind in types.values())

    images, odometry = kinds(inputs.IMAGE_TYPES["auto"]), kinds(poses.ODOMETRY_TYPES)
    return table(
        ("topic", "type", "for"),
        ("`image` of each camera in the preset", images, "what the network sees"),
        ("`camera_info` of each camera", "sensor_msgs/CameraInfo", "intrinsics, distortion"),
        ("`/tf`, `/tf_static`", "tf2_msgs/TFMessage", "mounting of the cameras, ego poses"),
        ("`odometry_topic` of the preset", odometry, "ego poses, instead of TF"),
    )


def frames() -> str:
    """The names by default are the preset's."""
    usual = {field.name: field.default for field in dataclasses.fields(Preset)}
    grid = {field.name: field for field in dataclasses.fields(parameters.NodeParameters)}
    return table(
        ("frame", "named by", "usually", "what it is"),
        ("world", "`world_frame` of the preset", f"`{usual['world_frame']}`",
         "the vehicle moves in it without jumps"),
        ("base", "`base_frame` of the preset", f"`{usual['base_frame']}`",
         "the vehicle, x forward, z up; of every output but the overlays"),
        ("camera", "`frame` of the camera in the preset", "that of the image's header",
         "x right, y down, z ahead; of its overlay"),
        ("grid", "parameter `grid_frame`", "the base",
         grid["grid_frame"].metadata["description"].partition(";")[0]),
    )  # fmt: skip


def services() -> str:
    rows = [(f"`~/{name}`", _type(kind), effect) for name, kind, effect in node.SERVICES]
    return table(("service", "type", "effect"), *rows)


def statuses() -> str:
    rows = [(part, f"`{key}`", meaning) for part, key, meaning in diagnostics.KEYS]
    return table(("status", "key", "meaning"), *rows)


def stages() -> str:
    rows = [(f"`{name}`", meaning) for name, meaning in worker.STAGES]
    return table(("stage", "time"), *rows)


def early() -> str:
    rows = [(f"`early: {name}`", meaning) for name, meaning in worker.EARLY]
    return table(("key", "what"), *rows)


def launch(arguments: launch_arguments.Arguments) -> str:
    rows = []
    for name, default, meaning in arguments:
        shown = "must be given" if default is None else f"`{default}`" if default else ""
        rows.append((f"`{name}:=`", shown, meaning))
    return table(("argument", "default", "meaning"), *rows)


def _only_of_multi() -> list[tuple[str, str | None, str]]:
    """What the page has not said of alocc.launch.py already."""
    return [row for row in launch_arguments.MULTI if row not in launch_arguments.NODE]


def presets() -> str:
    heading = ("preset", "front image", "grid in", "ego pose", "mounting", "stamps")
    return table(heading, *(_preset(name, load_preset(name)) for name in preset_names()))


def _preset(name: str, preset: Preset) -> tuple[str, ...]:
    base, world = preset.base_frame, preset.world_frame
    odometry = f"`{preset.odometry_topic}`"
    pose = odometry if preset.ego_pose_source == "odometry" else f"TF `{world}` to `{base}`"
    mounting = "TF" if preset.extrinsics == "tf" else "`calibration_file`"
    image = preset.used_cameras[preset.anchor].image
    stamps = {"header": "header", "receive": "arrival"}[preset.stamp_source]
    return f"`{name}`", f"`{image}`", f"`{base}`", pose, mounting, stamps


BLOCKS: dict[str, Callable[[], str]] = {
    "autoware launch arguments": lambda: launch(launch_arguments.AUTOWARE),
    "early": early,
    "frames": frames,
    "launch arguments": lambda: launch(launch_arguments.NODE),
    "multi launch arguments": lambda: launch(_only_of_multi()),
    "octomap launch arguments": lambda: launch(launch_arguments.OCTOMAP),
    "parameters": lambda: parameters.table().rstrip(),
    "presets": presets,
    "services": services,
    "stages": stages,
    "statuses": statuses,
    "subscriptions": subscriptions,
}
PAGES = tuple(
    ROOT / "docs" / f"{page}.md"
    for page in ("node", "parameters", "integrations/autoware", "integrations/octomap")
)


def renewed(page: Path) -> str:
    """The page with its tables as the code has them."""
    text = page.read_text(encoding="utf-8")
    for name, make in BLOCKS.items():
        block = re.compile(_BLOCK.format(name), re.S)
        text = block.sub(lambda found, make=make: found[1] + make(), text)
    return text


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(renewed(path), encoding="utf-8")
