# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What gets installed, and that it is found there."""

from __future__ import annotations

import ast
import configparser
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
import zipfile
from pathlib import Path

import pytest

import alocc_ros
from alocc_ros.records import load_records

ROOT = Path(__file__).parents[2]
LICENCE = "Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0."


def tracked() -> list[Path]:
    """Files of the repository, relative to its root."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    return [Path(name) for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy: setuptools would leave its build folders in the checkout."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for path in tracked():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, source / path)
    pip("wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", out, source)
    return next(out.glob("*.whl"))


def test_the_wheel_holds_the_code_and_the_shared_files(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    share = f"alocc_ros-{alocc_ros.__version__}.data/data/share/alocc_ros/"
    for path in tracked():
        if path.parts[0] == "alocc_ros" and path.suffix in (".py", ".c", ".h", ".typed"):
            assert path.as_posix() in names
        if path.parts[0] in ("models", "config", "launch", "rviz"):
            assert share + path.as_posix() in names
    assert share + "models/alocc_3d.yaml" in names
    assert not [n for n in names if n.startswith(("test", "tools", ".venv", "build"))]


def test_an_installed_package_finds_its_files(wheel, tmp_path):
    # Without --ignore-installed pip would uninstall the checkout from the environment of the tests.
    options = ("--quiet", "--no-deps", "--ignore-installed", "--prefix", tmp_path / "prefix")
    pip("install", *options, wheel)
    site = next((tmp_path / "prefix").rglob("alocc_ros/__init__.py")).parents[1]
    code = (
        "import alocc_ros.records as r, alocc_ros.resources as s\n"
        "print(s.__file__, *r.load_records(), sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(site), "PATH": ""},
        capture_output=True,
        text=True,
    )
    place, *names = done.stdout.splitlines()
    assert Path(place).is_relative_to(tmp_path), "the checkout was imported instead"
    assert names == list(load_records())


def test_the_console_script_is_a_function_that_exists(wheel):
    with zipfile.ZipFile(wheel) as archive:
        entry = next(n for n in archive.namelist() if n.endswith("entry_points.txt"))
        scripts = configparser.ConfigParser()
        scripts.read_string(archive.read(entry).decode())
    assert dict(scripts["console_scripts"]) == {
        "alocc": "alocc_ros.cli.main:main",
        "alocc_node": "alocc_ros.ros.main:main",
    }
    tree = ast.parse((ROOT / "alocc_ros/cli/main.py").read_text())
    assert "main" in [n.name for n in tree.body if isinstance(n, ast.FunctionDef)]


def test_every_command_has_its_module():
    from alocc_ros.cli.main import COMMANDS

    for name, _ in COMMANDS:
        tree = ast.parse((ROOT / f"alocc_ros/cli/{name}.py").read_text())
        functions = {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}
        assert {"add_arguments", "run"} <= functions, name


def test_package_xml_agrees_and_names_the_ros_packages():
    package = ET.parse(ROOT / "package.xml").getroot()
    assert package.findtext("name") == "alocc_ros"
    assert package.findtext("version") == alocc_ros.__version__
    depends = {e.text for e in package if e.tag.endswith("depend")}
    assert depends >= {
        "cv_bridge",
        "diagnostic_msgs",
        "geometry_msgs",
        "message_filters",
        "nav_msgs",
        "rclpy",
        "sensor_msgs",
        "std_msgs",
        "tf2_ros",
        "visualization_msgs",
    }


def test_every_source_file_begins_with_its_licence():
    suffixes = {".py", ".c", ".h", ".sh", ".yaml", ".toml", ".cfg", ".msg", ".srv", ".xml"}
    bare = []
    for path in tracked():
        if path.suffix in suffixes or path.name in ("Makefile", "CMakeLists.txt", "run"):
            head = (ROOT / path).read_text(encoding="utf-8").splitlines()[:2]
            if not any(LICENCE in line for line in head):
                bare.append(str(path))
    assert bare == []


def test_no_file_names_a_build_machine_or_a_package_host():
    """Put together here, so that this file does not hold them."""
    places = ["/" + p + "/" for p in ("home", "root", "work", "tmp")]
    hosts = ["pypi" + ".org", "python" + "hosted.org", "download.py" + "torch.org"]
    found = []
    for path in tracked():
        if path.name in ("LICENSE",) or path.suffix in (".png", ".npz", ".mcap", ".db3"):
            continue
        text = (ROOT / path).read_text(encoding="utf-8", errors="replace")
        found += [f"{path}: {word}" for word in places + hosts if word in text]
    assert found == []
