# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The walls of the house: who may import whom (the contracts are in pyproject.toml)."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINT = Path(sys.executable).with_name("lint-imports")


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    if not LINT.is_file():
        pytest.skip("import-linter is not installed in this environment")
    return subprocess.run([LINT, "--no-cache"], cwd=root, capture_output=True, text=True)


def test_every_contract_holds():
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("geometry.py", "import torch"),
        ("network/neck.py", "import rclpy"),
        ("ops/conv.py", "from sensor_msgs.msg import Image"),
        ("ops/conv.py", "from alocc_ros.network import variants"),
        ("errors.py", "from alocc_ros.cli import main"),
        ("garage.py", "import os"),
    ],
)
def test_a_broken_wall_is_noticed(tmp_path, module, line):
    shutil.copytree(ROOT / "alocc_ros", tmp_path / "alocc_ros")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "alocc_ros" / module).open("a") as file:
        file.write(f"\n{line}\n")
    assert lint_imports(tmp_path).returncode == 1


def test_importing_the_package_loads_nothing_heavy():
    heavy = [
        "torch",
        "numpy",
        "scipy",
        "cv2",
        "PIL",
        "yaml",
        "pydantic",
        "rich",
        "rosbags",
        "mcap",
        "safetensors",
        "rclpy",
    ]
    code = f"import sys, alocc_ros; print(*[m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "")


def test_the_ground_loads_no_torch():
    code = (
        "import sys, alocc_ros.types, alocc_ros.records, alocc_ros.arrays, alocc_ros.geometry\n"
        "print(*[m for m in ('torch', 'rclpy', 'rosbags', 'mcap') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "")
