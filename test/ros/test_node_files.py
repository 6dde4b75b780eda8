# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The files around the node say what the node says."""

from __future__ import annotations

import dataclasses
import runpy
import sys
from pathlib import Path

import pytest
import yaml

from alocc_ros.ros.parameters import NodeParameters
from alocc_ros.stream.preset import DEFAULT_PRESET, load_preset

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch" / "alocc.launch.py"


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


def test_launch_arguments_that_beat_the_file_are_parameters():
    assert set(node_tables().launch_constant("PARAMETERS")) <= {
        f.name for f in dataclasses.fields(NodeParameters)
    }


@pytest.mark.system
def test_the_launch_file_describes_a_node_and_a_player():
    launch = pytest.importorskip("launch", reason="no wheel has launch")
    pytest.importorskip("launch_ros", reason="no wheel has launch_ros")
    from launch.launch_description_sources import get_launch_description_from_python_launch_file

    description = get_launch_description_from_python_launch_file(str(LAUNCH))
    context = launch.LaunchContext()
    context.launch_configurations.update(
        {name: default or "" for name, default, _ in node_tables().launch_constant("ARGUMENTS")},
        model="alocc_2d_mini",
        bag="scene.mcap",
    )
    actions = description.entities[-1].execute(context)
    kinds = [type(action).__name__ for action in actions]
    assert kinds.count("Node") == 1
    assert kinds.count("ExecuteProcess") == 1


@pytest.mark.system
def test_rviz_is_fixed_to_the_world_of_the_preset():
    pytest.importorskip("launch_ros", reason="no wheel has launch_ros")
    fixed_frame = runpy.run_path(str(LAUNCH))["_fixed_frame"]
    assert fixed_frame({"preset": "dataset_bridge", "rviz": "true"}) == ["-f", "world"]
    assert fixed_frame({"preset": "", "rviz": "true"}) == []
    displays = yaml.safe_load((ROOT / "rviz" / "alocc.rviz").read_text())["Visualization Manager"]
    assert displays["Global Options"]["Fixed Frame"] == load_preset(DEFAULT_PRESET).world_frame
