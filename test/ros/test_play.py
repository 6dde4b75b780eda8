# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc play`` shows what ``alocc run`` has recorded, over real DDS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS is not installed (make setup)")
pytest.importorskip("alocc_ros.msg", reason="alocc_ros/msg is not built (make setup)")

import tiny_node  # noqa: E402
from live import Stage  # noqa: E402
from rosbags.highlevel import AnyReader  # noqa: E402

from alocc_ros.bags.sample import write_sample  # noqa: E402
from alocc_ros.cli.main import main  # noqa: E402
from alocc_ros.ros.player import new_name  # noqa: E402

TOPICS = ("occupancy", "obstacles", "occupancy_grid", "flow_markers")
FRAMES = 3


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage(*TOPICS, "grid_info")
    yield made
    made.close()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_sample(folder / "in.mcap", seconds=FRAMES / 2, rate=2.0, width=176, height=99)
    with tiny_node.known():
        command = ["run", str(folder / "in.mcap"), "-o", str(folder / "out.mcap")]
        assert main([*command, "--model", tiny_node.NAME, "--random-weights"]) == 0
    return folder / "out.mcap"


@pytest.mark.system
def test_a_recorded_run_comes_out_as_the_node_would_publish_it(stage, recorded):
    stage.play(recorded, "--remap", "/alocc:=/alocc_node", "--wait", "60")
    expected: dict[str, list[bytes]] = {topic: [] for topic in TOPICS}
    with AnyReader([recorded]) as reader:
        for connection, _, data in reader.messages():
            name = connection.topic.removeprefix("/alocc/")
            if name in ("occupancy", "obstacles"):
                cloud = reader.deserialize(data, connection.msgtype)
                expected[name].append(cloud.data.tobytes())
    for topic in TOPICS:
        stage.until(lambda t=topic: len(stage.messages[t]) == FRAMES, f"{topic} is not played")
    for topic in ("occupancy", "obstacles"):
        assert [bytes(cloud.data) for cloud in stage.messages[topic]] == expected[topic]
    stage.until(lambda: stage.messages["grid_info"], "grid_info is not played")
    (info,) = stage.messages["grid_info"]
    assert (info.model, info.random_weights, info.has_flow) == (tiny_node.NAME, True, True)


def test_a_name_is_renamed_with_all_that_is_under_it_and_nothing_else():
    renamed = {"/alocc": "/other"}
    assert new_name("/alocc/occupancy", renamed) == "/other/occupancy"
    assert new_name("/alocc", renamed) == "/other"
    assert new_name("/alocc_node/occupancy", renamed) == "/alocc_node/occupancy"


@pytest.mark.parametrize("wrong", ["/a", "/a:=", ":=/b", "/:=/b"])
def test_a_renaming_that_is_none_is_refused(wrong, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["play", "bag.mcap", "--remap", wrong])
    assert "must look like /old:=/new" in capsys.readouterr().err
