# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""RViz passes over names that it does not know, so every name in our files is looked up here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from alocc_ros.grid import OCC3D_GRID
from alocc_ros.outputs import OUTPUTS
from alocc_ros.types import CAMERAS

ROOT = Path(__file__).parents[2]
RULES = yaml.safe_load((ROOT / "test" / "data" / "rviz_properties.yaml").read_text())
FILES = ("alocc.rviz", "alocc_debug.rviz")
NODE = "/alocc_node/"
DISPLAY = "rviz_default_plugins/"


def content(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / "rviz" / name).read_text())


def displays(name: str) -> list[dict[str, Any]]:
    return content(name)["Visualization Manager"]["Displays"]


def unknown(file: dict[str, Any]) -> Iterator[str]:
    """What RViz would pass over in a file, or take for something else."""
    for panel in file["Panels"]:
        if panel["Class"].removeprefix("rviz_common/") not in RULES["panels"]["classes"]:
            yield panel["Class"]
        yield from set(panel) - set(RULES["panels"]["keys"])
    yield from set(file["Window Geometry"]) - set(RULES["window"]["keys"])
    manager = file["Visualization Manager"]
    yield from set(manager) - set(RULES["manager"]["keys"])
    yield from set(manager["Global Options"]) - set(RULES["manager"]["global_options"])
    for tool in manager["Tools"]:
        if tool["Class"].removeprefix(DISPLAY) not in RULES["tools"]["classes"]:
            yield tool["Class"]
    for display in manager["Displays"]:
        yield from unknown_of_display(display)
    for view in (manager["Views"]["Current"], *manager["Views"].get("Saved", [])):
        rule = RULES["views"]["classes"].get(view["Class"].removeprefix(DISPLAY))
        if rule is None:
            yield view["Class"]
        else:
            known = {*RULES["every"], *RULES["views"]["every"], *rule["properties"]}
            yield from set(view) - known


def unknown_of_display(display: dict[str, Any]) -> Iterator[str]:
    rule = RULES["displays"].get(display["Class"].removeprefix(DISPLAY))
    if rule is None:
        yield display["Class"]
        return
    own = {k: v for k, v in display.items() if k not in RULES["every"] and k != "Topic"}
    if ("Topic" in display) != ("message" in rule):
        yield f"{display['Name']}: Topic"
    for rules, values in (
        (rule["properties"], own),
        (RULES["topic"]["properties"], display.get("Topic", {})),
    ):
        for key, value in values.items():
            if key not in rules or (rules[key] and value not in rules[key]):
                yield f"{display['Name']}: {key}: {value}"


@pytest.mark.parametrize("name", FILES)
def test_every_class_property_and_value_is_one_of_rviz(name):
    assert list(unknown(content(name))) == []


def test_a_misspelt_property_a_wrong_value_and_a_class_of_another_package_are_found():
    file = content("alocc.rviz")
    file["Visualization Manager"]["Displays"][0] |= {"Size (metres)": 0.4, "Style": "Cubes"}
    file["Visualization Manager"]["Displays"][1]["Topic"]["Reliability Policy"] = "reliable"
    file["Visualization Manager"]["Displays"][2]["Class"] = "other_plugins/Boxes"
    file["Visualization Manager"]["Views"]["Current"]["Distanc"] = 3
    assert list(unknown(file)) == [
        "Occupancy: Style: Cubes",
        "Occupancy: Size (metres): 0.4",
        "Flow: Reliability Policy: reliable",
        "other_plugins/Boxes",
        "Distanc",
    ]


@pytest.mark.parametrize("name", FILES)
def test_a_display_shows_a_topic_of_the_node_of_its_type(name):
    types = {o.name: re.sub("/msg/", "/", o.type) for o in OUTPUTS if o.node and not o.is_absolute}
    for display in displays(name):
        if "Topic" in display:
            topic = display["Topic"]["Value"].removeprefix(NODE)
            general = "overlay/<camera>" if topic.startswith("overlay/") else topic
            message = RULES["displays"][display["Class"].removeprefix(DISPLAY)]["message"]
            assert types.get(general, message) == message, display["Name"]
            assert general in types, display["Name"]


def test_the_file_for_debugging_shows_all_that_can_be_seen():
    shown = {
        d["Topic"]["Value"].removeprefix(NODE): d["Enabled"]
        for d in displays("alocc_debug.rviz")
        if "Topic" in d
    }
    seen = {"sensor_msgs/PointCloud2", "visualization_msgs/MarkerArray", "nav_msgs/OccupancyGrid"}
    topics = {o.name for o in OUTPUTS if o.node and re.sub("/msg/", "/", o.type) in seen}
    assert {*topics, *(f"overlay/{camera}" for camera in CAMERAS)} <= set(shown)
    assert all(shown[f"overlay/{camera}"] for camera in CAMERAS)
    assert not shown["markers"]  # the same as the point cloud, and much more to send


@pytest.mark.parametrize("name", FILES)
def test_voxels_are_boxes_of_their_size_and_the_grid_is_not_of_the_roads_colour(name):
    by_topic = {d["Topic"]["Value"].removeprefix(NODE): d for d in displays(name) if "Topic" in d}
    occupancy = by_topic["occupancy"]
    assert (occupancy["Style"], occupancy["Size (m)"]) == ("Boxes", OCC3D_GRID.resolution)
    # "costmap" paints what is lethal in (255, 0, 255), the road is (225, 0, 235).
    assert by_topic["occupancy_grid"]["Color Scheme"] == "map"
