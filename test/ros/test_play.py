# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc play`` shows what ``alocc run`` has recorded, over real DDS."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS is not installed (make setup)")
pytest.importorskip("alocc_ros.msg", reason="alocc_ros/msg is not built (make setup)")

import tiny_node  # noqa: E402
from live import Stage  # noqa: E402
from rosbags.highlevel import AnyReader  # noqa: E402

from alocc_ros.bags.reader import Bag  # noqa: E402
from alocc_ros.bags.sample import write_sample  # noqa: E402
from alocc_ros.bags.writer import Recorder  # noqa: E402
from alocc_ros.cli.main import main  # noqa: E402
from alocc_ros.ros.player import new_name  # noqa: E402
from alocc_ros.words import counted  # noqa: E402

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


@pytest.mark.parametrize(
    ("log_time", "says"),
    [(0, "51 years without"), (2**64 - 1000, "51 years without"), (1_600_000_200 * 10**9, " s wi")],
    ids=["before /clock", "before 1970", "after a pause"],
)
def test_pauses_of_years_are_named_and_jumped_over(tmp_path, capsys, log_time, says):
    write_sample(tmp_path / "clean.mcap", seconds=0.5, rate=2.0, width=88, height=50)
    recorder = Recorder(tmp_path / "odd.mcap", {})
    with Bag(tmp_path / "clean.mcap") as bag:
        records = list(bag.messages(bag.types))
    played = sum(not record.topic.endswith("static") for record in records)
    index = next(i for i, record in enumerate(records) if "image" in record.topic)
    for i, r in enumerate(records):
        recorder.write_bytes(r.topic, r.type, log_time if i == index else r.log_time, r.data)
    recorder.end_frame()
    recorder.finish()
    play = ["play", str(tmp_path / "odd.mcap"), "--wait", "0"]
    begin = time.monotonic()
    assert main(play) == 0
    assert time.monotonic() - begin < 30
    said = capsys.readouterr()
    assert f"played {counted(played, 'message')}," in said.out
    assert said.err.count(says) == 1 and "are jumped over; --start " in said.err
    start = said.err.partition("--start ")[2].split()[0]
    assert main([*play, "--start", start]) == 0
    said = capsys.readouterr()
    before = 1 if log_time != 1_600_000_200 * 10**9 else played - 1
    assert f"played {counted(played - before, 'message')}," in said.out
