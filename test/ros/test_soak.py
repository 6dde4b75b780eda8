# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc soak``: Ctrl-C ends it with the table so far, with 130, and nothing is left running."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS is not installed (make setup)")
pytest.importorskip("alocc_ros.msg", reason="alocc_ros/msg is not built (make setup)")

from alocc_ros.bags.sample import write_sample  # noqa: E402


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


@pytest.mark.slow
@pytest.mark.system
def test_ctrl_c_ends_a_soak_with_its_table_and_leaves_no_orphan(tmp_path: Path):
    bag = tmp_path / "sample.mcap"
    write_sample(bag, seconds=4.0, rate=4, width=176, height=99)
    command = [sys.executable, "-m", "alocc_ros.cli.main", "soak", str(bag), "--hours", "1"]
    log = tmp_path / "log"
    with log.open("w") as told, subprocess.Popen(
        [*command, "--json"], stdout=subprocess.PIPE, stderr=told, text=True
    ) as program:  # fmt: skip
        end = time.monotonic() + 120
        while len(children(program.pid)) < 2:  # node and player
            assert program.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        time.sleep(12.0)  # some faults
        started = children(program.pid)
        program.send_signal(signal.SIGINT)
        output, _ = program.communicate(timeout=120)
    assert program.returncode == 130, log.read_text()
    rows = {row["name"]: row for row in json.loads(output)["rows"]}
    assert int(rows["sets in"]["value"]) > 0
    assert rows["sets lost"]["value"] == "0"
    assert rows["- together"]["holds"]
    assert rows["exit code of the node"]["value"] == "0"
    assert started and not any(Path(f"/proc/{pid}").exists() for pid in started)
