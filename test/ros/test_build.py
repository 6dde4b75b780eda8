# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The colcon package: its manifests, and that it really builds, installs and runs."""

from __future__ import annotations

import ast
import configparser
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CMAKE = (ROOT / "CMakeLists.txt").read_text()


def test_the_executables_are_the_console_scripts():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    scripts = setup["options.entry_points"]["console_scripts"]
    expected = re.findall(r"^(\w+) = ([\w.]+):(\w+)$", scripts, re.M)
    found = re.findall(r"^ *python_executable\((\w+) ([\w.]+) (\w+)\)", CMAKE, re.M)
    assert found == expected != []


def test_every_message_is_built():
    listed = re.findall(r'"(msg/\w+\.msg)"', CMAKE)
    assert sorted(listed) == sorted(p.relative_to(ROOT).as_posix() for p in ROOT.glob("msg/*.msg"))


def test_what_cmake_looks_for_is_named_in_the_manifest():
    manifest = ET.parse(ROOT / "package.xml").getroot()
    named = {e.text for e in manifest if e.tag.endswith("depend")}
    packages = set(re.findall(r"find_package\((\w+) (?:REQUIRED|QUIET)", CMAKE))
    assert packages <= named
    groups = [e.text for e in manifest if e.tag == "member_of_group"]
    assert groups == ["rosidl_interface_packages"]


def test_every_ros_package_that_is_imported_is_named_in_the_manifest():
    manifest = ET.parse(ROOT / "package.xml").getroot()
    named = {e.text for e in manifest if e.tag in ("depend", "exec_depend")}
    assert "tf2_ros_py" in named, "there tf2_ros has its Python code"
    files = [*(ROOT / "alocc_ros").rglob("*.py"), *(ROOT / "launch").glob("*.py")]
    imported = {name for file in files for name in _imported(ast.parse(file.read_text()))}
    of_ros = {n for n in imported if n.endswith("_msgs") or n in ROS_MODULES}
    assert len(of_ros) > 10
    assert of_ros <= named


ROS_MODULES = ("builtin_interfaces", "cv_bridge", "launch", "launch_ros", "message_filters")
ROS_MODULES += ("rcl_interfaces", "rclpy", "std_srvs", "tf2_ros")


def _imported(tree: ast.AST) -> Iterator[str]:
    """The packages that a module imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


@pytest.mark.ros
@pytest.mark.slow
def test_the_package_builds_and_runs_from_where_it_was_installed(tmp_path):
    """The steps that colcon takes for an ament_cmake package."""
    pytest.importorskip("rclpy", reason="no rclpy here: make ros")
    if shutil.which("cmake") is None or not (Path(sys.prefix) / "share/ament_cmake").is_dir():
        pytest.skip("no CMake, or no ROS wheels in this environment")
    prefix, build = tmp_path / "install", tmp_path / "build"
    environment = {
        **os.environ,
        "AMENT_PREFIX_PATH": sys.prefix,
        "CMAKE_PREFIX_PATH": sys.prefix,
        "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}",
    }

    def run(*command: str | Path, **more: str) -> str:
        done = subprocess.run(
            command, env={**environment, **more}, cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    generator = ("-G", "Ninja") if shutil.which("ninja") else ()
    python = f"-DPython3_EXECUTABLE={sys.executable}"
    run("cmake", "-S", ROOT, "-B", build, f"-DCMAKE_INSTALL_PREFIX={prefix}", python, *generator)
    run("cmake", "--build", build, "--parallel", "2")
    run("cmake", "--install", build)

    site = next(prefix.rglob("alocc_ros/msg/__init__.py")).parents[2]
    libraries = f"{prefix / 'lib'}:{os.environ.get('LD_LIBRARY_PATH', '')}"
    installed = {"PYTHONPATH": str(site), "LD_LIBRARY_PATH": libraries}
    code = (
        "import alocc_ros, alocc_ros.msg as m, alocc_ros.records as r\n"
        "from rclpy.serialization import serialize_message\n"
        "print(m.__file__, alocc_ros.__version__, len(r.load_records()))\n"
        "serialize_message(m.SemanticGrid())"
    )
    place, version, records = run(sys.executable, "-c", code, **installed).split()
    assert Path(place).is_relative_to(prefix)
    assert int(records) == len(list((ROOT / "models").glob("*.yaml")))
    assert run(prefix / "lib/alocc_ros/alocc", "--version", **installed) == f"alocc {version}\n"
    for shared in ("package.xml", "config/presets/nuscenes.yaml", "models/alocc_3d.yaml"):
        assert (prefix / "share/alocc_ros" / shared).is_file()
