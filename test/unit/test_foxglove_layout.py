# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The layout for Foxglove and Lichtblick says only what the panels understand, and shows all."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml

from alocc_ros.labels import OCC3D
from alocc_ros.outputs import OUTPUTS, RECORDING_NAMESPACE
from alocc_ros.types import CAMERAS

ROOT = Path(__file__).parents[2]
RULES = yaml.safe_load((ROOT / "test" / "data" / "lichtblick_settings.yaml").read_text())
LAYOUT = json.loads((ROOT / "rviz" / "alocc_foxglove.json").read_text())
PANELS = LAYOUT["configById"]
NODE = "/alocc_node"
SCRIPTS = "/studio_script"
# What the user scripts of the layout make.
MADE = {
    f"{SCRIPTS}{n}/voxels": "visualization_msgs/MarkerArray" for n in (NODE, RECORDING_NAMESPACE)
}


def tool() -> ModuleType:
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        return importlib.import_module("foxglove_layout")
    finally:
        sys.path.pop(0)


def types() -> dict[str, str]:
    """Topic to message type, of the node and of recordings."""
    of_node = {o.topic(NODE): o.type for o in OUTPUTS if o.node}
    of_file = {o.topic(RECORDING_NAMESPACE): o.type for o in OUTPUTS if o.recording}
    return {t: m.replace("/msg/", "/") for t, m in {**of_node, **of_file}.items()} | MADE


def strange(where: str, values: dict[str, Any], rule: dict[str, Any]) -> Iterator[str]:
    """Keys that a rule does not have, and values that it does not allow."""
    keys = rule["keys"]
    for key, value in values.items():
        allowed = keys.get(key) if isinstance(keys, dict) else []
        if key not in keys or (allowed and value not in allowed):
            yield f"{where}: {key}: {value}"


def unknown(layout: dict[str, Any]) -> Iterator[str]:
    """What Lichtblick would pass over."""
    yield from strange("layout", layout, RULES["layout"])
    for name, script in layout["userNodes"].items():
        yield from strange(name, script, RULES["script"])
    for name, panel in layout["configById"].items():
        rule = RULES["panels"].get(name.partition("!")[0])
        if rule is None:
            yield name
            continue
        own = {k: v for k, v in panel.items() if k not in RULES["every"]["keys"]}
        yield from strange(name, own, rule)
        for part in ("cameraState", "scene", "imageMode"):
            yield from strange(f"{name} {part}", panel.get(part, {}), RULES[part])
        transforms = panel.get("scene", {}).get("transforms", {})
        yield from strange(f"{name} transforms", transforms, RULES["scene_transforms"])
        for path in panel.get("paths", []):
            yield from strange(f"{name} path", path, RULES["plot_path"])
        for topic, settings in panel.get("topics", {}).items():
            if topic in types():
                yield from strange(topic, settings, RULES["topics"][types()[topic]])
            else:
                yield topic
        for tab in panel.get("tabs", []):
            yield from strange(f"{name} tab", tab, RULES["tab"])
            yield from unknown_of_split(tab["layout"])
    yield from unknown_of_split(layout["layout"])


def unknown_of_split(part: Any) -> Iterator[str]:
    if not isinstance(part, str):
        yield from strange("split", part, RULES["mosaic"])
        yield from unknown_of_split(part["first"])
        yield from unknown_of_split(part["second"])


def test_every_panel_key_and_value_is_one_of_lichtblick():
    assert list(unknown(LAYOUT)) == []


def test_what_was_wrong_before_is_found():
    """Cubes, which Lichtblick does not know, showed dots."""
    layout = json.loads(json.dumps(LAYOUT))
    scene = layout["configById"]["3D!scene"]
    scene["topics"]["/alocc_node/occupancy"] |= {"pointShape": "cube", "cubeSize": 0.4}
    scene["topics"]["/nobody"] = {"visible": True}
    scene["followMod"] = "follow-pose"
    layout["configById"]["Rviz!x"] = {}
    assert list(unknown(layout)) == [
        "3D!scene: followMod: follow-pose",
        "/alocc_node/occupancy: pointShape: cube",
        "/alocc_node/occupancy: cubeSize: 0.4",
        "/nobody",
        "Rviz!x",
    ]


def test_the_layout_is_what_the_tool_makes():
    assert tool().layout() == LAYOUT, "python tools/foxglove_layout.py makes it anew"


