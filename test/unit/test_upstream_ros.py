# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``make test-upstream`` where nothing is sourced, where wheels are, and where all is there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import upstream_ros  # noqa: E402


def run(*python: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *python, str(ROOT / "tools" / "upstream_ros.py")]
    clean = {k: v for k, v in os.environ.items() if k not in ("AMENT_PREFIX_PATH", "PYTHONPATH")}
    return subprocess.run(
        command, env=clean | environment, capture_output=True, text=True, cwd=ROOT
    )


def distribution(prefix: Path, *without: str) -> None:
    """Where packages are found, and modules that can be."""
    index = prefix / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True)
    for name in ({*upstream_ros.ros_packages(), "alocc_ros"}) - set(without):
        (index / name).touch()
    for name in {*upstream_ros.MODULES, *upstream_ros.PYTHON} - set(without):
        (prefix / "python" / name).mkdir(parents=True)
        (prefix / "python" / name / "__init__.py").touch()


def test_without_a_distribution_one_line_says_so():
    done = run()
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("test-upstream: no ROS 2 distribution is sourced: source /opt/ros/")
    make = subprocess.run(
        ["make", "test-upstream", f"PYTHON={sys.executable}"],
        env={k: v for k, v in os.environ.items() if k != "AMENT_PREFIX_PATH"},
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert make.returncode == 2 and line in make.stderr and "pytest" not in make.stdout


def test_a_whole_distribution_passes(tmp_path):
    distribution(tmp_path)
    # -S: without the packages of this environment, which may be wheels of ROS.
    done = run("-S", AMENT_PREFIX_PATH=str(tmp_path), PYTHONPATH=str(tmp_path / "python"))
    assert (done.returncode, done.stderr) == (0, "")


def test_everything_that_is_missing_is_named_with_its_remedy(tmp_path):
    distribution(tmp_path, "launch_ros", "tf2_ros_py", "message_filters", "hypothesis", "alocc_ros")
    path = f"{tmp_path / 'python'}{os.pathsep}{ROOT / 'ros_standins'}"
    done = run("-S", AMENT_PREFIX_PATH=str(tmp_path), PYTHONPATH=path)
    assert done.returncode == 2
    lacks, standin, package, pip = done.stderr.splitlines()
    assert "lacks launch_ros, message_filters, tf2_ros_py: rosdep install" in lacks
    assert "message_filters is a stand-in" in standin
    assert "colcon build --packages-select alocc_ros" in package
    assert "does not find hypothesis" in pip
