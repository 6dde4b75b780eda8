# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc benchmark --node`` and ``--publish``: what they count is right, whatever the speed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytest.importorskip("rclpy", reason="ROS is not installed (make setup)")
pytest.importorskip("alocc_ros.msg", reason="alocc_ros/msg is not built (make setup)")

from alocc_ros.ros.benchmark.processes import growth  # noqa: E402


def rows(*options: str) -> dict[str, str]:
    command = [sys.executable, "-m", "alocc_ros.cli.main", "benchmark", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, 1), done.stderr  # 1: this machine is too slow, or busy
    return {row["name"]: row["value"] for row in json.loads(done.stdout)["rows"]}


def test_growth_is_that_after_warming_up_and_not_that_of_a_moment():
    assert growth([]) == 0.0
    steady = [(float(t), 1000) for t in range(60)]
    assert growth(steady) == 0.0
    warming = [(float(t), 500 + 25 * min(t, 19)) for t in range(60)]
    assert growth(warming) == pytest.approx(0.0, abs=0.01)
    peak = [(t, 5000 if t == 40 else size) for t, size in steady]
    assert growth(peak) == 0.0
    leaking = [(float(t), 1000 + t) for t in range(600)]
    assert growth(leaking) == pytest.approx(360 / 1220, rel=0.02)  # its middle tenths' difference


@pytest.mark.slow
@pytest.mark.system
def test_every_set_is_accounted_for():
    found = rows("--node", "--seconds", "3", "--rate", "4", "--decode", "fast")
    # That all of them arrive is what the program measures; here it is that it counts right.
    assert 6 <= int(found["images received"]) <= int(found["images sent"]) == 6 * 12
    assert found["sets put together"] == found["- together"]
    assert int(found["- processed"]) >= 1
    assert found["- failed"] == "0"
    assert found["results published"] == found["- processed"]


@pytest.mark.system
def test_large_messages_reach_another_process():
    found = rows("--publish")
    assert int(found["messages received"]) > 0
    assert float(found["processor time, median / p95, ms"].split(" / ")[0]) > 0.0