def placed(part: Any) -> list[str]:
    if isinstance(part, str):
        tabs = PANELS[part].get("tabs", [])
        return [part] + [name for tab in tabs for name in placed(tab["layout"])]
    return placed(part["first"]) + placed(part["second"])


def test_every_panel_has_one_place():
    assert sorted(placed(LAYOUT["layout"])) == sorted(PANELS)


def test_the_node_and_files_of_run_are_both_shown():
    shown = set(PANELS["3D!scene"]["topics"])
    for panel in PANELS.values():
        shown |= {panel.get(key) for key in ("topicToRender", "topicPath")}
        shown.add(panel.get("imageMode", {}).get("imageTopic"))
    for names in (
        {"occupancy", "flow_markers", "occupancy_grid", "obstacles", "object_markers"},
        {"voxels"},
    ):
        for namespace in (NODE, RECORDING_NAMESPACE):
            prefix = SCRIPTS if names == {"voxels"} else ""
            assert {f"{prefix}{namespace}/{name}" for name in names} <= shown
    assert {f"{NODE}/overlay/{camera}" for camera in CAMERAS} <= shown
    assert {"/diagnostics", f"{RECORDING_NAMESPACE}/diagnostics", f"{NODE}/status"} <= shown
    assert "/CAM_FRONT/image_rect_compressed" in shown


def colour(text: str) -> np.ndarray:  # [3]
    return np.array([int(text[i : i + 2], 16) for i in (1, 3, 5)])


def test_obstacles_seen_from_above_have_the_colour_of_no_class():
    for namespace in (NODE, RECORDING_NAMESPACE):
        grid = PANELS["3D!scene"]["topics"][f"{namespace}/occupancy_grid"]
        distance = np.linalg.norm(OCC3D.colours - colour(grid["maxColor"]), axis=1)
        assert distance.min() > 80
        assert grid["minColor"].endswith("00") and grid["unknownColor"].endswith("00")


@pytest.mark.parametrize("kind", ["node", "file"])
def test_the_legend_names_every_class_with_the_colour_of_its_voxels(kind):
    paths = PANELS[f"Plot!classes_{kind}"]["paths"]
    legend = {path["label"]: colour(path["color"]).tolist() for path in paths}
    for name, rgb in zip(OCC3D.names, OCC3D.colours.tolist(), strict=True):
        assert name == "free" or legend[name] == rgb
    # A row's number is the place of its colour in the script that counts.
    source = LAYOUT["userNodes"][f"classes_{kind}"]["sourceCode"]
    counted = re.search(r"COLOURS = \[(.*)\]", source)[1].split(", ")
    for number, path in enumerate(paths):
        assert path["value"].endswith(f".counts[{number}]")
        assert counted[number] == path["color"].replace("#", "0x")


def outputs_of(scripts: Iterable[dict[str, str]]) -> dict[str, str]:
    """Output topic of each user script to its only input."""
    found = {}
    for script in scripts:
        (topic,) = re.findall(r'export const output = "(.*)"', script["sourceCode"])
        (inputs,) = re.findall(r"export const inputs = \[(.*)\]", script["sourceCode"])
        found[topic] = inputs.strip('"')
    return found


def test_scripts_read_what_is_published_and_their_outputs_are_shown():
    """One input each: a script runs only if all of its inputs are there."""
    made = outputs_of(LAYOUT["userNodes"].values())
    assert len(made) == len(LAYOUT["userNodes"])
    assert set(made.values()) == {f"{NODE}/occupancy", f"{RECORDING_NAMESPACE}/occupancy"}
    plotted = {
        path["value"].partition(".")[0] for p in PANELS.values() for path in p.get("paths", [])
    }
    drawn = set(PANELS["3D!scene"]["topics"])
    assert all(topic in plotted | drawn for topic in made)
    for script in LAYOUT["userNodes"].values():
        assert "@" not in re.sub(r"//.*", "", script["sourceCode"])


def test_latency_is_plotted_from_keys_that_the_node_reports():
    keys = re.findall(r'key=="(\w+)"', json.dumps(PANELS["Plot!latency"]).replace('\\"', '"'))
    rows = (ROOT / "alocc_ros" / "ros" / "diagnostics.py").read_text()
    assert '("network", "latency_pNN_ms"' in rows and '("network", "STAGE_pNN_ms"' in rows
    stages = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "node.md").read_text(), re.M)
    assert len(keys) == 3
    for key in keys:
        stage, half = re.fullmatch(r"(\w+)_p(\d\d)_ms", key).groups()
        assert stage in ("latency", *stages) and half in ("50", "95")
