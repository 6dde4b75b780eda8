# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The files around the node say what the node says."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path

import pytest
import yaml

from alocc_ros.ros import launch_arguments
from alocc_ros.ros.parameters import NodeParameters
from alocc_ros.stream.preset import DEFAULT_PRESET, load_preset
from alocc_ros.types import CAMERAS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "node.md").read_text()


def node_topics() -> dict[str, str]:
    """Topic under ~/ to message type, as documented (a test below compares that with the code)."""
    section = PAGE.partition("## What it publishes")[2].partition("## ")[0]
    return dict(re.findall(r"^\| `~/([\w/<>]+)` \| (\w+/\w+) \|", section, re.M))


def test_the_parameter_file_holds_every_parameter_with_its_default():
    entries = yaml.safe_load((ROOT / "config" / "node.yaml").read_text())
    assert entries == {"/**/alocc_node": {"ros__parameters": dataclasses.asdict(NodeParameters())}}


def node_tables():
    """The tool, which imports the node."""
    pytest.importorskip("rclpy")
    pytest.importorskip("alocc_ros.msg")
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        import node_tables
    finally:
        sys.path.pop(0)
    return node_tables


@pytest.mark.parametrize("name", ["node.md", "parameters.md"])
def test_the_tables_of_the_pages_are_those_of_the_code(name):
    page = ROOT / "docs" / name
    assert node_tables().renewed(page) == page.read_text(), "python tools/node_tables.py makes it"


def test_every_table_of_the_tool_is_in_a_page():
    text = "".join((ROOT / "docs" / name).read_text() for name in ("node.md", "parameters.md"))
    for block in node_tables().BLOCKS:
        assert text.count(f"<!-- {block}: made by tools/node_tables.py -->\n\n| ") == 1, block


def test_every_display_of_rviz_shows_a_topic_of_the_node():
    displays = yaml.safe_load((ROOT / "rviz" / "alocc.rviz").read_text())["Visualization Manager"][
        "Displays"
    ]
    types = {
        "rviz_default_plugins/PointCloud2": "sensor_msgs/PointCloud2",
        "rviz_default_plugins/MarkerArray": "visualization_msgs/MarkerArray",
        "rviz_default_plugins/Map": "nav_msgs/OccupancyGrid",
        "rviz_default_plugins/Image": "sensor_msgs/Image",
    }
    shown = set()
    for display in displays:
        if display["Class"] == "rviz_default_plugins/TF":
            continue
        topic = display["Topic"]["Value"].removeprefix("/alocc_node/")
        shown.add(topic)
        general = "overlay/<camera>" if topic.startswith("overlay/") else topic
        assert node_topics()[general] == types[display["Class"]]
    assert {"occupancy", "flow_markers", "occupancy_grid"} <= shown
    assert {f"overlay/{camera}" for camera in CAMERAS} <= shown
    occupancy = displays[0]
    assert (occupancy["Style"], occupancy["Size (m)"]) == ("Boxes", 0.4)


def test_every_panel_of_foxglove_shows_a_topic_of_the_node_and_is_in_the_layout():
    layout = json.loads((ROOT / "rviz" / "alocc_foxglove.json").read_text())
    panels = layout["configById"]
    topics = {*panels["3D!occupancy"]["topics"], panels["RawMessages!status"]["topicPath"]}
    for name, panel in panels.items():
        if name.startswith("Image!"):
            topics.add(panel["imageMode"]["imageTopic"])
    names = {topic.removeprefix("/alocc_node/") for topic in topics}
    overlays = {f"overlay/{camera}" for camera in CAMERAS}
    assert overlays <= names
    assert names - overlays <= set(node_topics())
    assert {"occupancy", "flow_markers", "occupancy_grid"} <= names
    assert panels["DiagnosticSummary!node"]["topicToRender"] == "/diagnostics"
    occupancy = panels["3D!occupancy"]["topics"]["/alocc_node/occupancy"]
    assert (occupancy["pointShape"], occupancy["cubeSize"]) == ("cube", 0.4)

    def placed(part) -> set[str]:
        if isinstance(part, str):
            tabs = panels[part].get("tabs", [])
            return {part}.union(*(placed(tab["layout"]) for tab in tabs))
        return placed(part["first"]) | placed(part["second"])

    assert placed(layout["layout"]) == set(panels)


def test_launch_arguments_that_beat_the_file_are_parameters():
    names = {field.name for field in dataclasses.fields(NodeParameters)}
    assert set(launch_arguments.PARAMETERS) <= names
    assert set(launch_arguments.PARAMETERS) <= {name for name, *_ in launch_arguments.NODE}
    assert {name for name, *_ in launch_arguments.NODE} - {"namespace"} == {
        name for name, *_ in launch_arguments.MULTI
    } - {"namespaces"}


def test_rviz_shows_the_world_of_the_default_preset():
    displays = yaml.safe_load((ROOT / "rviz" / "alocc.rviz").read_text())["Visualization Manager"]
    assert displays["Global Options"]["Fixed Frame"] == load_preset(DEFAULT_PRESET).world_frame
