# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The files around the node say what the node says."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import yaml

from alocc_ros.ros import launch_arguments
from alocc_ros.ros.parameters import NodeParameters
from alocc_ros.stream.preset import DEFAULT_PRESET, load_preset

ROOT = Path(__file__).parents[2]


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


def test_the_tables_of_the_pages_are_those_of_the_code():
    for page in node_tables().PAGES:
        made = node_tables().renewed(page)
        assert made == page.read_text(), f"python tools/node_tables.py makes {page}"


def test_every_table_of_the_tool_is_in_a_page():
    text = "".join(page.read_text() for page in node_tables().PAGES)
    for block in node_tables().BLOCKS:
        assert text.count(f"<!-- {block}: made by tools/node_tables.py -->\n\n| ") == 1, block


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
